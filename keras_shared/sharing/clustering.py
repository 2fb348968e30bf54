import warnings
from typing import Any

import keras
import numpy as np

from keras_shared.layers import (
    ClusteredConv1D,
    ClusteredConv2D,
    ClusteredConv3D,
    ClusteredDense,
    Conv2D,
    OverFields,
    Shared,
)
from keras_shared.sharing.copying import Copies, refuse_without_graph
from keras_shared.tying import TiedReader, TieError, effective_weight, readers_of
from keras_shared.tying.keras_private import flatten_layers
from keras_shared.tying.normalization import renew_normalization

_CLUSTERED: dict[type[keras.Layer], Any] = {
    kind.plain_class: kind
    for kind in (ClusteredDense, ClusteredConv1D, ClusteredConv2D, ClusteredConv3D)
} | {Conv2D: ClusteredConv2D}
_MADE = {*_CLUSTERED.values()}
_WRAPPERS = (keras.layers.TimeDistributed, Shared, OverFields)  # which own nothing but `layer`


def cluster(model: keras.Model, codes: int = 16) -> keras.Model:
    """A trained model whose kernels are each read from a codebook of few values.

    The values of each kernel of a Dense, Conv1D, Conv2D or Conv3D are clustered by k-means, from
    centres that lie evenly between the smallest and the largest; each position then holds the
    number of its centre. With 16 codes a position takes 4 bits in place of 32, in memory, in the
    `.keras` file and in a SavedModel. Biases, normalisation and layers of other kinds stay as they
    are. Layers that read a clustered kernel read it on, and one that is called several times, by
    `Shared` too, has one codebook.

    What comes back is trained as any model: `fit` changes the codebooks, each value by the sum of
    the gradients of its positions, and no position changes its code. That wins back most of what
    clustering lost; a tenth of the learning rate is a good start.

    Args:
        model: a functional model or a Sequential that was built and trained.
        codes: values in each codebook, 2 to 256; a position takes 1, 2, 4 or 8 bits, the least
            that number them.

    Returns:
        A new functional model or Sequential, not compiled; `model` stays as it is.

    Raises:
        TieError: for a model without a graph of layers or without such a kernel, a kernel that
            holds NaN or infinity, or a layer that lies inside of one without a graph.
        ValueError: for another number of codes.

    Warns:
        UserWarning: for layers of classes derived from these, which stay as they are.

    Example:
        >>> import keras
        >>> from keras_shared import cluster, sharing_report
        >>> model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(100)])
        >>> small = cluster(model, codes=16)
        >>> [sharing_report(m).totals["bytes"] for m in (model, small)]  # 4 bits, 16 floats, biases
        [120400, 15464]

    Reference:
        Han, Mao, Dally 2016, "Deep Compression: Compressing Deep Neural Networks with Pruning,
        Trained Quantization and Huffman Coding", section 3 (here without pruning and Huffman).
    """
    refuse_without_graph(model)
    if not isinstance(codes, (int, np.integer)) or not 2 <= codes <= 256:
        raise ValueError(f"`codes` must be a whole number from 2 to 256. Received: codes={codes!r}")
    layers: list[Any] = flatten_layers(model)
    kernels = [layer for layer in layers if type(layer) in _CLUSTERED]
    derived: list[Any] = [
        layer for layer in layers
        if isinstance(layer, tuple(_CLUSTERED)) and type(layer) not in {*_CLUSTERED, *_MADE}
    ]  # fmt: skip
    left = [f"{type(layer).__name__} '{layer.name}'" for layer in derived]
    if not kernels:
        names = dict.fromkeys(kind.__name__ for kind in _CLUSTERED)
        given = f" It has {left}, of classes of their own." if left else ""
        raise TieError(
            f"'{model.name}' has no layer to cluster: expected one of {[*names]} itself.{given}"
        )
    if left:
        warnings.warn(
            f"{left} stay as they are: what a class of its own does with its kernel is not known.",
            stacklevel=2,
        )
    return _Copy([*kernels, *readers_of(model)], codes).of_model(model)


class _Copy(Copies):
    """Clustered layers in the place of those with a kernel."""

    def __init__(self, touched: list[keras.Layer], codes: int) -> None:
        super().__init__(touched)
        self._codes = codes

    def new(self, layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, TiedReader):
            own = layer.own_layer
            read = {"own_layer": self.of(own)} if own else {"source": self.of(layer.source())}
            copy = type(layer).from_config({**layer.get_config(), **read})
            copy.build_from_config(layer.get_build_config())
            biases: dict[str, Any] = {}  # what it owns beside the layer that it reads
            layer.save_own_variables(biases)
            copy.load_own_variables(biases)
            return copy
        if type(layer) in _WRAPPERS:
            return type(layer)(**{**layer.get_config(), "layer": self.of(layer.layer)})
        if type(layer) not in _CLUSTERED:
            return super().new(layer)
        if layer.quantization_mode is not None:
            raise TieError(
                f"{type(layer).__name__} '{layer.name}' is quantised as "
                f"{layer.quantization_mode!r}. Cluster the model in place of quantising it."
            )
        kernel = keras.ops.convert_to_numpy(effective_weight(layer, "float32"))  # LoRA merged
        if wrong := int((~np.isfinite(kernel)).sum()):
            raise TieError(
                f"The kernel of {type(layer).__name__} '{layer.name}' holds NaN or infinity, "
                f"{wrong} of {kernel.size} values, as after a training that diverged. Cluster the "
                "model as it was before that."
            )
        config = {k: v for k, v in layer.get_config().items() if not k.startswith("lora_")}
        clustered = _CLUSTERED[type(layer)].from_config({**config, "codes": self._codes})
        clustered.build_from_config(layer.get_build_config())
        clustered.assign_codes(*_k_means(kernel, self._codes))
        if layer.bias is not None:
            clustered.bias.assign(layer.bias)
        renew_normalization(clustered)
        return clustered


def _k_means(kernel: np.ndarray, codes: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the values, and for each position the number of its own.

    On a line, the values of a centre lie side by side, so that sums between two places do: a
    thousand times faster than k-means for points of any dimension.
    """
    values = np.sort(kernel, axis=None).astype("float64")
    if len(different := np.unique(values)) <= codes:
        # those that nothing reads are 0, which regularisers of the codes do not count
        centres = np.pad(different, (0, codes - len(different)))
        return centres, np.searchsorted(different, kernel)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centres, before = np.linspace(values[0], values[-1], codes), np.zeros(0)
    while not np.array_equal(centres, before):
        before = centres
        ends = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        first, last = np.append(0, ends), np.append(ends, len(values))
        mean = (sums[last] - sums[first]) / np.maximum(last - first, 1)
        centres = np.where(last > first, mean, centres)  # one without values stays
    return centres, np.searchsorted((centres[1:] + centres[:-1]) / 2, kernel)
