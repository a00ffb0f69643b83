"""What imports what: fresh interpreters, and the rule that imports point one way."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import camrt
from camrt.methods import METHODS

from .conftest import ROOT, SAMPLES

LAYERS = [
    {"cli", "__main__"},
    {"bench", "evaluate", "scale", "server", "sheet", "cpp", "machine"},
    {"footprint", "cost"},
    {"explainer", "compiled"},
    {"answer"},
    {"explanation", "question"},
    {"methods", "metrics", "render", "picture", "heatmap", "case", "stream"},
    {"engine", "image", "kmeans", "clustering", "photo", "header"},
    {"sessions"},
    {"placement", "optimised"},
    {"session"},
    {"providers"},
    {"libraries", "provider_options"},
    {"nvidia"},
    {"bundle"},
    {"cache"},
    {"manifest"},
    {"preprocess", "precision"},
    {"table", "files", "floor", "turns", "runtime", "memory", "markup", "document"},
    {"errors"},
]


def fresh(code: str, **environment: str) -> str:
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_camrt_loads_nothing_heavy():
    loaded = fresh("import sys, camrt; print(*sorted(m.split('.')[0] for m in sys.modules))").split()
    assert not {"numpy", "cv2", "onnxruntime", "onnx", "torch", "sklearn", "click"} & set(loaded)


@pytest.mark.parametrize(
    "methods", [["cluster-cam"], [n for n in METHODS if n not in ("cluster-cam", "cam")]], ids=["cluster-cam", "every other"]
)
def test_explaining_loads_neither_torch_nor_onnx_nor_scikit_learn(methods):
    code = (
        "import sys, camrt.cli, camrt; explainer = camrt.load('shapes')\n"
        f"for name in {methods}:\n"
        f"    explainer.explain({str(SAMPLES / 'star.png')!r}, method=name, **({{'masks': 4}} if name == 'rise' else {{}})).heatmap\n"
        "print(*sys.modules)"
    )
    loaded = {name.split(".")[0] for name in fresh(code).split()}
    assert {"numpy", "cv2", "onnxruntime"} <= loaded
    assert not {"onnx", "torch", "sklearn", "scipy", "exporters", "matplotlib"} & loaded


@pytest.mark.parametrize(("arguments", "others"), [
    (["methods"], {"explain", "bench", "evaluate", "making", "compiling", "serve", "triton", "cpp", "batch", "report"}),
    (["info", "shapes"], {"explain", "bench", "evaluate", "making", "compiling", "serve", "triton", "cpp", "batch", "report"}),
    (["explain", "shapes", str(SAMPLES / "star.png")], {"inspect", "bench", "evaluate", "making", "compiling", "serve", "triton", "cpp", "batch", "report"}),
])  # fmt: skip
def test_a_command_imports_nothing_that_only_others_need(tmp_path, arguments, others):
    code = (
        "import os, sys, contextlib; from camrt.cli import camrt\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "with contextlib.redirect_stdout(sys.stderr):\n"
        f"    camrt({arguments}, standalone_mode=False, prog_name='camrt')\n"
        "print(*sys.modules)"
    )
    unwanted = {f"camrt.cli.{name}" for name in others} | {"camrt.bench", "camrt.evaluate", "camrt.scale", "pyarrow", "exporters", "concurrent.futures"}
    assert not unwanted & set(fresh(code, PYTHONPATH=str(ROOT)).split())


def test_exporting_an_onnx_file_loads_no_torch():
    assert "False" in fresh("import sys, exporters; print('torch' in sys.modules)")


def test_the_public_names_are_those_that_can_be_imported():
    assert [*camrt._HOME, "__version__"] == sorted(camrt.__all__, key=lambda name: (name == "__version__", name))
    for name in camrt.__all__:
        assert getattr(camrt, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        camrt.nothing  # noqa: B018


def test_no_telemetry_is_written_under_a_fresh_home(tmp_path):
    fresh(f"import camrt; camrt.load('shapes').explain({str(SAMPLES / 'star.png')!r})", HOME=str(tmp_path))
    assert [str(p) for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_users_own_choice_of_telemetry_is_kept():
    assert fresh("import os, camrt; print(os.environ['ORT_DISABLE_TELEMETRY'])", ORT_DISABLE_TELEMETRY="0").strip() == "0"
    code = "from camrt.runtime import telemetry; print(telemetry())"
    assert fresh(code, ORT_DISABLE_TELEMETRY="0").startswith("on")
    assert fresh(code).startswith("off")
    assert fresh("import onnxruntime;" + code).startswith("unknown")


def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports at its top level, type-checking blocks left out."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_imports_point_one_way():
    rank = {name: i for i, names in enumerate(LAYERS) for name in names}
    files = [f for f in (ROOT / "camrt").rglob("*.py") if f.name != "__init__.py" or f.parent.name == "methods"]
    for path in files:
        mine = path.relative_to(ROOT / "camrt").parts[0].removesuffix(".py")
        assert mine in rank, f"{path} has no place among the layers"
        for module in imports_of(path):
            parts = module.split(".")
            assert parts[0] not in {"exporters", "onnx", "torch", "sklearn", "scipy", "matplotlib"}, f"{path} imports {module}"
            if parts[0] == "camrt" and len(parts) > 1 and parts[1] != mine:
                assert rank[parts[1]] >= rank[mine], f"{path} imports {module}"


def test_exporters_import_no_command_line_and_torch_behind_one_door():
    for path in (ROOT / "exporters").rglob("*.py"):
        modules = imports_of(path)
        assert not {"camrt.cli", "camrt.server", "camrt.scale"} & modules
        behind_it = {"checkpoint.py", "forward.py", "program.py"}
        assert ("torch" in modules or "import torch" in path.read_text()) == (path.name in {"pytorch.py", *behind_it})
        assert not {"exporters.pytorch", *(f"exporters.{name[:-3]}" for name in behind_it)} & modules


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "camrt").rglob("*.py"), *(ROOT / "exporters").rglob("*.py")]),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_every_module_opens_with_its_purpose_and_fits_on_a_few_screens(path):
    text = path.read_text()
    assert (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    assert text.count("\n") <= 450
