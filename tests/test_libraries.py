"""The libraries of a provider: silent when they are loaded, named when they are missing."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from camrt import libraries
from camrt.nvidia import Driver


@pytest.fixture
def onnxruntime(monkeypatch, tmp_path):
    """A pretended onnxruntime package in a folder."""
    module = SimpleNamespace(__file__=str(tmp_path / "__init__.py"))
    (tmp_path / "capi").mkdir()
    monkeypatch.setattr(libraries, "_onnxruntime", lambda: module)
    monkeypatch.setattr(libraries, "find_driver", lambda: Driver("580.1", "13.0", (), ""))
    libraries.preload.cache_clear()
    yield module
    libraries.preload.cache_clear()


def test_what_onnx_runtime_prints_while_it_looks_for_libraries_is_not_seen(onnxruntime, capsys):
    code = "found = []\ndef preload_dlls(cuda=True, directory=None):\n    print('Failed to load', cuda)\n    found.append(cuda)"
    exec(code, names := {})
    onnxruntime.preload_dlls = names["preload_dlls"]
    libraries.preload(False)
    libraries.preload(False)
    assert names["found"] == [True]  # once a process
    assert capsys.readouterr() == ("", "")


def test_an_onnx_runtime_that_loads_nothing_beforehand_is_fine(onnxruntime):
    libraries.preload(True)


def shared_library(folder, provider: str, *needed: str) -> None:
    """Link a provider's library that needs others, which are gone afterwards."""
    for name in needed:
        subprocess.run(["cc", "-shared", "-o", folder / name, "-xc", "/dev/null", f"-Wl,-soname,{name}"], check=True)
    made = folder / "capi" / f"libonnxruntime_providers_{provider}.so"
    command = ["cc", "-shared", "-o", made, "-xc", "/dev/null", "-xnone", "-Wl,--no-as-needed", *(folder / n for n in needed)]
    subprocess.run(command, check=True)
    for name in needed:
        (folder / name).unlink()


@pytest.fixture
def compiler():
    try:
        subprocess.run(["cc", "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no C compiler")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the names are those of Linux")
def test_the_library_that_is_missing_is_named(onnxruntime, compiler, tmp_path):
    shared_library(tmp_path, "cuda", "libcamrt_absent.so.13")
    assert libraries.lack_of("cuda") == "libcamrt_absent.so.13 is not found"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the names are those of Linux")
def test_where_all_libraries_load_nothing_is_claimed(onnxruntime, compiler, tmp_path):
    shared_library(tmp_path, "openvino")
    assert libraries.lack_of("openvino") == ""


def test_the_driver_is_asked_for_nvidias_providers_alone(onnxruntime, monkeypatch):
    monkeypatch.setattr(libraries, "find_driver", lambda: Driver("", "", (), "no driver"))
    assert libraries.lack_of("tensorrt") == "no driver"
    assert libraries.lack_of("openvino") == ""


def test_the_absence_of_the_driver_is_told_once(onnxruntime, monkeypatch):
    monkeypatch.setattr(libraries, "find_driver", lambda: Driver("", "", (), "no driver"))
    monkeypatch.setattr(libraries, "_missing_library", lambda _: "libcuda.so.1 is not found")
    assert libraries.lack_of("cuda") == "no driver"


def test_the_package_that_brings_onnx_runtime_is_found():
    assert any(package.startswith("onnxruntime") for package in libraries.installed())
    assert not any("extensions" in package for package in libraries.installed())
