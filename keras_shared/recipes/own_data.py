"""A recipe for the user's own data: from that of another data set, or from a published model."""

import pathlib
import re
from typing import Any

from keras_shared.recipes.recipe import Recipe, RecipeError, recipe_from

LEFT_OPEN = ("class_names", "num_classes")  # for the data to say
FINE_TUNING = {"epochs": 20, "batch_size": 16}  # for the tens to hundreds of images people bring


def on_own_data(recipe: Recipe, path: str) -> Recipe:
    """A recipe with your own images in the place of its data; what it leaves open comes from them.

    Args:
        recipe: names the model, and how to train it.
        path: a folder with a sub-folder for each class, or a file of a kind in
            `keras_shared.datasets.OWN`.

    Raises:
        RecipeError: for another path.
    """
    given, seeds = recipe.given, recipe.training.seeds
    model = {k: v for k, v in given["model"].items() if k not in LEFT_OPEN}
    return recipe_from(
        {
            "name": _name(recipe.name, path),
            "model": model,
            "data": _data(path),
            "training": {**given.get("training", {}), "seeds": seeds[:1]},
        },
        recipe.path,
    )


def fine_tuning(name: str, model: Any, path: str) -> Recipe:
    """A recipe that fine-tunes a published model on your own images.

    Args:
        name: of the published model.
        model: the model.
        path: as of `on_own_data`.

    Raises:
        RecipeError: for another path.
    """
    from keras_shared.recipes.schema import model_section
    from keras_shared.zoo import MODELS

    cls: type = type(model)
    config = model.get_config()
    short = cls.__name__ if MODELS.get(cls.__name__) is cls else f"{cls.__module__}:{cls.__name__}"
    known = set(model_section(cls).model_fields) - {"class_name", *LEFT_OPEN}
    arguments = {key: config[key] for key in sorted(known) if config.get(key) is not None}
    return recipe_from(
        {
            "name": _name(pathlib.Path(name).name, path),
            "model": {"class_name": short, **arguments},
            "data": _data(path),
            "training": dict(FINE_TUNING),
        },
        f"{name} on {path}",
    )


def _name(model: str, path: str) -> str:
    stem = pathlib.Path(path).resolve().stem
    name = re.sub(r"\W", "_", f"{model}_{stem}")
    return name if name.isidentifier() else f"model_{name}"


def _data(path: str) -> dict[str, Any]:
    from keras_shared.datasets import OWN

    own = pathlib.Path(path).resolve()  # the recipe is read from other folders too
    known = {kind.suffix: name for name, kind in OWN.items() if kind.suffix is not None}
    suffix = "" if own.is_dir() else own.suffix.lower()
    if suffix in known and (own.is_dir() or (suffix and own.is_file())):
        return {"name": known[suffix], "path": str(own)}
    kinds = [kind.what for kind in OWN.values() if kind.suffix is not None]
    raise RecipeError(f"--data takes {', or '.join(kinds)}. Received: {path}")
