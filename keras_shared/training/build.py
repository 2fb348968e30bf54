"""From a recipe to the model, its data and its loss: all that a training begins with."""

import hashlib
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared import losses
from keras_shared.batching import TrainingData
from keras_shared.batching.training_data import DIGEST
from keras_shared.datasets import OWN, DataError
from keras_shared.datasets.checks import checked_split
from keras_shared.datasets.digest import digest_of
from keras_shared.datasets.lazy_images import LazyImages
from keras_shared.errors import attempt, boundary, shortened
from keras_shared.files.pictures import bright_ground
from keras_shared.lookup import UnknownNameError, described
from keras_shared.presets.loading import load
from keras_shared.presets.names import entry_dir, entry_names, locate
from keras_shared.recipes import Recipe, RecipeError, read_recipe
from keras_shared.recipes.recipe import expect_recipe
from keras_shared.sharing import sharing_report, unshare
from keras_shared.tokenizing import Tokenizer
from keras_shared.training.adam import Adam
from keras_shared.training.muon import Muon
from keras_shared.training.run import RunError

LOOKED_AT = 50  # own images, for their ground
TENTH = 10  # of the training, over which weights are averaged at most


def build_model(recipe: Recipe) -> keras.Model:
    """The untrained, uncompiled model of a recipe, unshared where the recipe says so.

    A model that has nothing but convolutions to unshare loses the sharing of their positions.

    Example:
        >>> from keras_shared.demo import RECIPE
        >>> from keras_shared.recipes import read_recipe
        >>> from keras_shared.training import build_model
        >>> build_model(read_recipe(RECIPE)).count_params()
        106962
    """
    expect_recipe(recipe)
    model = recipe.model_class(**recipe.model.model_dump(exclude={"class_name"}))
    if recipe.training.sharing == "shared":
        return model
    once = all(weight.uses <= 1 for weight in sharing_report(model).weights)
    most = model.count_params() if recipe.training.sharing == "unshared_narrow" else None
    return unshare(model, copy_values=False, convolutions=once, parameters=most)


def start_model(recipe: Recipe, path_or_name: str | os.PathLike[str]) -> keras.Model:
    """A published model to fine-tune by a recipe; for the recipe's classes, if they are others.

    What is new in it is drawn by the recipe's first seed, so that a run can go on from its start.

    Args:
        recipe: the recipe of the fine-tuning.
        path_or_name: as of `keras_shared.load`.

    Raises:
        ValueError: as of `keras_shared.load`.
        RunError: if it is not the recipe's model, or the recipe asks for an unshared one.
    """
    expect_recipe(recipe)
    keras.utils.set_random_seed(recipe.training.seeds[0])
    model = load(path_or_name, compile=False)
    names, known = (getattr(one, "class_names", None) or () for one in (recipe.model, model))
    lists = all(isinstance(one, (list, tuple)) for one in (names, known))  # not of several tasks
    if lists and names and [*names] != [*known]:
        failed = (
            f"'{os.fspath(path_or_name)}' tells {len(known)} classes apart, {_few(known)}, and "
            f"cannot be trained on {len(names)} others, {_few(names)}"
        )
        advice = "Start from a model whose classes are open, such as lenet5_modern_mnist."
        if not hasattr(model, "with_classes"):
            raise RunError(f"{failed}. {advice}")
        with boundary(failed, RunError, advice):
            model = model.with_classes(names)
    shape = getattr(recipe.model, "image_shape", None)
    if hasattr(model, "with_image_shape") and shape not in (None, model.image_shape):
        model = model.with_image_shape(shape)
    _check_start(model, recipe, os.fspath(path_or_name))
    return model


def _few(names: Sequence[str]) -> str:
    return shortened(repr([*names]))


def base_of(path_or_name: str) -> dict[str, str]:
    """What a card says of the model that a fine-tuning started from: its name and its data."""
    base = {"name": path_or_name}
    if path_or_name not in entry_names():  # a folder, also from where the run stands
        base["name"] = str(pathlib.Path(locate(path_or_name)).resolve())
    if path_or_name in entry_names():
        recipe = read_recipe(entry_dir(path_or_name) / "recipe.toml")
        base["data"] = recipe.dataset.credit
    return base


def fingerprint(start: keras.Model | None) -> str:
    """Stands for the weights that a training starts from: the recipe's own, or a model's."""
    if start is None:
        return "recipe"
    digest = hashlib.sha256()
    for weight in start.get_weights():
        digest.update(weight.tobytes())
    return digest.hexdigest()


def training_data(recipe: Recipe, data_dir: str | None = None) -> TrainingData:
    """The training and validation batches of a recipe. The test split is not opened.

    Args:
        recipe: its sections [data] and [training], and the task of its model.
        data_dir: folder of prepared TFDS data sets.

    Raises:
        DataError: if the data set cannot be had, or is too small for the recipe.

    Example:
        >>> from keras_shared.demo import RECIPE
        >>> from keras_shared.recipes import read_recipe
        >>> from keras_shared.training import training_data
        >>> training_data(read_recipe(RECIPE)).sizes
        {'groups': 5, 'pairs_per_epoch': 3200, 'validation_pairs': 1000}
    """
    expect_recipe(recipe)
    split, training = load_split(recipe, "train", data_dir), recipe.training
    data = recipe.task.training_data(split, recipe.data, training.batch_size, training.seeds[0])
    if getattr(recipe.data, "path", None):
        data = data._replace(sizes=data.sizes | {DIGEST: digest_of(split)})
        _warn_of_ground(recipe, split)
    return data


def _warn_of_ground(recipe: Recipe, split: Any) -> None:
    """Own images may have dark ink for a model that reads bright ink, or the other way round."""
    reads_bright_ink = getattr(recipe.model_class, "bright_ink", None)
    images = getattr(split, "images", None)
    if reads_bright_ink is None:  # a class of your own
        return
    bright_ink = reads_bright_ink(**recipe.model.model_dump(exclude={"class_name"}))
    if bright_ink is None or images is None or not len(images):
        return
    chosen = images[np.linspace(0, len(images) - 1, min(LOOKED_AT, len(images))).astype(int)]
    looked = chosen.read() if isinstance(chosen, LazyImages) else chosen
    wrong = np.mean([bright_ground(image) == bright_ink for image in looked])
    if wrong > 0.5:
        has = "bright" if bright_ink else "dark"
        reads = "bright ink on a dark" if bright_ink else "dark ink on a bright"
        warnings.warn(
            f"{recipe.data.path}: {wrong:.0%} of {len(looked)} images that were looked at have a "
            f"{has} ground, and {recipe.model.class_name} reads {reads} one: it would take the "
            "ground for ink. Invert them (255 - pixels) before training, and those that you ask "
            "it about.",
            stacklevel=3,
        )


def load_split(recipe: Recipe, split: str, data_dir: str | None = None) -> Any:
    """A split of a recipe's data set; images and texts are brought to what the model takes.

    Raises:
        DataError: if the data set cannot be had, has images or labels that are none, or labels
            without a class.
    """
    dataset, shape = recipe.dataset, recipe.image_shape
    loaded = dataset.load(split, data_dir)
    where = f"{recipe.path}: the data set '{recipe.data.name}'"
    if not isinstance(loaded, dataset.kind):
        raise DataError(
            f"{where} says that its splits are {dataset.kind.__name__}, and its `load` gave "
            f"{described(loaded)}. Return what `kind` names."
        )
    if recipe.data.name not in OWN:  # what is read from files is checked there
        with boundary(f"{where} cannot be read", DataError):
            loaded = checked_split(loaded, where, shape)
    labels, names = getattr(loaded, "labels", None), getattr(loaded, "class_names", None)
    if labels is not None and names is not None and len(labels):
        for own, classes in _of_each_task(labels, names):
            lowest, highest = int(np.min(own)), int(np.max(own))
            if lowest >= 0 and highest < len(classes):
                continue
            raise DataError(
                f"{where} has labels from {lowest} to {highest}, and {len(classes)} names of "
                "classes. Expected a name for each, from 0."
            )
    if hasattr(loaded, "tokenized"):
        given = {key: getattr(recipe.model, key, None) for key in Tokenizer._fields}
        known = {key: value for key, value in given.items() if value is not None}
        return loaded.tokenized(Tokenizer(**known))
    own_size = getattr(recipe.data, "side", 0)  # the recipe itself says how images are shrunk
    if not shape or not hasattr(loaded, "fitted") or own_size:
        return loaded
    with boundary(
        f"{recipe.path}: images of {shape} cannot be had", DataError, "Choose smaller ones."
    ):
        return loaded.fitted(shape)


def _of_each_task(labels: Any, names: Any) -> list[tuple[Any, Any]]:
    """Labels and names of classes; of several tasks a pair for each, see `SeveralLabels`."""
    if not isinstance(names, Mapping):
        return [(labels, names)]
    return list(zip(np.asarray(labels).T, names.values(), strict=True))


def with_data_arguments(recipe: Recipe, data_dir: str | None = None) -> Recipe:
    """The recipe with what it leaves to the data: names of classes, the vocabulary.

    Raises:
        DataError: if the data set cannot be had.
    """
    if _leaves_vocabulary_open(recipe):
        return with_arguments_from(recipe, training_data(recipe, data_dir))
    if not _leaves_classes_open(recipe):
        return recipe
    names = load_split(recipe, "train", data_dir).class_names
    return recipe.with_changes({"model.class_names": names})


def with_arguments_from(recipe: Recipe, data: TrainingData) -> Recipe:
    """The recipe with what its training data say of the model, where it leaves that open."""
    changes: dict[str, Any] = {}
    if data.class_names is not None and _leaves_classes_open(recipe):
        changes["model.class_names"] = data.class_names
    if data.vocabulary is not None and _leaves_vocabulary_open(recipe):
        changes["model.vocabulary"] = data.vocabulary
    return recipe.with_changes(changes) if changes else recipe


def with_vocabulary_of(recipe: Recipe, model: keras.Model) -> Recipe:
    """The recipe with the vocabulary of its trained model, where it leaves that open."""
    vocabulary = getattr(model, "vocabulary", None)
    if vocabulary is None or not _leaves_vocabulary_open(recipe):
        return recipe
    return recipe.with_changes({"model.vocabulary": vocabulary})


def _leaves_vocabulary_open(recipe: Recipe) -> bool:
    return getattr(recipe.model, "vocabulary", ()) is None


def _leaves_classes_open(recipe: Recipe) -> bool:
    arguments = recipe.model.model_dump()
    named = arguments.get("class_names") or arguments.get("num_classes")
    return "class_names" in arguments and not named


def with_arguments_of(recipe: Recipe, model: keras.Model) -> Recipe:
    """The recipe with the arguments of a model to start from, where it leaves them open."""
    given, config = recipe.given["model"], model.get_config()
    known = set(type(recipe.model).model_fields) - {"class_name", "class_names", "num_classes"}
    if not isinstance(model, recipe.model_class):
        return recipe  # which the check of the start says
    written = {k: v for k, v in config.items() if v is not None and not isinstance(v, dict)}
    open_ones = {key: written[key] for key in sorted((known - set(given)) & set(written))}
    return recipe.with_changes({f"model.{key}": value for key, value in open_ones.items()})


def test_data(recipe: Recipe, data_dir: str | None = None) -> tuple[Any, tf.data.Dataset]:
    """The test split of a recipe and its batches, in a fixed order; for evaluation alone.

    Args:
        recipe: its section [data] and the task of its model; its first seed where that draws.
        data_dir: folder of prepared TFDS data sets.

    Raises:
        DataError: if the data set cannot be had, is too small for the recipe, or is one of your own
            whose splits name their classes differently.
    """
    split = load_split(recipe, "test", data_dir)
    known = getattr(recipe.model, "class_names", None)  # which training has settled
    for task, own in _misplaced(known, getattr(split, "class_names", None)):
        raise DataError(
            f"{recipe.path}: the model tells the classes {_few(_by_task(known)[task])} apart, and "
            f"the test split of '{recipe.data.name}' has them as {_few(own)}. Give both splits the "
            "same `class_names`, and number their labels by them."
        )
    return split, recipe.task.test_batches(split, recipe.data, recipe.training.seeds[0])


test_data.__test__ = False  # type: ignore[attr-defined]  # no test, whatever pytest thinks


def loss_of(recipe: Recipe) -> Any:
    """The loss that a recipe names, as Keras takes it.

    Raises:
        RecipeError: if there is none of this name.
    """
    name = recipe.training.loss
    assert name is not None  # a recipe that was read has one
    loss, wrong = attempt(lambda: losses.get(name), UnknownNameError)
    if wrong:
        raise RecipeError(f"{recipe.path}: `training.loss`: {wrong}") from wrong
    return loss


def averaging_of(recipe: Recipe, steps_per_epoch: int) -> float:
    """What the average keeps in each step; a short training would average how it began as well."""
    steps = recipe.training.epochs * steps_per_epoch
    return max(0.0, min(recipe.training.averaging, 1 - TENTH / steps))


def compile_model(model: keras.Model, recipe: Recipe, steps_per_epoch: int) -> None:
    """Give `model` the loss, the metrics and the optimizer of a recipe."""
    training = recipe.training
    rate: Any = training.learning_rate
    if not training.averaging:
        rate = keras.optimizers.schedules.CosineDecay(rate, training.epochs * steps_per_epoch)
    averaging: dict[str, Any] = {}
    if training.averaging:
        averaging = {"use_ema": True, "ema_momentum": averaging_of(recipe, steps_per_epoch)}
    if training.optimizer == "muon" and all(len(v.shape) != 4 for v in model.trainable_variables):
        raise RunError(
            f"{recipe.path}: `training.optimizer` is 'muon', which is for kernels of convolutions "
            f"over images, and of {recipe.model.class_name} none is trained. Choose 'adam'."
        )
    kind = {"adam": Adam, "muon": Muon}[training.optimizer or "adam"]
    optimizer = kind(rate, training.beta_1, training.beta_2, **averaging)
    arguments = dict(recipe.task.compile_arguments(loss_of(recipe)))
    outputs, metrics = getattr(model, "output", None), arguments.get("metrics")
    if isinstance(outputs, dict) and isinstance(metrics, list) and len(metrics) == 1:
        arguments["metrics"] = {name: list(metrics) for name in outputs}  # of each task
    # XLA makes small convolutions slower on a CPU
    model.compile(optimizer, **arguments, jit_compile=False)


def trained_part(
    model: keras.Model, recipe: Recipe, data: TrainingData
) -> tuple[keras.Model, TrainingData]:
    """What of a model its data train, with the data for that: the model itself, or a part."""
    if data.through is None or recipe.task.part is None:
        return model, data
    return recipe.task.part(model, data)


def check_data(model: keras.Model, recipe: Recipe, data: TrainingData) -> None:
    """See that the model takes the data.

    Raises:
        RunError: if the shapes of its inputs are others, or it names the classes of the data in
            another order.
    """
    specs = keras.tree.flatten((data.validation or data.batches(0, 1)).element_spec[0])
    if data.through is not None:  # each input of the model is as those of its part
        specs = specs[:1] * len(model.inputs)
    _check_names(getattr(model, "class_names", None), recipe, data.class_names)
    for given, tensor in zip(specs, model.inputs, strict=True):
        if not given.shape[1:].is_compatible_with(tensor.shape[1:]):
            raise RunError(
                f"{recipe.path}: the data set '{recipe.data.name}' gives inputs of shape "
                f"{tuple(given.shape[1:])}, and the model takes {tuple(tensor.shape[1:])}. Set "
                "[model] or data.name so that they agree."
            )


def _check_names(names: Any, recipe: Recipe, known: Any) -> None:
    """See that a class that the model names as the data do stands in the same place."""
    if names is None or known is None:
        return
    of_model, of_data = _by_task(names), _by_task(known)
    fields, name = type(recipe.model).model_fields, recipe.model.class_name
    has = f"{recipe.path}: the data set '{recipe.data.name}' has"
    counts = [{task: len(own) for task, own in one.items()} for one in (of_data, of_model)]
    if counts[0] != counts[1]:
        given, wanted = (count.get("", count) for count in counts)
        raise RunError(
            f"{has} {given} classes, and "
            + (f"`model.class_names` has {wanted} names. Name each class, or leave the names out."
               if "class_names" in fields
               else f"{name} always has {wanted}. Choose another model.")
        )  # fmt: skip
    for task, own in _misplaced(names, known):
        advice = "Number the classes of the data in that order"
        if "class_names" in fields:
            keys = ("class_names", "num_classes")
            left = [f"`model.{key}`" for key in keys if key in fields and not fields[key].default]
            leave = f"Leave {' and '.join(left)} out, or write" if left else "Write"
            advice = f"{leave} `model.class_names` in the order of the data"
        raise RunError(
            f"{has} the classes {_few(own)}{f' of {task!r}' if task else ''}, and the model names "
            f"them {_few(of_model[task])}: answers would have wrong names. {advice}."
        )


def _misplaced(names: Any, known: Any) -> Iterator[tuple[str, list[str]]]:
    """Tasks whose data have a class in another place than the model; others are renamed."""
    if names is None or known is None:
        return
    of_model = _by_task(names)
    for task, own in _by_task(known).items():
        places = {one: i for i, one in enumerate(of_model.get(task, ()))}
        if any(places.get(one, i) != i for i, one in enumerate(own)):
            yield task, own


def _by_task(names: Any) -> dict[str, list[str]]:
    """Names of classes by task; of one task alone by ''."""
    of_each = names if isinstance(names, Mapping) else {"": names}
    return {task: [*map(str, own)] for task, own in of_each.items()}


def _check_start(model: keras.Model, recipe: Recipe, start: str) -> None:
    if recipe.training.sharing != "shared":
        raise RunError(
            f"{recipe.path}: `training.sharing` is '{recipe.training.sharing}', and a model to "
            "start from is trained as it is. Set it to 'shared'."
        )
    if not isinstance(model, recipe.model_class):
        raise RunError(
            f"{recipe.path}: `model.class_name` is '{recipe.model.class_name}', and the model to "
            f"start from has '{type(model).__name__}'. Set the recipe to the model's own."
        )
    config = model.get_config()
    differing = [
        f"`model.{key}` is {shortened(repr(wanted))}, and the model to start from, '{start}', has "
        f"{shortened(repr(config.get(key)))}"
        for key in recipe.given["model"]
        if key != "class_name"
        and (wanted := getattr(recipe.model, key)) is not None
        and config.get(key) != wanted
    ]
    if differing:
        raise RunError(
            f"{recipe.path}: {'; '.join(differing)}. Set it to the model's own, or leave it out; "
            f"the data '{recipe.data.name}' are brought to what the model takes."
        )
