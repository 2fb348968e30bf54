import math
import random
from numbers import Integral
from typing import Any, Literal

import keras
from pydantic import PositiveFloat, PositiveInt

from keras_shared.arguments import check_arguments
from keras_shared.initializers.svd import GREATEST_SEED

READINGS = ("as is", "transposed", "steps", "added", "residual")
GROWTH = 2.0  # what the variance may become over all blocks of a residual stack


def tied_scale(
    reading: Literal["as is", "transposed", "steps", "added", "residual"],
    inputs: PositiveInt,
    units: PositiveInt,
    times: PositiveInt = 1,
) -> float:
    """The gain for a weight with several readers: `scale` of `VarianceScaling` with its fan-in.

    A kernel `W` (inputs, units) has independent normal entries of variance `v`. The scale is
    `s = inputs * v`, as in `keras.initializers.VarianceScaling(s, "fan_in")`. It is the one that
    keeps the mean square of a signal through all the readers together. One reader: `x W` has
    `inputs * v` times the mean square of `x`, so `s = 1`. With an activation, multiply by its gain
    (2 for ReLU, 1 for tanh near 0) once for each reading: `s * gain`.

    Several readers of one weight are not several weights, since its entries meet themselves:

    - `"transposed"`: read as it is and transposed behind it, as in an autoencoder, `x W W^T`. In
      `E[(W W^T)^2]` the diagonal is `sum_jkl E[W_ij W_kj W_kl W_il]`: `j = l` gives
      `inputs * units * v^2`, `k = i` gives `units^2 * v^2`, and both at once, `E[W^4] = 3 v^2` in
      place of the two, adds `units * v^2`. So the mean square grows by
      `v^2 units (inputs + units + 1)`, for two separate weights by `v^2 units inputs`. Its root
      makes it 1: `s = inputs / sqrt(units (inputs + units + 1))`. `W W^T` is symmetric: backward
      asks for the same, and Glorot's compromise between two fans is not needed.
    - `"steps"`: read again and again, as by a recurrent net over `times` steps, `x W^T`, square.
      For `E |x W^times|^2` only those pairs of entries count that stand at the same step, up to
      terms of order `1 / inputs^2`: `(inputs * v)^times`, so `s = 1` however many steps. What
      many steps change is how exact that has to be, to `1 / times`; and draws have singular values
      from 0 to 2. `keras_shared.initializers.SVD` has all at 1.
    - `"added"`: on `times` independent inputs whose outputs are added:
      `times * inputs * v`, so `s = 1 / times`.
    - `"residual"`: one block, `x + x W`, applied `times` times, `x (1 + W)^times`. Of the powers of
      one `W` only equal ones agree: `E |x W^j|^2 = s^j`, `E (x W^j)(x W^k)^T = 0`. So the mean
      square grows by `sum_k C(times, k)^2 s^k`, for blocks with weights of their own by
      `(1 + s)^times`. It doubles for `s` of about `0.8 / times^2`, in place of `0.7 / times`: the
      contributions of one block point the same way, and add up by length.

    Args:
        reading: one of the above, or `"as is"` for one reader.
        inputs: rows of the kernel.
        units: its columns.
        times: how often it is read, where that counts.

    Returns:
        The scale; the variance of an entry is `scale / inputs`.

    Raises:
        ValueError: for another reading, sizes below 1, or a kernel that is no square where it is
            read behind itself.

    Example:
        >>> from keras_shared.initializers import tied_scale
        >>> round(tied_scale("transposed", 784, 30), 2)  # 1.0 for an encoder alone
        5.01
        >>> round(tied_scale("residual", 64, 64, times=12) * 12**2, 2)
        0.84

    Reference:
        Glorot & Bengio 2010, section 4.2.1, and He et al. 2015, section 2.2, for one reader;
        the fourth moment: Isserlis 1918. For several the derivation is above.
    """
    if reading not in READINGS:
        raise ValueError(f"`reading` must be one of {READINGS}. Received: reading={reading!r}")
    check_arguments(tied_scale, inputs=inputs, units=units, times=times)
    if reading in ("steps", "residual") and inputs != units:
        raise ValueError(
            f"A kernel that is read behind itself is a square. Received: inputs={inputs}, "
            f"units={units} with reading={reading!r}"
        )
    if reading == "transposed":
        return inputs / math.sqrt(units * (inputs + units + 1))
    if reading == "added":
        return 1 / times
    return _residual_scale(times) if reading == "residual" else 1.0


def _residual_scale(times: int) -> float:
    """The `s` with `sum_k C(times, k)^2 s^k = GROWTH`, by halving."""
    low, high = 0.0, 1.0  # at s = 1 it is 2 for one block, and more for several
    for _ in range(60):
        middle = (low + high) / 2
        term, total = 1.0, 1.0
        for k in range(1, times + 1):
            term *= ((times - k + 1) / k) ** 2 * middle
            total += term
            if total > GROWTH:
                break
        low, high = (low, middle) if total > GROWTH else (middle, high)
    return high


@keras.saving.register_keras_serializable("keras_shared")
class TiedScaling(keras.initializers.Initializer):
    """Entries whose variance suits a weight with several readers: `tied_scale`, drawn.

    `W_ij` has mean 0 and variance `tied_scale(...) * gain / inputs`, with `inputs` the product of
    all axes of the kernel but the last, and `units` the last.

    Args:
        reading: how it is read, as of `tied_scale`; by default as it is and transposed.
        times: how often, as of `tied_scale`.
        gain: of the activation behind each reading: 2 for ReLU, 1 for tanh near 0, 16 for a
            sigmoid near 0, whose slope is a quarter.
        distribution: as of `keras.initializers.VarianceScaling`.
        seed: a number, for the same draw at each call. By default every call draws anew, so that
            one object given to several layers starts each by itself.

    Raises:
        ValueError: as of `tied_scale`, when it is called with the shape.

    Example:
        >>> import keras
        >>> from keras_shared.initializers import TiedScaling
        >>> kernel = TiedScaling()((784, 30))
        >>> round(float(keras.ops.var(kernel)) * 784)
        5

    Reference:
        As of `keras_shared.initializers.tied_scale`.
    """

    def __init__(
        self,
        reading: Literal["as is", "transposed", "steps", "added", "residual"] = "transposed",
        times: PositiveInt = 1,
        gain: PositiveFloat = 1.0,
        distribution: Literal["truncated_normal", "untruncated_normal", "uniform"] = "uniform",
        seed: int | keras.random.SeedGenerator | None = None,
    ) -> None:
        check_arguments(TiedScaling.__init__, gain=gain)
        tied_scale(reading, 1, 1, times)
        keras.initializers.VarianceScaling(distribution=distribution)  # else Keras says why not
        self.reading = reading
        self.times = times
        self.gain = gain
        self.distribution = distribution
        seed = int(seed) if isinstance(seed, Integral) else seed  # NumPy's, which Keras refuses
        self.seed = keras.saving.deserialize_keras_object(seed) if isinstance(seed, dict) else seed

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        shape = tuple(shape)
        if len(shape) < 2:
            raise ValueError(
                f"TiedScaling draws kernels, of two axes or more. Received: shape={shape}. Biases "
                "and scales start from 'zeros' and 'ones'."
            )
        inputs, units = math.prod(shape[:-1]), shape[-1]
        scale = self.gain * tied_scale(self.reading, inputs, units, self.times)
        seed = random.randint(1, GREATEST_SEED) if self.seed is None else self.seed
        draw = keras.initializers.VarianceScaling(scale, "fan_in", self.distribution, seed)
        return keras.ops.reshape(draw((inputs, units), dtype), shape)

    def get_config(self) -> dict[str, Any]:
        number = isinstance(self.seed, (int, type(None)))
        return {
            "reading": self.reading,
            "times": self.times,
            "gain": self.gain,
            "distribution": self.distribution,
            "seed": self.seed if number else keras.saving.serialize_keras_object(self.seed),
        }
