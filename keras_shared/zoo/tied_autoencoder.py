import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import layers
from pydantic import NonNegativeFloat, PositiveInt

from keras_shared import initializers
from keras_shared.layers import TiedDense
from keras_shared.signature import Signature
from keras_shared.tying import readers_of, untie
from keras_shared.zoo.zoo_model import ZooModel

SLACK = 0.25  # beyond [0, 1]: what resizing or noise adds


@keras.saving.register_keras_serializable("keras_shared")
class TiedAutoencoder(ZooModel):
    """A deep autoencoder whose decoder reads the encoder's kernels, transposed.

    `h_k = f(h_{k-1} W_k + b_k)` down to the code, which is linear, and
    `g_{k-1} = f(g_k W_k^T + c_k)` back up, the reconstruction through a sigmoid. Each kernel
    `W_k` exists once and its gradient is the sum of both uses; only the biases `c_k` are the
    decoder's own. 784-1000-500-250-30 has 1,420,814 parameters instead of 2,837,314.

    Args:
        units: widths of the encoder's layers; the last is the code.
        input_dim: length of one input vector.
        activation: `f`, of all layers but the code and the reconstruction: any of Keras'; the
            paper's is a sigmoid.
        noise: standard deviation of Gaussian noise added to the input in training (a denoising
            autoencoder); 0 for none.
        tied: False unties it at the start, as the paper does for fine-tuning: each decoder layer
            then has a kernel of its own, at first its encoder layer's. `keras_shared.tying.untie`
            on a whole model leads to the same. Or the names of the decoder's layers that are tied,
            such as `["decoder_1"]`.
        kernel_initializer: initial kernels of all layers, as of `keras_shared.initializers.get`;
            None for Glorot's range, four times as wide for a sigmoid.
        dtype: dtype policy; the reconstruction is float32 in any case.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        Vectors (batch, input_dim) with values in [0, 1].

    Returns:
        Their reconstructions (batch, input_dim) in (0, 1).

    Raises:
        ValueError: for an empty `units`, or arrays of another width.

    Example:
        >>> import numpy as np
        >>> from keras_shared.zoo import TiedAutoencoder
        >>> model = TiedAutoencoder(units=(16, 4), input_dim=64)
        >>> model.compile("adam", loss="binary_crossentropy")
        >>> vectors = np.random.rand(10, 64)
        >>> history = model.fit(vectors, vectors, verbose=0)
        >>> codes = model.encode(vectors)
        >>> codes.shape, model.decode(codes).shape
        ((10, 4), (10, 64))

    Reference:
        Hinton & Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural
        Networks" (whose fine-tuning unties the decoder); initial kernels: Glorot & Bengio 2010,
        "Understanding the Difficulty of Training Deep Feedforward Neural Networks", and He et al.
        2015, "Delving Deep into Rectifiers", but for the sigmoid; noise:
        Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising
        Autoencoders".
    """

    task = "reconstruction"
    loss_names = ("binary_crossentropy", "mean_squared_error")
    description = (
        "Squeezes an image into a few numbers and back; each decoder layer reads its encoder "
        "layer's kernel transposed."
    )
    limits = (
        "It knows images like those it was trained on: others come back as the nearest thing it "
        "knows."
    )

    def __init__(
        self,
        units: Sequence[PositiveInt] = (1000, 500, 250, 30),
        input_dim: PositiveInt = 784,
        activation: Literal["sigmoid", "tanh", "relu", "gelu"] | Callable[..., Any] = "sigmoid",
        noise: NonNegativeFloat = 0.0,
        tied: bool | Sequence[str] = True,
        dtype: Any = None,
        kernel_initializer: initializers.InitializerName | keras.initializers.Initializer | None = (
            None
        ),
        **kwargs: Any,
    ) -> None:
        if not units or any(u < 1 for u in units) or input_dim < 1:
            raise ValueError(
                "`units` must hold at least one width, and widths and `input_dim` be positive. "
                f"Received: units={units}, input_dim={input_dim}"
            )

        # === Layers ===
        base = self._policy(dtype)
        last = len(units)
        activation = keras.activations.get(activation)
        # four times Glorot's limits: a sigmoid's slope at 0 is a quarter of that of tanh
        scale = 16.0 if activation is keras.activations.sigmoid else 2.0
        wide = keras.initializers.VarianceScaling(scale, "fan_avg", "uniform")
        drawn = wide if kernel_initializer is None else kernel_initializer
        down = [
            layers.Dense(
                u, None if i == last else activation, kernel_initializer=initializers.get(drawn),
                dtype=self._policy(dtype, f"encoder_{i}"), name=f"encoder_{i}",
            )
            for i, u in enumerate(units, 1)
        ]  # fmt: skip
        up = [
            TiedDense(dense, activation, dtype=base, name=f"decoder_{i}")
            for i, dense in reversed(list(enumerate(down[1:], 2)))
        ]
        up.append(TiedDense(down[0], "sigmoid", dtype="float32", name="decoder_1"))

        # === Encoder and decoder, each a model ===
        x = vector = keras.Input((input_dim,), name="vector")
        for layer in down:
            x = layer(x)
        encoder = keras.Model(vector, x, name="encoder")

        y = code = keras.Input((units[-1],), name="code")
        for layer in up:
            y = layer(y)
        decoder = keras.Model(code, y, name="decoder")

        # === Whole ===
        inputs = keras.Input((input_dim,), name="inputs")
        noisy = layers.GaussianNoise(noise, dtype=base, name="noise")(inputs)
        super().__init__(inputs, decoder(encoder(noisy)), **kwargs)

        # === Config ===
        self.encoder = encoder
        self.decoder = decoder
        self.units = tuple(units)
        self.input_dim = input_dim
        self.activation = activation
        self.noise = noise
        self.kernel_initializer = kernel_initializer
        self.base_policy = base
        names = [layer.name for layer in up]
        kept = [*(names if tied is True else tied or ())]
        if isinstance(tied, str) or {*kept} - {*names}:
            raise ValueError(
                f"`tied` must be True, False, or names of the decoder's layers, {names}. Received: "
                f"tied={tied!r}"
            )
        for layer in up:
            if layer.name in kept:
                continue
            untie(layer)
            own = layer.own_layer
            assert own is not None  # which it has from now on
            mode = self._policy(dtype, own.path).quantization_mode
            if mode is not None:  # of one that was quantised and saved
                own.quantize(mode)

    @classmethod
    def image_shape_of(cls, input_dim: int = 784, **arguments: Any) -> tuple[int, int, int] | None:
        side = math.isqrt(input_dim)
        return (side, side, 1) if side * side == input_dim else None

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`; an array of another width, or with NaN, is refused."""
        if isinstance(x, np.ndarray):
            x = _fractions(x, self.input_dim, "x")
        return super().predict(x, *args, **kwargs)

    def encode(self, vectors: Any) -> np.ndarray:
        """The code of each vector.

        Args:
            vectors: (batch, input_dim), values in [0, 1].

        Returns:
            float32 array (batch, units[-1]).

        Raises:
            ValueError: for arrays of another width, of no rows, or with NaN or infinity.

        Warns:
            UserWarning: for values beyond [0, 1], such as pixels from 0 to 255.
        """
        vectors = _fractions(vectors, self.input_dim, "vectors")
        codes: np.ndarray = self.encoder.predict(vectors, verbose=0)
        return codes

    def decode(self, codes: Any) -> np.ndarray:
        """The vector that each code stands for.

        Args:
            codes: (batch, units[-1]).

        Returns:
            float32 array (batch, input_dim), values in (0, 1).

        Raises:
            ValueError: for arrays of another width, of no rows, or with NaN or infinity.
        """
        codes = _checked(codes, self.units[-1], "codes")
        vectors: np.ndarray = self.decoder.predict(codes, verbose=0)
        return vectors

    def signatures(self) -> dict[str, Signature]:
        vector = keras.KerasTensor((None, self.input_dim))
        code = keras.KerasTensor((None, self.units[-1]))
        return {
            "reconstruct": Signature(
                lambda inputs: {"reconstruction": self(inputs, training=False)}, {"inputs": vector}
            ),
            "encode": Signature(
                lambda inputs: {"code": self.encoder(inputs, training=False)}, {"inputs": vector}
            ),
            "decode": Signature(
                lambda code: {"reconstruction": self.decoder(code, training=False)}, {"code": code}
            ),
        }

    def get_config(self) -> dict[str, Any]:
        read = [reader.name for reader in readers_of(self)]
        whole = len(read) == len(self.units)
        return {
            **super().get_config(),
            "units": self.units,
            "input_dim": self.input_dim,
            "activation": keras.activations.serialize(self.activation),
            "noise": self.noise,
            "tied": whole if whole or not read else read,
            "kernel_initializer": initializers.as_config(self.kernel_initializer),
        }


def _fractions(array: Any, width: int, name: str) -> np.ndarray:
    values = _checked(array, width, name)
    low, high = float(values.min()), float(values.max())
    if low < -SLACK or high > 1 + SLACK:
        advice = f" Pixels need {name} / 255." if low >= 0 and high > 2 else ""
        warnings.warn(
            f"`{name}` lies between {low:g} and {high:g}, and this model takes values in [0, 1]: "
            f"its answers are unreliable.{advice}",
            stacklevel=3,
        )
    return values


def _checked(array: Any, width: int, name: str) -> np.ndarray:
    values: np.ndarray = np.asarray(array)
    numbers = np.issubdtype(values.dtype, np.number) or values.dtype == bool
    if values.ndim != 2 or values.shape[1] != width or not numbers:
        raise ValueError(
            f"`{name}` must be numbers of shape (batch, {width}). "
            f"Received: an array of shape {values.shape} and dtype {values.dtype}"
        )
    if not len(values) or not np.isfinite(values).all():
        what = "NaN or infinity" if len(values) else "no rows"
        raise ValueError(f"`{name}` must be finite numbers for a row at least. Received: {what}")
    return values
