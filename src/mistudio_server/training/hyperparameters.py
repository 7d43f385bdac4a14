"""Hyperparameters of a sparse autoencoder, with their ranges. Imported by the API, so nothing here needs torch."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mistudio_server.statuses import SaeArchitecture


class Hyperparameters(BaseModel):
    """What a training needs to know besides its dataset. Units: steps are optimizer steps, rates are per step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: SaeArchitecture = Field(SaeArchitecture.TOPK, description="standard (L1), topk or jumprelu.")
    dictionary_size: int | None = Field(None, ge=2, le=1_048_576, description="Number of features.")
    expansion_factor: float = Field(8.0, gt=0, le=256, description="dictionary_size / d_model when that is not given.")
    k: int = Field(32, ge=1, le=65_536, description="Features kept per sample (topk).")
    aux_k: int | None = Field(None, ge=1, description="Dead features used in the auxiliary loss (topk); d_model / 2.")
    aux_k_coefficient: float = Field(1 / 32, ge=0, le=10)
    l1_coefficient: float = Field(5.0e-3, ge=0, le=1e3, description="Weight of the sparsity loss (standard).")
    l0_coefficient: float = Field(1.0e-2, ge=0, le=1e3, description="Weight of the L0 loss (jumprelu).")
    sparsity_warmup_steps: int = Field(0, ge=0, description="Steps over which the sparsity weight grows from zero.")
    jumprelu_bandwidth: float = Field(0.03, gt=0, le=10, description="Width of the straight-through kernel.")
    jumprelu_initial_threshold: float = Field(0.03, gt=0, le=10)
    normalize_activations: bool = Field(True, description="Scale inputs so that their mean norm is sqrt(d_model).")

    total_steps: int = Field(10_000, ge=1, le=100_000_000)
    batch_size: int = Field(4096, ge=1, le=1_048_576, description="Activation vectors per step.")
    learning_rate: float = Field(3.0e-4, gt=0, le=1)
    lr_warmup_steps: int = Field(0, ge=0)
    lr_decay_steps: int = Field(0, ge=0, description="Last steps, over which the rate falls linearly to zero.")
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    gradient_clip_norm: float = Field(1.0, gt=0, le=1e6)

    dead_feature_window: int = Field(1000, ge=1, description="Steps without firing after which a feature is dead.")
    resample_dead_every: int = Field(0, ge=0, description="Steps between resamplings of dead features; 0 is never.")

    seed: int = Field(0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_interval: int = Field(10, ge=1, description="Steps between two metric rows.")
    checkpoint_interval: int = Field(1000, ge=1, description="Steps between two checkpoints.")
    checkpoints_kept: int = Field(3, ge=1, le=1000, description="Newest checkpoints that are kept.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lr_warmup_steps + self.lr_decay_steps > self.total_steps:
            raise ValueError("lr_warmup_steps + lr_decay_steps must not be more than total_steps")
        if self.architecture is SaeArchitecture.TOPK and self.dictionary_size and self.k > self.dictionary_size:
            raise ValueError(f"k ({self.k}) must not be more than dictionary_size ({self.dictionary_size})")
        return self

    def features_for(self, d_model: int) -> int:
        """Return the dictionary size for activations of width ``d_model``."""
        return self.dictionary_size or max(2, round(self.expansion_factor * d_model))
