"""The wheel, installed outside the checkout."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import zipfile

import pytest

from exporters.page import PAGE

from .conftest import ROOT, SAMPLES


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT], check=True, capture_output=True
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_both_packages_and_the_built_in_bundle(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"camrt/cli/__init__.py", "camrt/py.typed", "exporters/export.py"} <= names
    bundle = {n.rsplit("/", 1)[1] for n in names if n.startswith("camrt/models/shapes/") and "/samples/" not in n}
    assert bundle == {"bundle.json", "head.onnx", "tail.onnx", "gradient.onnx", "score.onnx", "weights.bin"}
    assert "camrt/models/shapes/samples/heart.png" in names
    assert {"camrt/server/page/index.html", "camrt/server/page/app.js"} <= names
    assert not any(n.startswith(("tests/", "models/")) for n in names)


def test_the_wheel_holds_what_a_cpp_host_is_built_with(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    built_with = {n.removeprefix("camrt/cpp/") for n in names if n.startswith("camrt/cpp/") and not n.endswith(".py")}
    assert built_with == {
        "camrt.hpp", "detail/errors.hpp", "detail/process.hpp", "detail/start.hpp",
        "cmake/camrtConfig.cmake", "cmake/camrtConfigVersion.cmake",
    }  # fmt: skip


def test_the_wheel_holds_the_page_that_compile_writes(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"exporters/web/{name}" for name in PAGE} <= names


def test_the_installed_wheel_explains_with_shapes_outside_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel],
        check=True,
        capture_output=True,
    )
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import camrt; from camrt.__main__ import main\n"
        f"assert camrt.__file__.startswith({str(site)!r})\n"
        f"sys.argv = ['camrt', 'explain', 'shapes', {str(SAMPLES / 'heart.png')!r}, '-o', 'out', '--json']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["targets"][0]["label"] == "heart"
    assert (tmp_path / "out" / "heart.heart.png").exists()


def test_the_extras_exist_and_no_build_of_onnx_runtime_is_a_hard_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cpu", "gpu", "export", "torch", "sklearn", "evaluate", "serve", "ray", "batch", "cpp"} <= set(
        project["optional-dependencies"]
    )
    assert not any("onnxruntime" in d or "torch" in d or d.startswith("onnx") for d in project["dependencies"])
