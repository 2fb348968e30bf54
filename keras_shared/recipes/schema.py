"""The sections of a recipe, and the whole, as pydantic schemas."""

import functools
import inspect
import itertools
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from keras_shared.section import BatchSize, Count, Section, Seed

MOST_SEEDS = 1000
MOST_INTEGER = 2**31 - 1  # sizes of tensors
ANY_VALUE = bool | int | float | str | tuple[Any, ...] | dict[str, Any]  # that TOML can write


class Training(Section):
    """How the model is trained: by an optimizer whose rate decays to zero along a cosine.

    Attributes:
        sharing: "shared" for the model as it is, "unshared" for a weight at each use, and
            "unshared_narrow" for that with hidden layers so narrow that it has no more parameters
            than the model (see `keras_shared.sharing.unshare`).
        loss: name of a loss; None for the model's default.
        optimizer: "adam" (Kingma & Ba 2015), or "muon" (Jordan et al. 2024) for the kernels of
            convolutions over images, and Adam for the rest; None for the task's default.
        learning_rate: at the start; None for the task's default.
        beta_1: share that the optimizer's mean of the gradients keeps in each step.
        beta_2: the same for their squares (Adam); a training of a few hundred steps gains by less.
        averaging: share that a moving average of the weights keeps in each step; the rate then
            stays, and the average is what is validated and kept (Polyak & Juditsky 1992). Where
            1 / (1 - averaging) steps are more than a tenth of the training, it is over that tenth.
            0 for none.
        epochs: number of epochs.
        batch_size: examples in a batch.
        seeds: each is a run of its own, with its own start and order of the data. Of several, the
            run that is best on validation data is the one to publish.
    """

    sharing: Literal["shared", "unshared", "unshared_narrow"] = "shared"
    loss: str | None = None
    optimizer: Literal["adam", "muon"] | None = None
    learning_rate: Annotated[float, Field(ge=1e-8, le=10)] | None = None
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    averaging: Annotated[float, Field(ge=0, le=0.99999)] = 0.0
    epochs: Count = 10
    batch_size: BatchSize = 64
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=MOST_SEEDS)] = (1,)

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return each_once(seeds)


class Arm(Section):
    """One side of a comparison: the recipe with some values changed.

    Attributes:
        name: what tables and plots call it.
        changes: key, such as `"model.net"` -> value; in a recipe's file, keys of the arm.
        start: name or path of a published model to fine-tune, or empty.
        paper: what the paper reports of it, for the table; may be empty.
    """

    model_config = ConfigDict(json_schema_extra={"patternProperties": {r"^\w+\.\w+$": {}}})

    name: Annotated[str, Field(min_length=1)]
    changes: dict[str, Any] = Field(default_factory=dict)
    start: str = ""
    paper: str = ""

    @model_validator(mode="before")
    @classmethod
    def _dotted_keys_are_changes(cls, table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        changes = {key: value for key, value in table.items() if "." in key}
        rest = {key: value for key, value in table.items() if "." not in key}
        return {**rest, "changes": {**rest.get("changes", {}), **changes}} if changes else table

    @property
    def slug(self) -> str:
        """The name as a folder's."""
        return "".join(c if c.isalnum() else "_" for c in self.name)


# what is compared where a recipe names no arms
SHARED_OR_NOT = (
    Arm(name="shared"),
    Arm(name="unshared", changes={"training.sharing": "unshared"}),
    Arm(name="unshared, narrow", changes={"training.sharing": "unshared_narrow"}),
)


class Comparison(Section):
    """What `keras-shared compare` does with a recipe, fixed before the runs.

    Attributes:
        seeds: of each arm; the same seeds see the same data in the same order.
        images_per_class: sizes of the training set; empty for the recipe's own alone.
        arms: the sides, the first of which the others are compared with; none for the model shared,
            unshared, and unshared with no more parameters.
    """

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=MOST_SEEDS)] = (1, 2, 3, 4, 5)
    images_per_class: tuple[Count, ...] = ()
    arms: tuple[Arm, ...] = SHARED_OR_NOT

    @field_validator("seeds", "images_per_class")
    @classmethod
    def _each_once(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        return each_once(values)

    @field_validator("arms")
    @classmethod
    def _arms(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        each_once(tuple(arm.slug for arm in arms))
        return arms or SHARED_OR_NOT


def each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values; one that counts twice would make the intervals too narrow."""
    if len(set(values)) < len(values):
        raise ValueError("expected each one once")
    return values


@functools.cache  # sections are equal if their types are one
def model_section(model_class: type) -> type[Section]:
    """Section [model]: the constructor arguments of a class that a recipe can write.

    Numbers, strings, booleans, lists and tables of them are; layers, functions and dtype policies
    are not. Where a class writes no type, the default tells it.

    Example:
        >>> from keras_shared.recipes.schema import model_section
        >>> from keras_shared.zoo import LeNet5
        >>> sorted(model_section(LeNet5).model_fields)
        ['class_name', 'class_names', 'kernel_initializer', 'num_classes', 'variant']
    """
    init = model_class.__init__  # type: ignore[misc]
    hints = typing.get_type_hints(init, include_extras=True)
    fields: dict[str, Any] = {"class_name": (str, ...)}
    for name, parameter in itertools.islice(inspect.signature(init).parameters.items(), 1, None):
        hint = _written(hints.get(name, _told_by(parameter.default)))
        if hint is None or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.default is parameter.empty:
            fields[name] = (hint, ...)
        else:
            default = parameter.default
            optional = hint if default is not None else hint | None
            fields[name] = (optional, tuple(default) if isinstance(default, list) else default)
    return create_model(f"{model_class.__name__}Arguments", __base__=Section, **fields)


def _told_by(default: Any) -> Any:
    """What stands for the type of an argument that has none: that of its default."""
    if default is None or default is inspect.Parameter.empty:
        return ANY_VALUE
    return int | float if type(default) is int else type(default)  # a rate may begin with 0


def _filled(hint: Any) -> Any:
    """The same; of a list or a table that says nothing of what it holds, one of any values."""
    kind = typing.get_origin(hint) or hint
    if typing.get_args(hint) or kind not in (list, tuple, Sequence, dict, Mapping):
        return hint
    return dict[str, ANY_VALUE] if kind in (dict, Mapping) else tuple[ANY_VALUE, ...]


def _written(hint: Any) -> Any:
    """The part of a type hint that TOML can write, or None."""
    hint = _filled(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (str, int, float, bool, ANY_VALUE) or origin is Literal:
        return Annotated[int, Field(ge=-MOST_INTEGER, le=MOST_INTEGER)] if hint is int else hint
    if origin in (Annotated, Mapping, dict):
        table = origin is not Annotated
        inner = _written(arguments[1 if table else 0])
        whole: Any = dict[str, inner] if table else Annotated[(inner, *arguments[1:])]  # type: ignore[valid-type]
        return whole if inner else None
    if origin in (Union, types.UnionType):
        parts = [part for part in map(_written, arguments) if part]
        return Union[tuple(parts)] if parts else None  # noqa: UP007
    if origin in (tuple, list) or origin is typing.get_origin(Sequence[Any]):
        parts = [part if part is Ellipsis else _written(part) for part in arguments]
        if None in parts:
            return None
        return tuple[tuple(parts if origin is tuple else (*parts, ...))]  # type: ignore[misc]
    return None


def recipe_schema(model: Any, data: Any) -> type[BaseModel]:
    """The schema of a whole recipe with these sections [model] and [data].

    Args:
        model: type of the section, from `model_section`.
        data: type of the section, from the task of the model.
    """
    text = (str, "")
    fields: dict[str, Any] = {
        "name": (Annotated[str, Field(pattern=r"^[^\W\d]\w*$")], ...),
        "description": text,
        "limits": text,
        "paper": text,
        "model": (model, ...),
        "data": (data, ...),
        "training": (Training, Training()),
        "comparison": (Comparison | None, None),
    }
    return create_model("Recipe", __base__=Section, **fields)
