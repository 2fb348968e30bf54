from typing import Any

import keras
from keras import ops

from keras_shared.tying.effective_weight import effective_weight, weight_shape
from keras_shared.tying.keras_private import (
    SourceInSavedModel,
    drop_variable,
    flatten_layers,
    frozen_into_program,
    outermost_layer,
    shapes_alone_matter,
    upstream_layers,
)
from keras_shared.tying.source_reference import SourceReference
from keras_shared.tying.tie_error import TieError


class TiedReader(SourceInSavedModel, keras.layers.Layer):
    """A layer that reads the weight of another layer, its source, and never owns it.

    One variable has exactly one owner, the source. A reader lists no shared variable, so a
    weight is counted, saved, regularised and decayed once, and the gradients of all its uses
    meet in it. The config of a reader describes the source; the pointer is found again, in
    this order:

    1. the layer given to the constructor;
    2. the layers upstream of the symbolic input (Functional, Sequential, `clone_model`,
       `from_config`), inside of sub-models too;
    3. the layers of the outermost model that is being called (encoder and decoder as
       sub-models, subclassed models);
    4. otherwise a `TieError` that says what to do.

    Training follows ownership: `fit` of a model that holds the reader and not its source (a
    decoder alone) reads the weight and leaves it as it is. Train the model that holds both, or
    `untie` the reader first.

    Args:
        source: the layer that owns the weight, or its description from a config.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    _source_classes: tuple[type[keras.Layer], ...] = (keras.layers.Layer,)
    _source_attributes: tuple[str, ...] = ()  # what a description holds beside name and shape

    def __init__(self, source: keras.Layer | dict[str, Any], **kwargs: Any) -> None:
        if not isinstance(source, (*self._source_classes, dict)):
            raise TieError(
                f"{type(self).__name__} reads the weight of a layer that is owned elsewhere: pass "
                f"a {' or '.join(c.__name__ for c in self._source_classes)} object as `source`. "
                f"Received: source={source!r} (of type {type(source).__name__})"
            )
        super().__init__(**kwargs)
        self.supports_masking = True
        self._reference = SourceReference(source, self._source_attributes)
        self.own_weight: keras.Variable | None = None  # after `untie` alone

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._reference.bind(upstream_layers((args, kwargs)), reader=self)
        return super().__call__(*args, **kwargs)

    def build(self, input_shape: Any) -> None:
        if self._reference.untied:  # from the config of a layer that was untied
            self._add_own_weight()

    def _add_own_weight(self) -> keras.Variable:
        self.own_weight = self.add_weight(name="kernel", shape=self.tied_weight_shape())
        return self.own_weight

    # What `untie` and `tie` do, here for one weight; TiedLayer does it for a whole layer.

    def _own(self, source: keras.Layer) -> None:
        weight = effective_weight(source, self.variable_dtype)
        self._add_own_weight().assign(weight)

    def _owned(self) -> list[Any]:
        """What an untied layer owns instead of its source's weight, as arrays."""
        return [] if self.own_weight is None else [ops.convert_to_numpy(self.own_weight)]

    def _shared(self, source: keras.Layer) -> list[Any]:
        return [ops.convert_to_numpy(effective_weight(source, self.variable_dtype))]

    def _disown(self, values: list[Any] | None, source: keras.Layer) -> None:
        if values is not None:
            weight = source.embeddings if hasattr(source, "embeddings") else source.kernel
            weight.assign(values[0])
        drop_variable(self, self.own_weight)
        self.own_weight = None

    @property
    def untied(self) -> bool:
        """Whether `keras_shared.tying.untie` cut this layer from its source."""
        return self._reference.untied

    def source(self) -> keras.Layer:
        """The layer that owns the weight.

        A method, because Keras' saving walks through every property of a layer.

        Raises:
            TieError: if the source was not found where this layer is called, or was cut off.
        """
        if self.untied:
            raise TieError(
                f"{type(self).__name__} '{self.name}' was untied and owns its weight. "
                "`keras_shared.tying.tie(layer, source)` ties it again."
            )
        if self._reference.layer is not None:
            return self._reference.layer
        model = outermost_layer()
        return self._find_source([] if model is None else flatten_layers(model))

    def _find_source(self, candidates: list[keras.Layer]) -> keras.Layer:
        self._reference.bind(candidates, reader=self)
        if self._reference.layer is not None:
            return self._reference.layer
        wanted = self._reference.describe()
        others = [weight_shape(c) for c in candidates if c.name == wanted["name"]]
        hint = f" A layer of that name has the weight {others}: were widths changed?"
        raise TieError(
            f"{type(self).__name__} '{self.name}' is tied to the {wanted['class_name']} "
            f"'{wanted['name']}' (weight {wanted['weight_shape']}), which is not part of the "
            "model that is being called. Call the model that holds both, or run "
            "`keras_shared.tying.bind_ties(model)` on it once after loading."
            f"{hint if others else ''}"
        )

    def tied_weight(self) -> Any:
        """The source's effective weight as a tensor in this layer's compute dtype."""
        if self.own_weight is not None:
            return ops.cast(self.own_weight, self.compute_dtype)
        if self._reference.layer is None and shapes_alone_matter():
            return ops.zeros(self.tied_weight_shape(), self.compute_dtype)  # `build` of a subclass
        source = self.source()
        self._refuse_constant(source)
        return effective_weight(source, self.compute_dtype)

    def tied_weight_shape(self) -> tuple[int, ...]:
        """The shape of the weight, known from the description before the source is found."""
        wanted = self._reference.describe()
        if wanted["weight_shape"] is None:
            raise TieError(
                f"{type(self).__name__} '{self.name}' reads the weight of '{wanted['name']}', "
                "which has not been built, so its shape is unknown. Call the source on its input "
                f"first, or build it: `{wanted['name']}.build((None, ...))`."
            )
        return tuple(wanted["weight_shape"])

    def _refuse_constant(self, source: keras.Layer) -> None:
        if frozen_into_program(source.variables):
            raise TieError(
                f"{type(self).__name__} '{self.name}' reads '{source.name}', which the model being "
                "run does not hold: under JAX its weight would be compiled in as a constant. Run "
                "the model that holds both."
            )

    def load_own_variables(self, store: Any) -> None:
        if self.untied:
            return super().load_own_variables(store)
        found = [tuple(store[key].shape) for key in store.keys()]  # noqa: SIM118
        expected = [tuple(v.shape) for v in self.variables]
        if found != expected:
            wanted = self._reference.describe()
            raise TieError(
                f"{type(self).__name__} '{self.name}' is tied to '{wanted['name']}' (weight "
                f"{wanted['weight_shape']}) and owns variables {expected}; the file holds "
                f"{found} for it. Saved untied: call `keras_shared.tying.untie` on the model, then "
                "load these weights. Otherwise the config was edited: restore it."
            )
        return super().load_own_variables(store)

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: storage belongs to the source, and `tied_weight` follows it."""

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        """A reader owns no kernel to adapt.

        Raises:
            TieError: always; the message names the source.
        """
        name = self._reference.describe()["name"]
        raise TieError(
            f"{type(self).__name__} '{self.name}' owns no kernel. Enable LoRA on its source "
            f"'{name}' instead: this layer follows it."
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "source": self._reference.describe()}
