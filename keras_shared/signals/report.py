import dataclasses
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared import losses
from keras_shared.errors import boundary
from keras_shared.losses import LOSSES
from keras_shared.signals.activations import passing
from keras_shared.signals.collecting import SignalError, Use, as_numpy, collect, first
from keras_shared.signals.jacobians import Jacobian, jacobian_of
from keras_shared.signals.ties import Tie, ties_of, weight_gradient, weights_by_layer
from keras_shared.signals.warnings import Weighed, warnings_of
from keras_shared.tying.keras_private import expect_layer, flatten_layers
from keras_shared.tying.layer_names import held_paths
from keras_shared.tying.state_kept import state_kept

LOSS_ADVICE = (
    "Pass a name of `keras.losses` or of keras_shared.losses.LOSSES, a keras.losses.Loss, or a "
    "function of (y_true, y_pred). For several outputs compile the model with the loss of each, "
    "and leave `loss` out."
)
BINS = 60  # of a histogram


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How often numbers lie between `low` and `high`, in as many equal parts as `counts` has."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LayerSignals:
    """What one use of a layer gives, and what gradient comes back to it.

    Attributes:
        layer: path of the layer in the model.
        kind: its class.
        use: number of the use, from 1.
        steps: calls that are taken together, of an RNN; 1 outside of one.
        shape: of what it gives, for one example.
        mean, deviation: of what it gives, over the examples and all its numbers.
        saturated: share of these at which an S-shaped activation (tanh, sigmoid, softsign) has less
            than 1/20 of its steepest slope; None without one.
        dead: share of the units (the last axis) whose activation has slope 0 for every example and
            position; None without an activation that acts on each number alone.
        gradient_mean, gradient_deviation: of the gradient of the loss of one example by what goes
            into the activation (by what the layer gives, without one); None if none arrives.
        gradient_norm: its root of the mean square, times the root of the number of elements of one
            example: how long it is.
        kernel_gradient_deviation: of what this use adds to the gradient of the mean loss by the
            kernel (the first weight of two axes or more); None without one, or if none arrives.
        jacobian: singular values of the layer at the first example; None where they were not asked
            for, or its input is no real number.
        outputs, gradients, kernel_gradients: histograms of these.
    """

    layer: str
    kind: str
    use: int
    steps: int
    shape: tuple[int, ...]
    mean: float
    deviation: float
    saturated: float | None
    dead: float | None
    gradient_mean: float | None
    gradient_deviation: float | None
    gradient_norm: float | None
    kernel_gradient_deviation: float | None
    jacobian: Jacobian | None
    outputs: Histogram | None
    gradients: Histogram | None
    kernel_gradients: Histogram | None

    @property
    def name(self) -> str:
        """The layer, and which use of it, if not the first."""
        return self.layer if self.use == 1 else f"{self.layer} ({self.use})"


@dataclasses.dataclass(frozen=True)
class SignalReport:
    """How signals pass through a model, forward and back. As text it is a table.

    Attributes:
        name: name of the model.
        examples: number of examples that were measured.
        loss: the loss of the gradients, or "a random direction" without targets.
        layers: one for each use of each layer that has or reads weights, or is an activation, in
            order of the calls.
        ties: what each use of a shared weight adds to its gradient.
        warnings: what will keep the model from learning, in sentences with a remedy.
    """

    name: str
    examples: int
    loss: str
    layers: tuple[LayerSignals, ...]
    ties: tuple[Tie, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain lists and dicts, ready for JSON; NaN and infinity become None."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain

    def __str__(self) -> str:
        from keras_shared.signals.table import as_table

        return as_table(self)


def signal_report(
    model: keras.Model, data: Any, loss: Any = None, jacobians: bool = True
) -> SignalReport:
    """How a signal and its gradient pass through each use of each layer of `model`.

    The model is run once on a batch, forward and back, without dropout; nothing in it changes. Two
    conditions decide whether it can learn: no layer starts saturated, and none starts dead. A
    shared layer has a row for each use, and a shared weight says what each use adds to its
    gradient.

    Args:
        model: any built Keras model: functional, sequential, subclassed, before training or after.
        data: a batch as `fit` takes it: `x`, a tuple `(x, y)` or `(x, y, sample_weight)`, or a
            `tf.data.Dataset` or a `keras.utils.PyDataset` of batches, of which the first is taken.
            Several inputs are a list or a dict. Some hundreds of examples are enough.
        loss: a name (of Keras, or of `keras_shared.losses.LOSSES`) or a `keras.losses.Loss`, to
            which gradients are taken; by default the one the model is compiled with. Without
            targets gradients are those of a random direction: the sum of the outputs times normal
            numbers.
        jacobians: whether to work out singular values, which takes longest.

    Raises:
        SignalError: if the model is not built, the data are no batch, are empty or hold NaN, there
            are targets and no loss, or a loss that does not fit them; if Keras runs on another
            backend than TensorFlow. It is a ValueError.

    Example:
        >>> import keras, numpy as np
        >>> import keras_shared
        >>> layers = [keras.layers.Dense(32, "tanh", kernel_initializer="he_normal")] * 3
        >>> model = keras.Sequential([keras.Input((32,)), *layers])
        >>> numbers = np.random.default_rng(0).normal(size=(64, 32)).astype("float32")
        >>> report = keras_shared.signal_report(model, 100 * numbers)
        >>> [layer.use for layer in report.layers], len(report.ties)
        ([1, 2, 3], 2)
        >>> report.layers[0].saturated > 0.9
        True
        >>> report.warnings[0].partition(":")[0]
        'saturated'

    Reference:
        Glorot & Bengio 2010, "Understanding the difficulty of training deep feedforward neural
        networks", figures 6 to 9; Saxe, McClelland, Ganguli 2014, section 3 (singular values).
    """
    if keras.backend.backend() != "tensorflow":
        raise SignalError(
            f"Signals are measured with TensorFlow. Received: backend {keras.backend.backend()}"
        )
    expect_layer(model)
    if not model.built or not model.weights:
        raise SignalError(
            f"'{model.name}' is not built, or has no weights. Call it once on its input first, or "
            "give it a keras.Input."
        )
    x, y, sample_weight = batch_of(data)
    examples = len(first(x))
    loss_of, loss_name = _loss_of(model, x, y, sample_weight, loss)

    def of_outputs(outputs: Any) -> Any:
        shapes = [tuple(t.shape) for t in keras.tree.flatten((y, outputs)) if t is not None]
        what = f"The loss, {loss_name}, cannot be computed of targets and outputs {shapes}"
        with boundary(what, SignalError):
            return loss_of(outputs)

    uses = collect(model, x, of_outputs, examples)
    names, weights = _names(model), weights_by_layer(model)
    with state_kept(model):  # layers are called again
        layers = tuple(
            _signals(use, jacobians, names, weights.get(id(use.layer), []), examples)
            for use in uses
        )
        ties = ties_of(model, uses, examples)
        norms = (layer.gradient_norm for layer in layers)
        weighed = [Weighed(use, norm) for use, norm in zip(uses, norms, strict=True)]
        warnings = warnings_of(layers, ties, weighed)
    return SignalReport(model.name, examples, loss_name, layers, tuple(ties), tuple(warnings))


def _names(model: keras.Model) -> dict[int, str]:
    """id of a layer -> its path as Keras has it, where no other has that, without the model's."""
    paths = held_paths(model)
    own = {id(la): la.path or la.name for la in flatten_layers(model)}
    times = Counter(own.values())
    return {
        key: (path if times[path] == 1 else paths[key]).removeprefix(f"{model.name}/")
        for key, path in own.items()
    }


def _signals(
    use: Use,
    jacobians: bool,
    names: dict[int, str],
    weights: list[keras.Variable],
    examples: int,
) -> LayerSignals:
    outputs = as_numpy([first(call.outputs) for call in use.calls])
    of_outputs = [of_call[0] if of_call else None for of_call in use.gradients]
    gradients = as_numpy(of_outputs if use.before[0] is None else use.before)
    shape = tuple(first(use.calls[0].outputs).shape[1:])
    arrived = gradients.size > 0
    passes = passing(use)
    wide = gradients.astype("float64")
    matrices = (v for v in weights if len(v.shape) > 1)
    kernel = next((v for v in matrices if not v.name.endswith(("_scale", "_zero"))), None)
    of_kernel = None
    if arrived and kernel is not None:
        of_kernel = weight_gradient(use, kernel) / examples
    return LayerSignals(
        layer=names.get(id(use.layer)) or use.layer.name,
        kind=type(use.layer).__name__,
        use=use.number,
        steps=len(use.calls),
        shape=shape,
        mean=float(outputs.mean(dtype="float64")),
        deviation=float(outputs.std(dtype="float64")),
        saturated=passes.saturated,
        dead=passes.dead,
        gradient_mean=float(wide.mean()) if arrived else None,
        gradient_deviation=float(wide.std()) if arrived else None,
        gradient_norm=float(np.sqrt((wide**2).sum() / len(first(use.calls[0].outputs))))
        if arrived
        else None,
        kernel_gradient_deviation=None if of_kernel is None else float(of_kernel.std()),
        jacobian=jacobian_of(use) if jacobians else None,
        outputs=_histogram(outputs),
        gradients=_histogram(gradients),
        kernel_gradients=None if of_kernel is None else _histogram(of_kernel),
    )


def _histogram(values: np.ndarray) -> Histogram | None:
    """Over eight deviations, or over all where that is less; what lies beyond is left out."""
    flat = values[np.isfinite(values)]
    if not flat.size:
        return None
    low, high = float(flat.min()), float(flat.max())
    mean, far = float(flat.mean()), 8 * float(flat.std())
    low, high = max(low, mean - far), min(high, mean + far)
    if not high > low:
        low, high = low - 0.5, low + 0.5
    counts, _ = np.histogram(flat, BINS, (low, high))
    return Histogram(low, high, tuple(map(int, counts)))


def batch_of(data: Any) -> tuple[Any, Any, Any]:
    """Inputs, targets and weights of a batch, as tensors.

    Args:
        data: as of `signal_report`.

    Raises:
        SignalError: for what is no batch, is empty, or holds NaN.
    """
    whole = isinstance(data, (tf.data.Dataset, keras.utils.PyDataset))
    if whole:
        with boundary("The first batch of the data cannot be taken", SignalError):
            given = isinstance(data, tf.data.Dataset)
            data = next(iter(data.take(1)), ()) if given else data[0]
    x, y, sample_weight = (
        (*data, None, None, None)[:3] if isinstance(data, tuple) else (data, None, None)
    )
    arrays = [array for array in keras.tree.flatten((x, y, sample_weight)) if array is not None]
    kept = x, y, None if whole else sample_weight  # one weight may be of a whole batch
    _refuse_no_arrays(data, [array for array in keras.tree.flatten(kept) if array is not None])
    shapes = [tuple(np.shape(array)) for array in arrays]
    if not arrays or x is None or any(not math.prod(shape) for shape in shapes):
        raise SignalError(
            f"The data are empty: expected a batch of some hundreds of examples. Received: arrays "
            f"of the shapes {shapes}"
        )
    if not whole and len({shape[0] for shape in shapes}) > 1:  # as `fit` refuses them
        raise SignalError(
            "Expected as many targets, and weights, as examples: arrays of one length. Received: "
            f"arrays of the shapes {shapes}"
        )
    for array in arrays:
        if np.issubdtype(np.asarray(array).dtype, np.floating) and not np.isfinite(array).all():
            raise SignalError(
                f"The data hold NaN or infinity, in an array of shape {np.shape(array)}. Remove "
                "these examples first."
            )
    to_tensors: Callable[[Any], Any] = lambda a: None if a is None else tf.convert_to_tensor(a)  # noqa: E731
    x, y, sample_weight = (keras.tree.map_structure(to_tensors, v) for v in (x, y, sample_weight))
    return x, y, sample_weight


def _refuse_no_arrays(data: Any, arrays: list[Any]) -> None:
    """Say of what is no array what it is, and how to make a batch of it."""
    strange = [one for one in arrays if not hasattr(one, "shape") or not tuple(one.shape)]
    if data is not None and not strange:
        return
    found = strange[0] if strange else data
    advice = ""
    if hasattr(found, "__next__"):
        advice = " It gives its batches once: take one yourself, next(data)."
    elif strange and found is not data and not hasattr(found, "shape"):
        advice = " Make arrays of lists: numpy.array(x)."
    raise SignalError(
        "Expected a batch as `fit` takes it: an array, or a tuple (x, y) of arrays, a list or a "
        "dict of them for several inputs, or batches as a tf.data.Dataset or a PyDataset. "
        f"Received: {repr(found)[:80]} (of type {type(found).__name__}).{advice}"
    )


def _named(loss: Any) -> Any:
    """A loss as Keras finds it, or one of the library; of a name of both, Keras' own."""
    with boundary(f"`loss` is none: {repr(loss)[:80]}", SignalError, LOSS_ADVICE):
        of_keras = not isinstance(loss, str) or hasattr(keras.losses, loss)
        ours = not of_keras and (loss in LOSSES or ":" in loss)
        return losses.get(loss) if ours else keras.losses.get(loss)


def _loss_of(
    model: keras.Model, x: Any, y: Any, sample_weight: Any, loss: Any
) -> tuple[Callable[[Any], Any], str]:
    """The loss by the outputs, mean over the examples, and its name."""
    if y is None:
        if loss is not None:
            raise SignalError("A loss needs targets: give the data as a tuple (x, y).")
        return _random_direction, "a random direction"
    if loss is not None:
        chosen = _named(loss)
        name = getattr(chosen, "name", getattr(chosen, "__name__", type(chosen).__name__))
        of_keras = getattr(chosen, "__module__", "").startswith("keras.")
        summed = len(first(x)) if getattr(chosen, "reduction", None) == "sum" else 1
        if not isinstance(chosen, keras.losses.Loss) and sample_weight is not None:
            chosen = _Mean(chosen, name)  # a function, which takes no weights

        def by_outputs(outputs: Any) -> Any:
            if sample_weight is None and not (of_keras and keras.tree.is_nested(outputs)):
                return tf.reduce_mean(chosen(y, outputs)) / summed
            if keras.tree.is_nested(outputs):
                raise SignalError(
                    f"`loss` is for a model of one output, and '{model.name}' gives "
                    f"{len(keras.tree.flatten(outputs))}. Compile it with the loss of each, and "
                    "leave `loss` out."
                )
            return tf.reduce_mean(chosen(y, outputs, sample_weight=sample_weight)) / summed

        return by_outputs, name
    if not model.compiled or model.loss is None:
        raise SignalError(
            f"'{model.name}' has no loss for the targets. Compile it first, give a `loss`, or "
            "leave the targets out."
        )
    parts = [one for one in keras.tree.flatten(model.loss) if one is not None]
    kinds = {getattr(one, "reduction", None) for one in parts}
    summed = len(first(x)) if kinds == {"sum"} else 1

    def of_model(outputs: Any) -> Any:
        loss = model.compute_loss(
            x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=False
        )
        return tf.reduce_mean(loss) / summed

    return of_model, "the model's own"


class _Mean(keras.losses.Loss):
    """The mean of a function of targets and outputs, as `compile` takes it."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        super().__init__(name=name)
        self.call = function


def _random_direction(outputs: Any) -> Any:
    random = np.random.default_rng(0)
    total = 0.0
    for output in keras.tree.flatten(outputs):
        if output.dtype.is_floating:
            along = random.normal(size=tuple(output.shape)).astype("float32")
            total += tf.reduce_sum(tf.cast(output, tf.float32) * along) / len(output)
    return total


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
