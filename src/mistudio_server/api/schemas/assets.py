"""Datasets, models and extractions."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mistudio_server.api.schemas.common import DataPath, Description, Id, Name, Request, Resource
from mistudio_server.statuses import AssetStatus, DatasetKind


class DatasetCreate(Request):
    """Registers a file or folder that is below DATA_DIR already; it stays where it is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "pile sample", "path": "datasets/pile.txt", "kind": "text"}]}
    )

    name: Name
    path: DataPath
    kind: DatasetKind | None = Field(None, description="Checked against the files when given.")
    description: Description | None = None


class DatasetOut(Resource):
    """A dataset: text, or activations of one model's layer."""

    name: str
    kind: DatasetKind
    path: str = Field(description="Relative to DATA_DIR.")
    status: AssetStatus
    error: str | None = Field(description="Why it failed.")
    rows: int | None = Field(description="Lines of text, or activation vectors.")
    d_model: int | None = Field(description="Width of the activations.")
    size_bytes: int | None
    description: str | None
    model_id: str | None = Field(description="Model that the activations were extracted from.")
    text_dataset_id: str | None = Field(description="Text that they were extracted over.")
    extraction: dict[str, Any] | None = Field(description="Parameters of the extraction.")
    progress: float | None = Field(description="0 to 1 while it is extracted.")
    updated_at: datetime


class DatasetPage(BaseModel):
    """One page of datasets."""

    items: list[DatasetOut]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null on the last.")


class ModelCreate(Request):
    """Registers a Hugging Face directory that is below DATA_DIR already; it stays where it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "gpt2", "path": "models/gpt2"}]})

    name: Name
    path: DataPath
    description: Description | None = None


class ModelOut(Resource):
    """A language model."""

    name: str
    path: str = Field(description="Relative to DATA_DIR.")
    status: AssetStatus
    error: str | None
    architecture: str | None = Field(examples=["GPT2LMHeadModel"])
    d_model: int | None = Field(description="Width of its residual stream.")
    n_layers: int | None
    size_bytes: int | None
    description: str | None
    updated_at: datetime


class ModelPage(BaseModel):
    """One page of models."""

    items: list[ModelOut]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null on the last.")


class ActivationsCreate(Request):
    """Which activations to extract. Layer 0 is the embedding, layer n the output of block n."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model_id": "mdl_0192f0c1a2b3c4d5e6f70819", "dataset_id": "dst_0192f0c1a2b3c4d5e6f70819", "layer": 6}
            ]
        }
    )

    model_id: Id
    dataset_id: Id = Field(description="A dataset of text.")
    layer: int = Field(ge=0, le=10_000)
    name: Name | None = Field(None, description="Of the new dataset; made up when it is not given.")
    description: Description | None = None
    context_length: int = Field(128, ge=2, le=131_072, description="Tokens per sequence.")
    batch_size: int = Field(16, ge=1, le=4096, description="Sequences per forward pass.")
    max_tokens: int | None = Field(None, ge=1, le=10**12, description="Stop after so many vectors.")
    dtype: Literal["float32", "float16"] = Field("float32", description="Of the shards.")

    def parameters(self) -> dict[str, Any]:
        """Return what the extraction job needs besides where things are."""
        return self.model_dump(include={"layer", "context_length", "batch_size", "max_tokens", "dtype"})
