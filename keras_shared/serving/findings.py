"""What TF Serving would do with a SavedModel: read from its folder, then tried in a Session."""

import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from keras_shared.presets.names import saved_model_dir, version_numbers

# What REST reads and writes: util/json_tensor.cc of TF Serving. gRPC takes every type.
REST_TYPES = {"float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64",
              "bool", "string"}  # fmt: skip
VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}
PYTHON = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
XLA = {"XlaCallModule", "XlaLaunch"}
GENERATED_NAME = r"(args|inputs?|outputs?|keras_tensor|unnamed|unknown)_\d+(_\d+)?|keras_tensor"


class Finding(NamedTuple):
    """One thing that `check` found.

    Attributes:
        severity: "error" if TF Serving cannot load the model or fails requests; "warning" for
            what makes it slower or harder to use; "note" for a fact.
        what: what was found.
        cure: what to do.
    """

    severity: str
    what: str
    cure: str


def check(path: str | os.PathLike[str]) -> list[Finding]:
    """Say what TF Serving would do with a SavedModel, of this library or of any other program.

    The folder and the graph are read; then the model is loaded into a Session, as TF Serving
    does, its warm-up requests are replayed, and every signature is run at batch 1, 2 and 17.

    Args:
        path: a folder of versions (the newest is checked, which TF Serving takes by default), the
            folder of one version, any SavedModel, or a published name.

    Returns:
        What was found, errors first. Without an error, TF Serving serves the model.

    Raises:
        ValueError: if nothing lies there.

    Example:
        >>> from keras_shared.serving import check
        >>> [(finding.severity, finding.what) for finding in check("tied_autoencoder_mnist")]
        [('note', 'written by TensorFlow 2.21.0')]

    Reference: g3doc/serving_config.md and sources/storage_path of
        https://github.com/tensorflow/serving.
    """
    folder = pathlib.Path(path).absolute()
    if not folder.exists():
        if len(pathlib.Path(path).parts) > 1:
            raise ValueError(f"There is no folder {folder}. Name a SavedModel or its parent.")
        folder = saved_model_dir(str(path))
    here = (folder / "saved_model.pb").exists() or (folder / "saved_model.pbtxt").exists()
    if not here and version_numbers(folder):
        newest = version_numbers(folder)[-1]
        return check_version(next(p for p in folder.iterdir() if _number(p) == newest))
    found = check_version(folder) if here or _number(folder) is not None else []
    if _number(folder) is None:
        inside = sorted(p.name for p in folder.iterdir())[:5] if folder.is_dir() else "a file"
        where = f"the folder '{folder.name}' is no number" if here else f"it holds: {inside}"
        misplaced = Finding(
            "error",
            f"TF Serving finds no version: {where}",
            "put the SavedModel into NAME/1 (2, 3, ...), and name NAME to the server",
        )
        found.insert(0, misplaced)
    return found


def check_version(folder: str | os.PathLike[str]) -> list[Finding]:
    """`check` of one SavedModel, whatever its folder is named.

    Args:
        folder: what holds `saved_model.pb`.

    Returns:
        What was found, errors first.
    """
    from keras_shared.serving.trial import try_version

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
                "requests that name no signature fail: export one with this name too",
            )
        )
    for name, signature in sorted(graph.signature_def.items()):
        if not name.startswith("__saved_model_"):  # initialisers, no way to ask
            of_signature = [*_of_the_signature(name, signature, graph.graph_def)]
            found += of_signature
            if all(finding.severity != "error" for finding in of_signature):
                runnable[name] = signature
    if not any(finding.what.startswith("variables/") for finding in found):
        found += try_version(folder, graph.signature_def, runnable)
    return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def _number(folder: pathlib.Path) -> int | None:
    return int(folder.name) if folder.name.isdecimal() else None


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
        return Finding("error", f"saved_model.pb is corrupt: {error}", "publish or copy again")
    tags = [sorted(graph.meta_info_def.tags) for graph in model.meta_graphs]
    graphs = [g for g, t in zip(model.meta_graphs, tags, strict=True) if t == ["serve"]]
    if len(graphs) != 1:
        return Finding(
            "error",
            f"no graph has the tag 'serve' alone; the tags are: {tags}",
            "export with the tag 'serve', or start the server with --saved_model_tags",
        )
    return graphs[0]


def _of_the_version(graph: Any, folder: pathlib.Path) -> Iterator[Finding]:
    version = graph.meta_info_def.tensorflow_version
    if version:
        cure = "an older TF Serving may lack its operations: take this version or a newer one"
        yield Finding("note", f"written by TensorFlow {version}", cure)
    else:
        cure = "export with tf.saved_model.save or keras_shared.publish, which record it"
        yield Finding("warning", "the TensorFlow version that wrote it is not recorded", cure)
    bodies = [graph.graph_def.node, *(f.node_def for f in graph.graph_def.library.function)]
    uses_variables = any(node.op in VARIABLES for body in bodies for node in body)
    if uses_variables and not (folder / "variables" / "variables.index").exists():
        yield Finding(
            "error",
            "variables/variables.index is missing: TF Serving loads the version all the same, in "
            "place of the good one, and fails every request",
            "copy or publish it again; write beside and rename, as keras_shared.publish does",
        )


def _of_the_signature(name: str, signature: Any, graph: Any) -> Iterator[Finding]:
    import tensorflow as tf

    if not signature.inputs or not signature.outputs:
        missing = "outputs" if signature.inputs else "inputs"
        cure = "give its function named inputs, and a dict of outputs"
        yield Finding("error", f"{name} has no {missing}", cure)
    generated = []
    for side, infos in (("input", signature.inputs), ("output", signature.outputs)):
        for key, info in sorted(infos.items()):
            shape, dtype = info.tensor_shape, tf.as_dtype(info.dtype).name
            if re.fullmatch(GENERATED_NAME, key):
                generated.append(key)
            if info.WhichOneof("encoding") != "name":
                cure = "make it a dense tensor inside of the model"
                yield Finding("error", f"{name}: {side} '{key}' is not one dense tensor", cure)
            if dtype not in REST_TYPES:
                yield Finding(
                    "error",
                    f"{name}: {side} '{key}' is {dtype}, which REST can neither read nor write",
                    "cast inside of the model: in Keras, give the last layer dtype='float32'",
                )
            if side == "input" and not shape.unknown_rank:
                first = shape.dim[0].size if shape.dim else None
                if first != -1:
                    yield Finding(
                        "error",
                        f"{name}: input '{key}' "
                        + ("is a scalar" if first is None else f"takes {first} rows alone")
                        + ": dimension 0 must be the batch, of any size",
                        "export with None as the first dimension; batching needs it, as do the "
                        "'instances' of REST",
                    )
                if any(dim.size < 0 for dim in shape.dim[1:]):
                    yield Finding(
                        "warning",
                        f"{name}: input '{key}' has open dimensions besides the batch: with "
                        "batching on, requests of different sizes that meet in one batch fail",
                        "fix the sizes, and resize or pad inside of the model; or set "
                        "pad_variable_length_inputs in the batching parameters",
                    )
    if generated:
        cure = "name them: a dict of outputs, and named specs or Input layers"
        yield Finding("warning", f"{name}: generated names that say nothing: {generated}", cure)
    parts = [*_used(graph, [info.name for info in signature.outputs.values()])]
    operations = {getattr(part, "op", "") for part in parts}
    if operations & PYTHON:
        yield Finding(
            "error",
            f"{name} calls back into Python ({', '.join(sorted(operations & PYTHON))}): TF Serving "
            "loads it and fails every request",
            "write tf.py_function and tf.numpy_function with operations of TensorFlow",
        )
    if operations & XLA or any(_must_compile(part) for part in parts):
        yield Finding(
            "error",
            f"{name} runs under XLA alone, which is off in TF Serving: every request fails",
            "export without jit_compile and under Keras' TensorFlow backend, or start the server "
            "with --xla_cpu_compilation_enabled",
        )


def _must_compile(part: Any) -> bool:
    return "_XlaMustCompile" in part.attr and part.attr["_XlaMustCompile"].b


def _used(graph: Any, outputs: Sequence[str]) -> Iterator[Any]:
    """The nodes and functions that the outputs need; what training left behind does no harm."""
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
