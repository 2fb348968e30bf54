import math
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_shared.errors import KerasSharedError
from keras_shared.sharing.copying import Copies, refuse_without_graph
from keras_shared.tying import TieError
from keras_shared.tying.keras_private import flatten_layers

SPREAD, RANGE = 0.25, 0.6  # initial standard deviations; the means lie from -0.6 to 0.6
GAMMA_OF_ZERO = (5e3, 2.0)  # shape and rate of the prior of the precision: about 1 / 0.02 squared
GAMMA = (250.0, 0.1)
SLOWER, FASTER = 0.2, 6.0  # steps of means, and of precisions and shares, beside those of weights


class MixtureRegularizer(keras.regularizers.Regularizer):
    """A mixture of Gaussians that draws weights to few values; one object is shared by all layers.

    `penalty(w) = -sum_i log sum_j p_j N(w_i; m_j, 1 / l_j)`. The first component stays at
    `m_0 = 0` with `p_0 = zero_share`; the other means, all precisions `l_j` and the other shares
    are trained along with the weights: their gradient is the sum over all layers. Who trains them
    must know `variables`, as `SoftSharing` does.

    Args:
        components: Gaussians, that of zero included; at least 2.
        zero_share: `p_0`, above 0 and below 1.

    Raises:
        ValueError: for other numbers.
        TieError: when a layer that has it is saved or cloned.

    Example:
        >>> import keras
        >>> from keras_shared.sharing import MixtureRegularizer
        >>> mixture = MixtureRegularizer(components=3)
        >>> layer = keras.layers.Dense(2, kernel_regularizer=mixture)
        >>> layer(keras.ops.ones((1, 4))).shape, len(layer.losses), len(mixture.variables)
        (TensorShape([1, 2]), 1, 3)

    Reference:
        Nowlan & Hinton 1992, "Simplifying Neural Networks by Soft Weight-Sharing"; Ullrich, Meeds,
        Welling 2017, "Soft Weight-Sharing for Neural Network Compression", and its published code.
    """

    def __init__(self, components: int = 16, zero_share: float = 0.99) -> None:
        if (
            not isinstance(components, (int, np.integer))
            or components < 2
            or not isinstance(zero_share, (int, float, np.number))
            or not 0 < zero_share < 1
        ):
            raise ValueError(
                "`components` must be a whole number from 2, and `zero_share` above 0 and below 1. "
                f"Received: components={components!r}, zero_share={zero_share!r}"
            )
        self.components = components
        self.zero_share = zero_share
        others = components - 1
        means = np.linspace(-RANGE, RANGE, others) if others > 1 else np.array([RANGE])
        self._means = keras.Variable(means / SLOWER, dtype="float32", name="means")
        self._log_precisions = keras.Variable(
            np.full(components, -2 * math.log(SPREAD)) / FASTER,
            dtype="float32",
            name="log_precisions",
        )
        self._log_shares = keras.Variable(np.zeros(others), dtype="float32", name="log_shares")

    @property
    def variables(self) -> list[keras.Variable]:
        """What is trained, in the scale in which an optimizer steps through it."""
        return [self._means, self._log_precisions, self._log_shares]

    def means(self) -> Any:
        """(components,), the first of them 0."""
        return ops.concatenate([ops.zeros((1,)), SLOWER * ops.convert_to_tensor(self._means)])

    def log_precisions(self) -> Any:
        """(components,)."""
        return FASTER * ops.convert_to_tensor(self._log_precisions)

    def log_shares(self) -> Any:
        """(components,), whose exponentials sum to 1."""
        rest = math.log1p(-self.zero_share)
        others = ops.log_softmax(FASTER * ops.convert_to_tensor(self._log_shares)) + rest
        return ops.concatenate([ops.full((1,), math.log(self.zero_share)), others])

    def _log_densities(self, weights: Any) -> Any:
        """(weights, components): logarithm of share times density."""
        far = ops.reshape(ops.cast(weights, "float32"), (-1, 1)) - self.means()
        log_precisions = self.log_precisions()
        constant = self.log_shares() + (log_precisions - math.log(2 * math.pi)) / 2
        return constant - ops.square(far) * ops.exp(log_precisions) / 2

    def __call__(self, x: Any) -> Any:
        return -ops.sum(ops.logsumexp(self._log_densities(x), axis=-1))

    def of_precisions(self) -> Any:
        """`-log` of the Gamma priors of the precisions, which keep them from growing for ever."""
        shapes = np.array([GAMMA_OF_ZERO[0], *[GAMMA[0]] * (self.components - 1)], "float32")
        rates = np.array([GAMMA_OF_ZERO[1], *[GAMMA[1]] * (self.components - 1)], "float32")
        log_precisions = self.log_precisions()
        growth = ops.convert_to_tensor(1 - shapes) * log_precisions
        return ops.sum(growth + ops.convert_to_tensor(rates) * ops.exp(log_precisions))

    def nearest(self, weights: Any) -> np.ndarray:
        """Each weight as the mean of the component that is most likely to have drawn it."""
        numbers = ops.argmax(self._log_densities(weights), axis=-1)
        values: np.ndarray = ops.convert_to_numpy(ops.take(self.means(), numbers))
        return values.reshape(tuple(weights.shape))

    def get_config(self) -> dict[str, Any]:
        raise TieError(
            "Layers that share a MixtureRegularizer cannot be stored or cloned with it: each would "
            "come back with a mixture of its own, untrained. Use keras_shared.sharing.SoftSharing, "
            "which can be saved, or set their kernel_regularizer to None before that."
        )


@keras.saving.register_keras_serializable("keras_shared")
class SoftSharing(keras.Model):
    """Trains a model so that its kernels come to share few values, most of them zero.

    `L = L_model + strength / examples * (penalty(all kernels) + priors)`, with the penalty of one
    `MixtureRegularizer` that all kernels share. `collapsed()` then puts each position at the mean
    of its component, and `keras_shared.cluster` stores that as a codebook without any further loss:

        soft = SoftSharing(model, examples=60_000)
        soft.compile("adam", loss)
        soft.fit(x, y)
        small = keras_shared.cluster(soft.collapsed(), codes=16)

    Weights must have come to their means before the collapse. A constant learning rate, as in the
    paper's code, and 30 epochs did that where 20 epochs with a rate that falls to zero did not.

    It is the training of `model`, whose weights it changes; saved, it can be trained on. What is to
    be used is `collapsed()`, of the class of `model`.

    Args:
        model: a trained functional model or Sequential.
        examples: number of the training examples.
        components: see `MixtureRegularizer`; 16 values take 4 bits each.
        zero_share: see there.
        strength: of the penalty, beside the summed loss of all examples.
        **kwargs: `name`, as of `keras.Model`.

    Raises:
        TieError: for a model without a graph of layers.
        KerasSharedError: for a model without a kernel, or with a loss of its own that trains
            weights; in training, without a trainable kernel, or with LoRA or quantised layers.
        ValueError: for a number of examples or a strength that is not positive.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from keras_shared.sharing import SoftSharing
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> soft = SoftSharing(model, examples=8, components=4)
        >>> soft.compile("adam", "mse")
        >>> history = soft.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
        >>> len(np.unique(soft.collapsed().layers[0].kernel)) <= 4
        True

    Reference:
        Ullrich, Meeds, Welling 2017, "Soft Weight-Sharing for Neural Network Compression", section
        3 (here without merging components, and biases are left alone).
    """

    def __init__(
        self,
        model: keras.Model,
        examples: int,
        components: int = 16,
        zero_share: float = 0.99,
        strength: float = 0.003,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, number in {"examples": examples, "strength": strength}.items():
            if not isinstance(number, (int, float, np.number)) or not 0 < number < math.inf:
                raise ValueError(f"`{name}` must be a positive number. Received: {number!r}")
        if not isinstance(model, keras.Model):
            raise ValueError(
                f"`model` must be a trained Keras model. Received: {model!r} (of type "
                f"{type(model).__name__})"
            )
        if not getattr(model, "inputs", None):
            refuse_without_graph(model)
        _refuse(model)
        self.model = model
        if hasattr(model, "output_names"):  # by which `compile` knows losses of each
            self.output_names = model.output_names
        self.mixture = MixtureRegularizer(components, zero_share)
        self.mixture_variables = self.mixture.variables  # which Keras finds by this
        self.weight_of_penalty = strength / examples
        self.examples = examples
        self.strength = strength

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.model(inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + self.weight_of_penalty * self.penalty()

    def penalty(self) -> Any:
        """Of all kernels, and the priors of the mixture."""
        flat = [ops.reshape(kernel, (-1,)) for kernel in _kernels(self.model)]
        return self.mixture(ops.concatenate(flat)) + self.mixture.of_precisions()

    def collapsed(self) -> keras.Model:
        """A copy of the model whose trainable kernels hold the means of their components alone."""
        _kernels(self.model)  # may refuse
        copy: keras.Model = Copies(()).of(self.model)
        for kernel in _kernels(copy):
            kernel.assign(self.mixture.nearest(ops.convert_to_tensor(kernel)))
        return copy

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "trainable": self.trainable,
            "model": keras.saving.serialize_keras_object(self.model),
            "examples": self.examples,
            "components": self.mixture.components,
            "strength": self.strength,
            "zero_share": self.mixture.zero_share,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        return cls(**{**config, "model": model})


def _refuse(model: keras.Model) -> None:
    """See that there are kernels, and that the loss of `compile` trains all weights."""
    layers = flatten_layers(model)
    if not any(variable.name == "kernel" for layer in layers for variable in layer.variables):
        raise KerasSharedError(
            f"'{model.name}' has no kernel whose values could be shared. Build it first; layers "
            "that `cluster` made have few values already."
        )
    own = [v.name for v in model.trainable_variables
           if all(v is not w for layer in model.layers for w in layer.variables)]  # fmt: skip
    if own and type(model).compute_loss is not keras.Model.compute_loss:
        raise KerasSharedError(
            f"'{model.name}' has a loss of its own, which trains its {own}; here the loss of "
            "`compile` is what is trained. Build it without: a MultiTaskNet with weighting='fixed'."
        )


def _kernels(model: keras.Model) -> list[keras.Variable]:
    """The trainable kernels of Dense and convolutions, each once; an error if there is none."""
    found = {}
    for layer in flatten_layers(model):
        if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
            raise KerasSharedError(
                f"{type(layer).__name__} '{layer.name}' is quantised or has LoRA: its kernel is "
                "not what is trained. Draw the model to few values before that."
            )
        for variable in layer.trainable_variables:
            if variable.name == "kernel":
                found[id(variable)] = variable
    if not found:
        raise KerasSharedError(
            f"'{model.name}' has no trainable kernel. Set `trainable` of the layers to True that "
            "are to be drawn to few values."
        )
    return list(found.values())
