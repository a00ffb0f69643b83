"""A C++ host: the same results as Python, bit for bit on the CPU; its errors, threads and lifetimes."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import camrt
from camrt import errors
from camrt.cli import camrt as command
from camrt.cpp import cmake_dir, host, include_dir

from .conftest import ROOT, SAMPLES

HOST = ROOT / "tests" / "cpp_host"
VENV = Path(sys.prefix)
SIDE = 96  # of the input of the bundle "shapes"
FORMATS = {"RGB8": 0, "BGR8": 1, "GRAY8": 2, "RGBA8": 3}
CPU = {"providers": ["cpu"]}
FLAGS = [f"-Dcamrt_DIR={cmake_dir()}", f"-DPython_EXECUTABLE={sys.executable}"]


def missing() -> str | None:
    """Return why no host can be built here, or None."""
    if sys.prefix == sys.base_prefix:
        return "a host opens a virtual environment, and the tests run in none"
    if not shutil.which("cmake") or not (shutil.which("c++") or os.environ.get("CXX")):
        return "cmake and a C++ compiler are needed to build a host"
    libdir, multiarch, library = (sysconfig.get_config_var(name) or "" for name in ("LIBDIR", "MULTIARCH", "LDLIBRARY"))
    if (
        not any(folder.joinpath(library).is_file() for folder in (Path(libdir), Path(libdir, multiarch)))
        or ".so" not in library
    ):
        return "this Python has no shared library to embed"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "this Python has no headers"
    return None


REASON = missing()
needs_compiler = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """The folder of the programs `host` (the example) and `checks`."""
    pytest.importorskip("pybind11")
    build = tmp_path_factory.mktemp("cpp_host")
    configure = ["cmake", "-S", HOST, "-B", build, *FLAGS, "-DCAMRT_CHECKS=ON", "-DCMAKE_BUILD_TYPE=Debug"]
    for step in (configure, ["cmake", "--build", build, "--parallel", "2"]):
        done = subprocess.run(step, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stderr
    return build


@pytest.fixture
def checks(built):
    def run(mode: str, *arguments: object, venv: Path = VENV, code: int = 0) -> list[list[str]]:
        """Return the lines of a mode, cut at the tabs, after seeing that it left with `code` and no complaint."""
        command_line = [built / "checks", mode, venv, *map(str, arguments)]
        done = subprocess.run(command_line, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (code, "")
        return [line.split("\t") for line in done.stdout.splitlines()]

    return run


def scene(name: str = "star_ring", height: int = 150, width: int = 201) -> np.ndarray:
    return cv2.resize(camrt.load_photo(SAMPLES / f"{name}.png").pixels, (width, height), interpolation=cv2.INTER_AREA)


def pattern(seed: int = 0) -> np.ndarray:
    """The image that checks.cpp draws."""
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.stack([2 * x + 40 * seed, 2 * y + 9 * seed, 255 - x - y], axis=-1).astype(np.uint8)


def in_memory(pixels: np.ndarray, folder: Path, pixel_format: str = "RGB8", padding: int = 0) -> str:
    """Write pixels as they lie in memory, rows `padding` bytes apart, and return how checks names them."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    file = folder / f"{pixel_format}{padding}.bytes"
    np.pad(rows, ((0, 0), (0, padding)), constant_values=77).tofile(file)
    return f"{FORMATS[pixel_format]}:{file}:{height}:{width}:{padding and rows.shape[1] + padding}"


def assert_the_same(lines: list[list[str]], out: Path, explanation: camrt.Explanation) -> None:
    """Compare what checks printed and wrote with an explanation of Python's, bit for bit."""
    told = [(t.index, t.label, t.probability, t.outcome.word) for t in explanation.targets]
    assert [(int(i), label, float.fromhex(p), outcome) for i, label, p, outcome in lines] == told
    assert Path(f"{out}.heatmap").read_bytes() == explanation.heatmap.tobytes()
    assert Path(f"{out}.network").read_bytes() == explanation.network_heatmap.tobytes()
    timeless = [json.loads(text) for text in (Path(f"{out}.json").read_text(), json.dumps(explanation.to_json()))]
    for one in timeless:
        del one["milliseconds"], one["image"]
    assert timeless[0] == timeless[1]


# --- results --------------------------------------------------------------------------------------------------------------
@needs_compiler
@pytest.mark.parametrize(("options", "asked"), [
    ([], {}),
    (["top=3", "p.clusters=4", "p.merge=evidence"], {"top": 3, "clusters": 4, "merge": "evidence"}),
    (["target=RING", "versus=#3", "method=hires-cam", "p.raw=true"],
     {"target": "RING", "versus": 3, "method": "hires-cam", "raw": True}),
    (["targets=heart,#1", "method=group-cam"], {"targets": ["heart", 1], "method": "group-cam"}),
])  # fmt: skip
def test_results_are_pythons_bit_for_bit(checks, shapes, tmp_path, options, asked):
    pixels = scene()
    lines = checks("explain", tmp_path / "out", "shapes", in_memory(pixels, tmp_path), *options)
    assert_the_same(lines, tmp_path / "out", shapes.explain(pixels, **asked))


@needs_compiler
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_every_format_and_stride_gives_what_python_gives(checks, shapes, tmp_path, pixel_format, padding):
    rgb = scene()
    alpha = np.indices(rgb.shape[:2]).sum(axis=0, keepdims=True).astype(np.uint8)[0, ..., None]
    stored, given = {
        "RGB8": (rgb, rgb),
        "BGR8": (rgb[..., ::-1], rgb),
        "GRAY8": (rgb[..., 1], rgb[..., 1]),
        "RGBA8": (np.concatenate([rgb, alpha], axis=2), np.concatenate([rgb, alpha], axis=2)),
    }[pixel_format]
    source = in_memory(stored, tmp_path, pixel_format, padding)
    lines = checks("explain", tmp_path / "out", "shapes", source, "top=2")
    assert_the_same(lines, tmp_path / "out", shapes.explain(given, top=2))


@needs_compiler
@pytest.mark.parametrize("kind", ["path", "encoded"])
def test_files_and_encoded_images_are_read_as_python_reads_them(checks, shapes, tmp_path, kind):
    photo = tmp_path / "a stär.png"
    shutil.copy(SAMPLES / "star.png", photo)
    lines = checks("explain", tmp_path / "out", "shapes", f"{kind}:{photo}", "top=2")
    assert_the_same(lines, tmp_path / "out", shapes.explain(photo, top=2))
    assert json.loads((tmp_path / "out.json").read_text())["image"] == (str(photo) if kind == "path" else "image")


@needs_compiler
def test_several_images_at_once_are_what_python_gives_for_a_list(checks, shapes, tmp_path):
    lines = checks("batch", tmp_path / "out")
    explanations = shapes.explain([pattern(seed) for seed in range(10)], top=2)
    assert [line[1] for line in lines] == [t.label for e in explanations for t in e.targets]
    assert (tmp_path / "out").read_bytes() == b"".join(e.heatmap.tobytes() for e in explanations)


@needs_compiler
def test_an_explainer_tells_its_bundle_provider_size_and_labels(checks, shapes, tiny_bundle):
    manifest = shapes.manifest
    assert checks("tell", "shapes") == [["shapes", "cpu", "96", "96", "8", *manifest.labels]]
    assert checks("tell", tiny_bundle)[0][5:] == ["ant", "bee, honeybee", "crane", "dog", "crane, hoist"]


@needs_compiler
def test_a_host_may_do_without_the_cache(checks, tiny_bundle, tmp_path):
    bundles = [shutil.copytree(tiny_bundle, tmp_path / name) for name in ("without", "with")]
    assert checks("cache", *bundles) == []
    assert sorted(path.name for path in tmp_path.glob("*.cache")) == ["with.cache"]


@needs_compiler
def test_pixels_are_let_go_unless_they_are_kept(checks, shapes, tmp_path):
    *files, overlay, save = (line[0] for line in checks("keep", tmp_path))
    explanation = shapes.explain(pattern())
    assert [Path(file).name for file in files] == [p.name for p in explanation.save(tmp_path / "python", "kept")]
    assert (tmp_path / "overlay").read_bytes() == explanation.overlay(0).tobytes()
    assert (tmp_path / "kept.npy").read_bytes() == (tmp_path / "python" / "kept.npy").read_bytes()
    for what, text in (("overlay", overlay), ("save", save)):
        assert text.startswith(
            f"{what} needs the photo's pixels, and those were let go when explain returned. Give Image::keep"
        )


@needs_compiler
def test_four_threads_of_200_calls_all_give_what_one_thread_gives(checks):
    assert checks("threads") == []


# --- errors ---------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def thrown(built, tmp_path_factory) -> dict[str, tuple[str, str]]:
    """Class and text of what every wrong call in checks.cpp throws, by its name there."""
    done = subprocess.run(
        [built / "checks", "errors", VENV, damaged_file(tmp_path_factory.mktemp("errors")), SAMPLES / "star.png"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {name: (kind, text) for name, kind, text in (line.split("\t") for line in done.stdout.splitlines())}


def damaged_file(folder: Path) -> Path:
    (folder / "damaged.jpg").write_bytes(cv2.imencode(".jpg", pattern())[1].tobytes()[:300])
    return folder / "damaged.jpg"


@needs_compiler
@pytest.mark.parametrize(("name", "call"), [
    ("bundle", lambda e, _: camrt.load("nowhere")),
    ("threads", lambda e, _: camrt.load("shapes", threads=-1)),
    ("provider", lambda e, _: camrt.load("shapes", ["cpuu"])),
    ("gpu_mem_limit", lambda e, _: camrt.load("shapes", ["cpu"], gpu_mem_limit=1 << 30)),
    ("gpu_mem_limit in MB", lambda e, _: camrt.load("shapes", gpu_mem_limit=512)),
    ("damaged", lambda e, folder: e.explain(damaged_file(folder).read_bytes())),
    ("empty", lambda e, _: e.explain(b"")),
    ("missing", lambda e, _: e.explain("missing.png")),
    ("target", lambda e, _: e.explain(pattern(), target="strar")),
    ("index", lambda e, _: e.explain(pattern(), target=8)),
    ("several", lambda e, _: e.explain(pattern(), target="star", top=2)),
    ("no targets", lambda e, _: e.explain(pattern(), targets=[])),
    ("versus", lambda e, _: e.explain(pattern(), target="star", versus="star")),
    ("top", lambda e, _: e.explain(pattern(), top=9)),
    ("method", lambda e, _: e.explain(pattern(), method="gradcam")),
    ("parameter", lambda e, _: e.explain(pattern(), klusters="3")),
    ("value", lambda e, _: e.explain(pattern(), clusters="0")),
    ("unavailable", lambda e, _: e.explain(pattern(), method="cam")),
    ("no text", lambda e, _: e.explain(pattern(), target="\\xff")),
])  # fmt: skip
def test_errors_have_the_class_and_the_text_of_pythons(thrown, shapes, tmp_path, name, call):
    with pytest.raises(camrt.CamrtError) as raised:
        call(shapes, tmp_path)
    assert thrown[name] == (f"camrt::{type(raised.value).__name__}", str(raised.value))


@needs_compiler
@pytest.mark.parametrize(("name", "kind", "text"), [
    ("null", "ImageError", "the image: 96 x 96 pixels are announced, but their pointer is null."),
    ("zero", "ImageError", "the image: an image of 96 x 0 pixels has nothing to look at."),
    ("negative", "ImageError", "the image: an image of -1 x 96 pixels has nothing to look at."),
    ("huge", "ImageError", "the image: 2147483647 x 2147483647 pixels are more than the limit of 100,000,000."),
    ("max_pixels", "ImageError", "the image: 96 x 96 pixels are more than the limit of 10."),
    ("stride", "ImageError", "the image: a row of 96 RGB8 pixels takes 288 bytes, got 287. Packed rows: 0."),
    ("far", "ImageError", "the image: 96 rows of 18446744073709551615 bytes end beyond all memory. Check pointer and stride."),
    ("format", "ImageError", "the image: its format is none of RGB8, BGR8, GRAY8, RGBA8."),
    ("reserved", "ParameterError", "cluster-cam has no parameter 'target'."),
    ("heatmap", "ParameterError", "heatmap: this explanation has targets 0…0, got 1."),
    ("below", "ParameterError", "network_heatmap: this explanation has targets 0…0, got -1."),
    ("which", "ParameterError", "target: this explanation has targets 0…0, got 1."),
    ("folder", "ExplanationError", "damaged.jpg: the explanation of 'star' cannot be written"),
])  # fmt: skip
def test_what_only_a_host_can_get_wrong_is_named(thrown, name, kind, text):
    found, message = thrown[name]
    assert found == f"camrt::{kind}"
    assert text in message


@needs_compiler
def test_every_wrong_call_throws(thrown):
    assert all(kind.startswith("camrt::") for kind, _ in thrown.values())
    assert len(thrown) == 32


@needs_compiler
def test_every_class_of_python_becomes_its_own_class(checks):
    names = [name for name in camrt.__all__ if name in vars(errors)]
    assert checks("raise", *names) == [[name, f"camrt::{name}"] for name in names]


def test_the_errors_of_the_header_are_those_of_python():
    text = (include_dir() / "detail" / "errors.hpp").read_text()
    declared = dict(re.findall(r"class (\w+) : public ([\w:]+)", text))
    classes = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.CamrtError)]
    expected = {cls.__name__: cls.__bases__[0].__name__ for cls in classes}
    assert declared == expected | {
        "Error": "std::runtime_error", "CamrtError": "Error", "RuntimeError": "Error", "PythonError": "Error"
    }  # fmt: skip
    for cls in classes:
        assert f"/// {(cls.__doc__ or '').splitlines()[0]}\nclass {cls.__name__} " in text


# --- starting -------------------------------------------------------------------------------------------------------------
def fake_venv(folder: Path, version: str = "", home: str | None = None, key: str = "version") -> Path:
    version = version or f"{sys.version_info[0]}.{sys.version_info[1]}.0"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    home = home or str(Path(os.path.realpath(sys.executable)).parent)
    (folder / "pyvenv.cfg").write_text(f"home = {home}\n{key} = {version}\n")
    return folder


def refusal(lines: list[list[str]]) -> str:
    ((kind, text),) = lines
    assert kind == "camrt::RuntimeError"
    return text


@needs_compiler
def test_a_missing_venv_is_named(checks, tmp_path):
    text = refusal(checks("start", venv=tmp_path / "nowhere", code=1))
    assert text.startswith(f"{tmp_path}/nowhere: there is no such folder. Make one with: python3.")


@needs_compiler
def test_a_folder_that_is_no_venv_is_named(checks, tmp_path):
    assert refusal(checks("start", venv=tmp_path, code=1)).startswith(f"{tmp_path} is no virtual environment: pyvenv.cfg or")


@needs_compiler
@pytest.mark.parametrize("key", ["version", "version_info"])
def test_a_venv_of_another_python_is_told_with_both_versions(checks, tmp_path, key):
    text = refusal(checks("start", venv=fake_venv(tmp_path / "other", "3.8.20", key=key), code=1))
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"other is of Python 3.8, and this program was compiled for Python {mine}." in text


@needs_compiler
def test_a_venv_whose_python_has_gone_is_named(checks, tmp_path):
    text = refusal(checks("start", venv=fake_venv(tmp_path / "moved", home=f"{tmp_path}/gone"), code=1))
    assert f"was made from the Python in {tmp_path}/gone, which is not there any more" in text


@needs_compiler
def test_a_venv_without_camrt_is_told_how_to_get_it(checks, tmp_path):
    text = refusal(checks("start", venv=fake_venv(tmp_path / "bare"), code=1))
    assert "bare: camrt cannot be imported there (ModuleNotFoundError: No module named 'camrt')" in text
    assert f"{tmp_path}/bare/bin/python -m pip install" in text


@needs_compiler
def test_a_camrt_with_another_interface_is_refused(checks, tmp_path):
    site = fake_venv(tmp_path / "older") / f"lib/python3.{sys.version_info[1]}/site-packages"
    (site / "camrt" / "cpp").mkdir(parents=True)
    for package in ("camrt", "camrt/cpp"):
        (site / package / "__init__.py").touch()
    (site / "camrt" / "cpp" / "host.py").write_text("INTERFACE = 99\n")
    text = refusal(checks("start", venv=tmp_path / "older", code=1))
    assert f"interface for C++ is 99, and this program was compiled for {host.INTERFACE}." in text


@needs_compiler
def test_a_second_runtime_is_the_same_and_one_of_another_venv_is_refused(checks, tmp_path):
    text = refusal(checks("runtimes", fake_venv(tmp_path / "second"), code=1))
    assert text.startswith(f"{tmp_path}/second was asked for, but this process already runs the Python of {VENV}")


@needs_compiler
def test_a_host_that_runs_python_itself_may_end_it_before_the_handles(checks):
    assert checks("adopt") == []


@needs_compiler
def test_nothing_of_the_hosts_environment_reaches_python(checks, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "C")
    assert checks("tell", "shapes")[0][0] == "shapes"


@needs_compiler
@pytest.mark.parametrize("closed", [False, True], ids=["open to the end", "closed and opened again"])
def test_a_host_may_be_a_plugin_whose_symbols_are_hidden(built, closed):
    plugin = next(built.glob("libplugin.*"))
    command_line = [built / "loader", plugin, VENV, SAMPLES / "star.png", *["close"] * closed]
    done = subprocess.run(command_line, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "star\n" * (1 + closed), "")


# --- lifetimes ------------------------------------------------------------------------------------------------------------
ORDERS = re.findall(r'^    \{"([a-z ]+)",', (HOST / "checks.cpp").read_text(), re.MULTILINE)


@needs_compiler
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_destruction_exits_0(checks, order):
    assert len(ORDERS) == 13
    assert checks("order", order) == []


@needs_compiler
def test_a_thousand_calls_leave_nothing_behind(checks):
    assert float(checks("leak")[0][0]) < 4  # MB; 1000 heatmaps and overlays of this size are 63


# --- the example, the package, the command --------------------------------------------------------------------------------
@needs_compiler
def test_the_example_writes_heatmaps_and_tells_failures_on_one_line(built, shapes, tmp_path):
    cv2.imwrite(str(tmp_path / "star.ppm"), cv2.imread(str(SAMPLES / "star.png")))
    (tmp_path / "cut.ppm").write_bytes((tmp_path / "star.ppm").read_bytes()[:1000])
    photos = [tmp_path / "star.ppm", tmp_path / "cut.ppm"]
    done = subprocess.run([built / "host", VENV, "shapes", tmp_path / "out", *photos], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(rf"{tmp_path}/star.ppm  star  0.\d+  →  {tmp_path}/out/star.p[gn][mg]\n", done.stdout)
    assert re.fullmatch(r"Error: [^\n]*cut.ppm[^\n]*\n", done.stderr)
    written = cv2.imread(str(next((tmp_path / "out").glob("star.*"))), cv2.IMREAD_GRAYSCALE)
    heatmap = shapes.explain(SAMPLES / "star.png").heatmap[0]
    assert np.abs(written - heatmap * 255.0).max() <= 0.501


@needs_compiler
def test_the_example_tells_its_usage_and_what_is_missing(built, tmp_path):
    usage = subprocess.run([built / "host"], capture_output=True, text=True)
    assert (usage.returncode, usage.stdout) == (2, "")
    assert usage.stderr.endswith("/host VENV BUNDLE FOLDER PHOTO...\n")
    failed = subprocess.run([built / "host", VENV, "nowhere", tmp_path, "x.ppm"], capture_output=True, text=True)
    assert failed.returncode == 1
    assert re.fullmatch(r"Error: There is no bundle 'nowhere'[^\n]*\n", failed.stderr)


def configure(folder: Path, *flags: str, source: Path = HOST, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"} | environment
    return subprocess.run(["cmake", "-S", source, "-B", folder, *flags], capture_output=True, text=True, env=env)


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0
    return " ".join(done.stderr.split())


@needs_compiler
def test_cmake_says_which_python_it_needs(tmp_path):
    if VENV in cmake_dir().parents:
        pytest.skip("the package lies in a virtual environment, which is then found")
    text = told(configure(tmp_path, FLAGS[0]))
    assert "camrt lies in no virtual environment and none is active. Give -DPython_EXECUTABLE=VENV/bin/python" in text


@needs_compiler
def test_cmake_says_how_to_install_pybind11(tmp_path):
    bare = fake_venv(tmp_path / "bare") / "bin" / "python"
    text = told(configure(tmp_path / "build", FLAGS[0], f"-DPython_EXECUTABLE={bare}"))
    assert f"{bare} has no pybind11" in text
    assert "-m pip install pybind11" in text


@needs_compiler
def test_cmake_says_what_is_missing_to_embed_python(tmp_path):
    pytest.importorskip("pybind11")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(x CXX)\nset(Python_ROOT_DIR /nowhere)\n"
        "set(CMAKE_DISABLE_FIND_PACKAGE_Python TRUE)\nfind_package(camrt REQUIRED)\n"
    )
    text = told(configure(tmp_path / "build", *FLAGS, source=tmp_path))
    assert "no library to embed (libpython). Install them, on Debian and Ubuntu with: apt install libpython3-dev" in text


@needs_compiler
def test_cmake_refuses_a_python_that_is_only_a_static_library(tmp_path):
    pytest.importorskip("pybind11")
    static = tmp_path / f"libpython3.{sys.version_info[1]}.a"
    static.touch()
    text = told(configure(tmp_path / "build", *FLAGS, f"-DPython_LIBRARY={static}"))
    assert f"has only a static library ({static}), and a host needs headers and a shared one. Install them, on Debian" in text


@needs_compiler
def test_cmake_finds_the_environment_that_the_package_lies_in_or_the_active_one(tmp_path):
    pytest.importorskip("pybind11")
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(x CXX)\nfind_package(camrt 0.1 REQUIRED)\nmessage(STATUS ${camrt_VENV}.)\n"
    )
    active = configure(tmp_path / "active", FLAGS[0], source=tmp_path, VIRTUAL_ENV=str(VENV))
    assert f"-- {VENV}." in active.stdout
    venv = fake_venv(tmp_path / "venv")
    site = venv / f"lib/python3.{sys.version_info[1]}/site-packages"
    shutil.copytree(cmake_dir().parent, site / "camrt" / "cpp")
    shutil.copytree(Path(pytest.importorskip("pybind11").__file__).parent, site / "pybind11")
    around = configure(tmp_path / "around", f"-Dcamrt_DIR={site}/camrt/cpp/cmake", source=tmp_path)
    assert f"-- {venv}." in around.stdout


@needs_compiler
@pytest.mark.parametrize(("wanted", "fits"), [("0.1", True), ("0.1.0 EXACT", True), ("0.2", False), ("0.0.9", False)])
def test_cmake_accepts_the_versions_of_this_series(tmp_path, wanted, fits):
    version = tmp_path / "version.cmake"
    number, *exact = wanted.split()
    version.write_text(
        f"set(PACKAGE_FIND_VERSION {number})\ninclude({cmake_dir()}/camrtConfigVersion.cmake)\n"
        'message(STATUS "${PACKAGE_VERSION_COMPATIBLE} ${PACKAGE_VERSION_EXACT}")\n'
    )
    done = subprocess.run(["cmake", "-P", version], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("-- TRUE" if fits else "-- FALSE")
    assert ("TRUE TRUE" in done.stdout) == bool(exact)


def test_the_cmake_package_has_camrts_version():
    text = (cmake_dir() / "camrtConfigVersion.cmake").read_text()
    assert re.findall(r'set\(PACKAGE_VERSION "(.*)"\)', text) == [camrt.__version__]


def test_the_command_prints_folders_that_exist():
    run = CliRunner().invoke
    folder = Path(run(command, ["cpp", "--cmake-dir"]).output.strip())
    assert (folder / "camrtConfig.cmake").exists()
    assert (Path(run(command, ["cpp", "--include-dir"]).output.strip()) / "camrt.hpp").exists()
    assert run(command, ["cpp", "--cmake-flags"]).output.split() == FLAGS
    facts = json.loads(run(command, ["cpp", "--json"]).output)
    assert facts == dict(line.split(None, 1) for line in run(command, ["cpp"]).output.splitlines())
    assert run(command, ["cpp", "--json", "--cmake-dir"]).exit_code == 2


def test_no_python_type_stands_in_the_public_face():
    text = (include_dir() / "camrt.hpp").read_text()
    face = text[: text.index("// --- how it is done")]
    assert face.index("class Runtime") > face.index("class Explanation") > face.index("struct Image")
    assert not re.search(r"\bpy::|pybind11|Py[A-Z]", face.replace("Python", ""))


def test_lines_of_the_header_and_the_example_are_short():
    for file in [*include_dir().rglob("*.hpp"), *HOST.glob("*.cpp")]:
        assert max(map(len, file.read_text().splitlines())) <= 120, file


# --- what the header asks of Python -----------------------------------------------------------------------------------------
def shown(pixels: np.ndarray, pixel_format: str = "RGB8", *, kept: bool = False) -> host.View:
    return host.View(pixels.ctypes.data, *pixels.shape[:2], pixel_format, 0, kept)


def test_rgb_and_bgr_pixels_are_looked_at_where_they_lie():
    pixels = pattern()
    for pixel_format in ("RGB8", "BGR8"):
        seen = shown(pixels, pixel_format).photo(10**6).pixels
        assert np.shares_memory(seen, pixels)
        assert not seen.flags.writeable
        assert np.array_equal(seen, pixels if pixel_format == "RGB8" else pixels[..., ::-1])


@pytest.mark.parametrize(("change", "text"), [
    ({"address": 0}, "their pointer is null"),
    ({"height": 0}, "96 x 0 pixels has nothing to look at"),
    ({"height": 1200}, "more than the limit of 100,000"),
    ({"stride": 287}, "a row of 96 RGB8 pixels takes 288 bytes, got 287"),
    ({"stride": 1 << 62}, "96 rows of 4611686018427387904 bytes end beyond all memory"),
    ({"format": "YUV"}, "its format is none of RGB8, BGR8, GRAY8, RGBA8"),
])  # fmt: skip
def test_memory_that_cannot_be_an_image_is_refused_before_it_is_touched(change, text):
    with pytest.raises(camrt.ImageError, match=text):
        replace(shown(pattern()), **change).photo(100_000)


def test_an_explanation_lets_go_of_pixels_that_are_not_kept(shapes):
    pixels = pattern()
    for kept in (False, True):
        (result,) = host.explain(shapes, [shown(pixels, kept=kept)], None, None, None, None, "", {})
        assert np.shares_memory(result._explanation.photo.pixels, pixels) == kept
        assert result._explanation.photo.pixels.size == kept * pixels.size


def test_every_option_of_load_is_there_and_has_pythons_default():
    struct = re.search(r"struct LoadOptions \{(.*?)\n\};", (include_dir() / "camrt.hpp").read_text(), re.DOTALL)
    declared = dict(re.findall(r"^    [\w:<>]+ (\w+) = (.*?);", struct[1], re.MULTILINE))
    python = {name: one.default for name, one in inspect.signature(camrt.load).parameters.items() if name != "bundle"}
    assert set(declared) == set(python)
    assert (declared["cache"], declared["threads"]) == (str(python["cache"]).lower(), str(python["threads"]))


def test_an_array_is_made_once_and_kept(shapes):
    (result,) = host.explain(shapes, [shown(pattern(), kept=True)], None, None, 2, None, "", {})
    addresses = [call(i) for call in (result.heatmap, result.network_heatmap, result.overlay) for i in (0, 1)]
    assert len(set(addresses)) == 6
    assert addresses == [call(i) for call in (result.heatmap, result.network_heatmap, result.overlay) for i in (0, 1)]


def test_an_error_is_described_by_its_nearest_class_of_camrts():
    class Special(errors.UnknownTarget):
        pass

    assert host.describe(Special("text")) == ("UnknownTarget", "text")
    assert host.describe(MemoryError("full")) == ("", "MemoryError: full")
