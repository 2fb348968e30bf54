"""What the sections of a recipe are made of: named values with types, limits and defaults."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MOST = 10_000_000  # of anything that is counted: more would only fill the memory, or never end
Count = Annotated[int, Field(ge=1, le=MOST)]
NoneOrMore = Annotated[int, Field(ge=0, le=MOST)]
BatchSize = Annotated[int, Field(ge=1, le=2**16)]
Pixels = Annotated[int, Field(ge=0, le=2**14)]
NotNegative = Annotated[float, Field(ge=0, le=1e6)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Section(BaseModel):
    """A section of a recipe: an unknown key, a wrong type or a value out of range is an error.

    Lists of the TOML file arrive as tuples, so that nothing of a recipe can change.

    Example:
        >>> from keras_shared.section import Count, Section
        >>> class Data(Section):
        ...     name: str
        ...     validation_images: Count = 100
        >>> Data(name="digits").validation_images
        100
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
