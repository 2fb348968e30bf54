"""What TF Serving would do with a SavedModel: read from its folder, then tried in a Session."""

import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from keras_shared.presets.names import holds_saved_model, locate, version_dir, version_numbers
from keras_shared.quiet import import_quietly
from keras_shared.serving.finding import Finding
from keras_shared.serving.trial import NO_BATCHING, try_version

# What REST reads and writes: util/json_tensor.cc of TF Serving. gRPC takes every type.
REST_TYPES = {"float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64",
              "bool", "string"}  # fmt: skip
VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}
PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
XLA = {"XlaCallModule", "XlaLaunch"}
# What TF Serving has built in and TensorFlow has not (SUPPORTED_TENSORFLOW_OPS in its
# model_servers/BUILD): TF Text, under the names of its core/ops, and Decision Forests
TF_TEXT = re.compile(
    r"TFText>.*|Sentencepiece.*Op|SentenceFragments|(Normalize|CaseFold)UTF8(WithOffsetsMap)?|"
    r"FindSourceOffsets|ConstrainedSequence|MaxSpanningTree|RougeL|TokenizerFromLogits|"
    r"(Regex|SplitMerge|UnicodeScript|Whitespace|Wordpiece)\w*WithOffsets"
)
DECISION_FORESTS = re.compile(r"SimpleML.*")
GENERATED_NAME = r"(args|inputs?|outputs?|keras_tensor|unnamed|unknown)_\d+(_\d+)?|keras_tensor"


def check(path: str | os.PathLike[str]) -> list[Finding]:
    """Say what TF Serving would do with a SavedModel, of this library or of any other program.

    The folder and the graph are read; then the model is loaded into a Session, as TF Serving
    does, its warm-up requests are replayed, and every signature is run at batch 1, 2 and 17.

    Args:
        path: name of a preset, a folder of versions (the newest is checked, which TF Serving
            takes by default), the folder of one version, or any SavedModel.

    Returns:
        What was found, errors first. Without an error, TF Serving serves the model.

    Raises:
        LoadError: if there is no such preset or folder.

    Example:
        >>> from keras_shared.serving import check
        >>> [(finding.severity, finding.what) for finding in check("tied_autoencoder_mnist")]
        [('note', 'written by TensorFlow 2.21.0')]

    Reference: g3doc/serving_config.md and sources/storage_path of
        https://github.com/tensorflow/serving.
    """
    folder = locate(path).absolute()
    here = holds_saved_model(folder)
    if not here and version_numbers(folder):
        return check_version(version_dir(folder))
    if folder.name.isdecimal() and folder.is_dir():
        return check_version(folder)
    if here:
        reason = f"the name of the folder, '{folder.name}', is not a number"
    elif folder.is_dir():
        reason = f"{folder} holds {sorted(p.name for p in folder.iterdir())[:5]}"
    else:
        reason = f"{folder} is a file"
    misplaced = Finding(
        "error",
        f"TF Serving finds no version: {reason}",
        "move the SavedModel into NAME/1 (or 2, 3, ...), and start the server with NAME",
    )
    return [misplaced, *(check_version(folder) if here else ())]


def check_version(folder: str | os.PathLike[str]) -> list[Finding]:
    """`check` of one SavedModel, whatever the name of its folder.

    Args:
        folder: what holds `saved_model.pb`.

    Returns:
        What was found, errors first.

    Example:
        >>> from keras_shared.presets.names import version_dir
        >>> from keras_shared.serving import check_version
        >>> [finding.severity for finding in check_version(version_dir("lenet5_mnist"))]
        ['note']
    """
    import_quietly("tensorflow")
    folder = pathlib.Path(folder)
    graph = _read(folder)
    if isinstance(graph, Finding):
        return [graph]
    found = [*_of_the_version(graph, folder)]
    runnable = {}
    if "serving_default" not in graph.signature_def:
        named = [name for name in graph.signature_def if not name.startswith("__")]
        found.append(
            Finding(
                "error",
                f"there is no signature 'serving_default'; there are: {sorted(named) or 'none'}",
                "export a signature of this name too: requests without a name use it",
            )
        )
    for name, signature in sorted(graph.signature_def.items()):
        if not name.startswith("__saved_model_"):  # initialisers, which no request can name
            of_signature = [*_of_the_signature(name, signature, graph.graph_def)]
            found += of_signature
            if all(finding.severity != "error" for finding in of_signature):
                runnable[name] = signature
    lacking = [*_lacking(graph.graph_def)]
    found += lacking
    if not lacking and not any(finding.what.startswith("variables/") for finding in found):
        found += try_version(folder, graph.signature_def, runnable)
    return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def _read(folder: pathlib.Path) -> Any:
    """The one graph tagged `serve`, or what is wrong."""
    from google.protobuf import message, text_format
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    try:
        if (folder / "saved_model.pb").exists():
            model.ParseFromString((folder / "saved_model.pb").read_bytes())
        else:
            text_format.Parse((folder / "saved_model.pbtxt").read_text(), model)
    except FileNotFoundError:
        return Finding("error", f"{folder} has no saved_model.pb", "publish or copy it again")
    except (message.DecodeError, text_format.ParseError) as error:
        return Finding("error", f"saved_model.pb is corrupt: {error}", "publish or copy it again")
    tags = [sorted(graph.meta_info_def.tags) for graph in model.meta_graphs]
    graphs = [g for g, t in zip(model.meta_graphs, tags, strict=True) if t == ["serve"]]
    if len(graphs) != 1:
        return Finding(
            "error",
            f"TF Serving needs one graph with the tag 'serve' and no other; the tags are: {tags}",
            "export with the tag 'serve', or start the server with --saved_model_tags",
        )
    return graphs[0]


def _lacking(graph: Any) -> Iterator[Finding]:
    """The operations that TensorFlow has not here: with them, nothing can be tried."""
    from tensorflow.python.framework import op_def_registry

    functions = {function.signature.name for function in graph.library.function}
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    names = {node.op for body in bodies for node in body} - functions
    unknown = sorted(name for name in names if op_def_registry.get(name) is None)
    for library, pattern in (("TF Text", TF_TEXT), ("TF Decision Forests", DECISION_FORESTS)):
        theirs = [name for name in unknown if pattern.fullmatch(name)]
        if theirs:
            unknown = [name for name in unknown if name not in theirs]
            module = "tensorflow_" + library.removeprefix("TF ").lower().replace(" ", "_")
            yield Finding(
                "warning",
                f"it uses operations of {library} ({', '.join(theirs)}), which TF Serving has "
                "built in: it could not be tried here",
                f"install {module} and import it before keras_shared.serving.check: then it is",
            )
    if unknown:
        yield Finding(
            "error",
            f"TensorFlow has no operation {', '.join(unknown)}: it cannot be loaded",
            "replace them by operations of TensorFlow; or build TF Serving with the library that "
            "defines them",
        )


def _of_the_version(graph: Any, folder: pathlib.Path) -> Iterator[Finding]:
    version = graph.meta_info_def.tensorflow_version
    if version:
        remedy = "use TF Serving of this version or newer: an older one may lack its operations"
        yield Finding("note", f"written by TensorFlow {version}", remedy)
    else:
        remedy = "export with tf.saved_model.save or keras_shared.publish, which record it"
        yield Finding("warning", "the TensorFlow version that wrote it is not recorded", remedy)
    bodies = [graph.graph_def.node, *(f.node_def for f in graph.graph_def.library.function)]
    uses_variables = any(node.op in VARIABLES for body in bodies for node in body)
    if uses_variables and not (folder / "variables" / "variables.index").exists():
        yield Finding(
            "error",
            "variables/variables.index is missing: TF Serving would load this version even so, "
            "replace the previous one with it, and fail every request",
            "publish or copy it again, under a temporary name that is renamed at the end",
        )


def _of_the_signature(name: str, signature: Any, graph: Any) -> Iterator[Finding]:
    import tensorflow as tf

    if not signature.inputs or not signature.outputs:
        missing = "outputs" if signature.inputs else "inputs"
        remedy = "give its function named inputs, and a dict of outputs"
        yield Finding("error", f"{name} has no {missing}", remedy)
    generated = []
    for side, infos in (("input", signature.inputs), ("output", signature.outputs)):
        for key, info in sorted(infos.items()):
            if re.fullmatch(GENERATED_NAME, key):
                generated.append(key)
            if info.WhichOneof("encoding") != "name":
                kind = "sparse" if info.WhichOneof("encoding") == "coo_sparse" else "ragged"
                yield Finding(
                    "error",
                    f"{name}: {side} '{key}' is {kind}, not a dense tensor",
                    "convert it to a dense tensor inside the model: x.to_tensor() or "
                    "tf.sparse.to_dense(x)",
                )
                continue
            shape, dtype = info.tensor_shape, tf.as_dtype(info.dtype).name
            if dtype not in REST_TYPES:
                yield Finding(
                    "error",
                    f"{name}: {side} '{key}' is {dtype}, which REST can neither read nor write",
                    "cast it inside the model: in Keras, give the last layer dtype='float32'",
                )
            if side == "input" and not shape.unknown_rank:
                first = shape.dim[0].size if shape.dim else None
                if first != -1:
                    yield Finding(
                        "warning",
                        f"{name}: input '{key}' "
                        + ("is a scalar" if first is None else f"takes exactly {first} rows")
                        + ": TF Serving fails its requests with batching on",
                        f"{NO_BATCHING}; or export with None as the first dimension",
                    )
                if any(dim.size < 0 for dim in shape.dim[1:]):
                    yield Finding(
                        "warning",
                        f"{name}: input '{key}' has dimensions of unknown size besides the batch: "
                        "with batching on, requests of different sizes in one batch fail",
                        "fix the sizes, and resize or pad inside the model; or set "
                        "pad_variable_length_inputs in the batching parameters",
                    )
    if generated:
        remedy = "name them: return a dict of outputs, and name the TensorSpecs or Input layers"
        what = f"{name}: names that TensorFlow or Keras made up: {generated}"
        yield Finding("warning", what, remedy)
    parts = [*_used(graph, [info.name for info in signature.outputs.values()])]
    operations = {getattr(part, "op", "") for part in parts}
    if operations & PYTHON:
        yield Finding(
            "error",
            f"{name} calls back into Python ({', '.join(sorted(operations & PYTHON))}): TF Serving "
            "loads it and fails every request",
            "replace tf.py_function and tf.numpy_function by operations of TensorFlow",
        )
    if operations & XLA or any(_must_compile(part) for part in parts):
        yield Finding(
            "error",
            f"{name} runs only under XLA, which is off in TF Serving: every request fails",
            "export without jit_compile and under Keras' TensorFlow backend, or start the server "
            "with --xla_cpu_compilation_enabled",
        )


def _must_compile(part: Any) -> bool:
    return "_XlaMustCompile" in part.attr and part.attr["_XlaMustCompile"].b


def _used(graph: Any, outputs: Sequence[str]) -> Iterator[Any]:
    """The nodes and functions that the outputs need: only these run when the model is served."""
    functions = {function.signature.name: function for function in graph.library.function}
    waiting = _needed(graph.node, outputs)
    while waiting:
        node = waiting.pop()
        yield node
        values = node.attr.values()
        called = {node.op, *(v.func.name for v in values)}
        called |= {f.name for v in values for f in v.list.func}
        for function in [functions.pop(name) for name in called & functions.keys()]:
            yield function
            ends = [*function.ret.values(), *function.control_ret.values()]
            waiting += _needed(function.node_def, ends)


def _needed(nodes: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """The nodes behind the tensors of these names."""
    left, waiting, needed = {node.name: node for node in nodes}, list(names), []
    while waiting:
        node = left.pop(waiting.pop().lstrip("^").partition(":")[0], None)
        if node is not None:
            needed.append(node)
            waiting += node.input
    return needed
