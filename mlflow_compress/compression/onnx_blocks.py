"""Matrices of an ONNX file in blocks of 4 or 8 bits: ONNX Runtime's `MatMulNBits` and `GatherBlockQuantized`.

A matrix is stored as `MatMulNBits` takes it: one output channel after the other, each in blocks of weights that share a
scale. An embedding is stored in the same way, so that an embedding tied to the head stays tied.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow_compress.compression.onnx_packed_weights import GATHER, MICROSOFT, PRODUCT, attribute

BLOCKS = (256, 128, 64, 32, 16)  # lengths that ONNX Runtime's kernels take, the longest first
_TRANSPOSED = "_transposed"


@dataclass(frozen=True)
class Blocks:
    """Quantisation settings of matrices.

    Attributes:
        bits: 4 or 8.
        length: Maximum weights per block: each matrix gets the longest block that divides its rows.
        symmetric: Whether blocks have no zero points.
        accuracy_level: Minimum precision in which the kernel multiplies, as in `MatMulNBits`: 1 float32, 4 int8.
    """

    bits: int
    length: int
    symmetric: bool
    accuracy_level: int


@dataclass
class Count:
    """Counts of quantised weights.

    Attributes:
        products: Weights of matrix products in few bits.
        embeddings: Weights of embeddings not shared with a product, by their type (`float32`, `4 bits`).
        shared: Weights of embeddings that are shared with a product and stored once.
        lengths: Number of matrices by block length.
        whole: Shapes of matrices that no block divides, which stay in float32.
        tied: Weights of embeddings that were tied to the head and are stored separately now.
    """

    products: int = 0
    embeddings: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    whole: list[list[int]] = field(default_factory=list)
    shared: int = 0
    tied: int = 0

    def __add__(self, other: Count) -> Count:
        """Add the counts of another graph's file."""
        return Count(
            self.products + other.products,
            self.embeddings + other.embeddings,
            self.lengths + other.lengths,
            self.whole + other.whole,
            self.shared + other.shared,
            self.tied + other.tied,
        )


def block_length(rows: int, longest: int) -> int | None:
    """Return the longest block up to `longest` that divides a matrix's rows, or None."""
    return next((length for length in BLOCKS if length <= longest and rows % length == 0), None)


def quantise(model: Any, blocks: Blocks, embeddings: bool) -> Count:
    """Quantise the constant matrices of an ONNX model's products in place, and optionally its embeddings.

    Source: onnxruntime.quantization.matmul_nbits_quantizer.MatMulNBitsQuantizer.

    Args:
        model: `onnx.ModelProto` in float32.
        blocks: Quantisation settings.
        embeddings: Whether lookup tables are quantised too.
    """
    count = Count()
    heads = _to_plain_products(model.graph)
    matrices = {constant.name: constant for constant in model.graph.initializer}
    lengths: dict[str, int] = {}  # block lengths, by the names of the nodes
    for node, matrix in _products(model.graph, matrices):
        if (length := block_length(matrix.dims[0], blocks.length)) is None:
            count.whole.append(list(matrix.dims))
        else:
            lengths[node.name] = length
            count.lengths[length] += 1
    names = {node.input[1] for node in model.graph.node if node.name in lengths}
    count.products = sum(math.prod(matrices[name].dims) for name in names)
    tables = {node.input[0]: matrices[node.input[0]] for node in model.graph.node if _takes_rows(node, matrices)}
    for length in sorted(set(lengths.values())):
        _quantise_products(model, blocks, length, {name for name, block in lengths.items() if block == length})
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
    """Transpose constant matrices instead of transposing at each call, and split `Gemm` into `MatMul` and `Add`.

    Returns:
        The new names of the transposed matrices, by their old names.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    constants = {constant.name: constant for constant in graph.initializer}
    transposed: dict[str, str] = {}

    def transpose(name: str) -> str:
        if name not in transposed:
            array = np.ascontiguousarray(numpy_helper.to_array(constants[name]).T)
            transposed[name] = f"{name}{_TRANSPOSED}"
            graph.initializer.append(numpy_helper.from_array(array, transposed[name]))
        return transposed[name]

    replaced: dict[str, str] = {}  # outputs of removed Transpose nodes
    nodes = []
    for index, node in enumerate(graph.node):
        for position, name in enumerate(node.input):
            node.input[position] = replaced.get(name, name)
        if node.op_type == "Transpose" and node.input[0] in constants and len(constants[node.input[0]].dims) == 2:
            if list(attribute(node, "perm", [1, 0])) == [1, 0]:
                replaced[node.output[0]] = transpose(node.input[0])
                continue
        elif _is_plain_gemm(node, constants):
            matrix = transpose(node.input[1]) if attribute(node, "transB", 0) else node.input[1]
            has_bias = len(node.input) > 2 and bool(node.input[2])
            product = f"{node.output[0]}_product" if has_bias else node.output[0]
            nodes.append(helper.make_node("MatMul", [node.input[0], matrix], [product], name=f"gemm_{index}"))
            if has_bias:
                nodes.append(helper.make_node("Add", [product, node.input[2]], list(node.output)))
            continue
        nodes.append(node)
    _set_nodes(graph, nodes)
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    unused = [constant for constant in graph.initializer if constant.name in transposed and constant.name not in used]
    for constant in unused:
        graph.initializer.remove(constant)
    return transposed


def _is_plain_gemm(node: Any, constants: dict[str, Any]) -> bool:
    scales = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    is_plain = scales == (1.0, 1.0) and not attribute(node, "transA", 0)
    return node.op_type == "Gemm" and is_plain and node.input[1] in constants


def _products(graph: Any, matrices: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the products with a constant float32 matrix and that matrix; name products without a name."""
    for index, node in enumerate(graph.node):
        matrix = matrices.get(node.input[1]) if node.op_type == "MatMul" else None
        if matrix is not None and len(matrix.dims) == 2 and matrix.data_type == matrix.FLOAT:
            node.name = node.name or f"product_{index}"
            yield node, matrix


def _takes_rows(node: Any, matrices: dict[str, Any]) -> bool:
    """Return whether a node looks up rows of a constant float32 table by its inputs."""
    if node.op_type != "Gather" or node.input[1] in matrices or attribute(node, "axis", 0):
        return False
    table = matrices.get(node.input[0])
    return table is not None and len(table.dims) == 2 and table.data_type == table.FLOAT


def _quantise_products(model: Any, blocks: Blocks, length: int, selected: set[str]) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    excluded = [node.name for node in model.graph.node if node.op_type == "MatMul" and node.name not in selected]
    settings = DefaultWeightOnlyQuantConfig(
        block_size=length, is_symmetric=blocks.symmetric, accuracy_level=blocks.accuracy_level, bits=blocks.bits
    )
    MatMulNBitsQuantizer(model, nodes_to_exclude=excluded, algo_config=settings).process()


def _quantise_table(model: Any, table: Any, blocks: Blocks, length: int, head: str) -> None:
    """Quantise a lookup table, or reuse the codes of the head that it is tied to.

    Args:
        model: ONNX model.
        table: Constant [rows, width].
        blocks: Quantisation settings.
        length: Weights per block.
        head: Original name of the head's matrix; empty if there is none.
    """
    import numpy as np
    from onnx import helper, numpy_helper

    graph, rows = model.graph, table.dims[0]
    parts = _parts_of(graph, head) if head else _quantised(graph, table, blocks, length)
    shape = numpy_helper.from_array(np.array([rows, -1], dtype=np.int64), f"{table.name}_rows")
    by_row = [f"{name}_by_row" for name in parts]  # ONNX Runtime reshapes constants once, when it opens the file
    nodes = [helper.make_node("Reshape", [part, shape.name], [new]) for part, new in zip(parts, by_row, strict=True)]
    options: dict[str, Any] = {"gather_axis": 0, "quantize_axis": 1, "block_size": length, "bits": blocks.bits}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] == table.name:
            inputs = [by_row[0], node.input[1], *by_row[1:]]
            node = helper.make_node(GATHER, inputs, list(node.output), domain=MICROSOFT, name=node.name, **options)
        nodes.append(node)
    graph.initializer.remove(table)
    graph.initializer.append(shape)
    _set_nodes(graph, nodes)


def _parts_of(graph: Any, matrix: str) -> list[str]:
    """Return the names of the codes, scales and zero points of a matrix that `MatMulNBits` has replaced."""
    codes = f"{matrix}_Q"
    product = next(node for node in graph.node if node.op_type == PRODUCT and node.input[1].startswith(codes))
    return [name for name in product.input[1:4] if name]


def _quantised(graph: Any, table: Any, blocks: Blocks, length: int) -> list[str]:
    """Add codes, scales and zero points of a table [rows, width] in `MatMulNBits` form, and return their names."""
    import numpy as np
    from onnx import numpy_helper
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        DefaultWeightOnlyQuantizer,
    )

    settings = DefaultWeightOnlyQuantConfig(block_size=length, is_symmetric=blocks.symmetric, bits=blocks.bits)
    matrix = np.ascontiguousarray(numpy_helper.to_array(table).T)
    codes, scales, zeros = DefaultWeightOnlyQuantizer(settings).qbits_block_quant(matrix)
    parts = {f"{table.name}_Q{blocks.bits}": codes, f"{table.name}_scales": scales}
    if not blocks.symmetric:
        parts[f"{table.name}_zero_points"] = zeros
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in parts.items())
    return list(parts)


def _set_nodes(graph: Any, nodes: Sequence[Any]) -> None:
    """Replace a graph's nodes; some of the new ones may already be in it."""
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
