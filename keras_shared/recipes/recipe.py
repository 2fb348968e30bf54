"""A recipe: everything that decides a trained model, in one flat TOML file.

What is left out has a default; the resolved recipe, with all of them, stays with the run. Nothing
is inherited or computed. All that is wrong with a file is said at once, as a `RecipeError`.
"""

import contextlib
import copy
import dataclasses
import itertools
import os
import pathlib
import re
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from keras_shared.errors import KerasSharedError, attempt, boundary
from keras_shared.files.atomic import replace_text
from keras_shared.files.bounded import read_text
from keras_shared.files.limits import MOST_DEPTH, MOST_RECIPE
from keras_shared.lookup import UnknownNameError, find, suggestion

if TYPE_CHECKING:
    from pydantic import BaseModel

    from keras_shared.datasets import Dataset
    from keras_shared.recipes.schema import Comparison, Training
    from keras_shared.tasks import Task


MOST_ERRORS = 20  # that are listed
MOST_SHOWN = 200  # characters of a value or key that is not as expected
KEY = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
DEEP = re.compile(rf"(?<![\w-]){KEY}(?:[ \t]*+\.[ \t]*+{KEY}){{{MOST_DEPTH}}}")
SECTIONS = ("model", "data", "training", "comparison")


class RecipeError(KerasSharedError, ValueError):
    """A recipe cannot be read: the file, and for each key what was received and expected."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A whole recipe, checked, with its defaults filled in.

    Attributes:
        name: name of the entry, `model_dataset`.
        description: a sentence for the card; empty for that of the model's class.
        limits: what the model is not made for, for the card; empty for the class's sentence.
        paper: the published number to compare with and its source, for the card; may be empty.
        model: class and constructor arguments.
        data: data set and split.
        training: loss, schedule, seeds.
        comparison: section [comparison], or None.
        path: the file it was read from.
        given: what the file holds, without the defaults.
    """

    name: str
    model: Any
    data: Any
    training: "Training"
    # what these say does not change a run
    description: str = dataclasses.field(default="", compare=False)
    limits: str = dataclasses.field(default="", compare=False)
    paper: str = dataclasses.field(default="", compare=False)
    comparison: "Comparison | None" = dataclasses.field(default=None, compare=False)
    path: pathlib.Path = dataclasses.field(default=pathlib.Path("recipe.toml"), compare=False)
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def model_class(self) -> Any:
        """The class that `model.class_name` names."""
        return _model_class(self.model.class_name)

    @property
    def task(self) -> "Task":
        """The task of the model."""
        return _task(self.model_class)

    @property
    def dataset(self) -> "Dataset":
        """The data set that `data.name` names, or the user's own at `data.path`."""
        from keras_shared.datasets import OWN

        if self.data.name not in OWN:
            return _dataset(self.data.name)
        own = OWN[self.data.name]
        if own.images and self.image_shape is None:
            raise RecipeError(
                f"{self.path}: `data.name` = '{self.data.name}' gives images, and "
                f"{self.model.class_name} takes none of a known size."
            )
        path = self.data.path if own.suffix is None else self._found(self.data.path)
        return own.dataset(path, self.image_shape, getattr(self.data, "seed", 0))

    def _found(self, path: str) -> str:
        """The whole path of your own data, which lie here or beside the recipe."""
        here, beside = pathlib.Path(path), self.path.parent / path
        return str((beside if beside.exists() and not here.exists() else here).resolve())

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels of the images that the model takes, or None."""
        shape_of = getattr(self.model_class, "image_shape_of", None)
        if shape_of is None:
            return None
        shape: tuple[int, int, int] | None = shape_of(
            **self.model.model_dump(exclude={"class_name"}, exclude_none=True)
        )
        return shape

    def with_seed(self, seed: int) -> "Recipe":
        """The same recipe for one run."""
        training = self.training.model_copy(update={"seeds": (seed,)})
        given = {**self.given, "training": {**self.given.get("training", {}), "seeds": (seed,)}}
        return dataclasses.replace(self, training=training, given=given)

    def with_changes(self, changes: Mapping[str, Any]) -> "Recipe":
        """The same recipe with other values, checked like a file; defaults follow the new values.

        Args:
            changes: key, such as `"model.variant"` -> value.

        Raises:
            RecipeError: for an unknown key, or a value that the key does not take.

        Example:
            >>> from keras_shared.presets.names import entry_dir
            >>> from keras_shared.recipes import read_recipe
            >>> recipe = read_recipe(entry_dir("lenet5_mnist") / "recipe.toml")
            >>> recipe.with_changes({"training.epochs": 2}).training.epochs
            2
        """
        table = {"training": {}, **copy.deepcopy(dict(self.given))}
        values = [f"{key} = {_as_written(_frozen(value))}" for key, value in changes.items()]
        where = f"{self.path} with {_short(', '.join(values))}"
        # the class first: its arguments are other ones
        for key, value in sorted(changes.items(), key=lambda c: c[0] != "model.class_name"):
            section, dot, inner = key.rpartition(".")
            if section == "model" and inner == "class_name":  # the old arguments are another's
                table["model"] = {}
            inside = table.setdefault(section, {}) if section in SECTIONS else None
            inside = inside if dot else table
            if not isinstance(inside, dict):
                raise RecipeError(
                    f"{where}: `{key}` is no key of a recipe: expected SECTION.KEY, such as "
                    f"training.epochs, with one of the sections {list(SECTIONS)}."
                )
            inside[inner] = value
        return dataclasses.replace(recipe_from(table, where), path=self.path)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as TOML holds it, all defaults filled in."""
        table: dict[str, Any] = {"name": self.name}
        for key in ("description", "limits", "paper"):
            table |= {key: getattr(self, key)} if getattr(self, key) else {}
        for key in ("model", "data", "training"):
            section = getattr(self, key).model_dump()
            # TOML has no null: what holds one is left to its default
            table[key] = {k: v for k, v in section.items() if not holds_none(v)}
        if self.comparison is not None:
            arms = [arm.model_dump(exclude_defaults=True) for arm in self.comparison.arms]
            flat = [{**{k: v for k, v in arm.items() if k != "changes"},
                     **arm.get("changes", {})} for arm in arms]  # fmt: skip
            table["comparison"] = {**self.comparison.model_dump(), "arms": flat}
        return table

    def text(self) -> str:
        """As TOML, which `read_recipe` reads alike."""
        import tomli_w

        return str(tomli_w.dumps(self.to_dict()))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write `text()` to a file."""
        replace_text(path, self.text())


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """Read and check a recipe.

    Args:
        path: the TOML file.

    Raises:
        RecipeError: with the file, and for each wrong key what was received and expected.

    Example:
        >>> from keras_shared.presets.names import entry_dir
        >>> from keras_shared.recipes import read_recipe
        >>> read_recipe(entry_dir("lenet5_mnist") / "recipe.toml").model.variant
        '1998'
    """
    text = read_text(path, RecipeError, MOST_RECIPE)
    return recipe_from(read_toml(text, os.fspath(path)), path)


def expect_recipe(value: Any) -> None:
    """Refuse what is no recipe.

    Raises:
        TypeError: if it is none.
    """
    if not isinstance(value, Recipe):
        raise TypeError(
            "A recipe is expected, as keras_shared.recipes.read_recipe gives it. Received: "
            f"{_short(repr(value))}"
        )


def read_toml(text: str, where: str) -> dict[str, Any]:
    """What a text in TOML holds.

    Args:
        text: the text.
        where: it came from, for messages.

    Raises:
        RecipeError: if it is no TOML, or nested so deep that reading it would take minutes.
    """
    if deep := DEEP.search(text):
        line = text.count("\n", 0, deep.start()) + 1
        raise RecipeError(
            f"{where}: the key in line {line} is nested more than {MOST_DEPTH} deep. "
            "Expected SECTION.KEY."
        )
    with boundary(f"{where}: cannot be read as TOML", RecipeError):
        return tomllib.loads(text.removeprefix("\ufeff"))  # some editors begin a file so


def recipe_from(table: Mapping[str, Any], path: str | os.PathLike[str] = "recipe.toml") -> Recipe:
    """Check a recipe that was read already.

    Args:
        table: what `tomllib` gives, or `Recipe.to_dict`.
        path: where it came from, for messages.

    Raises:
        RecipeError: as of `read_recipe`.

    Example:
        >>> from keras_shared.recipes import recipe_from
        >>> table = {"name": "mine", "model": {"class_name": "LeNet5"}, "data": {"name": "mnist"}}
        >>> recipe_from(table).training.loss
        'rbf'
    """
    if not isinstance(table, Mapping):
        raise RecipeError(
            f"{os.fspath(path)}: expected a dict of its sections, as `tomllib` reads it. Received: "
            f"{_short(repr(table))}"
        )
    with boundary(f"{os.fspath(path)}: cannot be read", RecipeError):
        return _checked(_frozen(table), os.fspath(path))


def _checked(table: Mapping[str, Any], path: str) -> Recipe:
    from pydantic import ValidationError

    schema, wrong = _schema_for(table)
    if not wrong and isinstance(table.get("model"), Mapping):
        wrong = _disagreements(table)
    checked, error = attempt(lambda: schema.model_validate(table), ValidationError)
    if error or wrong:
        more = _explained(error, schema) if error else ()
        raise RecipeError(_listed(path, itertools.chain(wrong, more)))
    recipe = Recipe(
        name=checked.name,
        description=checked.description,
        limits=checked.limits,
        paper=checked.paper,
        model=checked.model,
        data=checked.data,
        training=checked.training,
        comparison=checked.comparison,
        path=pathlib.Path(path),
        given=table,
    )
    recipe = dataclasses.replace(recipe, training=_with_defaults(recipe))
    if recipe.task.settle is None:
        return recipe
    with _kept(wrong):
        data = recipe.task.settle(recipe.data, recipe.training.loss or "")
        return dataclasses.replace(recipe, data=data)
    raise RecipeError(_listed(path, wrong))


def json_schema(recipe: Recipe) -> dict[str, Any]:
    """The JSON schema of recipes with the same model and task, for editors.

    Example:
        >>> from keras_shared.presets.names import entry_dir
        >>> from keras_shared.recipes import read_recipe
        >>> from keras_shared.recipes.recipe import json_schema
        >>> recipe = read_recipe(entry_dir("lenet5_mnist") / "recipe.toml")
        >>> sorted(json_schema(recipe)["properties"])[:4]
        ['comparison', 'data', 'description', 'limits']
    """
    schema, _ = _schema_for(recipe.to_dict())
    return schema.model_json_schema()


def holds_none(value: Any) -> bool:
    """Whether TOML cannot write a value, which is None or has one in it."""
    return value is None or (isinstance(value, tuple) and any(map(holds_none, value)))


def _frozen(value: Any) -> Any:
    """The same with tuples in the place of lists."""
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def _model_class(name: str) -> Any:
    import keras

    from keras_shared.zoo import MODELS

    return find(name, MODELS, "model", kind=type[keras.Model])


def _task(model_class: Any) -> "Task":
    from keras_shared.tasks import TASKS, Task

    name = getattr(model_class, "task", None)
    if not isinstance(name, str):
        raise UnknownNameError(
            f"{model_class.__name__} has no `task` in its class: expected one of "
            f"keras_shared.tasks, {sorted(TASKS)}, or 'package.module:NAME'. Received: {name!r}"
        )
    return find(name, TASKS, "task", kind=Task)


def _dataset(name: str) -> "Dataset":
    from keras_shared.datasets import DATASETS, OWN, Dataset

    return find(name, DATASETS, "data set", also=OWN, kind=Dataset)


def _schema_for(table: Mapping[str, Any]) -> "tuple[type[BaseModel], list[str]]":
    """The schema by the model that a recipe names, and what is wrong with that name."""
    from keras_shared.recipes.schema import model_section, recipe_schema

    section = table.get("model")
    name = section.get("class_name") if isinstance(section, Mapping) else None
    if not isinstance(name, str):
        wrong = [] if not isinstance(section, Mapping) else ["`model.class_name` is missing"]
        if name is not None:
            wrong = [f"`model.class_name`: received {_as_written(name)}, expected a string"]
        return recipe_schema(dict[str, Any], Any), wrong
    wrong = []
    with _kept(wrong, "`model.class_name`: "):
        model_class = _model_class(name)
        return recipe_schema(model_section(model_class), _task(model_class).data), []
    return recipe_schema(dict[str, Any], Any), wrong


def _disagreements(table: Mapping[str, Any]) -> list[str]:
    """Names that mean nothing, and what is wrong between sections that are right by themselves."""
    wrong, (data, training) = [], (table.get(key, {}) for key in ("data", "training"))
    model_class = _model_class(table["model"]["class_name"])
    task = _task(model_class)
    if isinstance(training, Mapping) and isinstance(loss := training.get("loss"), str):
        allowed = _losses(model_class, task)
        if loss not in allowed and ":" not in loss:
            wrong.append(
                f"`training.loss`: received {loss!r}, expected one of {list(allowed)} for "
                f"{model_class.__name__}, or 'package.module:NAME'"
            )
        sharing = training.get("sharing", "shared")
        if loss in task.losses_of_shared and sharing != "shared":
            wrong.append(
                f"`training.sharing`: received {sharing!r}, expected 'shared' with loss = "
                f"{loss!r}; others compare both: {sorted({*allowed} - {*task.losses_of_shared})}"
            )
    if isinstance(data, Mapping) and isinstance(name := data.get("name"), str):
        from keras_shared.datasets import OWN

        if name in OWN and not data.get("path"):
            wrong.append(f"`data.path` is missing: where the data of '{name}' are")
        with _kept(wrong, "`data.name`: "):
            kind = OWN[name].kind if name in OWN else _dataset(name).kind
            if not issubclass(kind, task.takes):
                takes = task.takes if isinstance(task.takes, tuple) else (task.takes,)
                wrong.append(
                    f"`data.name`: '{name}' holds {kind.__name__}, and {task.name} takes "
                    f"{' or '.join(one.__name__ for one in takes)}"
                )
    return wrong


@contextlib.contextmanager
def _kept(wrong: list[str], key: str = "") -> Iterator[None]:
    """What is raised of a value joins the other mistakes of the recipe."""
    try:
        yield
    except (ValueError, AttributeError) as error:
        wrong.append(f"{key}{error}")


def _losses(model_class: Any, task: "Task") -> tuple[str, ...]:
    """Names of the losses that a model can be trained with, the default first."""
    losses: tuple[str, ...] = getattr(model_class, "loss_names", task.losses)
    return losses


def _with_defaults(recipe: Recipe) -> "Training":
    named = hasattr(recipe.model_class, "loss_names")  # else the task's default
    default = getattr(recipe.model_class, "default_loss", None) if named else None
    arguments = recipe.model.model_dump(exclude={"class_name"})
    values = {
        "loss": default(**arguments) if default else recipe.task.losses[0],
        "optimizer": recipe.task.optimizer,
        "learning_rate": recipe.task.learning_rate,
    }
    left_out = {k: v for k, v in values.items() if getattr(recipe.training, k) is None}
    return recipe.training.model_copy(update=left_out)


def _listed(path: str, wrong: Iterable[str]) -> str:
    lines = list(itertools.islice(wrong, MOST_ERRORS + 1))
    if len(lines) == 1:
        return f"{path}: {lines[0]}"
    several = f"{len(lines)} errors"
    if len(lines) > MOST_ERRORS:
        lines, several = lines[:MOST_ERRORS], f"more than {MOST_ERRORS} errors"
    return f"{path}: {several}" + "".join(f"\n  {line}" for line in lines)


def _explained(error: Any, schema: "type[BaseModel]") -> Iterable[str]:
    """One sentence for each error that pydantic found."""
    for found in error.errors(include_url=False):
        place, inside = found["loc"], ".".join(map(str, found["loc"][:-1]))
        key = _short(re.sub(r"\.(\d+)", r"[\1]", ".".join(map(str, place))))
        if found["type"] == "extra_forbidden":
            known = _keys(schema, place[:-1])
            hint = suggestion(str(place[-1]), known)
            yield f"`{key}` is an unknown key of {inside or 'a recipe'}. {hint}"
        elif found["type"] == "missing":
            yield f"`{key}` is missing"
        else:
            value = found["input"]
            received = "" if isinstance(value, Mapping) else f"received {_as_written(value)}, "
            yield f"`{key}`: {received}{_expected(found)}"


def _expected(found: Mapping[str, Any]) -> str:
    text: str = found["msg"].removeprefix("Value error, ").replace("Input should", "expected it to")
    text = re.sub(r" after validation.*| or instance of .*", "", text)
    for pydantic, plain in (
        ("expected it to be greater than or equal to", "expected at least"),
        ("expected it to be less than or equal to", "expected at most"),
        ("expected it to be less than", "expected less than"),
        ("expected it to be greater than", "expected more than"),
        ("expected it to be a valid integer", "expected a whole number"),
        ("expected it to be a valid number", "expected a number"),
        ("expected it to be a valid string", "expected a string"),
        ("expected it to be a valid tuple", "expected a list in brackets, such as [1, 2]"),
        ("expected it to be a valid dictionary", "expected a table"),
        ("expected it to be a finite number", "expected a finite number"),
        ("expected it to be", "expected"),
        ("String should match pattern", "expected letters, digits and underscores, by the pattern"),
        ("Tuple should have", "expected a list with"),
    ):
        if pydantic in text:
            return text.replace(pydantic, plain)
    return text


def _as_written(value: Any) -> str:
    """A value as a TOML file has it: lists in brackets."""
    if isinstance(value, tuple):
        return _short(f"[{', '.join(map(_as_written, value[:MOST_ERRORS]))}]")
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"a number of {value.bit_length():,} bits"
    return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _keys(schema: "type[BaseModel]", place: tuple[str | int, ...]) -> list[str]:
    """The keys that a section takes."""
    found: Any = schema
    for name in place:
        if isinstance(name, str) and hasattr(found, "model_fields"):
            found = _section_in(getattr(found.model_fields.get(name), "annotation", None))
    return list(found.model_fields) if hasattr(found, "model_fields") else []


def _section_in(hint: Any) -> Any:
    """The section inside of an optional one, or of a list of them."""
    if hasattr(hint, "model_fields"):
        return hint
    inner = (_section_in(part) for part in typing.get_args(hint))
    return next((section for section in inner if section is not None), None)
