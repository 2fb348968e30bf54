"""A recipe for the user's own data: from that of another data set, or from a published model."""

import pathlib
import re
from typing import TYPE_CHECKING, Any

from keras_shared.lookup import find
from keras_shared.recipes.recipe import Recipe, RecipeError, holds_none, recipe_from

if TYPE_CHECKING:
    from keras_shared.tasks import Task

LEFT_OPEN = ("class_names", "num_classes", "vocabulary")  # for the data to say
ENOUGH = 640  # images for 32,000 pairs an epoch
FINE_TUNING = {"epochs": 20, "batch_size": 16}  # for the tens to hundreds of images people bring


def on_own_data(recipe: Recipe, path: str) -> Recipe:
    """A recipe with your own data in the place of its own; what it leaves open comes from them.

    Args:
        recipe: names the model, and how to train it.
        path: a folder with a sub-folder for each class, or a file of a kind in
            `keras_shared.datasets.OWN` that the model's task takes.

    Raises:
        RecipeError: for another path.
    """
    from keras_shared.tasks.verification import EMBEDDING_LOSSES

    given, seeds = recipe.given, recipe.training.seeds
    model = {k: v for k, v in given["model"].items() if k not in LEFT_OPEN}
    data, training = _data(path, recipe.task), {**given.get("training", {}), "seeds": seeds[:1]}
    if data["name"] == "pairs" and training.get("loss") in EMBEDDING_LOSSES:
        training.pop("loss")  # of batches of classes
    return recipe_from(
        {
            "name": _name(recipe.name, path),
            "model": model,
            "data": data,
            "training": training,
        },
        recipe.path,
    )


def fine_tuning(name: str, model: Any, path: str) -> Recipe:
    """A recipe that fine-tunes a published model on your own data.

    Args:
        name: of the published model.
        model: the model.
        path: as of `on_own_data`.

    Raises:
        RecipeError: for another path.
    """
    from keras_shared.recipes.schema import model_section
    from keras_shared.tasks import TASKS
    from keras_shared.zoo import MODELS

    cls: type = type(model)
    config = model.get_config()
    short = cls.__name__ if MODELS.get(cls.__name__) is cls else f"{cls.__module__}:{cls.__name__}"
    # a vocabulary stays as it was learnt
    fields = model_section(cls).model_fields
    known = set(fields) - {"class_name", "class_names", "num_classes"}
    shape = config.get("image_shape", ())
    if "image_shape" in fields and holds_none(shape):  # of any size: TOML has no None
        size = cls.image_shape_of(image_shape=shape)  # type: ignore[attr-defined]
        config["image_shape"] = None if shape == fields["image_shape"].default else size
    written = {k: v for k, v in config.items() if v is not None and not isinstance(v, dict)}
    arguments = {key: written[key] for key in sorted(known & set(written))}
    return recipe_from(
        {
            "name": _name(pathlib.Path(name).name, path),
            "model": {"class_name": short, **arguments},
            "data": _data(path, find(cls.task, TASKS, "task")),  # type: ignore[attr-defined]
            "training": dict(FINE_TUNING),
        },
        f"{name} on {path}",
    )


def _name(model: str, path: str) -> str:
    stem = pathlib.Path(path).resolve().stem
    name = re.sub(r"\W", "_", f"{model}_{stem}")
    return name if name.isidentifier() else f"model_{name}"


def _pairs(own: pathlib.Path, task: "Task") -> dict[str, int]:
    """Pairs for as many images as lie in a folder: the defaults are for some hundreds and more."""
    fields = task.data.model_fields
    if "pairs_per_epoch" not in fields or not own.is_dir():
        return {}
    images = sum(1 for path in own.rglob("*") if path.is_file())
    share = min(1.0, images / ENOUGH)
    sizes = ("pairs_per_epoch", "validation_pairs", "test_pairs")
    return {n: max(64, int(fields[n].default * share) // 64 * 64) for n in sizes if share < 1}


def _data(path: str, task: "Task") -> dict[str, Any]:
    from keras_shared.datasets import OWN

    own = pathlib.Path(path).resolve()  # the recipe is read from other folders too
    kinds = {
        name: kind
        for name, kind in OWN.items()
        if kind.suffix is not None and issubclass(kind.kind, task.takes)
    }
    known = {kind.suffix: name for name, kind in kinds.items()}
    suffix = "" if own.is_dir() else own.suffix.lower()
    if suffix in known and (own.is_dir() or (suffix and own.is_file())):
        return {"name": known[suffix], "path": str(own), **_pairs(own, task)}
    if not own.exists():
        home = " A ~ is expanded by the shell at the beginning of a word alone." * path.startswith(
            "~"
        )
        raise RecipeError(f"There is no file or folder {own}.{home} Received: --data {path}")
    takes = ", or ".join(kind.what for kind in kinds.values())
    if not takes:
        raise RecipeError(
            f"--data takes no files for {task.name}. Write a data set in Python, and name it in "
            f"the recipe: data.name = 'package.module:NAME'. Received: {path}"
        )
    raise RecipeError(f"--data takes {takes}, for {task.name}. Received: {path}")
