"""What a graph does besides computing, read from its operations before any of them runs."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

# by the names of operations, where those of their arguments do not show it
NAMES = {
    "Python": r"PyFunc(Stateless)?|EagerPyFunc",
    "network": r"Rpc\w+|\w*DataService\w*|RegisterDataset\w*|DistributedSave|Collective\w+|"
    r"_?(Host)?(Send|Recv)|RemoteCall|Gcs\w+|(_?Configure|_?Initialize\w*)\w*Distributed\w*",
    "files": r"MatchingFiles\w*|ExperimentalMatchingFiles\w*|\w+Reader(V2)?|FileSystem\w+",
    "programs inside of a tensor": r"DatasetFromGraph|XlaCustomCall\w*|MlirPassthroughOp",
}
# by the names of arguments of type string
ARGUMENTS = {
    "network": r"address|urls?$|uri$|target_workers",
    "files": r"file|path|dir$|directory|(^|_)prefix(es)?$|data_source|memory_region|"
    r"descriptor_source|output_stream",
}
# what says in such an argument that there is no file
PLAIN = re.compile(rb"|local://|bytes://.*|std(out|err)|log\(\w+\)", re.DOTALL)
PURE = {"ShardedFilename", "ShardedFilespec"}  # text alone
SAVING = {"SaveV2", "Save", "SaveSlices", "MergeV2Checkpoints", "RestoreV2", "Restore",
          "RestoreSlice"}  # fmt: skip
READING = re.compile(
    r"ReadFile|InitializeTableFromTextFile(V2)?|(TFRecord|TextLine|FixedLengthRecord)Dataset(V2)?"
)
CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
# what may be done with a variable that holds the path of an asset
VARIABLE_USES = {"ReadVariableOp", "AssignVariableOp", "VarIsInitializedOp", "DisableCopyOnRead"}
# what later requests read, but for the states of Keras' SeedGenerator
WRITES = re.compile(
    r"Assign((Add|Sub)?VariableOp|Add|Sub)?|Resource(Scatter|Apply|SparseApply|Strided)\w+|"
    r"Scatter(Nd)?(Update|Add|Sub|Mul|Div|Min|Max)|LookupTable(Insert|Remove)(V2)?"
)
SEEDS = re.compile(r"(.*/)?seed_generator_state(_\d+)?")
UNKNOWN = ""  # a tensor whose source cannot be followed
ASSETS = "saved_model_assets"


class _Suspicion(NamedTuple):
    """What an operation touches if an attribute has a value, or where inputs name it."""

    kind: str
    attribute: str = ""
    inputs: tuple[int, ...] = ()


def effects(graph: Any, known: re.Pattern[str]) -> dict[str, list[str]]:
    """The operations of a graph that touch what lies outside of it, in functions too.

    The checkpoint of the SavedModel itself and its assets, as the loader names them, are inside.

    Args:
        graph: a MetaGraphDef.
        known: the operations of libraries that are taken as they are.

    Returns:
        "files", "network", "Python" or "programs inside of a tensor" -> names of operations.

    Example:
        >>> import re
        >>> import tensorflow as tf
        >>> from keras_shared.serving.effects import effects
        >>> with tf.Graph().as_default() as graph:
        ...     _ = tf.io.read_file("/etc/hostname")
        >>> meta = tf.compat.v1.MetaGraphDef(graph_def=graph.as_graph_def())
        >>> effects(meta, re.compile(r"SimpleML.*"))
        {'files': ['ReadFile']}
    """
    from tensorflow.python.framework import op_def_registry

    whole = _Graph(graph)
    found: dict[str, set[str]] = {}
    suspicions: dict[str, list[_Suspicion]] = {}
    for body, node in whole.nodes():
        if node.op not in suspicions:
            ours = node.op in whole.functions or node.op in PURE or known.fullmatch(node.op)
            definition = None if ours else op_def_registry.get(node.op)
            suspicions[node.op] = [] if definition is None else [*_suspicions(definition)]
        for kind, attribute, inputs in suspicions[node.op]:
            value = node.attr.get(attribute)
            if attribute and (value is None or (PLAIN.fullmatch(value.s) and not value.list.s)):
                continue
            where = [node.input[at] for at in inputs if at < len(node.input)]
            if kind != "files" or not whole.inside(body, node, where):
                found.setdefault(kind, set()).add(node.op)
    return {kind: sorted(names) for kind, names in sorted(found.items())}


def changes(graph: Any) -> dict[str, list[str]]:
    """The operations by which a request changes variables and tables, for those after it.

    Args:
        graph: a MetaGraphDef.

    Returns:
        Name of a signature -> names of operations, of those signatures alone that have some.

    Example:
        >>> import tensorflow as tf
        >>> from keras_shared.serving.effects import changes
        >>> changes(tf.compat.v1.MetaGraphDef())
        {}
    """
    whole = _Graph(graph)
    writes = [(body, node) for body, node in whole.nodes() if WRITES.fullmatch(node.op)]
    found = {}
    for name, signature in sorted(graph.signature_def.items()) if writes else ():
        if not name.startswith("__saved_model_"):
            reached = whole.reached(_tensors([signature.outputs]))
            run = [one for one in writes if (one[0], one[1].name) in reached]
            found[name] = sorted({node.op for body, node in run if not whole.draws(body, node)})
    return {name: operations for name, operations in found.items() if operations}


def needed(nodes: Iterable[Any], names: Iterable[str]) -> list[Any]:
    """The nodes behind the tensors of these names."""
    left, waiting, found = {node.name: node for node in nodes}, [*names], []
    while waiting:
        node = left.pop(waiting.pop().lstrip("^").partition(":")[0], None)
        if node is not None:
            found.append(node)
            waiting += node.input
    return found


def called(node: Any, functions: Any) -> set[str]:
    """The functions that a node calls."""
    values = node.attr.values()
    names = {node.op, *(value.func.name for value in values)}
    names |= {function.name for value in values for function in value.list.func}
    return {name for name in names if name in functions}


def _suspicions(definition: Any) -> Iterator[_Suspicion]:
    """What nodes of an operation may touch."""
    from tensorflow.core.framework import types_pb2

    for kind, names in NAMES.items():
        if re.fullmatch(names, definition.name):
            yield _Suspicion(kind)
            return
    arguments = definition.input_arg
    for kind, pattern in ARGUMENTS.items():
        for attribute in definition.attr:
            if attribute.type in ("string", "list(string)") and re.search(pattern, attribute.name):
                yield _Suspicion(kind, attribute.name)
        text = [a.type == types_pb2.DT_STRING and re.search(pattern, a.name) for a in arguments]
        at = [i for i, named in enumerate(text) if named]
        if at:
            lists = any(a.number_attr or a.type_list_attr for a in arguments[: at[-1] + 1])
            yield _Suspicion(kind, inputs=() if lists else tuple(at))


class _Graph:
    """Nodes by the function that holds them ("": none), and what loading and calling run."""

    def __init__(self, graph: Any) -> None:
        self.functions = {f.signature.name: f for f in graph.graph_def.library.function}
        self._bodies = {name: f.node_def for name, f in self.functions.items()}
        self._bodies[""] = graph.graph_def.node
        self._named = {body: {n.name: n for n in nodes} for body, nodes in self._bodies.items()}
        self._sites: dict[str, list[tuple[str, Any]]] = {}
        for body, node in self.nodes():
            for name in called(node, self.functions):
                self._sites.setdefault(name, []).append((body, node))
        requests = [s for n, s in graph.signature_def.items() if not n.startswith("__saved_model_")]
        starts = [s for n, s in graph.signature_def.items() if n.startswith("__saved_model_")]
        collected = [name for c in graph.collection_def.values() for name in c.node_list.value]
        self._by_request = self.reached(_tensors([s.outputs for s in requests]))
        ends = _tensors([s.outputs for s in starts])
        self._by_others = self._by_request | self.reached([*ends, *collected])
        self._by_restoring = self.reached([graph.saver_def.restore_op_name])
        self._by_saving = self.reached([graph.saver_def.save_tensor_name])
        sent = {name.partition(":")[0] for name in _tensors([s.inputs for s in requests])}
        sent.add(UNKNOWN)
        self._checkpoint = {graph.saver_def.filename_tensor_name.partition(":")[0]} - sent
        self._assets = {*_assets(graph)} - sent

    def nodes(self) -> Iterator[tuple[str, Any]]:
        for body, nodes in self._bodies.items():
            for node in nodes:
                yield body, node

    def inside(self, body: str, node: Any, inputs: Sequence[str]) -> bool:
        """Whether the files of a node are the model's own, as the loader names them."""
        key = (body, node.name)
        sources = {source for name in inputs for source in self._sources(body, name, frozenset())}
        if node.op in SAVING:
            if key in self._by_others:
                return False
            if node.op == "RestoreV2" and sources and sources <= self._checkpoint:
                return True
            # by the one who saves it again, or by nobody
            return key not in self._by_restoring and (not body or key in self._by_saving)
        if not inputs or not sources:
            return bool(inputs)  # an empty name: nothing is written
        by_request = key in self._by_request
        placed = all(self._named[""][s].op == "Placeholder" for s in sources & self._assets)
        return (
            READING.fullmatch(node.op) is not None
            and sources <= self._assets
            and (placed or not by_request)  # else the constant in its place is read
        )

    def draws(self, body: str, node: Any) -> bool:
        """Whether a node writes the state of a SeedGenerator alone."""
        handles = self._sources(body, node.input[0], frozenset()) if node.input else {UNKNOWN}
        return all(SEEDS.fullmatch(handle) for handle in handles)

    def reached(self, names: Iterable[str]) -> set[tuple[str, str]]:
        """(function, node) of all that runs for the tensors of these names."""
        waiting = needed(self._bodies[""], names)
        found, seen = {("", node.name) for node in waiting}, set[str]()
        while waiting:
            for name in called(waiting.pop(), self.functions) - seen:
                seen.add(name)
                found |= {(name, node.name) for node in self._bodies[name]}
                waiting += self._bodies[name]
        return found

    def _sources(self, body: str, tensor: str, seen: frozenset[tuple[str, str]]) -> set[str]:
        """The nodes outside of functions that a tensor comes from; none for an empty text."""
        name = tensor.partition(":")[0]
        if (body, name) in seen:
            return {UNKNOWN}
        seen |= {(body, name)}
        node = self._named[body].get(name)
        if node is None:
            return self._given(body, name, seen) if body else {UNKNOWN}
        if node.op == "Const" and not any(node.attr["value"].tensor.string_val):
            return set()
        if node.op == "Identity" and node.input:
            return self._sources(body, node.input[0], seen)
        if not body and node.op == "ReadVariableOp" and node.input:
            return self._assigned(node.input[0].partition(":")[0], seen)
        return {UNKNOWN if body else name}

    def _given(self, function: str, name: str, seen: frozenset[tuple[str, str]]) -> set[str]:
        arguments = self.functions[function].signature.input_arg
        names = [argument.name for argument in arguments]
        lists = any(argument.number_attr or argument.type_list_attr for argument in arguments)
        if name not in names or lists or function not in self._sites:
            return {UNKNOWN}
        found: set[str] = set()
        for body, node in self._sites[function]:
            at = names.index(name)
            direct = node.op == function or node.op in CALLS
            if not direct or at >= len(node.input):
                return {UNKNOWN}
            found |= self._sources(body, node.input[at], seen)
        return found

    def _assigned(self, handle: str, seen: frozenset[tuple[str, str]]) -> set[str]:
        """Where all that is ever assigned to a variable comes from."""
        held = self._named[""].get(handle)
        if held is None or held.op != "VarHandleOp":
            return {UNKNOWN}
        shared = _shared(held)
        same = [(b, n) for b, n in self.nodes() if n.op == "VarHandleOp" and _shared(n) == shared]
        handles = {node.name for _, node in same}
        uses = [n for n in self._bodies[""] if handles & {i.partition(":")[0] for i in n.input}]
        if any(b for b, _ in same) or any(use.op not in VARIABLE_USES for use in uses):
            return {UNKNOWN}
        values = [use.input[1] for use in uses if use.op == "AssignVariableOp"]
        return {source for value in values for source in self._sources("", value, seen)}


def _shared(node: Any) -> bytes:
    return bytes(node.attr["shared_name"].s) or str(node.name).encode()


def _tensors(sides: Iterable[Any]) -> list[str]:
    """The names of the tensors in the inputs or outputs of signatures."""
    infos = [info for side in sides for info in side.values()]
    infos += [part for info in infos for part in info.composite_tensor.components]
    sparse = [info.coo_sparse for info in infos]
    names = [
        [s.values_tensor_name, s.indices_tensor_name, s.dense_shape_tensor_name] for s in sparse
    ]
    return [*filter(None, [*(info.name for info in infos), *itertools.chain(*names)])]


def _assets(graph: Any) -> Iterator[str]:
    """The nodes that the loader feeds with paths in the folder assets/."""
    from tensorflow.core.protobuf import meta_graph_pb2

    assets = [*graph.asset_file_def]
    old = graph.collection_def[ASSETS].any_list.value if ASSETS in graph.collection_def else ()
    for packed in old if not assets else ():
        asset = meta_graph_pb2.AssetFileDef()
        if packed.Unpack(asset):
            assets.append(asset)
    for asset in assets:
        if ".." not in asset.filename.split("/") and not asset.filename.startswith("/"):
            yield asset.tensor_info.name.partition(":")[0]
