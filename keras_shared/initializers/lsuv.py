import contextlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_shared.eager import is_compiled
from keras_shared.initializers.svd import SVD
from keras_shared.tying import TiedReader
from keras_shared.tying.keras_private import expect_layer, flatten_layers, shapes_alone_matter
from keras_shared.tying.layer_names import weight_paths
from keras_shared.tying.state_kept import state_kept
from keras_shared.tying.watching import WatchedCall, watched

# what is scaled, of the layers that have it
OWNED = ("kernel", "pointwise_kernel", "embeddings", "codebook")
TOLERANCE = 0.05  # of the variance
TRIES = 10  # for one weight
SWEEPS = 5  # over all of them: a shared weight changes what those before it are read for


def LSUV(model: keras.Model, batch: Any) -> dict[str, float]:  # noqa: N802  (its name)
    """Layer-sequential unit variance: orthonormal kernels, then `rescale`.

    Each kernel `W` is drawn as `keras_shared.initializers.SVD` does, and multiplied by
    `1 / sqrt(Var(z))`, with `z` what its layer gives to the activation for `batch`, until
    `Var(z) = 1`, layer after layer. The scale is measured, where Glorot's and He's is worked out
    for one activation and for inputs that the data may not be like.

    Args:
        model: as of `rescale`; its kernels are drawn anew, but for those of layers that share
            inside of their matrix (HashedDense, a codebook), which are scaled alone. Biases stay.
        batch: as of `rescale`.

    Returns:
        As of `rescale`.

    Raises:
        ValueError: as of `rescale`.

    Example:
        >>> import keras, numpy as np
        >>> from keras_shared.initializers import LSUV
        >>> layers = [keras.Input((8,)), *(keras.layers.Dense(16, "relu") for _ in range(5))]
        >>> model = keras.Sequential(layers)
        >>> images = 100 * np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
        >>> factors = LSUV(model, images)
        >>> bool(0.2 < np.std(model.predict(images, verbose=0)) < 1.5)
        True

    Reference:
        Mishkin & Matas 2016, "All you need is a good init", algorithm 1.
    """
    _check_built(model)
    _checked_batch(batch)  # before anything changes
    draw = SVD()
    with _back_if_it_fails(model):
        for _, variable in _scalable(model):
            if len(variable.shape) > 1:
                variable.assign(draw(tuple(variable.shape), variable.dtype))
        return rescale(model, batch)


def rescale(model: keras.Model, batch: Any) -> dict[str, float]:
    """Multiply each kernel by a number, so that what its layers give on data has variance 1.

    Layer after layer, as they are called: `W <- c W`, with `c` such that the variance of `z` is 1,
    `z` what goes into the layer's activation (its output, if it has none). A weight that is read
    several times, as it is or by a `keras_shared.tying.TiedReader`, is scaled once, by the mean of
    the variances of all its uses. How those follow `c` is measured too: a kernel that is read
    transposed behind itself counts with its fourth power.

    Left as they are: frozen weights, kernels of one number, and the kernels of cells of an RNN,
    which has no one output to go by (see `keras_shared.initializers.SVD` for those).

    Args:
        model: a built model. Dropout is off; statistics and seeds stay as they are.
        batch: what the model is called on, for some hundreds of examples: an array, or a list,
            tuple or dict of them; or a `tf.data.Dataset` of batches as `fit` takes it, of which the
            inputs of the first are taken.

    Returns:
        Path of a weight -> the number that it was multiplied by.

    Raises:
        ValueError: for a model that is not built, an empty batch, or one with NaN or infinity; if a
            layer gives the same for all that it is given, or NaN. The weights are then as before.

    Warns:
        UserWarning: for a weight whose uses do not come to variance 1, or that no call reads.

    Example:
        >>> import keras, numpy as np
        >>> from keras_shared.initializers import rescale
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16)])
        >>> numbers = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
        >>> factors = rescale(model, 100 * numbers)
        >>> bool(abs(np.var(model.predict(100 * numbers, verbose=0)) - 1) < 0.05)
        True

    Reference:
        As of `LSUV`, the second half of the algorithm.
    """
    _check_built(model)
    batch = _checked_batch(batch)
    scalable = {id(v): v for _, v in _scalable(model)}
    paths = weight_paths(model, ((v, layer) for layer, v in _scalable(model)))
    factors = {paths[key]: 1.0 for key in scalable}
    with _back_if_it_fails(model), state_kept(model):
        variances = _variances(model, batch, scalable)
        if unread := [paths[key] for key in scalable if key not in variances]:
            warnings.warn(
                f"No layer that the model calls reads these weights: {unread}. They stay unscaled.",
                stacklevel=2,
            )
        for _ in range(SWEEPS):
            for key in variances:
                if not _near(variances[key]):
                    factor, variances = _to_unit_variance(model, batch, scalable, key, variances)
                    factors[paths[key]] *= factor
            if all(map(_near, variances.values())):
                break
        else:
            missed = {paths[k]: round(m, 3) for k, m in variances.items() if not _near(m)}
            warnings.warn(
                f"The mean variance of what reads these weights stays away from 1: {missed}. "
                "What else those layers add, such as a bias, is too large: make it smaller.",
                stacklevel=2,
            )
    return factors


def _to_unit_variance(
    model: keras.Model,
    batch: Any,
    scalable: dict[int, keras.Variable],
    key: int,
    variances: dict[int, float],
) -> tuple[float, dict[int, float]]:
    """Scale one weight, by Newton's steps on the logarithms; gives the factor and all variances."""
    variable = scalable[key]
    start = ops.convert_to_numpy(variable.value)
    log_factor, slope = 0.0, 2.0  # one reader: the variance goes by the square
    for _ in range(TRIES):
        found = math.log(variances[key])
        step = -found / slope
        log_factor += step
        variable.assign(ops.cast(start * math.exp(log_factor), variable.dtype))
        variances = _variances(model, batch, scalable)
        if _near(variances[key]):
            break
        slope = min(max((math.log(variances[key]) - found) / step, 0.5), 200.0)
    return math.exp(log_factor), variances


@contextlib.contextmanager
def _back_if_it_fails(model: keras.Model) -> Iterator[None]:
    """Put the weights that are scaled back, where an error ends the block."""
    kept = [(variable, ops.convert_to_numpy(variable)) for _, variable in _scalable(model)]
    with contextlib.ExitStack() as stack:
        for variable, value in kept:
            stack.callback(variable.assign, value)
        yield
        stack.pop_all()


def _near(variance: float) -> bool:
    return abs(variance - 1) < TOLERANCE


def _variances(
    model: keras.Model, batch: Any, scalable: dict[int, keras.Variable]
) -> dict[int, float]:
    """id of a weight -> mean over its uses of the variance of what they give, in order of use."""
    found: dict[int, list[float]] = {}
    wrong: list[str] = []  # raised after the call, in which Keras would wrap it
    compiled: dict[int, str] = {}

    def note(call: WatchedCall) -> None:
        if call.step is not None:
            return
        for variable in _read_by(call.layer):
            if id(variable) in scalable:
                output = keras.tree.flatten(call.outputs)[0]
                if is_compiled(output):
                    if not shapes_alone_matter():
                        compiled[id(variable)] = call.layer.path
                    continue
                given = ops.cast(output if call.before is None else call.before, "float32")
                variance = float(ops.var(given))
                if not variance > 0 or not math.isfinite(variance):
                    what = "the same for all" if variance == 0 else f"a variance of {variance}"
                    wrong.append(
                        f"'{call.layer.path}' gives {what}: no number times its weight "
                        f"'{variable.path}' brings that to variance 1. Look at what comes before "
                        "it: a bias that no unit gets over, too large weights, or weights of 0, "
                        "which LSUV draws anew; and give a batch of several different examples."
                    )
                    variance = 1.0
                found.setdefault(id(variable), []).append(variance)

    with watched(flatten_layers(model), note, seen=lambda _: None):
        model(batch, training=False)
    if lost := [*compiled.values()]:
        wrong.append(
            f"The layers {lost} run inside of a loop that TensorFlow compiles, as "
            "keras.ops.vectorized_map does: what they give cannot be measured. Give a model that "
            "calls them by themselves."
        )
    if wrong:
        raise ValueError(wrong[0])
    return {key: sum(each) / len(each) for key, each in found.items()}


def _read_by(layer: keras.Layer) -> list[keras.Variable]:
    if isinstance(layer, TiedReader):
        return layer.read_variables()
    return [v for name in OWNED if isinstance(v := getattr(layer, name, None), keras.Variable)]


def _scalable(model: keras.Model) -> Iterator[tuple[keras.Layer, keras.Variable]]:
    """The weights of a model that may be scaled, each once, with their owners."""
    cells = {id(part) for layer in flatten_layers(model) if isinstance(layer, keras.layers.RNN)
             for part in flatten_layers(layer)}  # fmt: skip
    seen: set[int] = set()
    for layer in flatten_layers(model):
        if isinstance(layer, TiedReader) or id(layer) in cells:
            continue
        for variable in _read_by(layer):
            floating = keras.backend.is_float_dtype(variable.dtype)
            if (
                math.prod(variable.shape) > 1
                and floating
                and variable.trainable
                and id(variable) not in seen
            ):
                seen.add(id(variable))
                yield layer, variable


def _check_built(model: keras.Model) -> None:
    expect_layer(model)
    if not model.built or not model.weights:
        raise ValueError(
            f"'{model.name}' is not built, and has no weights to scale. Call it once on its input "
            "first, or give it a keras.Input."
        )
    if not any(True for _ in _scalable(model)):
        raise ValueError(
            f"'{model.name}' has no kernel that can be scaled: those that it has, if any, are "
            "frozen, quantised or inside of an RNN."
        )


def _checked_batch(batch: Any) -> Any:
    if hasattr(batch, "element_spec") and hasattr(batch, "take"):  # a tf.data.Dataset
        batch = next(iter(batch.take(1)), ())
        batch = batch[0] if isinstance(batch, tuple) and batch else batch
    arrays = [np.asarray(ops.convert_to_numpy(a)) for a in keras.tree.flatten(batch)]
    if not arrays or any(not a.size for a in arrays):
        raise ValueError(
            "`batch` is empty: expected what the model is called on, for some hundreds of "
            f"examples. Received: arrays of the shapes {[a.shape for a in arrays]}"
        )
    for array in arrays:
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            count = int((~np.isfinite(array)).sum())
            raise ValueError(
                f"`batch` holds NaN or infinity, {count} times in an array of shape {array.shape}."
            )
    return keras.tree.map_structure(ops.convert_to_tensor, batch)
