"""A second use of a block that shares a part of it, and has the rest for its own."""

import warnings
from typing import Any

import keras

from keras_shared.errors import boundary
from keras_shared.layers.relaxed_dense import RelaxedDense
from keras_shared.tying.keras_private import children_of, flatten_layers, replace_layer, run_graph
from keras_shared.tying.tie_error import TieError
from keras_shared.tying.tied_reader import float_config

NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)


def copy_of(layer: keras.Layer, name: str, number: int) -> keras.Layer:
    """A layer of the same config, whose weights are drawn anew.

    Args:
        layer: what to copy.
        name: name of the copy.
        number: added to every seed in the config, which would else draw the same weights again.
    """
    config = _anew(layer.get_config(), 1_000_003 * number)
    return type(layer).from_config({**config, "name": name})


def own_part(layer: keras.Layer) -> list[keras.Variable]:
    """The variables of a layer that no layer inside of it holds."""
    deeper = {id(v) for child in children_of(layer) for v in child.variables}
    return [v for v in layer.variables if id(v) not in deeper]


def layers_named(block: keras.Layer, names: list[str]) -> list[keras.Layer]:
    """The sub-layers that are attributes of these names; of a functional model or a Sequential
    those with these names.

    Raises:
        ValueError: if there is none of one of the names; the message has the names that there are.
    """
    found: dict[str, list[keras.Layer]] = {}
    if isinstance(block, keras.Model) and getattr(block, "layers", None):
        found = {layer.name: [layer] for layer in block.layers}
    children = {id(child) for child in children_of(block)}
    for name in [*vars(block), *vars(block).get("_modules", {})]:
        value = getattr(block, name, None)
        parts = keras.tree.flatten(value) if isinstance(value, (list, dict, tuple)) else [value]
        if (
            name != "_layers"
            and not name.startswith("_self_")
            and parts
            and all(id(part) in children for part in parts)
        ):
            found[name] = parts
    missing = [name for name in names if name not in found]
    if missing or not names:
        raise ValueError(
            f"{type(block).__name__} '{block.name}' has no sub-layers {missing} to share. Expected "
            f"'all', or one or more of {sorted(found)}. Received: share={names!r}"
        )
    return [layer for name in names for layer in found[name]]


class PartlyShared:
    """Makes the block of one use.

    Args:
        own: ids of the layers inside of the base block that each use has for its own.
        rank: of the differences of what is shared; None for no differences.
        use: number of the use, for names and seeds.
        first: whether it is the first use of the base block, whose own layers then are its own.
    """

    def __init__(self, own: set[int], rank: int | None, use: int, first: bool = False) -> None:
        self._own, self._rank, self._use = own, rank, use
        self._anew = set() if first else own
        self._made: dict[int, keras.Layer] = {}

    def of(self, layer: keras.Layer, outermost: bool = True) -> keras.Layer:
        """What this use calls in the place of a layer of the base block, which is built."""
        if id(layer) not in self._made:
            name = f"{layer.name}_use_{self._use}" if outermost else layer.name
            self._made[id(layer)] = self._new(layer, name)
        return self._made[id(layer)]

    def _new(self, layer: keras.Layer, name: str) -> keras.Layer:
        inside = flatten_layers(layer)
        own = [id(one) in self._anew for one in inside]
        if all(own):
            return _built(copy_of(layer, name, self._use), layer)
        if not any(own) and not any(self._relaxed(one) for one in inside):
            return layer
        if self._rank is not None and self._relaxed(layer):
            relaxed = RelaxedDense(
                layer, self._rank, name=f"{layer.name}_use_{self._use}", dtype=_float_policy(layer)
            )
            relaxed.build(None)
            return relaxed
        with keras.name_scope(name):
            if isinstance(layer, keras.Sequential):
                parts = [self.of(one, outermost=False) for one in layer.layers]
                copy = keras.Sequential(parts, name=name)
                copy.build(layer.input_shape)
                return copy
            if getattr(layer, "inputs", None):
                return keras.Model(
                    layer.input, run_graph(layer, layer.input, self._call), name=name
                )
        return self._attributes_replaced(layer, name)

    def _attributes_replaced(self, layer: keras.Layer, name: str) -> keras.Layer:
        if id(layer) not in self._anew and own_part(layer):
            raise ValueError(
                f"{type(layer).__name__} '{layer.name}' has the weights "
                f"{[v.name for v in own_part(layer)]} beside those of its sub-layers, of which "
                "each use shall have a part for its own. Put these weights into a sub-layer, or "
                "leave out `own_normalization` and `rank`."
            )
        copy = _built(copy_of(layer, name, self._use), layer)
        with keras.name_scope(name):
            pairs = list(zip(children_of(layer), children_of(copy), strict=True))
            for theirs, mine in pairs:
                new = self.of(theirs, outermost=False)
                if not replace_layer(copy, mine, new):
                    raise ValueError(
                        f"{type(layer).__name__} '{layer.name}' holds '{theirs.name}' where it "
                        "cannot be replaced. Keep it in an attribute, a list or a dict of its own."
                    )
        return copy

    def _relaxed(self, layer: keras.Layer) -> bool:
        dense = isinstance(layer, RelaxedDense.source_classes)
        return self._rank is not None and dense and id(layer) not in self._own

    def _call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        called = self.of(layer, outermost=False) if isinstance(layer, keras.Layer) else layer
        return called(*args, **kwargs)


def plain_copy(block: keras.Layer, base: keras.Layer) -> keras.Layer:
    """A block that computes what `block`, a use of `base`, does, and shares nothing with it.

    Raises:
        TieError: if the config of `base` does not say how layers inside of it are quantised.
    """
    relaxed = [layer for layer in flatten_layers(block) if isinstance(layer, RelaxedDense)]
    policies = {layer.source().name: layer.dtype_policy for layer in relaxed}
    config = _in_floats(_anew(base.get_config(), 0), policies)
    copy = _built(type(base).from_config(config), base)
    for theirs, mine in zip(flatten_layers(block), flatten_layers(copy), strict=True):
        if isinstance(theirs, RelaxedDense):
            mine.set_weights(theirs.plain_values())
            continue
        with boundary(
            f"'{theirs.name}' of '{base.name}' cannot be copied", TieError,
            "Where it is quantised or has LoRA, unshare the model first, and do that then.",
        ):  # fmt: skip
            for variable, value in zip(own_part(mine), own_part(theirs), strict=True):
                variable.assign(value)
        if getattr(theirs, "lora_enabled", False):
            mine.lora_alpha = theirs.lora_alpha  # a rebuilt Keras layer forgets it
    return copy


def _in_floats(config: Any, policies: dict[str, Any]) -> Any:
    """A config in which the layers of these names are not quantised and have no LoRA."""
    if isinstance(config, dict):
        config = {key: _in_floats(value, policies) for key, value in config.items()}
        named = "quantization_config" in config and config.get("name") in policies
        return float_config(config, policies[config["name"]]) if named else config
    if isinstance(config, (list, tuple)):
        return type(config)(_in_floats(value, policies) for value in config)
    return config


def _built(copy: keras.Layer, layer: keras.Layer) -> keras.Layer:
    """`copy`, built as `layer` was, and all inside of it."""
    if not copy.built and layer.built:
        with warnings.catch_warnings():  # a layer without a `build` says that it is not built
            warnings.simplefilter("ignore")
            copy.build_from_config(layer.get_build_config())
    with keras.name_scope(copy.name):
        for mine, theirs in zip(children_of(copy), children_of(layer), strict=True):
            _built(mine, theirs)
    return copy


def _anew(config: Any, more: int) -> Any:
    """A config with other seeds, and without what says that an object is one that exists."""
    if isinstance(config, dict):
        return {
            key: value + more if key == "seed" and isinstance(value, int) else _anew(value, more)
            for key, value in config.items()
            if key != "shared_object_id"  # Keras adds it while a model is loaded
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_anew(value, more) for value in config)
    return config


def _float_policy(layer: keras.Layer) -> str:
    """The dtype policy of a layer without what quantises it."""
    mixed = layer.compute_dtype != layer.variable_dtype
    return f"mixed_{layer.compute_dtype}" if mixed else str(layer.compute_dtype)
