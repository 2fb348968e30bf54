"""What layers are called on, and what they give, while a model runs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras

from keras_shared.eager import functions_run_eagerly


class WatchedCall(NamedTuple):
    """One call of a layer.

    Attributes:
        layer: what was called.
        args, kwargs: the arguments of its `call`.
        outputs: what it gave.
        before: what its `activation` was called on first; None without.
        step: number of the call within the RNN that makes it, from 0; None outside of RNNs.
    """

    layer: keras.Layer
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any
    before: Any
    step: int | None


@contextmanager
def watched(
    layers: Iterable[keras.Layer],
    note: Callable[[WatchedCall], Any],
    seen: Callable[[Any], None] | None = None,
) -> Iterator[None]:
    """Note each call of these layers while the context is open, `tf.function`s run eagerly.

    Args:
        layers: those to watch; each once.
        note: called after each call; what it gives goes on in place of the outputs, if not None.
        seen: called on what goes into the activation of a layer, before that runs. Activations are
            watched only with it.
    """
    attributes: list[tuple[keras.Layer, str, Any]] = []
    running: dict[int, Any] = {}  # a quantised layer may run its `call` inside `quantized_call`
    in_time: list[dict[int, int]] = []  # of each RNN that is running: calls it made of each layer

    def watch(layer: keras.Layer, method: str) -> None:
        original = getattr(layer, method)

        def noted(*args: Any, **kwargs: Any) -> Any:
            if id(layer) in running:
                return original(*args, **kwargs)
            running[id(layer)] = None
            rnn = isinstance(layer, keras.layers.RNN)
            if rnn:
                in_time.append({})
            try:
                outputs = original(*args, **kwargs)
            finally:
                before = running.pop(id(layer))
                if rnn:
                    in_time.pop()
            step = None
            if in_time:
                step = in_time[-1].setdefault(id(layer), 0)
                in_time[-1][id(layer)] += 1
            other = note(WatchedCall(layer, args, kwargs, outputs, before, step))
            return outputs if other is None else other

        setattr(layer, method, noted)
        attributes.append((layer, method, None))

    def watch_activation(layer: keras.Layer, seen: Callable[[Any], None]) -> None:
        original = layer.activation

        def noted(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if id(layer) in running and running[id(layer)] is None:
                seen(inputs)
                running[id(layer)] = inputs
            return original(inputs, *args, **kwargs)

        layer.activation = noted
        attributes.append((layer, "activation", original))

    try:
        for layer in layers:
            watch(layer, "call")
            if hasattr(layer, "quantized_call"):
                watch(layer, "quantized_call")
            own = vars(layer).get("activation")  # of an RNN it is a property, and its cell's
            if seen is not None and own is not None and not isinstance(own, keras.Layer):
                watch_activation(layer, seen)
        with functions_run_eagerly():
            yield
    finally:
        for layer, name, original in attributes:
            if original is None:
                delattr(layer, name)
            else:
                setattr(layer, name, original)
