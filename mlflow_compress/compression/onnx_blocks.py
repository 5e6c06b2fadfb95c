"""Matrices of an ONNX file in blocks of 4 or 8 bits: ONNX Runtime's `MatMulNBits` and `GatherBlockQuantized`.

A matrix is kept as `MatMulNBits` takes it: one output channel after the other, each in blocks of weights that share a
scale. An embedding is kept in the same way, so that one that is tied to the head stays tied.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow_compress.compression.onnx_packed_weights import GATHER, MICROSOFT, PRODUCT, attribute

BLOCKS = (256, 128, 64, 32, 16)  # lengths that ONNX Runtime's kernels take, the longest first
_TURNED = "_transposed"


@dataclass(frozen=True)
class Blocks:
    """How matrices are to be quantised.

    Attributes:
        bits: 4 or 8.
        length: of a block, in weights: the longest that divides a matrix's rows, and is no longer, is taken.
        symmetric: whether no block has a zero point.
        accuracy_level: in which precision the kernel multiplies at least, as `MatMulNBits` names it: 1 float32, 4 int8.
    """

    bits: int
    length: int
    symmetric: bool
    accuracy_level: int


@dataclass
class Count:
    """What was quantised.

    Attributes:
        products: weights of matrix products that are in few bits.
        embeddings: weights of embeddings beside those of products, by what they are in (`float32`, `4 bits`).
        shared: weights of embeddings that are a product's too, and are held once.
        lengths: how many matrices have blocks of which length.
        whole: shapes of matrices that no block divides, which stay in float32.
        tied: weights of embeddings that were the head's too, and are held beside it now.
    """

    products: int = 0
    embeddings: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    whole: list[list[int]] = field(default_factory=list)
    shared: int = 0
    tied: int = 0

    def __add__(self, other: Count) -> Count:
        """Add what another graph's file holds."""
        return Count(
            self.products + other.products,
            self.embeddings + other.embeddings,
            self.lengths + other.lengths,
            self.whole + other.whole,
            self.shared + other.shared,
            self.tied + other.tied,
        )


def block_length(rows: int, longest: int) -> int | None:
    """Return the longest block that divides a matrix's rows, and is no longer than this; None where there is none."""
    return next((each for each in BLOCKS if each <= longest and rows % each == 0), None)


def quantise(model: Any, blocks: Blocks, embeddings: bool) -> Count:
    """Quantise the constant matrices of an ONNX model's products, in place, and where wanted its embeddings.

    Source: onnxruntime.quantization.matmul_nbits_quantizer.MatMulNBitsQuantizer.

    Args:
        model: an `onnx.ModelProto` in float32.
        blocks: how.
        embeddings: whether tables that rows are taken from are quantised too.
    """
    count = Count()
    heads = _to_plain_products(model.graph)
    matrices = {each.name: each for each in model.graph.initializer}
    chosen: dict[str, int] = {}  # lengths of blocks, by the names of the nodes
    for node, matrix in _products(model.graph, matrices):
        if (length := block_length(matrix.dims[0], blocks.length)) is None:
            count.whole.append(list(matrix.dims))
        else:
            chosen[node.name] = length
            count.lengths[length] += 1
    names = {node.input[1] for node in model.graph.node if node.name in chosen}
    count.products = sum(math.prod(matrices[name].dims) for name in names)
    tables = {node.input[0]: matrices[node.input[0]] for node in model.graph.node if _takes_rows(node, matrices)}
    for length in sorted(set(chosen.values())):
        _quantise_products(model, blocks, length, {name for name, each in chosen.items() if each == length})
    for name, table in tables.items():
        size, length = math.prod(table.dims), block_length(table.dims[1], blocks.length)
        head = heads.get(name, "") if heads.get(name, "") in names else ""
        if not embeddings or length is None:
            count.embeddings["float32"] += size
            count.tied += size if head else 0
        else:
            _quantise_table(model, table, blocks, length, head)
            count.shared += size if head else 0
            count.embeddings[f"{blocks.bits} bits"] += 0 if head else size
    return count


def _to_plain_products(graph: Any) -> dict[str, str]:
    """Turn constant matrices round where the graph would at each call, and make `Gemm` of one `MatMul` and `Add`.

    Returns:
        The names of the matrices that were turned round, by the names that they had.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    constants = {each.name: each for each in graph.initializer}
    turned: dict[str, str] = {}

    def turn(name: str) -> str:
        if name not in turned:
            array = np.ascontiguousarray(numpy_helper.to_array(constants[name]).T)
            turned[name] = f"{name}{_TURNED}"
            graph.initializer.append(numpy_helper.from_array(array, turned[name]))
        return turned[name]

    others: dict[str, str] = {}  # of values that a transposition gave
    nodes = []
    for index, node in enumerate(graph.node):
        for place, name in enumerate(node.input):
            node.input[place] = others.get(name, name)
        if node.op_type == "Transpose" and node.input[0] in constants and len(constants[node.input[0]].dims) == 2:
            if list(attribute(node, "perm", [1, 0])) == [1, 0]:
                others[node.output[0]] = turn(node.input[0])
                continue
        elif _is_plain_gemm(node, constants):
            matrix = turn(node.input[1]) if attribute(node, "transB", 0) else node.input[1]
            added = len(node.input) > 2 and bool(node.input[2])
            product = f"{node.output[0]}_product" if added else node.output[0]
            nodes.append(helper.make_node("MatMul", [node.input[0], matrix], [product], name=f"gemm_{index}"))
            if added:
                nodes.append(helper.make_node("Add", [product, node.input[2]], list(node.output)))
            continue
        nodes.append(node)
    _set_nodes(graph, nodes)
    used = {name for node in graph.node for name in node.input} | {each.name for each in graph.output}
    for each in [each for each in graph.initializer if each.name in turned and each.name not in used]:
        graph.initializer.remove(each)
    return turned


def _is_plain_gemm(node: Any, constants: dict[str, Any]) -> bool:
    scales = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    is_plain = scales == (1.0, 1.0) and not attribute(node, "transA", 0)
    return node.op_type == "Gemm" and is_plain and node.input[1] in constants


def _products(graph: Any, matrices: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Return the products with a constant matrix in float32, which have a name afterwards, each with the matrix."""
    for index, node in enumerate(graph.node):
        matrix = matrices.get(node.input[1]) if node.op_type == "MatMul" else None
        if matrix is not None and len(matrix.dims) == 2 and matrix.data_type == matrix.FLOAT:
            node.name = node.name or f"product_{index}"
            yield node, matrix


def _takes_rows(node: Any, matrices: dict[str, Any]) -> bool:
    """Tell whether a node takes rows of a constant table in float32 that the inputs name."""
    if node.op_type != "Gather" or node.input[1] in matrices or attribute(node, "axis", 0):
        return False
    table = matrices.get(node.input[0])
    return table is not None and len(table.dims) == 2 and table.data_type == table.FLOAT


def _quantise_products(model: Any, blocks: Blocks, length: int, chosen: set[str]) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    others = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name not in chosen]
    settings = DefaultWeightOnlyQuantConfig(
        block_size=length, is_symmetric=blocks.symmetric, accuracy_level=blocks.accuracy_level, bits=blocks.bits
    )
    MatMulNBitsQuantizer(model, nodes_to_exclude=others, algo_config=settings).process()


def _quantise_table(model: Any, table: Any, blocks: Blocks, length: int, head: str) -> None:
    """Quantise a table that rows are taken from; where a head has its codes already, take these.

    Args:
        model: the ONNX model.
        table: the constant [rows, width].
        blocks: how.
        length: of a block.
        head: the name that the head's matrix had; empty where there is none.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    graph, rows = model.graph, table.dims[0]
    kept = _kept_by(graph, head) if head else _quantised(graph, table, blocks, length)
    width = numpy_helper.from_array(np.array([rows, -1], dtype=np.int64), f"{table.name}_rows")
    two = [f"{name}_by_row" for name in kept]  # ONNX Runtime reshapes constants once, when it opens the file
    nodes = [helper.make_node("Reshape", [name, width.name], [each]) for name, each in zip(kept, two, strict=True)]
    options: dict[str, Any] = {"gather_axis": 0, "quantize_axis": 1, "block_size": length, "bits": blocks.bits}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] == table.name:
            inputs = [two[0], node.input[1], *two[1:]]
            node = helper.make_node(GATHER, inputs, list(node.output), domain=MICROSOFT, name=node.name, **options)
        nodes.append(node)
    graph.initializer.remove(table)
    graph.initializer.append(width)
    _set_nodes(graph, nodes)


def _kept_by(graph: Any, matrix: str) -> list[str]:
    """Name the codes, scales and zero points that `MatMulNBits` has of what was this matrix."""
    codes = f"{matrix}_Q"
    product = next(node for node in graph.node if node.op_type == PRODUCT and node.input[1].startswith(codes))
    return [name for name in product.input[1:4] if name]


def _quantised(graph: Any, table: Any, blocks: Blocks, length: int) -> list[str]:
    """Add codes, scales and zero points of a table [rows, width], as `MatMulNBits` has them, and name them."""
    import numpy as np
    from onnx import numpy_helper
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        DefaultWeightOnlyQuantizer,
    )

    settings = DefaultWeightOnlyQuantConfig(block_size=length, is_symmetric=blocks.symmetric, bits=blocks.bits)
    matrix = np.ascontiguousarray(numpy_helper.to_array(table).T)
    codes, scales, zeros = DefaultWeightOnlyQuantizer(settings).qbits_block_quant(matrix)
    made = {f"{table.name}_Q{blocks.bits}": codes, f"{table.name}_scales": scales}
    if not blocks.symmetric:
        made[f"{table.name}_zero_points"] = zeros
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in made.items())
    return list(made)


def _set_nodes(graph: Any, nodes: Sequence[Any]) -> None:
    """Let a graph have these nodes, of which some may be its own."""
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
