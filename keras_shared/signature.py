from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import keras


class Signature(NamedTuple):
    """One way to ask a model, with named tensors: what export turns into a serving signature.

    Attributes:
        call: takes the inputs as keyword arguments, returns named tensors, the batch first.
        inputs: shape (batch included, as None) and dtype of each input.
        image_size: (height, width) in pixels if the inputs are images; they can then be sent as
            encoded PNG or JPEG bytes too, and are resized to this. (None, None) for a model that
            takes images of any size: each keeps its own, and is computed by itself. None for other
            inputs.
        class_names: if given, the output `scores` has one column for each. Of several tasks: name
            of a task -> its classes, of which the output `TASK_scores` has one column for each.
        values: of an input by name, what it can be tried with where zeros and empty texts will not
            do, such as the codes and words that a model knows.
    """

    call: Callable[..., dict[str, Any]]
    inputs: Mapping[str, keras.KerasTensor]
    image_size: tuple[int | None, int | None] | None = None
    class_names: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None = None
    values: Mapping[str, Any] = MappingProxyType({})
