"""A recipe: everything that decides a trained model, in one flat TOML file.

Every key must be there; an unknown key, a wrong type or a value out of range is a `RecipeError`
that names file, key, what was received and what is allowed. Nothing is inherited or computed.
"""

import dataclasses
import json
import os
import pathlib
import tomllib
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal


class RecipeError(ValueError):
    """A recipe cannot be read."""


class Between(typing.NamedTuple):
    """Limits of a number, both included; None for no limit."""

    low: float | None
    high: float | None = None


Count = Annotated[int, Between(1)]
NoneOrMore = Annotated[int, Between(0)]
NotNegative = Annotated[float, Between(0)]
Seed = Annotated[int, Between(0, 2**31 - 1)]


@dataclasses.dataclass(frozen=True)
class SiameseNetModel:
    """Arguments of `keras_shared.zoo.SiameseNet` with its default tower."""

    class_name: Literal["SiameseNet"]
    image_shape: tuple[Count, Count, Literal[1, 3]]  # height, width in pixels; channels
    pixel_range: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class TiedAutoencoderModel:
    """Arguments of `keras_shared.zoo.TiedAutoencoder`."""

    class_name: Literal["TiedAutoencoder"]
    units: tuple[Count, ...]
    input_dim: Count
    activation: Literal["sigmoid", "tanh", "relu", "gelu"]
    noise: Annotated[float, Between(0)]


@dataclasses.dataclass(frozen=True)
class LeNet5Model:
    """Arguments of `keras_shared.zoo.LeNet5`."""

    class_name: Literal["LeNet5"]
    variant: Literal["1998", "modern"]
    class_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LeCun1989Model:
    """Arguments of `keras_shared.zoo.LeCun1989`."""

    class_name: Literal["LeCun1989"]
    net: Literal[1, 2, 3, 4, 5]


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Images with labels. `test` is the data set's own test split."""

    name: Literal["digits", "mnist", "fashion_mnist"]
    validation_images: Count  # drawn from the training split with `seed`, never trained on
    images_per_class: NoneOrMore  # to train on, drawn by the run's seed; 0 for all
    images_per_epoch: NoneOrMore  # a small set comes round several times; 0 for each image once
    # distortions of the training images, each drawn uniformly up to plus or minus this, per image:
    # rotation in degrees, shear, share of the size, shift in pixels; zeros for none
    distortion: tuple[NotNegative, NotNegative, NotNegative, NotNegative]
    seed: Seed


@dataclasses.dataclass(frozen=True)
class SampleData:
    """A few images with labels, other ones for each run's seed, cropped and shrunk.

    Training and validation images come from the data set's training split, test images from its
    test split; all without distortions.
    """

    name: Literal["mnist", "fashion_mnist"]
    margin: Annotated[int, Between(0)]  # pixels cut off on each side
    side: Count  # pixels of a side afterwards
    training_images: Count
    validation_images: Count
    test_images: Count
    images_per_epoch: NoneOrMore  # a small set comes round several times; 0 for each image once


@dataclasses.dataclass(frozen=True)
class PairData:
    """Pairs of images for verification; half of them show the same class.

    `negatives` is the rule for the other half: a second class drawn from all ("any"), or from
    the group (the alphabet) of the first ("same_group"). No image is paired with itself.
    """

    name: Literal["digits", "mnist", "fashion_mnist", "omniglot"]
    validation_groups: tuple[str, ...]  # alphabets (of digits: classes) that validate
    test_groups: tuple[str, ...]  # alphabets that test; the rest trains
    negatives: Literal["any", "same_group"]
    pairs_per_epoch: Count  # drawn anew in each epoch
    validation_pairs: Count
    test_pairs: Count
    seed: Seed


@dataclasses.dataclass(frozen=True)
class Training:
    """How the model is trained: by an optimizer whose rate decays to zero along a cosine.

    With `averaging` the rate stays, and a moving average of the weights is what is validated and
    kept (Polyak & Juditsky 1992).

    Each seed is a run of its own, with its own start and order of the data. Of several, the run
    with the best validation figure is the one to publish.

    `sharing` is "shared" for the model as it is, "unshared" for a weight at each use, and
    "unshared_narrow" for that with hidden layers so narrow that it has no more parameters than the
    model (see `keras_shared.evaluation.unshare`).
    """

    sharing: Literal["shared", "unshared", "unshared_narrow"]
    loss: Literal["binary_crossentropy", "contrastive", "rbf", "sparse_categorical_crossentropy"]
    optimizer: Literal["adam"]  # Kingma & Ba 2015
    learning_rate: Annotated[float, Between(1e-8, 10)]
    averaging: Annotated[float, Between(0, 0.99999)]  # the average's share kept each step; 0: none
    epochs: Count
    batch_size: Count
    seeds: tuple[Seed, ...]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One side of a comparison: the recipe with some values changed.

    Attributes:
        name: what tables and plots call it.
        changes: key, such as `"model.net"` -> value.
        start: name or path of a published model to fine-tune, or empty.
        paper: what the paper reports of it, for the table; may be empty.
    """

    name: str
    changes: dict[str, Any]
    start: str = ""
    paper: str = ""

    @property
    def slug(self) -> str:
        """The name as a folder's."""
        return "".join(c if c.isalnum() else "_" for c in self.name)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `keras-shared compare` does with a recipe, fixed before the runs.

    Attributes:
        seeds: of each arm; the same seeds see the same data in the same order.
        images_per_class: sizes of the training set; empty for the recipe's own alone.
        arms: the sides, the first of which the others are compared with.
    """

    seeds: tuple[int, ...]
    images_per_class: tuple[int, ...]
    arms: tuple[Arm, ...]


# what is compared where a recipe names no arms
SHARED_OR_NOT = (
    Arm("shared", {}),
    Arm("unshared", {"training.sharing": "unshared"}),
    Arm("unshared, narrow", {"training.sharing": "unshared_narrow"}),
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A whole recipe, checked.

    Attributes:
        name: name of the entry, `model_dataset`.
        paper: the figure to compare with and its source, for the card; may be empty.
        model: class and constructor arguments.
        data: data set and split.
        training: loss, schedule, seed.
        comparison: section [comparison], which may be left out.
        path: the file it was read from.
    """

    name: str
    paper: str = dataclasses.field(compare=False)  # what it says does not change a run
    model: SiameseNetModel | TiedAutoencoderModel | LeNet5Model | LeCun1989Model
    data: ImageData | SampleData | PairData
    training: Training
    comparison: Comparison | None = dataclasses.field(compare=False)
    path: pathlib.Path = dataclasses.field(compare=False)

    def with_seed(self, seed: int) -> "Recipe":
        """The same recipe for one run."""
        return dataclasses.replace(self, training=dataclasses.replace(self.training, seeds=(seed,)))


_MODELS: dict[str, tuple[type, type, tuple[str, ...]]] = {  # class -> sections and losses
    "SiameseNet": (SiameseNetModel, PairData, ("binary_crossentropy", "contrastive")),
    "TiedAutoencoder": (TiedAutoencoderModel, ImageData, ("binary_crossentropy",)),
    "LeCun1989": (LeCun1989Model, SampleData, ("sparse_categorical_crossentropy",)),
    "LeNet5": (LeNet5Model, ImageData, ("rbf", "sparse_categorical_crossentropy")),
}  # fmt: skip


def read_recipe(path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the TOML file.
        changes: values that replace the file's: key, such as `"model.variant"` -> value.

    Raises:
        RecipeError: with file, key, what was received and what is allowed.

    Example:
        >>> from keras_shared.presets.names import entry_dir
        >>> from keras_shared.recipe import read_recipe
        >>> read_recipe(entry_dir("lenet5_mnist") / "recipe.toml").model.variant
        '1998'
    """
    path = pathlib.Path(path)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read as TOML: {error}") from error
    comparison = table.pop("comparison", None)
    sections = ("name", "paper", "model", "data", "training")
    _check_keys(path, "", table, sections)
    for section in sections[2:]:
        _check(path, section, table[section], dict)
    for key, value in (changes or {}).items():
        section, _, inner = key.partition(".")
        if section not in sections[2:] or inner not in table[section]:
            keys = f"a key of the recipe in quotes, as 'training.epochs', not {value!r} for it"
            raise _error(path, key, "a change of it", keys)
        table[section][inner] = value
    name = _check(path, "name", table["name"], str)
    if not name.isidentifier():
        raise _error(path, "name", name, "letters, digits and underscores")
    kind = _check(path, "model.class_name", table["model"].get("class_name", ""), str)
    if kind not in _MODELS:
        raise _error(path, "model.class_name", kind, f"one of {list(_MODELS)}")
    model, data, losses = _MODELS[kind]
    training = _read_section(path, "training", table["training"], Training)
    if training.loss not in losses:
        raise _error(path, "training.loss", training.loss, f"one of {list(losses)} for {kind}")
    read = _read_section(path, "data", table["data"], data)
    if training.loss == "contrastive" and training.sharing != "shared":
        raise _error(  # nothing trains an unshared copy's layer of probability then
            path, "training.sharing", training.sharing,
            "'shared' with loss = 'contrastive'; 'binary_crossentropy' compares both",
        )  # fmt: skip
    if len(set(training.seeds)) < len(training.seeds):
        raise _error(path, "training.seeds", list(training.seeds), "each seed once")
    if isinstance(read, PairData):
        both = sorted(set(read.validation_groups).intersection(read.test_groups))
        if both:
            raise _error(path, "data.test_groups", both, "groups that validation does not use")
    return Recipe(
        name=name,
        paper=_check(path, "paper", table["paper"], str),
        model=_read_section(path, "model", table["model"], model),
        data=read,
        training=training,
        comparison=None if comparison is None else _comparison(path, comparison),
        path=path,
    )


def comparison_of(
    recipe: Recipe, seeds: int | None = None, vary: str | None = None, sizes: str | None = None
) -> Comparison:
    """What to compare: section [comparison] of a recipe, or shared and unshared, or as told.

    Args:
        recipe: the recipe.
        seeds: number of seeds, 1 to so many.
        vary: `KEY=A,B`: an arm for each value.
        sizes: `N,N`: images of each class to train on.

    Raises:
        RecipeError: for words that cannot be read so.

    Example:
        >>> from keras_shared.presets.names import entry_dir
        >>> from keras_shared.recipe import comparison_of, read_recipe
        >>> recipe = read_recipe(entry_dir("tied_autoencoder_mnist") / "recipe.toml")
        >>> [arm.changes for arm in comparison_of(recipe, vary="training.epochs=1,2").arms]
        [{'training.epochs': 1}, {'training.epochs': 2}]
    """
    kept = recipe.comparison or Comparison(tuple(range(1, 6)), (), SHARED_OR_NOT)
    if seeds is not None:
        if seeds < 1:
            raise _error(recipe.path, "--seeds", seeds, "at least 1")
        kept = dataclasses.replace(kept, seeds=tuple(range(1, seeds + 1)))
    if vary is not None:
        key, _, values = vary.partition("=")
        read = _values(recipe, key, values)
        if len(read) < 2:
            raise _error(recipe.path, "--vary", vary, "KEY=A,B with at least two values")
        arms = tuple(Arm(f"{key.rpartition('.')[2]} {value}", {key: value}) for value in read)
        kept = dataclasses.replace(kept, arms=arms)
    if sizes is not None:
        if not all(text.strip().isdecimal() and int(text) for text in sizes.split(",")):
            raise _error(recipe.path, "--sizes", sizes, "whole numbers with commas between")
        numbers = tuple(sorted({int(text) for text in sizes.split(",")}))
        kept = dataclasses.replace(kept, images_per_class=numbers)
    return _each_once(recipe.path, kept)


def _values(recipe: Recipe, key: str, text: str) -> list[Any]:
    """Values with commas between, as TOML reads them; of a key that holds a string, as they are."""
    section, _, inner = key.partition(".")
    if not isinstance(getattr(getattr(recipe, section, None), inner, None), str):
        try:
            return tomllib.loads(f"values = [{text}]")["values"]
        except tomllib.TOMLDecodeError:
            pass  # the recipe's own check says what is wrong with them
    return [value.strip() for value in text.split(",") if value.strip()]


def write_recipe(recipe: Recipe, path: pathlib.Path) -> None:
    """Write a recipe that `read_recipe` reads alike, without comments and comparison."""
    lines = [f"name = {json.dumps(recipe.name)}", f"paper = {json.dumps(recipe.paper)}"]
    for section in ("model", "data", "training"):
        lines += ["", f"[{section}]"]
        lines += [f"{k} = {json.dumps(v)}" for k, v in vars(getattr(recipe, section)).items()]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _comparison(path: pathlib.Path, table: Any) -> Comparison:
    _check_keys(path, "comparison.", _check(path, "comparison", table, dict),
                ("seeds", "images_per_class", "arms"))  # fmt: skip
    arms = []
    for i, arm in enumerate(_check(path, "comparison.arms", table["arms"], list)):
        changes = dict(_check(path, f"comparison.arms[{i}]", arm, dict))
        name = _check(path, f"comparison.arms[{i}].name", changes.pop("name", None), str)
        start, paper = (
            _check(path, f"comparison.arms[{i}].{key}", changes.pop(key, ""), str)
            for key in ("start", "paper")
        )
        arms.append(Arm(name, changes, start, paper))
    read = Comparison(
        seeds=_check(path, "comparison.seeds", table["seeds"], tuple[Seed, ...]),
        images_per_class=tuple(
            _check(path, "comparison.images_per_class", size, Count)
            for size in _check(path, "comparison.images_per_class", table["images_per_class"], list)
        ),
        arms=tuple(arms) or SHARED_OR_NOT,
    )
    return _each_once(path, read)


def _each_once(path: pathlib.Path, comparison: Comparison) -> Comparison:
    """A seed, size or arm that counts twice would make the intervals too narrow."""
    for key, values in {
        "seeds": comparison.seeds,
        "images_per_class": comparison.images_per_class,
        "arms": tuple(arm.slug for arm in comparison.arms),
    }.items():
        if len(set(values)) < len(values):
            raise _error(path, f"comparison.{key}", list(values), "each one once")
    return comparison


def _read_section(path: pathlib.Path, section: str, table: dict[str, Any], kind: type) -> Any:
    hints = typing.get_type_hints(kind, include_extras=True)
    _check_keys(path, f"{section}.", table, tuple(hints))
    return kind(**{k: _check(path, f"{section}.{k}", table[k], hint) for k, hint in hints.items()})


def _check_keys(
    path: pathlib.Path, prefix: str, table: dict[str, Any], allowed: tuple[str, ...]
) -> None:
    for key in table:
        if key not in allowed:
            raise _error(path, prefix + key, "an unknown key", f"the keys {list(allowed)}")
    for key in allowed:
        if key not in table:
            raise _error(path, prefix + key, "nothing", "a value: recipes are complete")


def _check(path: pathlib.Path, key: str, value: Any, hint: Any) -> Any:
    """`value` in the type that `hint` asks for, or a RecipeError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value, limits = _check(path, key, value, arguments[0]), arguments[1]
        if limits.low is not None and value < limits.low:
            raise _error(path, key, value, f"at least {limits.low}")
        if limits.high is not None and value > limits.high:
            raise _error(path, key, value, f"at most {limits.high}")
        return value
    if origin is Literal:
        if not any(value == a and type(value) is type(a) for a in arguments):
            raise _error(path, key, value, f"one of {list(arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise _error(path, key, value, "a list")
        hints = arguments
        if arguments[-1] is Ellipsis:
            if not value:
                raise _error(path, key, value, "a list that is not empty")
            hints = (arguments[0],) * len(value)
        if len(value) != len(hints):
            raise _error(path, key, value, f"a list of {len(hints)}")
        return tuple(
            _check(path, f"{key}[{i}]", v, h)
            for i, (v, h) in enumerate(zip(value, hints, strict=True))
        )
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        names: dict[Any, str] = {dict: "a table", str: "a string", int: "a whole number"}
        raise _error(path, key, value, names.get(hint, "a number"))
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise _error(path, key, value, "a finite number")
    return value


def _error(path: pathlib.Path, key: str, received: Any, allowed: str) -> RecipeError:
    shown = received if isinstance(received, str) and " " in received else repr(received)
    return RecipeError(f"{path}: `{key}`: received {shown}, allowed: {allowed}")
