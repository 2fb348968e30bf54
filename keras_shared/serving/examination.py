"""What TF Serving would do with a SavedModel: its folder and graph are read, then it is tried."""

import functools
import importlib
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_shared.errors import KerasSharedError, attempt, boundary
from keras_shared.files.bounded import read_bytes
from keras_shared.serving.effects import called, changes, effects, needed
from keras_shared.serving.finding import EARLIER, NOT_RUN, Finding
from keras_shared.serving.limits import MOST_GRAPH, MOST_REQUEST
from keras_shared.serving.messages import REST_TYPES
from keras_shared.serving.trial import NO_BATCHING, NO_ROWS, try_version

FILES = ("saved_model.pb", "saved_model.pbtxt")
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
OF_SERVING = re.compile(f"{TF_TEXT.pattern}|{DECISION_FORESTS.pattern}")
AGAIN = "export it again"
GENERATED_NAME = r"(args|inputs?|outputs?|keras_tensor|unnamed|unknown)_\d+(_\d+)?|keras_tensor"


def examine(
    folder: pathlib.Path, static: bool, trusted: bool, libraries: Sequence[str]
) -> Iterator[Finding | str]:
    """Read one SavedModel, then try it: for a process of its own, which may be ended by it.

    Args:
        folder: what holds `saved_model.pb`.
        static: nothing is run.
        trusted: what touches files, the network or Python is run too.
        libraries: packages with operations of their own, imported if some are not known.

    Yields:
        What is done next, as text, and what was found.
    """
    yield "reading the folder"
    _refuse_irregular(folder)
    yield "reading saved_model.pb"
    graph = read_graph(folder)
    if isinstance(graph, Finding):
        yield graph
        return
    incomplete = [*of_the_version(graph, folder)]
    yield from incomplete
    if "serving_default" not in graph.signature_def:
        named = [name for name in graph.signature_def if not name.startswith("__")]
        yield Finding(
            "error",
            f"there is no signature 'serving_default'; there are: {sorted(named) or 'none'}",
            "export a signature of this name too: requests without a name use it",
        )
    runnable = {}
    for name, signature in sorted(graph.signature_def.items()):
        if not name.startswith("__saved_model_"):  # initialisers, which no request can name
            of_signature = [*_of_the_signature(name, signature, graph.graph_def)]
            yield from of_signature
            if all(finding.severity != "error" for finding in of_signature):
                runnable[name] = signature
    for name, operations in changes(graph).items():
        yield Finding(
            "warning",
            f"{name} changes variables or tables of the model ({', '.join(operations)}), which all "
            f"clients share: what it answers may depend on {EARLIER}, those of others too",
            "take the state as an input, and return it as an output: in Keras, build recurrent "
            "layers with stateful=False, and pass states by `initial_state`",
        )
    if any(_unknown(graph.graph_def)):
        for library in libraries:
            attempt(functools.partial(importlib.import_module, library))  # else it is said below
    lacking = [*_lacking(graph.graph_def)]
    yield from lacking
    touched = effects(graph, OF_SERVING)
    if touched:
        yield _touching(touched, static, trusted)
    errors = [finding for finding in incomplete if finding.severity == "error"]
    if not (static or lacking or errors or (touched and not trusted)):
        yield from try_version(folder, graph.signature_def, runnable)


def _refuse_irregular(folder: pathlib.Path) -> None:
    """Pipes and devices, which a reader would wait for."""
    for path in sorted(folder.rglob("*")):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise KerasSharedError(f"{path} is no regular file.")


def _touching(touched: Mapping[str, Sequence[str]], static: bool, trusted: bool) -> Finding:
    named = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in touched.items())
    what = f"its graph does more than compute ({named})"
    if trusted or static:
        remedy = "see that you know where it comes from: a server that loads it runs this"
        return Finding("warning" if static else "note", what, remedy)
    remedy = (
        "if you know where it comes from, try it with check(..., trusted=True) or "
        "`keras-shared check --trusted`: these operations run then"
    )
    return Finding("warning", f"{what}, and {NOT_RUN}", remedy)


def read_graph(folder: pathlib.Path) -> Any:
    """The one graph tagged `serve`, or what is wrong."""
    from google.protobuf import text_format
    from tensorflow.core.protobuf import saved_model_pb2

    present = [name for name in FILES if os.path.lexists(folder / name)]
    if not present:
        raise KerasSharedError(f"{folder} has no saved_model.pb.")
    content = read_bytes(folder / present[0], MOST_GRAPH)
    model = saved_model_pb2.SavedModel()
    with boundary(f"{present[0]} is corrupt"):
        if present[0] == FILES[0]:
            model.ParseFromString(content)
        else:
            text_format.Parse(content.decode(), model)
    tags = [sorted(graph.meta_info_def.tags) for graph in model.meta_graphs]
    graphs = [g for g, t in zip(model.meta_graphs, tags, strict=True) if t == ["serve"]]
    if len(graphs) != 1:
        return Finding(
            "error",
            f"TF Serving needs one graph with the tag 'serve' and no other; the tags are: {tags}",
            "export with the tag 'serve', or start the server with --saved_model_tags",
        )
    return graphs[0]


def _unknown(graph: Any) -> list[str]:
    """The operations that TensorFlow has not here."""
    from tensorflow.python.framework import op_def_registry

    functions = {function.signature.name for function in graph.library.function}
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    names = {node.op for body in bodies for node in body} - functions
    return sorted(name for name in names if op_def_registry.get(name) is None)


def _lacking(graph: Any) -> Iterator[Finding]:
    """With operations that are not known, nothing can be tried."""
    unknown = _unknown(graph)
    for library, pattern in (("TF Text", TF_TEXT), ("TF Decision Forests", DECISION_FORESTS)):
        theirs = [name for name in unknown if pattern.fullmatch(name)]
        if theirs:
            unknown = [name for name in unknown if name not in theirs]
            module = "tensorflow_" + library.removeprefix("TF ").lower().replace(" ", "_")
            yield Finding(
                "warning",
                f"it uses operations of {library} ({', '.join(theirs)}), which TF Serving has "
                f"built in: it {NOT_RUN} here",
                f"install {module} and import it before keras_shared.serving.check: then it is",
            )
    if unknown:
        yield Finding(
            "error",
            f"TensorFlow has no operation {', '.join(unknown)}: it cannot be loaded",
            "replace them by operations of TensorFlow; or build TF Serving with the library that "
            "defines them",
        )


def of_the_version(graph: Any, folder: pathlib.Path) -> Iterator[Finding]:
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
    from tensorflow.core.framework import types_pb2

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
            shape, where = info.tensor_shape, f"{name}: {side} '{key}'"
            if info.dtype not in types_pb2.DataType.values():
                yield Finding(
                    "error", f"{where} has the dtype {info.dtype}, unknown to TensorFlow", AGAIN
                )
                continue
            sizes = [dim.size for dim in shape.dim]
            if min(sizes, default=0) < -1:
                yield Finding("error", f"{where} has a negative size in its shape {sizes}", AGAIN)
                continue
            dtype = tf.as_dtype(info.dtype)
            row = math.prod(abs(size) for size in sizes) * dtype.size
            if side == "input" and row > MOST_REQUEST:
                yield Finding(
                    "error",
                    f"{where} has {row:,} bytes at least, and a request {MOST_REQUEST:,} at most",
                    "export it with a smaller shape",
                )
            if dtype.name not in REST_TYPES:
                yield Finding(
                    "error",
                    f"{where} is {dtype.name}, which REST can neither read nor write",
                    _plainer(dtype, side),
                )
            if side == "input" and not shape.unknown_rank:
                first = shape.dim[0].size if shape.dim else None
                if first != -1:
                    apart = NO_ROWS if first is None else NO_BATCHING
                    yield Finding(
                        "warning",
                        f"{name}: input '{key}' "
                        + ("is a scalar" if first is None else f"takes exactly {first} rows")
                        + ": TF Serving fails its requests with batching on",
                        f"{apart}; or export a model whose keras.Input leaves the batch open",
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


def _plainer(dtype: Any, side: str) -> str:
    """What to do about a dtype that REST has not."""
    if dtype.is_complex:
        return "take and return real and imaginary parts as tensors of their own, of float32"
    plain = "float32" if dtype.is_floating else "int32"
    where = f"give keras.Input dtype='{plain}'"
    if side == "output":
        where = "give the last layer dtype='float32'"
        where = where if dtype.is_floating else "end with keras.ops.cast(y, 'int32')"
    return f"cast it inside the model: in Keras, {where}"


def _must_compile(part: Any) -> bool:
    return "_XlaMustCompile" in part.attr and part.attr["_XlaMustCompile"].b


def _used(graph: Any, outputs: Sequence[str]) -> Iterator[Any]:
    """The nodes and functions that the outputs need: only these run when the model is served."""
    functions = {function.signature.name: function for function in graph.library.function}
    waiting = needed(graph.node, outputs)
    while waiting:
        node = waiting.pop()
        yield node
        for function in [functions.pop(name) for name in called(node, functions)]:
            yield function
            ends = [*function.ret.values(), *function.control_ret.values()]
            waiting += needed(function.node_def, ends)
