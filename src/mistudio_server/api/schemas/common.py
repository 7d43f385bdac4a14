"""Types that several resources share."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"


def _without_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not hold the character NUL, which PostgreSQL cannot store")
    return value


Id = Annotated[str, Field(pattern=ID_PATTERN, examples=["dst_0192f0c1a2b3c4d5e6f70819"])]
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"),
    Field(description="Unique within its kind; no control characters.", examples=["pile-layer-6"]),
]
Description = Annotated[str, StringConstraints(max_length=4000, pattern=r"^[^\x00]*$"), AfterValidator(_without_nul)]
DataPath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]+$"),
    AfterValidator(_without_nul),
    Field(description="Below DATA_DIR: absolute, or relative to it.", examples=["datasets/corpus.txt"]),
]


class Request(BaseModel):
    """Base of request bodies: an unknown member is an error, not a surprise."""

    model_config = ConfigDict(extra="forbid")


class Edit(Request):
    """What can be changed later. Members that are not sent stay as they are; `description: null` removes it."""

    name: Name | None = None
    description: Description | None = None

    def changes(self) -> dict[str, str | None]:
        """Return what was sent; a name cannot be removed."""
        sent = self.model_dump(exclude_unset=True)
        if sent.get("name", "") is None:
            del sent["name"]
        return sent


class Resource(BaseModel):
    """Base of what is answered: made from a row."""

    model_config = ConfigDict(from_attributes=True)

    id: Id
    created_at: datetime


Extra = dict[str, Any]
