"""What every section of the settings is made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Range = Annotated[tuple[float, float], Field(description="low and high end")]


class Section(BaseModel):
    """A group of keys: unknown ones are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StepConfig(Section):
    """The root of one step's config."""

    step: str

    @classmethod
    def step_name(cls) -> str:
        """The verb that this root belongs to."""
        return str(cls.model_fields["step"].default)
