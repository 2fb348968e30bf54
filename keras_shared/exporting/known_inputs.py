"""A model without a graph of layers, as one whose inputs are known by name, shape and dtype."""

import inspect
import warnings
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from keras_shared.errors import boundary
from keras_shared.tying.keras_private import expect_layer, flatten_layers

NOT_FLOAT = (  # they take whole numbers or strings
    layers.Embedding, layers.IntegerLookup, layers.StringLookup, layers.TextVectorization,
    layers.CategoryEncoding, layers.Hashing, layers.HashedCrossing,
)  # fmt: skip
ADVICE = (
    "Pass input_signature=[keras.InputSpec(shape=..., dtype=...)] as to keras.Model.export: one "
    "entry (an InputSpec, or a list or dict of them) for each argument of its `call`."
)


def with_known_inputs(model: keras.Model, input_signature: Any = None) -> keras.Model:
    """`model` itself if it has signatures or a graph; else a functional model that calls it once.

    Keras records the shapes of the first call of a subclassed model. As in `keras.Model.export`,
    the batch is free then, and the dtype that of the weights.

    Args:
        model: a zoo model, a functional model, a Sequential that was built, or a subclassed model
            that was called.
        input_signature: shapes and dtypes of a subclassed model where they cannot be known: of
            whole numbers and strings, of several arguments, of a batch of fixed size.

    Returns:
        The model; of a subclassed one, inputs are named after the arguments of its `call` (or the
        keys of the dict that it takes), outputs `outputs`, or `outputs_0` and so on (or the keys
        of the dict that it gives).

    Raises:
        ValueError: if the inputs are not known, the model cannot be called on them, or a strategy
            of TensorFlow is entered.
    """
    expect_layer(model)
    if tf.distribute.has_strategy():
        raise ValueError(
            f"'{model.name}' is written to files outside of `strategy.scope()`, in which graphs "
            "of its replicas are built. Leave the `with` block first."
        )
    if callable(getattr(model, "signatures", None)) or getattr(model, "inputs", None):
        if input_signature is not None:
            raise ValueError(
                f"The inputs of '{model.name}' are known already, and stay what they are. "
                f"Received: input_signature={input_signature!r}"
            )
        rows = model.inputs[0].shape[:1] if isinstance(model, keras.Sequential) else (None,)
        if rows != (None,):
            warnings.warn(
                f"'{model.name}' takes {rows} rows alone, as it was built or first called, and so "
                "does what is exported. Put keras.Input(shape=...) before its first layer when you "
                "build it: it takes any number then.",
                stacklevel=3,
            )
        entries = [layer for layer in model.layers if isinstance(layer, keras.layers.InputLayer)]
        optional = [layer.name for layer in entries if layer.optional]
        if optional:
            warnings.warn(
                f"'{model.name}' can be called without {', '.join(map(repr, optional))}, and what "
                "is exported cannot: a graph needs each of its inputs. For requests without, build "
                "a second model of the same layers on the other inputs, and export that.",
                stacklevel=3,
            )
        return model
    if isinstance(model, keras.Sequential):
        raise ValueError(
            "A Sequential has known inputs once it was built. Put keras.Input(shape=..., "
            f"dtype=...) before its first layer. Received: '{model.name}', with "
            f"input_signature={input_signature!r}"
        )
    given = _recorded(model) if input_signature is None else _given(model, input_signature)
    tensors = {name: _symbols(name, specs, alone=len(given) == 1) for name, specs in given.items()}
    what = (
        f"'{model.name}' cannot be called on inputs of these shapes and dtypes, "
        f"{keras.tree.map_structure(lambda t: (t.shape, t.dtype), tensors)}"
    )
    with boundary(what, ValueError, ADVICE):
        outputs = _Call(model)(*tensors.values())
    inputs = tensors if len(tensors) > 1 else next(iter(tensors.values()))
    known = keras.Model(inputs, outputs, name=model.name)
    known.dtype_policy = model.dtype_policy
    several = range(len(keras.tree.flatten(outputs)))
    known.output_names = [f"outputs_{i}" for i in several] if len(several) > 1 else ["outputs"]
    return known


class _Call(layers.Layer):
    """The call of a model as a layer of another name: an input may be named as the model is."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name=f"call_of_{model.name}", dtype=model.dtype_policy, autocast=False)
        self.model = model

    def call(self, *args: Any) -> Any:
        return self.model(*args)


def tensor_arguments(model: keras.Model) -> dict[str, bool]:
    """What `call` takes, without Keras' own arguments: name -> whether it must be given."""
    return {
        p.name: p.default is p.empty
        for p in inspect.signature(model.call).parameters.values()
        if p.name not in ("training", "mask") and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


def _given(model: keras.Model, input_signature: Any) -> dict[str, Any]:
    """Argument -> specs, from what the user says."""
    one = not isinstance(input_signature, (list, tuple))
    specs = [input_signature] if one else list(input_signature)
    names = list(tensor_arguments(model))
    names += [f"args_{i}" for i in range(len(names), len(specs))]
    return dict(zip(names, keras.tree.map_structure(_spec, specs), strict=False))


def _recorded(model: keras.Model) -> dict[str, Any]:
    """Argument -> specs, from the shapes that Keras recorded when it built the model."""
    config = (model.get_build_config() or {}) if model.built else {}
    arguments = tensor_arguments(model)
    shapes = {k.removesuffix("_shape"): v for k, v in config.get("shapes_dict", {}).items()}
    if "input_shape" in config:
        shapes = {next(iter(arguments), "inputs"): config["input_shape"]}
    if not shapes:
        raise ValueError(
            "Only a model with known inputs can be exported: a functional one, or a subclassed one "
            "whose shapes Keras recorded when it was called. "
            f"Received: '{model.name}' (of type {type(model).__name__}). {ADVICE}"
        )
    unknown = [name for name, needed in arguments.items() if needed and name not in shapes]
    if unknown:
        raise ValueError(
            f"'{model.name}' takes the argument(s) {', '.join(unknown)} besides "
            f"{', '.join(shapes)}, whose shapes Keras has not recorded. {ADVICE}"
        )
    for layer in flatten_layers(model):
        if isinstance(layer, NOT_FLOAT):
            raise ValueError(
                f"'{model.name}' holds the {type(layer).__name__} '{layer.name}', which takes "
                "whole numbers or strings, and Keras records the shapes of a call, not its "
                f"dtypes: {shapes}. {ADVICE}"
            )
    return {name: _specs(shape, model.variable_dtype) for name, shape in shapes.items()}


def _specs(shapes: Any, dtype: str) -> Any:
    """Shapes, nested as the tensors were -> specs; the batch of the call stands for any."""
    if isinstance(shapes, dict):
        return {key: _specs(shape, dtype) for key, shape in shapes.items()}
    if all(isinstance(side, (int, type(None))) for side in shapes):
        return keras.KerasTensor((None, *shapes[1:]) if shapes else (), dtype)
    return (tuple if isinstance(shapes, tuple) else list)(_specs(s, dtype) for s in shapes)


def _spec(spec: Any) -> Any:
    """An entry of `input_signature`: InputSpec, TensorSpec, KerasTensor or a tensor."""
    if getattr(spec, "shape", None) is None or getattr(spec, "dtype", None) is None:
        raise ValueError(f"An input needs a shape and a dtype. Received: {spec!r}. {ADVICE}")
    dtype = keras.backend.standardize_dtype(spec.dtype)
    return keras.KerasTensor(tuple(spec.shape), dtype, name=getattr(spec, "name", None))


def _symbols(argument: str, specs: Any, alone: bool) -> Any:
    """One keras.Input for each tensor of an argument, named so that a client can read it."""
    inputs = []
    for path, spec in keras.tree.flatten_with_path(specs):
        if not spec.shape:
            raise ValueError(f"'{argument}' has no batch: it is a scalar. {ADVICE}")
        keys = isinstance(specs, dict) and alone
        name = "_".join(map(str, path if keys else (argument, *path)))
        inputs.append(keras.Input(batch_shape=spec.shape, dtype=spec.dtype, name=name))
    return keras.tree.pack_sequence_as(specs, inputs)
