import bisect
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_shared.errors import KerasSharedError, attempt, boundary
from keras_shared.layers import OverFields
from keras_shared.tying.keras_private import run_graph

_TO_VECTORS = (
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
)
_LARGEST = 2**13  # pixels of a side of a window and a step
_NOT_ALIKE = (  # these look at the size of a map, or at places in it
    keras.layers.GroupNormalization,
    keras.layers.Resizing,
    keras.layers.CenterCrop,
    keras.layers.GlobalAveragePooling2D,  # with keepdims, which leaves maps of one pixel
    keras.layers.GlobalMaxPooling2D,
)


class ConvolutionError(KerasSharedError, ValueError):
    """A model cannot be applied at every position at once: the message names the layer and why."""


class Window(NamedTuple):
    """Where the scores of a convolutional model come from.

    Scores `[i, j]` are the answer for `image[i * step[0] :][: size[0]]`, and so for columns.

    Attributes:
        size: (rows, columns) of an image that gives scores at one position.
        step: (rows, columns) from one position to the next, the strides of all layers multiplied.
    """

    size: tuple[int, int]
    step: tuple[int, int]


def to_convolutional(model: keras.Model) -> keras.Model:
    """A trained classifier, applied at every position of an image of any size, by its own weights.

    What lies before the Flatten are convolutions already, and go over the larger image once; the
    dense layers behind it become a convolution of the size of the maps there, and convolutions of
    side 1 after it (`keras_shared.layers.OverFields`). Both models have the same layers and
    variables: training one trains the other. All scores equal those of `model` on each window
    alone, and most of the work of neighbours is done once.

    A ZeroPadding2D at the input is left out, and the window is larger by it: the converted LeNet-5
    takes 32x32 pixels, in whose middle are the 28x28 of `model`, with a margin that is empty in
    its training images. `window_of` gives the size of the window and the step between two.

    Args:
        model: a functional model or Sequential with one input (rows, columns, channels), channels
            last. Before its Flatten (or global pooling) all layers treat all positions alike.

    Returns:
        A functional model: (batch, any rows, any columns, channels) -> (batch, positions down,
        positions across, classes). It is saved and exported as any other.

    Raises:
        ConvolutionError: for a model with another input, without such a step to vectors or with
            several, or with a layer that answers otherwise in a larger image than at the border
            of a window: one with padding="same", which reads zeros there, a GroupNormalization,
            a LocallyConnected2D. The converted model is compared with windows alone on noise
            before it is returned.

    Example:
        >>> import keras
        >>> from keras_shared import to_convolutional
        >>> from keras_shared.sharing import window_of
        >>> from keras_shared.zoo import LeNet5
        >>> reader = to_convolutional(LeNet5.from_preset("lenet5_modern_mnist"))
        >>> window_of(reader)
        Window(size=(32, 32), step=(4, 4))
        >>> reader(keras.ops.zeros((1, 32, 140, 1))).shape  # five digits in a row
        TensorShape([1, 1, 28, 10])

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, section VII (space displacement neural networks);
        Long, Shelhamer, Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation",
        section 3.1.
    """
    known = getattr(model, "inputs", None) if isinstance(model, keras.Model) else None
    shapes = [tuple(t.shape) for t in known or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or None in shapes[0][1:]:
        raise ConvolutionError(
            f"to_convolutional takes a built functional model or Sequential with one input "
            f"(batch, rows, columns, channels) of known size. Received: {_given(model)} with "
            f"inputs of shapes {shapes}"
        )
    conversion = _Conversion(model)
    maps, converted = conversion.models()
    _compare(model, maps, converted, conversion.margin)
    return converted


def window_of(converted: keras.Model) -> Window:
    """Size and step of the window that a model of `to_convolutional` sees at each position.

    Args:
        converted: what `to_convolutional` returned, or the same loaded again.

    Raises:
        ConvolutionError: for a model that gives no map of positions.

    Example:
        >>> import keras
        >>> from keras_shared.sharing import window_of
        >>> image = keras.Input((None, None, 1))
        >>> window_of(keras.Model(image, keras.layers.Conv2D(2, 5, strides=3)(image)))
        Window(size=(5, 5), step=(3, 3))
    """
    known = isinstance(converted, keras.Model) and bool(getattr(converted, "inputs", None))
    shapes = [tuple(t.shape) for t in (*converted.inputs, *converted.outputs)] if known else []
    if not known or len(shapes[-1]) < 4 or shapes[0][1:3] != (None, None):
        raise ConvolutionError(
            "window_of takes a model from images of any size to a map of scores, as of "
            f"to_convolutional. Received: {_given(converted)} with inputs and outputs of shapes "
            f"{shapes}"
        )
    given = converted.inputs[0]

    def positions(rows: int, columns: int) -> tuple[int, int]:
        image = keras.KerasTensor((1, rows, columns, given.shape[-1]), given.dtype)
        scores, small = attempt(lambda: converted.compute_output_spec(image), ValueError)
        if small:  # than a window
            return 0, 0
        down, across = keras.tree.flatten(scores)[0].shape[1:3]
        return max(down, 0), max(across, 0)

    sides = range(_LARGEST)
    enough = bisect.bisect_left(sides, 1, key=lambda side: min(positions(side, side)))
    size, step = [], []
    for axis in (0, 1):

        def along(side: int, axis: int = axis) -> int:
            return positions(*((side, enough) if axis == 0 else (enough, side)))[axis]

        size.append(bisect.bisect_left(sides, 1, key=along))
        step.append(bisect.bisect_left(sides, 2, key=along) - size[-1])
        if size[-1] + step[-1] >= _LARGEST:
            raise ConvolutionError(
                f"'{converted.name}' gives {along(_LARGEST)} positions for an image of {_LARGEST} "
                f"pixels along axis {axis + 1}: expected a map that grows with the image. A layer "
                "in it looks at a whole map, or the step is larger than that."
            )
    return Window((size[0], size[1]), (step[0], step[1]))


class _Conversion:
    """The graph of a model, run again over images of any size."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._of_window: dict[int, Any] = {}  # id of a tensor -> what it is for one window
        self._size: tuple[int, int] | None = None
        self.margin = ((0, 0), (0, 0))

    def models(self) -> tuple[keras.Model, keras.Model]:
        """What gives the maps, and what gives the scores."""
        given = self._model.inputs[0]
        self._image = keras.Input((None, None, given.shape[-1]), dtype=given.dtype, name=given.name)
        self._of_window[id(self._image)] = keras.KerasTensor(given.shape, given.dtype)
        with boundary(
            f"'{self._model.name}' has no convolutional form", ConvolutionError,
            "Give each layer before its vectors, also in models inside of it, a name of its own, "
            "and put all outputs behind the vectors.",
        ):  # fmt: skip
            outputs = self._run(self._model, self._image)
            if self._size is None:
                raise ConvolutionError(
                    f"'{self._model.name}' has no Flatten, Reshape to vectors or global pooling "
                    "behind its maps: there is nothing to convert. Give a model without one a "
                    "keras.Input((None, None, channels))."
                )
            tail = keras.Model(self._vectors, outputs, name=f"{self._model.name}_on_fields")
            scores = OverFields(tail, self._size, name="over_fields")(self._maps)
            converted = keras.Model(self._image, scores, name=f"{self._model.name}_convolutional")
            return keras.Model(self._image, self._maps), converted

    def _run(self, model: keras.Model, *inputs: Any) -> Any:
        if isinstance(model, keras.Sequential):
            (x,) = inputs
            for layer in model.layers:
                x = self._call(layer, x)
            return x
        return run_graph(model, inputs, self._call)

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = [t for t in keras.tree.flatten(args) if isinstance(t, keras.KerasTensor)]
        if not all(id(t) in self._of_window for t in tensors):  # vectors: as in the model
            return layer(*args, **kwargs)
        if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):
            return self._run(layer, *args)
        windows = keras.tree.map_structure(lambda t: self._of_window.get(id(t), t), args)
        one = layer.compute_output_spec(*windows)
        if isinstance(layer, keras.layers.ZeroPadding2D) and args[0] is self._image:
            self.margin = layer.padding
            new = self._image
        elif isinstance(layer, _TO_VECTORS) and len(one.shape) == 2:
            return self._to_vectors(layer, args[0], windows[0])
        elif any(len(spec.shape) == 2 for spec in keras.tree.flatten(one)):
            raise ConvolutionError(
                f"{_named(layer)} makes vectors of maps, and how cannot be seen: expected a "
                "Flatten, a Reshape or a global pooling among the layers of the model. Put it "
                "there, by a model that is functional throughout."
            )
        else:
            _refuse(layer)
            with boundary(
                f"{_named(layer)} cannot be applied to maps of any size", ConvolutionError,
                "All layers before the Flatten must treat all positions alike.",
            ):  # fmt: skip
                new = layer(*args, **kwargs)
        pairs = zip(keras.tree.flatten(new), keras.tree.flatten(one), strict=True)
        self._of_window.update({id(t): spec for t, spec in pairs})
        return new

    def _to_vectors(self, layer: keras.Layer, maps: Any, window: Any) -> Any:
        """Where the maps become vectors, the rest of the model begins anew."""
        if len(maps.shape) != 4 or getattr(layer, "data_format", None) == "channels_first":
            raise ConvolutionError(
                f"{_named(layer)} makes vectors of {tuple(window.shape)}: expected (batch, rows, "
                "columns, channels)."
            )
        if self._size is not None:
            raise ConvolutionError(
                f"{_named(layer)} makes vectors of maps, and another layer before it does so too: "
                "expected one such place. Join the maps before they are flattened."
            )
        _, rows, columns, channels = window.shape
        self._size, self._maps = (rows, columns), maps
        self._vectors = keras.Input((rows * columns * channels,), dtype=maps.dtype)
        if isinstance(layer, (keras.layers.Flatten, keras.layers.Reshape)):
            return self._vectors
        return layer(keras.layers.Reshape((rows, columns, channels))(self._vectors))


def _refuse(layer: Any) -> None:
    """See that nothing in a layer depends on where the border of a window is."""
    padding = getattr(layer, "padding", None)
    if callable(getattr(layer, "geometry", None)):  # a reader of another layer's kernel
        padding = layer.geometry()["padding"]
    sides = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None) or 2
    sides = sides() if callable(sides) else sides
    if getattr(layer, "data_format", None) == "channels_first":
        raise ConvolutionError(
            f"{_named(layer)} has data_format='channels_first': expected maps (batch, rows, "
            "columns, channels). Build the model with 'channels_last'; the kernels are the same."
        )
    if isinstance(layer, keras.layers.Permute):
        raise ConvolutionError(
            f"{_named(layer)} moves the axes of maps: expected (batch, rows, columns, channels) up "
            "to the vectors. Train the model without it."
        )
    if padding == "same" and np.max(sides) > 1:
        raise ConvolutionError(
            f"{_named(layer)} has padding='same': at the border of a window it reads zeros, where "
            "a larger image has pixels. Train the model with padding='valid'."
        )
    if isinstance(layer, keras.layers.ZeroPadding2D):
        raise ConvolutionError(
            f"{_named(layer)} puts zeros around maps, where a larger image has pixels. Pad the "
            "images alone, in the first layer of the model."
        )
    if isinstance(layer, _NOT_ALIKE):
        raise ConvolutionError(
            f"{_named(layer)} looks at a whole map, and answers otherwise in a larger image. Train "
            "the model without it; BatchNormalization has a convolutional form."
        )


def _given(model: Any) -> str:
    name = f"'{model.name}'" if isinstance(model, keras.Layer) else repr(model)
    return f"{name} (of type {type(model).__name__})"


def _named(layer: Any) -> str:
    return f"{type(layer).__name__} '{layer.name}'"


def _compare(model: keras.Model, maps: keras.Model, converted: keras.Model, margin: Any) -> None:
    """See on noise that `maps`, what comes before the vectors, are those of each window alone."""
    (rows, columns), (down, across) = window_of(converted)
    given = model.inputs[0]
    *_, height, width, _ = maps.compute_output_shape((1, rows, columns, given.shape[-1]))
    tolerance = {"float16": 2e-2, "bfloat16": 0.1}.get(maps.outputs[0].dtype, 1e-4)
    random = np.random.default_rng(0)
    otherwise = (
        "One of its layers before the vectors looks at where in a map it is, or at all of it: "
        f"{[_named(layer) for layer in maps.layers]}. Train the model without that layer."
    )

    def maps_of(image: Any) -> Any:
        what = f"'{model.name}' cannot be applied to images of any size"
        with boundary(what, ConvolutionError, otherwise):
            return ops.convert_to_numpy(maps(image, training=False))

    for scale in (1, 255):  # whatever the model expects
        shape = (1, rows + 2 * down, columns + 2 * across, given.shape[-1])
        image = random.uniform(0, scale, shape).astype(given.dtype)
        whole = maps_of(image)
        for i, j in ((0, 0), (1, 2), (2, 1)):
            window = image[:, i * down :, j * across :][:, :rows, :columns]
            alone = maps_of(window)
            part = whole[:, i : i + height, j : j + width]
            if not np.allclose(part, alone, rtol=tolerance, atol=tolerance * np.abs(alone).max()):
                raise ConvolutionError(
                    f"'{model.name}' gives other maps in a larger image than for a window alone. "
                    f"{otherwise}"
                )
        image = random.uniform(0, scale, (1, *given.shape[1:])).astype(given.dtype)
        one = converted(np.pad(image, [(0, 0), *margin, (0, 0)]), training=False)
        for got, wanted in zip(
            keras.tree.flatten(one), keras.tree.flatten(model(image, training=False)), strict=True
        ):
            want = ops.convert_to_numpy(wanted)
            have = np.reshape(ops.convert_to_numpy(got), want.shape)
            if not np.allclose(have, want, rtol=1e-2, atol=1e-2 * np.abs(want).max()):
                raise ConvolutionError(
                    f"'{model.name}' and its convolutional form give other scores for one window: "
                    "a layer behind the maps answers otherwise each time. Leave it out."
                )
