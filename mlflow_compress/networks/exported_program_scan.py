"""Finds code that a `torch.export` graph would run when it is loaded, without loading it.

Such a `.pt2` file is not only data. It may hold pickles and compiled libraries. From its graph, torch evaluates size
expressions and guards, generates Python code with its names, and looks up operators by dotted names. Files that pass
here hold no pickles or libraries, and in their graph only what `torch.export.save` writes for tensors: operators of
torch, plain names, and expressions of numbers and sizes.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mlflow_compress.errors import first_line
from mlflow_compress.networks import inert_pickle
from mlflow_compress.untrusted import parse_json

_MOST_BYTES = 2**30  # size of the graph's JSON
_LONGEST_EXPRESSION = 4_000  # characters
_MOST_POWERS = 4
_KNOWN_RECORDS = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
    r"|archive_format|archive_version|version|byteorder|\.data/\w+|\.format_version|\.storage_alignment|extra/[\w./-]+"
)
_TENSORS = frozenset(  # called by a pickle of tensors
    {"__builtin__ set", "collections OrderedDict", "torch Size", "torch Tensor", "torch device"}
    | {"torch._tensor _rebuild_from_type_v2", "torch.nn.parameter Parameter"}
    | {f"torch._utils {name}" for name in ("_rebuild_parameter", "_rebuild_tensor_v2")}
)
_STORAGE = re.compile(r"torch (\w+Storage|(b?float|u?int)\d+|bool|complex\d+)|torch\.storage UntypedStorage")
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized|quantized_decomposed|torchvision)\.(?P<name>[a-zA-Z_]\w*)\.[a-zA-Z]\w*"
    r"|torch\.ops\.higher_order\.(cond|map_impl|scan|while_loop|wrap_with_autocast|wrap_with_set_grad_enabled)"
    r"|_operator\.(add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pos|pow|sub|truediv)"
    r"|math\.(ceil|floor|sqrt|trunc)|torch\._?sym_[a-z]+"
)
_OF_FILES = ("save", "load", "from_file")  # operators that open a file by name
_ARITHMETIC = re.compile(r"__[ir]?(and|or|xor|lshift|rshift)__")
_NAME = re.compile(r"[\w.@]{0,1000}")
_IDENTIFIER = re.compile(r"\w{0,1000}")
_IDENTIFIERS = ("name", "as_name", "forward_arg_names")
_TREES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
_SIZES = frozenset((  # functions that a size expression may call in sympy
    "Add", "And", "Abs", "BooleanFalse", "BooleanTrue", "Eq", "Equality", "Float", "Ge", "GreaterThan", "Gt",
    "Integer", "Le", "LessThan", "Lt", "Max", "Min", "Mod", "Mul", "Ne", "Not", "Or", "Pow", "Rational",
    "StrictGreaterThan", "StrictLessThan", "Symbol", "Unequality", "CeilToInt", "CleanDiv", "FloatPow",
    "FloatTrueDiv", "FloorDiv", "FloorToInt", "Identity", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator",
    "ModularIndexing", "PowByNatural", "PythonMod", "RoundDecimal", "RoundToInt", "ToFloat", "TruncToFloat",
    "TruncToInt", "Where",
))  # fmt: skip
_ASKED = frozenset({"size", "stride", "storage_offset"})  # methods of a tensor that a guard may call
_GUARDS = frozenset({"max", "min", "abs", "float", "int"}) | _SIZES
_HARMLESS_NODES = (
    ast.Expression, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Subscript, ast.Tuple, ast.Load, ast.keyword,
    ast.cmpop, ast.boolop, ast.unaryop, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow,
)  # fmt: skip


def code_in_program(path: Path) -> str:
    """Name the part of a `torch.export.save` file that may run code when it is loaded.

    Returns:
        A phrase to follow `holds`; empty if the file only holds parts that are known to be safe.
    """
    try:
        _check(path)
    except Exception as error:  # the two archive readers raise many types for malformed files
        return first_line(error) if isinstance(error, ValueError) else f"parts that can't be read: {first_line(error)}"
    return ""


def _check(path: Path) -> None:
    import torch

    with zipfile.ZipFile(path) as archive:  # torch reads the previous format like this
        if not all("/" in name for name in archive.namelist()):
            raise ValueError("the format of an older torch, which consists of pickles")
    reader = torch._C.PyTorchFileReader(str(path))  # torch's own reader
    names = reader.get_all_records()
    for name in names:
        if not _KNOWN_RECORDS.fullmatch(name):
            raise ValueError(f"{name!r:.100}, which is not part of a graph")
    for name in names:
        record = reader.get_record(name) if name.endswith((".json", ".pt")) else b""
        if name.endswith("_config.json"):
            _check_payloads(parse_json(record, name, _MOST_BYTES))
        elif name.startswith("models/"):
            _check_graph(parse_json(record, name, _MOST_BYTES))
        elif name.startswith("data/sample_inputs/") and record:  # empty: saved without sample inputs
            require_tensors(record, name)


def require_tensors(record: bytes, name: str) -> None:
    """Check that a file of torch.save only calls functions that make tensors.

    Args:
        record: content of the file.
        name: name of the file.

    Raises:
        ValueError: it calls another function, which the message names.
    """
    import torch

    if not record.startswith(b"PK\x03\x04"):
        raise ValueError(f"a pickle, {name}")
    pickled = torch._C.PyTorchFileReader(io.BytesIO(record)).get_record("data.pkl")
    for function in inert_pickle.read(pickled).calls:
        if function not in _TENSORS and not _STORAGE.fullmatch(function):
            raise ValueError(f"a pickle that calls {function!r:.100}")


def _check_payloads(config: Any) -> None:
    """Check that all weights and constants are plain bytes of numbers."""
    payloads = config.get("config") if isinstance(config, dict) else None
    if not isinstance(payloads, dict):
        raise ValueError("no list of its weights")
    for payload in payloads.values():
        path = payload.get("path_name") if isinstance(payload, dict) else None
        if not isinstance(path, str) or payload.get("use_pickle") is not False:
            raise ValueError("a pickle among its weights")
        if not re.fullmatch(r"weight_\d+|tensor_\d+", path):
            raise ValueError(f"{path!r:.100} among its weights")
    _check_texts({"config": {name: payload["tensor_meta"] for name, payload in payloads.items()}})


def _check_graph(program: Any) -> None:
    if not isinstance(program, dict):
        raise ValueError("no graph")
    for guard in program.get("guards_code") or []:
        _check_expression(guard, _GUARDS, _ASKED)
    _check_texts({key: value for key, value in program.items() if key not in ("guards_code", "torch_version")})


def _check_texts(data: Any) -> None:
    """Check every text of a graph according to how torch uses it."""
    waiting: list[tuple[str, Any]] = [("", data)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            # torch keeps metadata as text. Keys are names, also of weights.
            waiting += [(name, part) for name, part in value.items() if name != "metadata"]
            waiting += [("key", name) for name in value]
        elif isinstance(value, list):
            waiting += [(key, part) for part in value]
        elif isinstance(value, str):
            _check_text(key, value)


def _check_text(key: str, text: str) -> None:
    if key in ("target", "as_operator"):
        _check_operator(text)
    elif key == "expr_str":
        _check_expression(text, _SIZES, ())
    elif key in ("in_spec", "out_spec"):
        _check_tree(text)
    elif key not in ("as_string", "as_strings", "as_float", "as_floats"):  # torch uses these only as data
        form = _IDENTIFIER if key in _IDENTIFIERS else _NAME
        if not form.fullmatch(text):
            raise ValueError(f"the name {text!r:.100}")


def _check_operator(text: str) -> None:
    match = _OPERATOR.fullmatch(text)
    name = (match["name"] or "") if match else ""
    is_unsafe = name in _OF_FILES or (name.startswith("__") and not _ARITHMETIC.fullmatch(name))
    if match is None or is_unsafe:
        raise ValueError(f"a call to {text!r:.100}")


def _check_tree(text: str) -> None:
    """Check the form of inputs or outputs, JSON in a text: tuples, lists and dictionaries."""
    if not text:
        return
    waiting: list[Any] = [parse_json(text, "the form of its inputs")]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            if part.get("type") not in _TREES:
                raise ValueError(f"inputs or outputs of the type {part.get('type')!r:.100}")
            _check_context(part.get("context"))
            waiting.append(part.get("children_spec", []))


def _check_context(context: Any) -> None:
    """Check the context of a tuple, list or dictionary: nothing, or its keys in JSON."""
    if context is None:
        return
    keys = json.loads(context) if isinstance(context, str) and len(context) < _MOST_BYTES else context
    if keys is not None and not (isinstance(keys, list) and all(isinstance(key, (str, int)) for key in keys)):
        raise ValueError("inputs or outputs of an unknown form")


def _check_expression(text: Any, calls: Collection[str], attributes: Collection[str]) -> None:
    """Check that an expression contains only numbers and sizes.

    Args:
        text: the expression.
        calls: functions that it may call.
        attributes: methods that it may call.
    """
    rejection = ValueError(f"the expression {text!r:.100}")
    if not isinstance(text, str) or len(text) > _LONGEST_EXPRESSION:
        raise rejection
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise rejection from None
    name_ids = {id(node) for node in ast.walk(tree) if _names_something(node) for node in ast.walk(node)}
    powers = 0
    for node in ast.walk(tree):
        powers += isinstance(node, ast.Pow) or (isinstance(node, ast.Name) and "Pow" in node.id)
        if not _is_harmless(node, calls, attributes, id(node) in name_ids) or powers > _MOST_POWERS:
            raise rejection


def _names_something(node: ast.AST) -> bool:
    """Return whether part of an expression may contain a text: `Symbol('s0')`, `L['x']`."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "Symbol"
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant)


def _is_harmless(node: ast.AST, calls: Collection[str], attributes: Collection[str], may_be_text: bool) -> bool:
    match node:
        case ast.Constant(value=bool() | None):
            return True
        case ast.Constant(value=int() | float() as number):
            return abs(number) < 2**64 or number == float("inf")
        case ast.Constant(value=str() as text):
            return may_be_text and _NAME.fullmatch(text) is not None
        case ast.Call(func=ast.Name(id=name)):
            return name in calls
        case ast.Call(func=ast.Attribute()):
            return True  # its attribute is checked as a node of its own
        case ast.Name(id=name):
            return "__" not in name
        case ast.Attribute(attr=name):
            return name in attributes
    return isinstance(node, _HARMLESS_NODES)
