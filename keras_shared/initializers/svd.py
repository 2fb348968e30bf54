import math
import random
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

GREATEST_SEED = 10**9


@keras.saving.register_keras_serializable("keras_shared")
class SVD(keras.initializers.Initializer):
    """A weight whose singular values are chosen: drawn, decomposed, and put together anew.

    `G = U S V^T` with independent normal `G`, and `W = U S' V^T`. `U` and `V` keep the directions
    of the draw, which favour none; `S'` decides how much a layer stretches what it reads. With all
    singular values one, `W` is orthogonal (its rows or columns are orthonormal if it is no
    square): the length of what goes through, and of the gradient that comes back, stays, so that
    any depth, any number of steps and any number of readers leaves both as they are. A normal draw
    has singular values from 0 to 2: its product with itself loses some directions and blows up
    others. A weight that is read as it is and transposed has the same singular values in both.

    A kernel of more than two axes is taken as the matrix (all axes but the last, the last), as by
    `keras.initializers.Orthogonal`. With `delta=True` the kernel of a convolution is zero but for
    that matrix of (channels, filters) in its middle: delta-orthogonal. Then the convolution itself
    keeps lengths, at every depth, where its outputs are no fewer than its inputs.

    Args:
        singular_values: one number for all; a list, of `min(rows, columns)` numbers; or None for
            those of the draw (or of `matrix`), which `norm` then scales.
        norm: what the matrix is scaled to at the end; None to leave it.
        ord: which norm that is: `"fro"` (the root of the sum of squares), `2` (the largest singular
            value) or `"nuc"` (their sum), as of `numpy.linalg.norm`.
        matrix: a matrix, or a whole kernel, whose directions are kept in place of a draw.
        delta: whether kernels of a convolution are zero but for their middle. It is for those
            alone: a kernel of attention has three axes as one of Conv1D, and would lose nearly all.
        seed: a number, for the same draw at each call, in each layer of one shape. By default every
            call draws anew, so that one object given to several layers starts each by itself.

    Call:
        `shape`, with two axes or more, and `dtype`. The decomposition is done in float32 or wider.

    Raises:
        ValueError: for numbers that are negative or not finite, another number of them than the
            shape has, or a shape of one axis; for a `matrix` that is singular, where its missing
            directions would be given a value.

    Example:
        >>> import keras, numpy as np
        >>> from keras_shared.initializers import SVD
        >>> kernel = keras.layers.Dense(3, kernel_initializer=SVD())
        >>> kernel.build((None, 5))
        >>> np.linalg.svd(kernel.kernel.numpy(), compute_uv=False).round(4).tolist()
        [1.0, 1.0, 1.0]
        >>> SVD(singular_values=[3, 2, 0])((3, 3)).shape
        TensorShape([3, 3])

    Reference:
        Saxe, McClelland, Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning in
        deep linear neural networks", section 3; Xiao et al. 2018, "Dynamical Isometry and a Mean
        Field Theory of CNNs", section 2.4 and algorithm 2 (delta-orthogonal).
    """

    def __init__(
        self,
        singular_values: float | Sequence[float] | None = 1.0,
        norm: float | None = None,
        ord: Literal["fro", "nuc", 2] = "fro",
        matrix: Any = None,
        delta: bool = False,
        seed: int | keras.random.SeedGenerator | None = None,
    ) -> None:
        values = np.asarray(1.0 if singular_values is None else singular_values, "float64")
        if values.ndim > 1 or not np.isfinite(values).all() or (values < 0).any():
            raise ValueError(
                "`singular_values` must be a number, a list of numbers or None, none of them "
                f"negative, NaN or infinite. Received: singular_values={singular_values!r}"
            )
        if norm is not None and not (math.isfinite(norm) and norm > 0):
            raise ValueError(f"`norm` must be a number above 0, or None. Received: norm={norm!r}")
        if ord not in ("fro", "nuc", 2):
            raise ValueError(f"`ord` must be 'fro', 'nuc' or 2. Received: ord={ord!r}")
        if norm is not None and not values.any():
            raise ValueError(
                f"Singular values that are all zero cannot have norm={norm}. Leave `norm` out."
            )
        self.singular_values = None if singular_values is None else values.tolist()
        self.norm = norm
        self.ord = ord
        self.matrix = None if matrix is None else _checked_matrix(matrix, self.singular_values)
        self.delta = delta
        seed = int(seed) if isinstance(seed, Integral) else seed  # NumPy's, which Keras refuses
        self.seed = keras.saving.deserialize_keras_object(seed) if isinstance(seed, dict) else seed

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        shape, dtype = tuple(shape), keras.backend.standardize_dtype(dtype)
        if len(shape) < 2:
            raise ValueError(
                "SVD draws matrices, and kernels of more axes. Received: "
                f"shape={shape}. Biases and scales start from 'zeros' and 'ones'."
            )
        spatial = shape[:-2] if self.delta else ()
        inner = (shape[-2] if self.delta else math.prod(shape[:-1]), shape[-1])
        matrix = ops.cast(self._matrix(shape, inner, dtype), dtype)
        if not spatial:
            return ops.reshape(matrix, shape)
        middle = np.zeros(spatial, bool)
        middle[tuple((side - 1) // 2 for side in spatial)] = True  # that of padding "same"
        return ops.reshape(ops.cast(middle, dtype), (*spatial, 1, 1)) * matrix

    def _matrix(self, shape: tuple[int, ...], inner: tuple[int, int], dtype: str) -> Any:
        wide = dtype if dtype == "float64" else "float32"
        if self.matrix is not None:
            if self.matrix.shape not in ((inner,) if self.delta else (inner, shape)):
                raise ValueError(
                    f"`matrix` has the shape {self.matrix.shape}, and the weight {shape}: expected "
                    f"a matrix of {inner}" + ("." if self.delta else f", or a kernel of {shape}.")
                )
            drawn = ops.convert_to_tensor(self.matrix.reshape(inner), wide)
        else:
            seed = random.randint(1, GREATEST_SEED) if self.seed is None else self.seed
            drawn = keras.random.normal(inner, dtype=wide, seed=seed)
        left, values, right = ops.svd(drawn, full_matrices=False)
        count = min(inner)
        if self.singular_values is not None:
            wanted: Any = np.asarray(self.singular_values)
            if wanted.ndim and len(wanted) != count:
                raise ValueError(
                    f"A weight of shape {shape} has {count} singular values. Received: "
                    f"{len(wanted)} in `singular_values`"
                )
            values = ops.convert_to_tensor(np.broadcast_to(wanted, count), wide)
        if self.norm is not None:
            size = ops.sqrt(ops.sum(ops.square(values)))
            if self.ord != "fro":
                size = ops.sum(values) if self.ord == "nuc" else ops.max(values)
            values = values * (self.norm / size)
        return ops.matmul(left * values, right)

    def get_config(self) -> dict[str, Any]:
        number = isinstance(self.seed, (int, type(None)))
        return {
            "singular_values": self.singular_values,
            "norm": self.norm,
            "ord": self.ord,
            "matrix": None if self.matrix is None else self.matrix.tolist(),
            "delta": self.delta,
            "seed": self.seed if number else keras.saving.serialize_keras_object(self.seed),
        }


def _checked_matrix(matrix: Any, singular_values: Any) -> np.ndarray:
    array: np.ndarray = np.asarray(matrix, "float64")
    if array.ndim < 2 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            "`matrix` must have two axes or more and finite numbers. Received: an array of shape "
            f"{array.shape}" + ("" if np.isfinite(array).all() else " with NaN or infinity")
        )
    flat = array.reshape(-1, array.shape[-1])
    values = np.linalg.svd(flat, compute_uv=False)
    # as of numpy.linalg.matrix_rank, at the precision of float32, in which the weight is made
    rank = int((values > values.max() * max(flat.shape) * np.finfo("float32").eps).sum())
    kept = singular_values is None
    if rank < len(values) and not (kept and rank):
        raise ValueError(
            f"`matrix` is singular: of its {len(values)} singular values {len(values) - rank} are "
            "0, and their directions are not determined. Give a matrix of full rank"
            + (", or singular_values=None to keep its own." if rank else ".")
        )
    return array


def refuse_delta(initializer: Any, layer: keras.Layer) -> None:
    """See that a layer whose kernels have no middle is not given a delta-orthogonal one."""
    if getattr(initializer, "delta", False):
        raise ValueError(
            f"{type(layer).__name__} '{layer.name}' has no kernel (rows, columns, channels, "
            "filters) with a middle that delta-orthogonal values could stand in: nearly all its "
            "weights would be 0. Use keras_shared.initializers.SVD(), or its name 'svd', here."
        )
