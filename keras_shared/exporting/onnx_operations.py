"""Operations of TensorFlow that tf2onnx lacks, or writes so that they answer otherwise."""

from collections.abc import Callable
from typing import Any

import numpy as np

FLOATS = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16")
OF_WHERE = ("FLOAT", "DOUBLE", "INT32", "INT64", "UINT8")  # what ONNX Runtime has a Where for


def erfc(graph: Any, node: Any, *_: Any) -> None:
    """1 - erf(x), of which TensorFlow makes GELU, and for which tf2onnx has nothing."""
    _by_one(graph, node, "Erf", lambda one, value: [one, value])


def expm1(graph: Any, node: Any, *_: Any) -> None:
    """exp(x) - 1, of which TensorFlow makes CELU."""
    _by_one(graph, node, "Exp", lambda one, value: [value, one])


def as_tensorflow(graph: Any, nodes: list[Any]) -> Any:
    """A rewriter of tf2onnx: what it would write otherwise than TensorFlow computes it.

    Args:
        graph: of tf2onnx, with operations of TensorFlow still.
        nodes: its nodes.

    Returns:
        Its nodes afterwards.
    """
    for node in list(nodes):  # the list itself changes
        if node.type in ("Select", "SelectV2") and _kind(graph, node.output[0]) in FLOATS:
            # else condition * x + (1 - condition) * y: NaN where the other one is not finite
            node.set_attr("handles_nan", True)
        elif node.type in ("FloorDiv", "FloorMod") and _kind(graph, node.input[0]) not in FLOATS:
            _floored(graph, node)
        elif node.type == "OneHot" and graph.get_rank(node.output[0]):
            _one_hot(graph, node)
    return graph.get_nodes()


def _by_one(graph: Any, node: Any, inner: str, order: Callable[[str, str], list[str]]) -> None:
    """A difference of 1 and an operation, in the place of a node."""
    kind = _removed(graph, node)
    value = graph.make_node(inner, node.input, shapes=kind["shapes"], dtypes=kind["dtypes"])
    one = graph.make_const(f"{node.name}/one", np.array(1, "float32"))
    graph.make_node("Sub", order(one.output[0], value.output[0]), **kind)


def _floored(graph: Any, node: Any) -> None:
    """Of whole numbers: Div of ONNX goes toward zero, its Mod has the sign of the divisor."""
    kind = _removed(graph, node)
    if node.type == "FloorMod":
        graph.make_node("Mod", node.input, **kind)
        return
    rest = graph.make_node("Mod", node.input).output
    multiple = graph.make_node("Sub", [node.input[0], *rest]).output
    graph.make_node("Div", [*multiple, node.input[1]], **kind)


def _one_hot(graph: Any, node: Any) -> None:
    """Where a number equals its place: OneHot of ONNX counts negative numbers from the end."""
    from onnx import TensorProto
    from tf2onnx.graph_builder import GraphBuilder

    def cast(value: str, to: int) -> str:
        return str(graph.make_node("Cast", [value], attr={"to": to}).output[0])

    rank, dtype = graph.get_rank(node.output[0]), graph.get_dtype(node.output[0])
    axis = node.get_attr_value("axis", -1) % rank
    behind = list(range(1, rank - axis))
    kind, builder = _removed(graph, node), GraphBuilder(graph)
    number, depth, on, off = node.input
    zero, one = (const.output[0] for const in graph.make_consts([0, 1]))
    places = graph.make_node("Range", [zero, cast(depth, TensorProto.INT64), one]).output[0]
    if behind:
        places = builder.make_unsqueeze({"data": places, "axes": behind})
    each = builder.make_unsqueeze({"data": cast(number, TensorProto.INT64), "axes": [axis]})
    same = graph.make_node("Equal", [each, places]).output[0]
    if _kind(graph, on) in OF_WHERE:
        graph.make_node("Where", [same, on, off], **kind)
        return
    values = [cast(value, TensorProto.FLOAT) for value in (on, off)]
    chosen = graph.make_node("Where", [same, *values]).output
    graph.make_node("Cast", chosen, attr={"to": dtype}, **kind)


def _kind(graph: Any, tensor: str) -> str:
    from onnx import TensorProto

    return str(TensorProto.DataType.Name(graph.get_dtype(tensor)))


def _removed(graph: Any, node: Any) -> dict[str, Any]:
    """Take a node out; what the one in its place gives."""
    given = {"outputs": node.output, "shapes": node.output_shapes, "dtypes": node.output_dtypes}
    graph.remove_node(node.name)
    return given
