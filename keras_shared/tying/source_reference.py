"""How a reader finds the layer that owns its weight."""

import uuid
import weakref
from collections.abc import Iterable
from typing import Any

import keras

from keras_shared.tying.effective_weight import weight_shape
from keras_shared.tying.tie_error import TieError

BUILT = (
    "Give the source a name that no other layer has where the model is built, before it is saved; "
    "or, where another layer names it (as MultiHeadAttention does), `untie` the reader there."
)
LOADED = (
    "In a model that was loaded by keras.models.load_model, or cloned, call "
    "`keras_shared.tying.tie(reader, source)` for each such reader, before anything is renamed."
)


class SourceReference:
    """A pointer to a layer that is owned elsewhere, which no tracker can see.

    Keras, TensorFlow and torch take every layer found in an attribute for a child: its
    variables would then be listed, saved and frozen twice. This slot object is none of the
    types they look into. Into a config goes only the description of the source
    (`name`, `class_name`, `weight_shape`, and what else the reader must know of it before it is
    found); a copy of the layer never does.

    Args:
        source: the layer, or its description from a config.
        attributes: names of attributes of the source that belong into the description.

    Names repeat: a model may hold two copies of a network. So a description also has the `id` of
    its source, which comes back with every copy: readers with different ids never bind to one
    layer. It says whether the source lay `upstream` of the reader in its graph, where a copy of the
    graph must hold the copy of the source; and whether it lay `apart` from every graph.

    Attributes:
        layer: the source, or None until it has been found. Once found it is never replaced: a
            reader that is called on another model's outputs goes on reading its own source.
    """

    __slots__ = ("_attributes", "_description", "_doubt", "_named", "_upstream", "layer")

    def __init__(
        self, source: keras.Layer | dict[str, Any], attributes: tuple[str, ...] = ()
    ) -> None:
        self._attributes = attributes
        given = isinstance(source, keras.Layer)
        self.layer: keras.Layer | None = source if given else None
        self._description: dict[str, Any] = {} if given else dict(source)
        self._upstream: bool | None = None  # not known before it is called in a graph
        self._named = False  # whether this reference gave the layer its id
        self._doubt: list[str] = []  # layers upstream that may be the source under another name

    def describe(self, identified: bool = False) -> dict[str, Any]:
        """The source as it stands in a config: JSON, and enough to find it again.

        Args:
            identified: whether a source without an id gets one, as it needs in a config. Readers
                of a copy that have not found it yet know another, and would not find it then.
        """
        if self.layer is None:
            return self._description
        if identified:
            _ids.setdefault(self.layer, uuid.uuid4().hex[:12])
        description = {
            "name": self.layer.name,
            "class_name": type(self.layer).__name__,
            "weight_shape": weight_shape(self.layer),
            "id": _ids.get(self.layer),
            "upstream": bool(self._upstream),
        } | {name: getattr(self.layer, name, None) for name in self._attributes}
        if getattr(self.layer, "lora_enabled", False):
            description["lora_alpha"] = self.layer.lora_alpha
        return {name: as_lists(value) for name, value in description.items()}  # JSON

    @property
    def untied(self) -> bool:
        """Whether the reader was cut from its source and owns a copy of the weight."""
        return self.layer is None and self._description["name"] is None

    def cut(self) -> None:
        """Keep of the source what the reader must know, and forget which layer it was."""
        self._description = self.describe() | {"name": None, "class_name": None, "id": None}
        self.layer = None

    def bind(self, candidates: Iterable[keras.Layer], reader: keras.Layer) -> None:
        """Point to the one layer among `candidates` that fits the description, if there is one."""
        if self.layer is not None or self.untied:
            return
        wanted = self.describe()
        fits = list(
            {
                id(c): c
                for c in candidates
                if c is not reader
                and self.is_like(c)
                and _ids.get(c, wanted.get("id")) == wanted.get("id", _ids.get(c))
            }.values()
        )
        if len(fits) > 1:
            raise TieError(
                f"{type(reader).__name__} '{reader.name}' is tied to the {wanted['class_name']} "
                f"'{wanted['name']}' (weight {wanted['weight_shape']}), but {len(fits)} layers of "
                f"the model match this description. {BUILT} {LOADED} Then such a name is kept too."
            )
        if fits and self._doubt:
            raise TieError(
                f"{type(reader).__name__} '{reader.name}' is a copy of a reader whose source lay "
                f"before it in the same graph. There, no layer is named '{wanted['name']}', but "
                f"{self._doubt} would fit; the '{wanted['name']}' that is found elsewhere "
                "belongs to another copy. Call `keras_shared.tying.tie(reader, source)` with the "
                "layer that it shall read."
            )
        if fits:
            reader.refuse_circle(fits[0])
            self.layer = fits[0]
            if wanted.get("id") and self.layer not in _ids:
                _ids[self.layer] = wanted["id"]
                self._named = True
            if "lora_alpha" in wanted and self.layer.lora_enabled:
                self.layer.lora_alpha = wanted["lora_alpha"]  # a rebuilt Keras layer forgets it

    def is_like(self, layer: keras.Layer) -> bool:
        """Whether a layer is as the description says; ids aside, which no file has of a source."""
        wanted = self.describe()
        return (
            layer.name == wanted["name"]
            and type(layer).__name__ == wanted["class_name"]
            and _shape_fits(layer, wanted["weight_shape"])
        )

    def may_lie_upstream(self) -> bool:
        """Whether a graph that calls the reader may hold the source, by what is known of it.

        A layer that is like the source by chance may lie there in its place.
        """
        return not self._description.get("apart", False)

    def shape(self) -> Any:
        """The shape of the source's weight, as far as it is known; of a SeparableConv two."""
        return self._description["weight_shape"] if self.layer is None else weight_shape(self.layer)

    def release(self) -> None:
        """Take a binding back."""
        if self._named and self.layer is not None:
            _ids.pop(self.layer, None)
        self._named, self.layer = False, None

    def note_upstream(self, upstream: list[keras.Layer]) -> None:
        """Remember of a call in a graph whether the source lay before the reader."""
        if self.layer is not None:
            here = any(layer is self.layer for layer in upstream)
            self._upstream = here and self._upstream is not False
        elif not self.untied and self._description.get("upstream"):
            wanted = self._description
            self._doubt = [
                f"'{layer.name}'"
                for layer in upstream
                if type(layer).__name__ == wanted["class_name"]
                and _shape_fits(layer, wanted["weight_shape"])
            ]


# Which source a layer is, for as long as it lives: the original, or a copy that readers bound to
_ids: "weakref.WeakKeyDictionary[keras.Layer, str]" = weakref.WeakKeyDictionary()


def refuse_description(given: Any) -> None:
    """Refuse what cannot describe a source in a config.

    Raises:
        TypeError: the message names what was expected.
    """
    text, shape = (str, type(None)), (list, tuple, type(None))
    expected = {"name": text, "class_name": text, "weight_shape": shape}
    if not isinstance(given, dict):
        raise TypeError(f"`source` is {given!r}, and a description is expected, with {[*expected]}")
    for key, types in expected.items():
        if key not in given or not isinstance(given[key], types):
            kinds = " or ".join(t.__name__ for t in types)
            raise TypeError(f"`source` has {key}={given.get(key)!r}, and {kinds} is expected")
    if not _is_shape(given["weight_shape"]):
        raise TypeError(f"`source` has weight_shape={given['weight_shape']!r}, which is no shape")
    if not isinstance(given.get("id"), text):
        raise TypeError(f"`source` has id={given['id']!r}, and str is expected")


def _is_shape(value: Any) -> bool:
    """Whether it is a shape, or as of a SeparableConv a list of them."""
    if isinstance(value, (list, tuple)):
        return all(_is_shape(one) for one in value)
    return value is None or (isinstance(value, int) and value >= 0)


def as_lists(value: Any) -> Any:
    """With lists in the place of tuples, as JSON gives them back."""
    return [as_lists(v) for v in value] if isinstance(value, (list, tuple)) else value


def _shape_fits(layer: keras.Layer, wanted: list[Any] | None) -> bool:
    shape = weight_shape(layer)
    return wanted is None or shape is None or as_lists(shape) == as_lists(wanted)
