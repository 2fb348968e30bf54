import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_shared.errors import attempt, boundary
from keras_shared.tying import TiedReader, TieError, untie
from keras_shared.tying.keras_private import (
    arguments_of,
    flatten_layers,
    shapes_alone_matter,
    take_arguments,
)
from keras_shared.tying.source_reference import SourceReference
from keras_shared.tying.take_values import take_values


@keras.saving.register_keras_serializable("keras_shared")
class TiedLayer(TiedReader):
    """A second use of a layer or tower that another (sub-)model owns: all of its weights, no copy.

    `y = source(x)`. It adds no parameter. At one level of a graph, call the tower itself again:
    Keras keeps that. A tower that is used inside of two sub-models comes back from Keras' saving
    as two towers, or not at all; use it in the first and `TiedLayer(tower)` in the others. The cell
    of an RNN is shared so too: `RNN(cell)` and `RNN(TiedLayer(cell))`, which for one cell in both
    directions stand side by side: `Bidirectional` makes a copy of its layer.

    Args:
        source: the layer or model to call, owned elsewhere.
        output_shape: shape of the result, or nested shapes, batch included. Recorded when the
            layer is built; given only in a config.
        output_shapes: the same for each shape of the first input, where there were several.
        arguments: names of what the source's `call` takes; given only in a config.
        **kwargs: arguments of `keras.layers.Layer`.

    Call:
        As the source: several tensors, masks, states, `training`.

    Input shape:
        What the source takes.

    Output shape:
        What the source returns.

    Raises:
        TieError: if `source` is no Keras layer or cannot be found in the model that is called, or
            is the cell of an RNN with dropout of its own.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TiedLayer
        >>> tower = keras.layers.Dense(4, name="tower")
        >>> x = keras.Input((8,))
        >>> query = keras.Model(x, tower(x), name="query")
        >>> y = keras.Input((8,))
        >>> answer = keras.Model(y, TiedLayer(tower)(y), name="answer")
        >>> a, b = keras.Input((8,)), keras.Input((8,))
        >>> model = keras.Model([a, b], keras.layers.Dot(1)([query(a), answer(b)]))
        >>> model.count_params()  # one tower: 8 * 4 + 4
        36
    """

    source_attributes = ("state_size", "output_size")  # which an RNN asks of its cell

    def __init__(
        self,
        source: keras.Layer | dict[str, Any],
        output_shape: Any = None,
        arguments: Sequence[str] = ("inputs", "*args", "**kwargs"),
        output_shapes: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(source, **kwargs)
        self.autocast = False  # the source casts its inputs, or takes them as they are
        known = isinstance(source, keras.Layer)
        self.arguments = arguments_of(source) if known else list(arguments)
        take_arguments(self, self.arguments)
        self.output_shape = output_shape
        self.output_shapes = dict(output_shapes or {})
        of_cell = self.describe_source()
        if of_cell.get("state_size") is not None:
            self.state_size, self.output_size = of_cell["state_size"], of_cell["output_size"]

    @classmethod
    def refuse_source(cls, source: Any) -> None:
        """As of `TiedReader`; a cell with dropout is refused too."""
        super().refuse_source(source)
        masks = {name: getattr(source, name, 0.0) for name in ("dropout", "recurrent_dropout")}
        if getattr(source, "state_size", None) is not None and any(masks.values()):
            raise TieError(
                f"The cell '{source.name}' has dropout, whose mask belongs to one RNN. Build "
                "it without, and put a keras.layers.Dropout before each RNN. Received: "
                f"dropout={masks['dropout']}, recurrent_dropout={masks['recurrent_dropout']}"
            )

    def build(self, input_shape: Any) -> None:
        source = self.own_layer or self._reference.layer
        if source is not None:
            self.refuse_circle(source)
            if not source.built:
                source.build(input_shape)
            if len(inspect.signature(source.compute_output_shape).parameters) == 1:
                self.output_shape = source.compute_output_shape(input_shape)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        if self.own_layer is None and self._reference.layer is None and shapes_alone_matter():
            _, lost = attempt(self.source, TieError)
            known = self._known_shape(args)
            if lost and known is not None:  # within a layer that is built before the model
                return keras.tree.map_shape_structure(lambda s: self._zeros(s, args), known)
        if self.own_layer is None:
            self._refuse_constant(self.source())
        outputs = self.as_calls(lambda layer, *a, **k: layer(*a, **k), *args, **kwargs)
        if shapes_alone_matter():
            self._note_shapes(args, outputs)
        return outputs

    def _note_shapes(self, args: tuple[Any, ...], outputs: Any) -> None:
        self.output_shape = keras.tree.map_structure(lambda t: tuple(t.shape), outputs)
        if args:
            self.output_shapes[_key(_shapes(args[0]))] = self.output_shape

    def _known_shape(self, args: tuple[Any, ...]) -> Any:
        """What the source gives for inputs of these shapes, as the config says."""
        return self.output_shapes.get(_key(_shapes(args[0])) if args else "", self.output_shape)

    def _zeros(self, shape: Sequence[int | None], args: tuple[Any, ...]) -> Any:
        first = keras.tree.flatten(args)[0] if args else None
        sides = () if first is None else keras.ops.shape(first)
        known = [
            side if side is not None else sides[axis] if axis < len(sides) else 1
            for axis, side in enumerate(shape)
        ]
        return keras.ops.zeros(known, self.compute_dtype)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        if self.own_layer is None and self._reference.layer is None:
            return super().compute_output_spec(*args, **kwargs)
        # by a trial of `call`: the source may take and give several tensors
        outputs = keras.Operation.compute_output_spec(self, *args, **kwargs)
        self._note_shapes(args, outputs)
        return outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        source = self.own_layer or self._reference.layer
        if source is None:
            return self.output_shapes.get(_key(input_shape), self.output_shape)
        return source.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_shape": self.output_shape,
            "arguments": self.arguments,
        } | ({"output_shapes": self.output_shapes} if len(self.output_shapes) > 1 else {})

    def as_calls(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The output, with `call(layer, ...)` where the source is called."""
        return call(self.own_layer or self.source(), *args, **kwargs)

    def get_initial_state(self, batch_size: int | None = None) -> Any:
        """The states with which an RNN begins, if the source is its cell."""
        if self._reference.layer is None and self.own_layer is None and shapes_alone_matter():
            return keras.tree.map_structure(
                lambda size: keras.ops.zeros((batch_size, size), self.compute_dtype),
                self.state_size,
            )
        cell: Any = self.own_layer or self.source()
        if hasattr(cell, "get_initial_state"):
            return cell.get_initial_state(batch_size=batch_size)
        return [keras.ops.zeros((batch_size, cell.state_size), self.compute_dtype)]

    def read_variables(self) -> list[keras.Variable]:
        return []  # the calls of the source itself read them

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        return None  # the output already carries the mask that the source gave it

    def _own(self, source: keras.Layer) -> None:
        failed = f"{type(source).__name__} '{source.name}' cannot be copied for '{self.name}'"
        with boundary(failed, TieError, "Give its class a `get_config` with all its arguments."):
            config = source.get_config() | {"name": f"{source.name}_of_{self.name}"}
            copy, within = type(source).from_config(config), flatten_layers(source)
        take_values(copy, source)
        if not self.trainable:
            copy.trainable = False
        for mine, theirs in zip(flatten_layers(copy), within, strict=True):
            # a reader inside whose source lies outside gets a weight of its own as well
            if isinstance(theirs, TiedReader) and not theirs.untied:
                read = theirs.source()
                if all(read is not layer for layer in within):
                    mine._reference = SourceReference(read, theirs.source_attributes)
                    untie(mine)
        self.own_layer = copy

    def _shared(self, source: keras.Layer) -> list[Any]:
        weights: list[Any] = source.get_weights()
        return weights

    def _disown(self, values: list[Any] | None, source: keras.Layer) -> None:
        if values is not None:
            source.set_weights(values)
        super()._disown(None, source)


def _shapes(tensors: Any) -> Any:
    return keras.tree.map_structure(lambda t: tuple(t.shape), tensors)


def _key(shapes: Any) -> str:
    """Shapes as text: a config is JSON, which knows lists and texts as keys."""
    return str(keras.tree.map_shape_structure(list, shapes))
