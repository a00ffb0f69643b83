"""Read a program of torch.export.save (.pt2) so that nothing in it runs.

torch.export.load unpickles, evaluates expressions, compiles names into Python and opens compiled libraries.  So it never gets
the file: it gets a copy made of what was understood, which is tensors, operators of aten, and names that are only names.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from camrt.errors import ExportError, one_line
from camrt.files import open_regular

PLAIN = re.compile(r"archive_format|archive_version|byteorder|\.data/\w+|data/weights/weight_\d+|data/constants/tensor_\d+")
PICKLES = re.compile(r"data/(weights|constants|sample_inputs)/model\.pt")
TABLES = re.compile(r"data/(weights|constants)/model_(weights|constants)_config\.json")
PROGRAM, EXTRA = "models/model.json", "extra/"

OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!(?:from_file|save)\b)\w+\.\w+|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"
    r"|(_operator|math)\.\w+|torch\.sym_\w+",
    re.ASCII,
)
NAME = re.compile(r"[\w.:/ -]*", re.ASCII)  # of weights and modules; they come to stand in quotes
IDENTIFIER = re.compile(r"([A-Za-z_]\w*)?", re.ASCII)  # of values; they come to stand in Python
VERSION = re.compile(r"[\w.+-]*", re.ASCII)
SCOPES = re.compile(r"[\w.,;:@<>()\[\]'/ -]*", re.ASCII)
CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
ARITHMETIC = {
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CeilDiv",
    "CleanDiv", "ModularIndexing", "Where", "CeilToInt", "FloorToInt", "TruncToInt", "TruncToFloat", "RoundToInt",
    "RoundDecimal", "ToFloat", "FloatPow", "PowByNatural", "FloatTrueDiv", "IntTrueDiv", "LShift", "RShift", "Identity",
    "Equality", "Unequality", "LessThan", "GreaterThan", "StrictLessThan", "StrictGreaterThan", "Eq", "Ne", "Lt", "Le", "Gt",
    "Ge", "And", "Or", "Not",
}  # fmt: skip
EXPRESSION = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop,
)  # fmt: skip


class _Refused(Exception):
    """Something in the file is not understood."""


def load_program(path: Path) -> torch.export.ExportedProgram:
    """Return the program in a .pt2 file.

    Raises
    ------
    ExportError
        It cannot be read, or loading it could run something.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            copy = _understood(archive)
        return torch.export.load(copy)
    except _Refused as reason:
        raise ExportError(
            f"{path}: {reason}, and only tensors and operators of PyTorch itself are loaded from a .pt2, since nothing in a "
            "file is run. Export the nn.Module: camrt export package.module:factory."
        ) from None
    except Exception as error:  # zipfile, json and torch raise several types of their own
        kind = type(error).__name__
        raise ExportError(
            f"{path} is no readable program of torch.export.save, or of another version than torch {torch.__version__} "
            f"({kind}: {one_line(error)}). Save it again with this version."
        ) from None


def _understood(archive: zipfile.ZipFile) -> io.BytesIO:
    """Return a copy of the archive with what is understood."""
    names = archive.namelist()
    root = names[0].partition("/")[0] if names else ""
    if f"{root}/{PROGRAM}" not in names:
        raise _Refused("it has no program models/model.json of torch.export.save (PyTorch 2.8 or newer)")
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as clean:
        for entry in archive.infolist():
            inside = entry.filename.removeprefix(f"{root}/")
            if inside.startswith(EXTRA):
                continue
            if entry.compress_type != zipfile.ZIP_STORED or f"model/{inside}" in clean.namelist():
                raise _Refused(f"{inside!r} is compressed or twice in it")
            clean.writestr(f"model/{inside}", _entry(inside, archive.read(entry)))
    copy.seek(0)
    return copy


def _entry(name: str, content: bytes) -> bytes:
    if PLAIN.fullmatch(name):
        return content
    if PICKLES.fullmatch(name):
        return _tensors(name, content)
    if TABLES.fullmatch(name):
        table = json.loads(content)
        if any(entry.get("use_pickle") is not False for entry in table["config"].values()):
            raise _Refused(f"{name!r} names pickles")
        return json.dumps(_clean(table)).encode()
    if name == PROGRAM:
        return json.dumps(_clean(json.loads(content))).encode()
    raise _Refused(f"it holds {name!r}")


def _tensors(name: str, content: bytes) -> bytes:
    """Return the pickle of the tensors in a pickle, read without running it."""
    if not content:  # a program without an example
        return content
    try:
        value = torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # torch and pickle raise several types of their own
        raise _Refused(f"{name!r} is a pickle of more than tensors ({one_line(error, 120)})") from None
    copy = io.BytesIO()
    torch.save(value, copy)
    return copy.getvalue()


# --- the program --------------------------------------------------------------------------------------------------------
def _clean(value: Any, key: str = "") -> Any:
    """Return a part of the program, each text in it checked for what torch does with it."""
    if isinstance(value, Mapping):
        if "as_operator" in value or "as_custom_obj" in value:
            raise _Refused("it calls a function or an object of its own")
        return {_text(name, "key"): _clean(part, name) for name, part in value.items() if name not in DROPPED} | {
            name: empty(value[name]) for name, empty in DROPPED.items() if name in value
        }
    if isinstance(value, list):
        return [_clean(part, key) for part in value]
    return _text(value, key) if isinstance(value, str) else value


def _text(text: str, key: str) -> str:
    check = CHECKS.get(key, NAME.fullmatch)
    if not check(text):
        raise _Refused(f"{text[:60]!r} stands where a {key or 'name'} should be")
    return text


def _is_arithmetic(text: str) -> bool:
    """Tell whether an expression of sizes calls nothing but arithmetic."""
    try:
        parts = list(ast.walk(ast.parse(text, mode="eval"))) if text.isascii() and text.isprintable() else []
    except (SyntaxError, ValueError, RecursionError):
        return False
    calls = [part.func for part in parts if isinstance(part, ast.Call)]
    texts = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str | bytes)]
    return (
        bool(parts)
        and all(isinstance(part, EXPRESSION) for part in parts)
        and all(isinstance(name, ast.Name) and name.id in ARITHMETIC for name in calls)
        and all(isinstance(part, str) and VERSION.fullmatch(part) for part in texts)
    )


def _is_structure(text: str) -> bool:
    """Tell whether a pytree is one of tuples, lists and dicts."""
    return all(_is_container(part) for part in json.loads(text)[1:])


def _is_container(part: Mapping[str, Any]) -> bool:
    context = part["context"]
    keys = json.loads(context) if isinstance(context, str) else context
    named = keys is None or (isinstance(keys, list) and all(isinstance(k, int) or NAME.fullmatch(str(k)) for k in keys))
    return part["type"] in CONTAINERS and named and all(map(_is_container, part["children_spec"]))


def _module_path(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return of a node's notes the one that is read here, the module it came from."""
    stack = metadata.get("nn_module_stack", "")
    return {"nn_module_stack": stack} if stack and SCOPES.fullmatch(stack) else {}


DROPPED: dict[str, Callable[[Any], Any]] = {"metadata": _module_path, "guards_code": lambda _: []}
CHECKS: dict[str, Callable[[str], Any]] = {
    "target": OPERATOR.fullmatch,
    "name": IDENTIFIER.fullmatch,
    "as_name": IDENTIFIER.fullmatch,
    "forward_arg_names": IDENTIFIER.fullmatch,
    "path_name": re.compile(r"(weight|tensor)_\d+", re.ASCII).fullmatch,
    "as_string": lambda _: True,  # stands in quotes, as Python writes them
    "expr_str": _is_arithmetic,
    "in_spec": _is_structure,
    "out_spec": _is_structure,
    "torch_version": VERSION.fullmatch,
}
