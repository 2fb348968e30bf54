import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_shared.tying.keras_private import arguments_of, flatten_layers, take_arguments

CONVOLUTIONAL = (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)


@keras.saving.register_keras_serializable("keras_shared")
class Shared(keras.layers.Wrapper):
    """One layer or tower, with one set of weights, applied to each of several inputs.

    `y_i = layer(x_i)` for every input `x_i`. The gradient of the shared weights is the sum of
    the gradients of the uses. `n` inputs cost the parameters of one tower instead of `n`.

    `Shared` owns its layer, as every `keras.layers.Wrapper` does. To use the same tower in
    another (sub-)model as well, call it there through `keras_shared.layers.TiedLayer`.

    Args:
        layer: the layer or model to share: a Dense, a tower of Conv2D, a pretrained model.
        mode: `"looped"` (default) calls the layer once per input. `"joined"` concatenates
            the inputs along the batch, calls the layer once and cuts its outputs apart. The
            two agree for every layer that treats each example by itself. They differ in
            training for BatchNormalization: looped normalises each input with its own
            statistics and updates the moving averages once per input; joined takes one mean
            and variance over all inputs. Joined needs inputs of equal shape, without masks.
        **kwargs: arguments of `keras.layers.Layer`.

    Call:
        A list, tuple or dict of what the layer takes, one entry for each use. `mask` likewise; any
        other keyword argument is given to every use, or, as a list (tuple, dict) like the inputs,
        one entry to each. The states of an LSTM are two tensors for every use, or a list of those.

    Input shape:
        A list, tuple or dict of what the layer takes. A single tensor is refused.

    Output shape:
        The same list, tuple or dict, holding what the layer returns.

    Raises:
        ValueError: for an unknown `mode`; for inputs that are not a list, tuple or dict; for
            joined inputs of unequal shape, or with masks; for a stateful layer and several inputs.

    Example:
        >>> import keras
        >>> from keras_shared.layers import Shared
        >>> left, right = keras.Input((8,)), keras.Input((8,))
        >>> a, b = Shared(keras.layers.Dense(4))([left, right])
        >>> model = keras.Model([left, right], keras.layers.Dot(1)([a, b]))
        >>> model.count_params()  # one Dense: 8 * 4 + 4
        36

    Reference:
        Bromley et al. 1993, "Signature Verification using a 'Siamese' Time Delay Neural
        Network", section 3.
    """

    def __init__(self, layer: keras.Layer, mode: str = "looped", **kwargs: Any) -> None:
        if mode not in ("looped", "joined"):
            raise ValueError(f"`mode` must be 'looped' or 'joined'. Received: mode={mode!r}")
        super().__init__(layer, **kwargs)
        self.autocast = False  # the layer casts its inputs, or takes them as they are
        self.mode = mode
        self.supports_masking = True
        _, *others = arguments_of(layer)
        known = [name for name in others if name != "mask" and not name.startswith("*")]
        take_arguments(self, ["inputs", "mask", *known, "**kwargs"])

    def build(self, input_shape: Any) -> None:
        keeps = [one.name for one in flatten_layers(self.layer) if getattr(one, "stateful", False)]
        if keeps and len(_values(input_shape)) > 1:
            raise ValueError(
                f"Shared '{self.name}' calls '{self.layer.name}' once for each input, and its "
                f"stateful layer '{keeps[0]}' would go on in one use where another use ended. "
                "Build it with stateful=False, and pass states by `initial_state`."
            )
        needed = inspect.signature(self.layer.build).parameters.values()
        if sum(one.default is one.empty for one in needed) > 1:
            return  # its first call builds it, which knows the other shapes
        super().build(_values(input_shape)[0])
        spec = self.layer.input_spec
        axes = (spec.axes or {}) if isinstance(spec, keras.layers.InputSpec) else {}
        for shape in _values(input_shape):
            wrong = {a: n for a, n in axes.items() if shape[a] not in (None, n)}
            if wrong:
                raise ValueError(
                    f"Shared '{self.name}' calls '{self.layer.name}' on each input, which takes "
                    f"{wrong} (axis: size). Received: inputs of the shapes {_values(input_shape)}"
                )

    def call(self, inputs: Any, mask: Any = None, **kwargs: Any) -> Any:
        if self.mode == "joined":
            return _repack(inputs, self._call_joined(inputs, mask, kwargs))
        return self.as_calls(lambda layer, x, **given: layer(x, **given), inputs, mask, **kwargs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        shapes = [self.layer.compute_output_shape(s) for s in _values(input_shape)]
        return _repack(input_shape, shapes)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        # by a trial of `call`: the shapes of the first argument alone do not tell
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mode": self.mode}

    def as_calls(
        self, call: Callable[..., Any], inputs: Any, mask: Any = None, **kwargs: Any
    ) -> Any:
        """The outputs for `inputs`, with `call(layer, x, ...)` for each use of the layer."""
        uses = _values(inputs)
        given = [self._given(i, len(uses), inputs, kwargs) for i in range(len(uses))]
        if mask is not None and "mask" in arguments_of(self.layer):
            masks = self._one_each(mask, inputs, "mask")
            given = [
                k | ({} if m is None else {"mask": m}) for k, m in zip(given, masks, strict=True)
            ]
        return _repack(inputs, [call(self.layer, x, **k) for x, k in zip(uses, given, strict=True)])

    def _given(self, i: int, uses: int, inputs: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments of one use: its entry of a list like the inputs, or all."""

        def of_use(key: str, value: Any) -> Any:
            if type(value) is not type(inputs) or len(value) != uses:
                return value
            if key == "initial_state" and isinstance(value, (list, tuple)) and self._takes(value):
                return value
            return value[list(inputs)[i]] if isinstance(value, dict) else value[i]

        return {key: of_use(key, value) for key, value in kwargs.items()}

    def _takes(self, states: Sequence[Any]) -> bool:
        """Whether these are the several states of one use, of an LSTM say, and not one for each."""
        inner = getattr(self.layer, "forward_layer", self.layer)  # of a Bidirectional
        needed = 2 if isinstance(inner, CONVOLUTIONAL) else _count(getattr(inner, "state_size", ()))
        needed *= 1 if inner is self.layer else 2
        each = all(_count(one) == needed for one in states)
        return needed > 1 and not each and _count(states) == needed

    def _one_each(self, values: Any, inputs: Any, name: str) -> list[Any]:
        entries = list(values.values()) if isinstance(values, dict) else values
        if not isinstance(entries, (list, tuple)) or len(entries) != len(_values(inputs)):
            raise ValueError(
                f"Shared '{self.name}' takes `{name}` as a list like its inputs, one entry for "
                f"each use. Received: {name}={values!r}"
            )
        if isinstance(values, dict) and isinstance(inputs, dict):
            return [values[key] for key in inputs]
        return list(entries)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        return None  # each output already carries the mask that the layer gave it

    def _joined_arguments(self, uses: int, inputs: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments of all uses; own tensors one behind the other, as the inputs."""
        given = [self._given(i, uses, inputs, kwargs) for i in range(uses)]
        rows = [keras.tree.flatten(x)[0].shape[0] for x in _values(inputs)]

        def joined(*values: Any) -> Any:
            if all(value is None for value in values):
                return None
            sizes = [tuple(getattr(value, "shape", ()))[:1] for value in values]
            fits = zip(sizes, rows, strict=True)
            if all(size in ((None,), (n,)) or (size and n is None) for size, n in fits):
                return ops.concatenate(values, axis=0)
            if all(isinstance(v, (bool, int, float, str)) and v == values[0] for v in values):
                return values[0]
            raise ValueError(
                f"Shared '{self.name}' with mode='joined' calls its layer once, and a keyword "
                f"argument differs between the uses. Received: {values!r}. Use mode='looped'."
            )

        own = {key: [one[key] for one in given] for key in kwargs}
        return {
            key: value  # the same for each use
            if all(one is value for one in own[key]) and key != "initial_state"
            else keras.tree.map_structure(joined, *own[key])
            for key, value in kwargs.items()
        }

    def _call_joined(self, inputs: Any, mask: Any, kwargs: dict[str, Any]) -> list[Any]:
        uses = _values(inputs)
        shapes = [keras.tree.map_structure(lambda x: tuple(x.shape[1:]), x) for x in uses]
        if any(s != shapes[0] for s in shapes) or any(
            m is not None for m in keras.tree.flatten(mask)
        ):
            raise ValueError(
                f"Shared '{self.name}' with mode='joined' takes inputs of one shape and without "
                f"masks. Received: shapes {shapes}, mask={mask!r}. Use mode='looped'."
            )
        sizes = [ops.shape(keras.tree.flatten(x)[0])[0] for x in uses]
        joined = keras.tree.map_structure(lambda *x: ops.concatenate(x, axis=0), *uses)
        given = self._joined_arguments(len(uses), inputs, kwargs)
        outputs = self.layer(joined, **given)
        outputs = keras.tree.map_structure(lambda y: self._of_rows(y, sum(sizes)), outputs)
        parts, start = [], 0
        for size in sizes:
            end = start + size
            parts.append(keras.tree.map_structure(lambda y: y[start:end], outputs))  # noqa: B023
            start = end
        return parts

    def _of_rows(self, output: Any, rows: Any) -> Any:
        """An output of all uses, which must have a row for each of theirs."""
        found = tuple(getattr(output, "shape", ()))
        known = not found or (isinstance(rows, int) and found[0] is not None)
        if known and found[:1] != (rows,):
            raise ValueError(
                f"Shared '{self.name}' with mode='joined' calls '{self.layer.name}' once for the "
                f"{rows} rows of all uses, and expects as many of it. Received: an output of shape "
                f"{found}. Use mode='looped'."
            )
        # where they are known when it runs, another number of values fails there
        return output if known else ops.reshape(output, (rows, *ops.shape(output)[1:]))


def _count(tensors: Any) -> int:
    return len(keras.tree.flatten(tensors))


def _values(uses: Any) -> list[Any]:
    """The entries of the outermost list, tuple or dict, of tensors or of shapes."""
    values = list(uses.values()) if isinstance(uses, dict) else uses
    single = not isinstance(values, (list, tuple)) or isinstance(values[0], (int, type(None)))
    if not isinstance(values, (list, tuple)) or not values or single:
        raise ValueError(
            "Shared takes a list, tuple or dict of inputs, one entry for each use of its layer. "
            f"Received: {uses!r}. Call the layer itself for a single input."
        )
    return list(values)


def _repack(structure: Any, outputs: list[Any]) -> Any:
    if isinstance(structure, dict):
        return dict(zip(structure, outputs, strict=True))
    return type(structure)(outputs)
