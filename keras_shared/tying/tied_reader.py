import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_shared.errors import attempt, boundary
from keras_shared.tying.effective_weight import effective_weight, weight_names, weight_shape
from keras_shared.tying.keras_private import (
    SourceInSavedModel,
    being_copied,
    called_on,
    drop_layer,
    flatten_layers,
    frozen_into_program,
    outermost_layer,
    shapes_alone_matter,
    upstream_layers,
)
from keras_shared.tying.source_reference import SourceReference, refuse_description
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

    Training follows ownership: `fit` of a model that contains the reader and not its source (a
    decoder alone) reads the weight and leaves it as it is. Train the model that contains both, or
    `untie` the reader first.

    To write a reader of your own, subclass `TiedReader` and register the class with
    `keras.saving.register_keras_serializable`. Calling, saving, cloning, quantising and untying
    need what every layer has:

    - `source_classes`, the kinds of layers that it takes as a source, each with a `kernel`, a
      table of `embeddings`, or the two kernels of a SeparableConv; `source_attributes`, what else
      it must know of the source before that is found (strides, padding), which
      `describe_source()` then gives;
    - `build`: variables of its own, a bias for example, with shapes from `tied_weight_shape()`;
      at its end, `super().build(input_shape)`;
    - `call`: reads `tied_weight()` at every call, and keeps no copy;
    - `compute_output_shape`, and `get_config` for arguments of its own.

    `keras_shared.sharing` (the report, the picture, `unshare`) asks the reader for the rest:

    - `form`: how it reads the weight, `"as is"` by default;
    - `read_variables()`: which variables of the source it reads; all but biases by default;
    - `multiply_adds(weight, input_shape, output_shape)`: what a call costs; unknown by default;
    - `plain_counterpart()`: the Keras layer that computes the same with a weight of its own, and
      `plain_axes`, if that layer stores the weight with its axes in another order;
    - `convolves`: whether the weight is applied at every position, as a convolution's is;
    - `as_calls(call, ...)`, in place of a plain counterpart: the same computation written as calls
      of other layers. `keras_shared.layers.TiedLayer` has it.

    A subclass that computes something else than its base class defines these anew. Layers that
    are no readers may have `form`, `multiply_adds`, `convolves` and `as_calls` as well, and
    `without_sharing(weight)`: how many weights it would have in the place of this one, if no two
    positions inside of it shared any (`keras_shared.layers.HashedDense`).

    Args:
        source: the layer that owns the weight, or its description from a config.
        own_layer: after `keras_shared.tying.untie`, the copy of the source that this layer owns
            and reads; given only in a config.
        **kwargs: arguments of `keras.layers.Layer`.

    Raises:
        TieError: if `source` is not one of `source_classes`.

    Example:
        >>> import math
        >>> import keras
        >>> from keras_shared.sharing import sharing_report, unshare
        >>> from keras_shared.tying import TiedReader
        >>> @keras.saving.register_keras_serializable("example")
        ... class SameKernel(TiedReader):
        ...     source_classes = (keras.layers.Dense,)
        ...
        ...     def call(self, inputs):
        ...         return keras.ops.matmul(inputs, self.tied_weight())
        ...
        ...     def compute_output_shape(self, input_shape):
        ...         return (*input_shape[:-1], self.tied_weight_shape()[1])
        ...
        ...     def multiply_adds(self, weight, input_shape, output_shape):
        ...         return math.prod(input_shape[1:-1]) * math.prod(weight.shape)
        ...
        ...     def plain_counterpart(self):
        ...         return keras.layers.Dense, {
        ...             "units": self.tied_weight_shape()[1],
        ...             "use_bias": False,
        ...             "kernel_initializer": self.source_initializer(),
        ...             "dtype": self.dtype_policy,
        ...         }
        >>> inputs = keras.Input((4,))
        >>> first = keras.layers.Dense(4, name="first")
        >>> model = keras.Model(inputs, SameKernel(first, name="again")(first(inputs)))
        >>> report = sharing_report(keras.models.clone_model(model))
        >>> report.weights[0].readers["again"]
        Reading(form='as is', times=1)
        >>> report.totals["multiply_adds"]  # two kernels of 4 x 4, one bias
        36
        >>> model.count_params(), unshare(model).count_params()
        (20, 36)
    """

    source_classes: tuple[type[keras.Layer], ...] = (keras.layers.Layer,)
    source_attributes: tuple[str, ...] = ()
    form: str = "as is"
    plain_axes: tuple[int, ...] | None = None
    convolves: bool = False
    keeps_positions: bool = True  # so that a mask of the inputs is one of the outputs

    def __init__(
        self,
        source: keras.Layer | dict[str, Any],
        own_layer: keras.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(source, dict):
            self.refuse_source(source)
        super().__init__(**kwargs)
        self.supports_masking = self.keeps_positions
        self._reference = SourceReference(source, self.source_attributes)
        self.own_layer = own_layer

    @classmethod
    def refuse_source(cls, source: Any) -> None:
        """See that layers of this class can read `source`.

        Raises:
            TieError: if they cannot.
        """
        if not isinstance(source, cls.source_classes):
            raise TieError(
                f"{cls.__name__} reads the weight of another layer: pass a "
                f"{' or '.join(c.__name__ for c in cls.source_classes)} object as `source`. "
                f"Received: source={source!r} (of type {type(source).__name__})"
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        upstream = list(upstream_layers((args, kwargs)))
        if self._reference.may_lie_upstream():
            self._reference.bind(upstream, reader=self)
        if upstream:
            self._reference.note_upstream(upstream)
        return super().__call__(*args, **kwargs)

    def build(self, input_shape: Any) -> None:
        """The end of every `build`; the shared weight is not built here."""
        if self.untied and self.own_layer is None:
            raise TieError(
                f"{type(self).__name__} '{self.name}' was untied, and its config has no "
                "`own_layer`: an earlier state of keras_shared saved it, and kept its weight "
                "elsewhere. Call `keras_shared.tying.tie` on the layer there, and save it tied."
            )
        if self.own_layer is not None and not self.untied:
            raise TieError(
                f"{type(self).__name__} '{self.name}' is tied to "
                f"'{self._reference.describe()['name']}', and has an `own_layer`, which untied "
                "layers alone have: the config was edited. Restore it."
            )

    # What `untie` and `tie` do: an untied layer reads a copy of the source that it owns.

    def _own(self, source: keras.Layer) -> None:
        kind, config = type(source), source.get_config()
        if hasattr(source, "plain_class"):  # has no kernel of its own, as a ClusteredDense
            kind, config = source.plain_class, source.plain_config()
        changed = {
            "use_bias": False,
            "bias_axes": None,
            "name": f"{source.name}_of_{self.name}",
            "trainable": self.trainable,
        } | {key: None for key in config if key.endswith(("_regularizer", "_constraint"))}
        config |= {k: v for k, v in changed.items() if k in config}
        copy = kind.from_config(float_config(config, self.dtype_policy))
        if not copy.built:
            copy.build_from_config(source.get_build_config())
        _assign(copy, _weights(source, self.variable_dtype))
        self.own_layer = copy

    def _owned(self) -> list[Any]:
        """What an untied layer owns instead of its source's weight, as arrays."""
        return [] if self.own_layer is None else self._shared(self.own_layer)

    def _shared(self, source: keras.Layer) -> list[Any]:
        return [ops.convert_to_numpy(w) for w in _weights(source, self.variable_dtype)]

    def _disown(self, values: list[Any] | None, source: keras.Layer) -> None:
        if values is not None:
            _assign(source, values)
        drop_layer(self, self.own_layer)
        self.own_layer = None

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
                f"{type(self).__name__} '{self.name}' was untied and owns its weight. Call "
                "`keras_shared.tying.tie(layer, source)` to tie it again."
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
        hint = (
            f" A layer of that name has a weight of shape {others}: was its width changed, or is "
            "it the source of another copy, and this one's was renamed?"
        )
        raise TieError(
            f"{type(self).__name__} '{self.name}' is tied to the {wanted['class_name']} "
            f"'{wanted['name']}' (weight {wanted['weight_shape']}), which is not part of the "
            "model that is being called. Call the model that contains both, run "
            "`keras_shared.tying.bind_ties(model)` on it once after loading, or name the layer "
            "with `keras_shared.tying.tie(reader, source)`."
            f"{hint if others else ''}"
        )

    def refuse_circle(self, source: keras.Layer) -> None:
        """See that `source` does not call this layer, where this layer calls its source.

        Raises:
            TieError: if it does; the message names the layers.
        """
        ways = [(source, [source.name])] if hasattr(self, "as_calls") else []
        seen = {id(source)}
        for layer, way in ways:
            for inner in flatten_layers(layer):
                if inner is self:
                    raise TieError(
                        f"{type(self).__name__} '{self.name}' is tied in a circle: it calls "
                        f"{', which calls '.join(map(repr, way))}, which contains '{self.name}' "
                        "itself. Tie it to a layer that does not contain it."
                    )
                called = inner._reference.layer if isinstance(inner, TiedReader) else None
                if called is not None and hasattr(inner, "as_calls") and id(called) not in seen:
                    seen.add(id(called))
                    ways.append((called, [*way, called.name]))

    def tied_weight(self) -> Any:
        """The source's effective weight as a tensor in this layer's compute dtype.

        Of a SeparableConv a tuple of two.
        """
        if self.own_layer is not None:
            return effective_weight(self.own_layer, self.compute_dtype)
        if self._reference.layer is None and shapes_alone_matter():
            shape = self.tied_weight_shape()  # in `build` of a subclass
            if isinstance(shape[0], tuple):
                return tuple(ops.zeros(one, self.compute_dtype) for one in shape)
            return ops.zeros(shape, self.compute_dtype)
        source = self.source()
        self._refuse_constant(source)
        return effective_weight(source, self.compute_dtype)

    def tied_weight_shape(self) -> tuple[Any, ...]:
        """The shape of the weight, known from the description before the source is found.

        Of a SeparableConv a tuple of two shapes.
        """
        shape = self._reference.shape()
        if shape is None:
            name = self._reference.describe()["name"]
            raise TieError(
                f"{type(self).__name__} '{self.name}' reads the weight of '{name}', which has not "
                "been built, so its shape is unknown. Call the source on its input first, or build "
                f"it: `{name}.build((None, ...))`."
            )
        return tuple(tuple(n) if isinstance(n, list) else n for n in shape)

    def describe_source(self) -> dict[str, Any]:
        """Name, class and weight shape of the source, and its `source_attributes`.

        They stand in the config, so they are known before the source is found.
        """
        return dict(self._reference.describe())

    def read_variables(self) -> list[keras.Variable]:
        """The variables of the source that this layer reads: all but biases.

        Of a quantised source these are its codes and scales; of an untied layer they are its own.
        """
        owner = self.own_layer or self.source()
        return [v for v in owner.variables if not v.name.startswith("bias")]

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int | None:
        """How many multiply-adds of one example read `weight` in one call.

        Args:
            weight: a variable of this layer's own, or one of `read_variables()`.
            input_shape: shape of the (first) input of the call, batch included.
            output_shape: shape of its (first) output, batch included.

        Returns:
            The number; None if it is not known.
        """
        return None

    def plain_counterpart(self) -> tuple[type[keras.Layer], dict[str, Any]]:
        """The Keras layer that computes the same with a weight of its own.

        Returns:
            Its class, and its config without a name. A width stands there as `units` or
            `filters`, so that `unshare` can choose another.

        Raises:
            TieError: for a reader that does not define it.
        """
        raise TieError(
            f"unshare has no Keras layer to put in the place of {type(self).__name__} "
            f"'{self.name}', whose width it could choose. Define `plain_counterpart` in "
            f"{type(self).__name__}, or leave out `parameters`."
        )

    def has_plain_counterpart(self) -> bool:
        """Whether Keras has a layer that computes the same with a weight of its own."""
        return attempt(self.plain_counterpart, TieError)[1] is None

    def plain_values(self) -> list[Any]:
        """The weights with which the plain counterpart computes the same, as `set_weights` takes.

        The source's first, with its axes in the order of `plain_axes`; then those of its own.
        """
        (weight,) = self._shared(self.source())
        axes = self.plain_axes or tuple(range(weight.ndim))
        return [weight.transpose(axes), *self.get_weights()]

    def source_initializer(self) -> dict[str, Any]:
        """What the source's weight was drawn by, as a config for the plain counterpart."""
        source = self.source()
        names = ("embeddings", "depthwise", "kernel")
        drawn_by = next(d for n in names if (d := getattr(source, f"{n}_initializer", None)))
        config: dict[str, Any] = keras.initializers.serialize(drawn_by)
        return config

    def _refuse_constant(self, source: keras.Layer) -> None:
        if frozen_into_program(source.variables):
            raise TieError(
                f"{type(self).__name__} '{self.name}' reads the weight of '{source.name}', which "
                "is not part of the model that is being run: JAX would compile it in as a "
                "constant. Run the model that contains both."
            )

    def save_own_variables(self, store: Any) -> None:
        model, whole = being_copied()
        if model is not None and not whole and (said := self._lost_in(model)):
            warnings.warn(f"The weights of '{model.name}' are not complete: {said}", stacklevel=2)
        super().save_own_variables(store)
        if self.untied:
            store["untied"] = [1]  # so that these weights do not pass for those of a tied layer

    def _lost_in(self, model: keras.Layer) -> str:
        """Why a file of a model would be misread, if it would: what stands for the source there."""
        source, layers = self._reference.layer, flatten_layers(model)
        if source is None or any(layer is source for layer in layers):
            return ""
        if not any(layer is self for layer in layers):
            return ""  # its config alone is written, as of a teacher in a loss
        if not any(self._reference.is_like(layer) and layer is not self for layer in layers):
            return ""  # of a decoder alone, say, which then looks for its source
        return (
            f"{type(self).__name__} '{self.name}' reads the weight of a '{source.name}' that is "
            f"not part of it, and '{model.name}' has another '{source.name}', which would be read "
            "in its place. Call `keras_shared.tying.untie` on the reader, which then keeps the "
            "weight as its own, or build a model that contains the source."
        )

    def _described(self) -> dict[str, Any]:
        """The source in a config, and whether it lay apart from all graphs of the reader."""
        described, source = self._reference.describe(identified=True), self._reference.layer
        if source is None:
            return described
        graphs = [[*upstream_layers(tensors)] for tensors in called_on(self)]
        apart = bool(graphs) and not any(one is source for graph in graphs for one in graph)
        return {**described, "apart": apart}

    def load_own_variables(self, store: Any) -> None:
        if self.untied:
            kept = {key: store[key] for key in store.keys() if key != "untied"}  # noqa: SIM118
            if len(kept) == len(store.keys()):
                raise TieError(
                    f"{type(self).__name__} '{self.name}' was untied and owns its weight; the file "
                    "holds it as tied. Load the file into a model that is tied, and call "
                    "`keras_shared.tying.untie` then."
                )
            super().load_own_variables(kept)
            return
        found = [tuple(store[key].shape) for key in store.keys()]  # noqa: SIM118
        expected = [tuple(v.shape) for v in self.variables]
        if found != expected:
            wanted = self._reference.describe()
            raise TieError(
                f"{type(self).__name__} '{self.name}' is tied to '{wanted['name']}' (weight "
                f"{wanted['weight_shape']}) and owns variables {expected}; the file holds "
                f"{found} for it. If a model without ties was saved, or one after `untie`, call "
                "`keras_shared.load_weights(model, filepath)`, which takes it into this one (of a "
                "class of your own: build one as in Python there, and call it once before); to "
                "load it untied, call `keras_shared.tying.untie` on this one before; if the config "
                "was edited, restore it."
            )
        super().load_own_variables(store)

    def quantize(self, mode: Any = None, *args: Any, **kwargs: Any) -> None:
        """Of an untied layer its own weight; nothing to do while tied, for the source owns it."""
        if self.own_layer is not None:
            self.own_layer.quantize(mode, *args, **kwargs)

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        """Of an untied layer; a tied one owns no kernel to adapt.

        Raises:
            TieError: while it is tied; the message names the source. Of an untied tower too, whose
                layers have LoRA each by itself.
        """
        own = self.own_layer
        if own is not None and hasattr(own, "enable_lora"):
            own.enable_lora(*args, **kwargs)
            return
        if own is not None:
            raise TieError(
                f"{type(self).__name__} '{self.name}' owns the {type(own).__name__} "
                f"'{own.name}', which has no LoRA as a whole. Enable it on the layers "
                "inside of its `own_layer`."
            )
        name = self._reference.describe()["name"]
        raise TieError(
            f"{type(self).__name__} '{self.name}' owns no kernel. Enable LoRA on its source "
            f"'{name}' instead: this layer reads what it adds."
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "TiedReader":
        with boundary(
            f"{cls.__name__} '{config.get('name')}' has a config that was edited", TieError
        ):
            if not isinstance(config.get("source"), keras.Layer):
                refuse_description(config.get("source"))
            own = config.get("own_layer")
            if isinstance(own, dict):
                config = {**config, "own_layer": keras.saving.deserialize_keras_object(own)}
            layer: TiedReader = super().from_config(config)
            return layer

    def get_config(self) -> dict[str, Any]:
        model, whole = being_copied()
        if model is not None and whole and (said := self._lost_in(model)):
            raise TieError(f"'{model.name}' cannot be saved or cloned: {said}")
        config = {**super().get_config(), "source": self._described()}
        if self.own_layer is not None:
            config["own_layer"] = keras.saving.serialize_keras_object(self.own_layer)
        return config


def float_config(config: dict[str, Any], policy: Any) -> dict[str, Any]:
    """The config of a layer as one that is not quantised and has no LoRA.

    Args:
        config: of a layer that may be quantised or have LoRA.
        policy: dtype policy in the place of the quantised one.
    """
    changed = {"dtype": policy, "lora_rank": None, "quantization_config": None}
    return config | {key: value for key, value in changed.items() if key in config}


def _weights(source: keras.Layer, dtype: str) -> tuple[Any, ...]:
    weight = effective_weight(source, dtype)
    return weight if isinstance(weight, tuple) else (weight,)


def _assign(source: keras.Layer, values: Sequence[Any]) -> None:
    for name, value in zip(weight_names(source), values, strict=True):
        getattr(source, name).assign(value)
