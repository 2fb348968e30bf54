"""Every private Keras name that keras_shared touches, and nothing else.

Keras publishes no way to ask which layer is being called, what lies upstream of a
symbolic tensor, or what a quantised kernel means. tests/tying/test_keras_private.py
fails on the day that one of these names changes.
"""

import inspect
import os
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops
from keras.src.backend.common import global_state
from keras.src.backend.common.masking import get_keras_mask
from keras.src.backend.common.stateless_scope import get_stateless_scope, in_stateless_scope
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.models.functional import Functional
from keras.src.quantizers.gptq_core import get_weight_bits_for_layer
from keras.src.quantizers.quantizers import dequantize_with_sz_map
from keras.src.saving.saving_lib import _get_unique_name, _walk_saveable
from keras.src.utils.naming import to_snake_case

from keras_shared.errors import attempt
from keras_shared.presets.names import LoadError, locate
from keras_shared.tying.tie_error import TieError

_COPIES = (  # functions of Keras whose argument `model` is what they write, or clone
    "_save_model_to_fileobj", "_save_model_to_dir", "save_model_to_hdf5", "save_weights_only",
    "clone_model",
)  # fmt: skip


def outermost_layer() -> keras.Layer | None:
    """The layer or model whose call the program is in, seen from the outside."""
    context = global_state.get_global_attribute("current_call_ctx")
    return None if context is None else context.entry_layer


def being_copied() -> tuple[keras.Model | None, bool]:
    """The whole model that Keras writes to a file or clones now, and whether with its config."""
    frame, found = inspect.currentframe(), (None, False)
    while frame is not None:
        name, module = frame.f_code.co_name, str(frame.f_globals.get("__name__"))
        if name in _COPIES and module.startswith("keras."):
            found = frame.f_locals["model"], name != "save_weights_only"
        frame = frame.f_back
    return found


def expect_layer(value: Any) -> None:
    """Refuse what is no Keras layer, and so no model.

    Raises:
        TieError: if it is none.
    """
    if not isinstance(value, keras.Layer):
        raise TieError(
            f"A Keras model or layer is expected. Received: {repr(value)[:80]} (of type "
            f"{type(value).__name__}).{_instead(value)}"
        )


def _instead(value: Any) -> str:
    """What to do about a name, or a path, in the place of a layer."""
    if not isinstance(value, (str, os.PathLike)):
        return ""
    _, missing = attempt(lambda: locate(value), LoadError)
    if not missing:
        return f" Load it first: keras_shared.load({os.fspath(value)!r})."
    layer = (
        f" Of a layer pass the layer itself, model.get_layer({value!r})."
        if isinstance(value, str)
        else ""
    )
    return f" It names no preset and no file.{layer}"


def flatten_layers(layer: keras.Layer) -> list[keras.Layer]:
    """`layer` and everything inside it, each once."""
    expect_layer(layer)
    layers: list[keras.Layer] = layer._flatten_layers()
    return layers


def children_of(layer: keras.Layer) -> list[keras.Layer]:
    """What is inside of `layer`, without what is inside of that."""
    layers: list[keras.Layer] = layer._flatten_layers(include_self=False, recursive=False)
    return layers


def upstream_layers(tensors: Any) -> Iterator[keras.Layer]:
    """The layers that the symbolic `tensors` were computed by, inside of sub-models too."""
    stack = [t for t in keras.tree.flatten(tensors) if hasattr(t, "_keras_history")]
    seen = set()
    while stack:
        history = stack.pop()._keras_history
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(history.operation, keras.Layer):
            yield from flatten_layers(history.operation)
        stack.extend(node.input_tensors)


def called_on(layer: keras.Layer) -> list[Any]:
    """The symbolic tensors of each call of `layer` in a graph."""
    return [node.input_tensors for node in layer._inbound_nodes]


def calls_in(model: keras.Model) -> Iterator[tuple[Any, list[Any], list[Any]]]:
    """The calls in a graph: layer or operation, the tensors that it takes, those that it gives."""
    for operation in getattr(model, "operations", model.layers):
        for node in operation._inbound_nodes:
            yield operation, node.input_tensors, keras.tree.flatten(node.output_tensors)


def run_graph(model: keras.Model, inputs: Any, call: Callable[..., Any]) -> Any:
    """The outputs of a functional model, with `call(layer, *args)` where it calls a layer."""
    return model._run_through_graph(keras.tree.flatten(inputs), call_fn=call)


def calls_as_built(layer: keras.Layer) -> bool:
    """Whether a call of `layer` is what its graph says: a functional model, a built Sequential."""
    if not isinstance(layer, keras.Model) or not getattr(layer, "inputs", None):
        return False
    return type(layer).call in (Functional.call, keras.Sequential.call)


def takes_training(layer: Any) -> bool:
    """Whether a layer, or an operation, is told if it is trained."""
    return bool(getattr(layer, "_call_has_training_arg", False))


def snake_case(name: str) -> str:
    """The name of a class as Keras writes it in automatic names and in files."""
    snake: str = to_snake_case(name)
    return snake


def saved_layers(
    model: keras.Model, stand_in: Callable[[keras.Layer], tuple[keras.Layer, str]]
) -> Iterator[tuple[str, list[keras.Layer], str | None]]:
    """Where a file of Keras 3 may hold the variables of each layer of `model`.

    Keras writes a layer at the first attribute that leads to it, and reads it at any.

    Args:
        model: any model.
        stand_in: layer -> the one that is saved in its place, and the name of that one's class.

    Returns:
        For each layer its path in the file; the layers down to it, those of the model, with what
        stands in for the last one behind them; and None, or at another attribute the first path.
    """

    def of(
        layer: keras.Layer, path: str, above: list[keras.Layer], seen: dict[int, str]
    ) -> Iterator[tuple[str, list[keras.Layer], str | None]]:
        above, inner, first = [*above, layer], stand_in(layer)[0], seen.get(id(layer))
        yield path, [*above, inner], first
        if first is not None:
            return
        seen[id(layer)] = path
        seen = seen if inner is layer else {id(inner): path}
        for name, child in _walk_saveable(inner):
            below = f"{path}/{name}".lstrip("/")
            if isinstance(child, keras.Layer):
                yield from of(child, below, above, seen)
            elif isinstance(child, (list, dict, tuple)):
                yield from within(child, below, above, seen, set())

    def within(
        items: Any, path: str, above: list[keras.Layer], seen: dict[int, str], containers: set[int]
    ) -> Iterator[tuple[str, list[keras.Layer], str | None]]:
        if id(items) in containers:
            return
        containers.add(id(items))
        used: dict[str, int] = {}
        for item in items.values() if isinstance(items, dict) else items:
            if isinstance(item, keras.Layer):
                name = _get_unique_name(to_snake_case(stand_in(item)[1]), used)
                yield from of(item, f"{path}/{name}", above, seen)
            elif isinstance(item, (list, dict, tuple)):
                name = _get_unique_name("container", used)
                yield from within(item, f"{path}/{name}", above, seen, containers)

    return of(model, "", [], {})


def arguments_of(layer: keras.Layer) -> list[str]:
    """The names of what `layer` can be called with, `*` and `**` before those of catch-alls."""
    names = []
    for parameter in layer._call_signature.parameters.values():
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        star = "**" if parameter.kind is parameter.VAR_KEYWORD else star
        names.append(star + parameter.name)
    return names


def take_arguments(layer: keras.Layer, names: list[str]) -> None:
    """Let `layer`, whose `call` has catch-alls, be called as if it had these arguments.

    Keras looks at tensors by the names of arguments, and takes a catch-all for one argument, in
    which it refuses tensors beside other values.
    """
    kinds = inspect.Parameter
    parameters = []
    for name in names:
        if name.startswith("**"):
            parameters.append(kinds(name[2:], kinds.VAR_KEYWORD))
        elif name.startswith("*"):
            parameters.append(kinds(name[1:], kinds.VAR_POSITIONAL))
        else:
            default = None if parameters else kinds.empty
            parameters.append(kinds(name, kinds.POSITIONAL_OR_KEYWORD, default=default))
    layer._call_signature = inspect.Signature(parameters)


def variables_made_by(build: Callable[[], Any]) -> list[keras.Variable]:
    """The variables that `build()` makes, which have shapes, and no memory for values.

    What it raises is left to who calls it in earnest; the variables made before count.
    """
    key, drawn = "uninitialized_variables", random.getstate()
    before = global_state.get_global_attribute(key)
    global_state.set_global_attribute(key, [])
    try:
        scope = keras.StatelessScope(initialize_variables=False)
        with scope, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attempt(build)
        return list(global_state.get_global_attribute(key) or [])
    finally:
        global_state.set_global_attribute(key, before)
        random.setstate(drawn)


def shapes_alone_matter() -> bool:
    """Whether Keras is working out shapes, and throws every value away."""
    symbolic: bool = in_symbolic_scope()
    return symbolic


def frozen_into_program(variables: list[keras.Variable]) -> bool:
    """Whether a compiled JAX function would take one of `variables` as a constant."""
    if keras.backend.backend() != "jax" or not in_stateless_scope() or in_symbolic_scope():
        return False
    scope = get_stateless_scope()
    return any(scope.get_current_value(v) is None for v in variables)


def dequantized_dense(source: keras.layers.Dense, dtype: str) -> Any:
    """The kernel (in, out) that an int8 or int4 Dense stands for, without LoRA."""
    codes, scale = source._kernel, source.kernel_scale  # scale: (out,) or (groups, out)
    if source.quantization_mode == "int4":
        codes = keras.quantizers.unpack_int4(codes, source._orig_output_dim, axis=-1)
        if source._int4_block_size not in (None, -1):
            kernel = dequantize_with_sz_map(
                codes, scale, source.kernel_zero, source.g_idx, group_axis=0
            )
            return ops.cast(kernel, dtype)
    return ops.divide(ops.cast(codes, dtype), ops.cast(scale, dtype))


def calibrated_kernel(source: keras.Layer, dtype: str) -> Any:
    """The kernel of a Dense or an EinsumDense that GPTQ or AWQ has quantised."""
    mode, codes = source.quantization_mode, source.quantized_kernel  # (out, in)
    if mode == "awq" or get_weight_bits_for_layer(source, None) == 4:
        dense = isinstance(source, keras.layers.Dense)
        width = source.units if dense else getattr(source, f"{mode}_unpacked_column_size")
        codes = keras.quantizers.unpack_int4(codes, width, axis=0, dtype="uint8")
    kernel = ops.transpose(
        dequantize_with_sz_map(codes, source.kernel_scale, source.kernel_zero, source.g_idx)
    )
    if mode == "awq":
        kernel = ops.divide(kernel, ops.expand_dims(source.awq_scales, -1))
    if isinstance(source, keras.layers.EinsumDense):
        kernel = ops.reshape(kernel, source.original_kernel_shape)
    return ops.cast(kernel, dtype)


def dequantized_einsum_dense(source: keras.layers.EinsumDense, dtype: str) -> Any:
    """The kernel that an int8 or int4 EinsumDense stands for, without LoRA."""
    codes, scale = source._kernel, source.kernel_scale
    if source.quantization_mode == "int8":
        scale = source._adjust_scale_for_dequant(scale)
        return ops.divide(ops.cast(codes, dtype), ops.cast(scale, dtype))
    # (rows, columns): the axes that are summed over, and those that are not
    codes = keras.quantizers.unpack_int4(codes, source._int4_unpacked_column_size, axis=-1)
    if source._int4_block_size not in (None, -1):
        kernel = dequantize_with_sz_map(
            codes, scale, source.kernel_zero, source.g_idx, group_axis=0
        )
    else:
        kernel = ops.divide(ops.cast(codes, dtype), ops.cast(scale, dtype))
    return ops.cast(ops.reshape(kernel, source.original_kernel_shape), dtype)


def dequantized_embedding(source: keras.layers.Embedding, dtype: str) -> Any:
    """The table (input_dim, output_dim) that an int8 or int4 Embedding stands for."""
    codes, scale = source._embeddings, source.embeddings_scale  # (in,) or (in, groups)
    if source.quantization_mode == "int4":
        codes = keras.quantizers.unpack_int4(codes, source._orig_output_dim, axis=-1)
        if source._int4_block_size not in (None, -1):
            table = dequantize_with_sz_map(
                ops.cast(codes, dtype), scale, source.embeddings_zero, source.g_idx, group_axis=-1
            )
            return ops.cast(table, dtype)
    return ops.divide(ops.cast(codes, dtype), ops.expand_dims(ops.cast(scale, dtype), -1))


def make_variables(model: keras.Model, batch: Any) -> None:
    """Make the variables of the loss, the metrics and the optimizer of a compiled model.

    TensorFlow traces a step twice that makes variables, the whole of it each time.

    Args:
        model: a compiled model.
        batch: the inputs, the targets and perhaps the weights of examples; shapes are enough.
    """
    model._symbolic_build(data_batch=batch)


@contextmanager
def variables_may_change(layer: keras.Layer) -> Iterator[None]:
    """Lets a built layer gain or lose a variable, as Keras does when it enables LoRA."""
    layer._tracker.unlock()
    try:
        yield
    finally:
        layer._tracker.lock()


def drop_layer(layer: keras.Layer, child: keras.Layer) -> None:
    """Take `child` out of what `layer` lists and saves."""
    with variables_may_change(layer):
        layer._tracker.untrack(child)


def replace_layer(layer: keras.Layer, child: keras.Layer, new: keras.Layer) -> bool:
    """Put `new` in the place of `child` in the attributes, lists and dicts of a built layer.

    It takes the child's place in what `layer` lists, so that the order of weights stays.

    Returns:
        Whether there was such a place.
    """
    found = False
    with variables_may_change(layer):
        if layer._tracker.is_in_store("layers", new):
            layer._tracker.untrack(child)
        else:
            layer._tracker.replace_tracked_value("layers", child, new)
        attributes = {**vars(layer), **vars(layer).get("_modules", {})}  # the latter of torch
        for name, value in attributes.items():
            if name.startswith("_self_") or name == "_modules":
                continue
            if value is child:
                setattr(layer, name, new)
                found = True
            elif isinstance(value, (list, dict)):
                for key in value if isinstance(value, dict) else range(len(value)):
                    if value[key] is child:
                        value[key] = new
                        found = True
    return found


def mask_of(tensor: Any) -> Any:
    """The mask that a tensor carries, or None."""
    return get_keras_mask(tensor)


class SourceInSavedModel:
    """Mixin for readers: a SavedModel of a sub-model alone still holds the source's variables.

    TensorFlow asks each trackable object for its children; for a SavedModel (and only
    there: a checkpoint holds each variable under its owner) the source's are named too.
    """

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        children: dict[str, Any] = super()._trackable_children(  # type: ignore[misc]
            save_type, **kwargs
        )
        source = self._reference.layer  # type: ignore[attr-defined]
        if save_type == "savedmodel" and source is not None:
            children |= {f"_source_{i}": v for i, v in enumerate(source.variables)}
        return children


@contextmanager
def trainable_as_in_keras(
    variables: list[keras.Variable], trainable: list[keras.Variable]
) -> Iterator[None]:
    """Lets TensorFlow know which of `variables` are frozen, while it writes them to a file.

    Setting `trainable` of a layer does not reach the TensorFlow variable, and TFSMLayer believes
    that one.
    """
    meant = {id(v) for v in trainable}
    before = [(v.value, v.value._trainable) for v in variables]
    for variable, (value, _) in zip(variables, before, strict=True):
        value._trainable = id(variable) in meant
    try:
        yield
    finally:
        for value, flag in before:
            value._trainable = flag
