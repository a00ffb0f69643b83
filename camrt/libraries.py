"""The shared libraries of a provider: load those that pip installed, and say which is missing where it does not start."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import re
import types
from pathlib import Path
from typing import Any

from camrt.nvidia import find_driver

TENSORRT = "'tensorrt-cu13<11'"  # what onnxruntime-gpu 1.31 is linked against; pip alone would bring a newer one
ADVICE = {
    "cuda": "install NVIDIA's driver and the CUDA libraries (pip install 'onnxruntime-gpu[cuda,cudnn]')",
    "tensorrt": f"install NVIDIA's driver, CUDA and TensorRT (pip install 'onnxruntime-gpu[cuda,cudnn]' {TENSORRT})",
}

_PACKAGE = re.compile(r"onnxruntime([_-](gpu|openvino|migraphx|rocm|directml|qnn))?$", re.IGNORECASE)


def installed() -> list[str]:
    """Return the packages, with their versions, that bring the module onnxruntime; where there are several they clash."""
    from importlib.metadata import distributions  # takes milliseconds, and only messages and camrt info ask

    found = {d.metadata["Name"]: d.version for d in distributions() if _PACKAGE.match(d.metadata["Name"] or "")}
    return [f"{name} {version}" for name, version in sorted(found.items())]


@functools.cache
def preload(tensorrt: bool) -> None:
    """Load the libraries of CUDA, and of TensorRT, that pip installed; what is missing shows when the provider is loaded."""
    function = getattr(_onnxruntime(), "preload_dlls", None)
    if function is not None:  # NVIDIA's wheels for Jetson lack it
        silent = {**function.__globals__, "print": lambda *_, **__: None}  # it prints what it does not find
        types.FunctionType(function.__code__, silent, argdefs=function.__defaults__)()
    if tensorrt:
        with contextlib.suppress(ImportError, OSError):
            importlib.import_module("tensorrt_libs")  # pip's package loads its libraries when it is imported


def lack_of(provider: str) -> str:
    """Return the library or the driver for want of which a provider did not start; empty where it is something else."""
    library = _missing_library(provider)
    trouble = find_driver().trouble if provider in ADVICE else ""
    told = [trouble] if "libcuda.so" in library and trouble else [library, trouble]  # the driver's absence is told once
    return "; ".join(filter(None, told))


def _missing_library(provider: str) -> str:
    """Load a provider's library as ONNX Runtime did a moment ago, and return what that lacked."""
    path = Path(_onnxruntime().__file__).parent / "capi" / f"libonnxruntime_providers_{provider}.so"
    try:
        if path.is_file():
            ctypes.CDLL(str(path))
    except OSError as error:
        return re.sub(r"^(\S+): cannot open shared object file.*", r"\1 is not found", str(error))
    return ""


def _onnxruntime() -> Any:
    return importlib.import_module("onnxruntime")  # camrt.runtime says what to install where it is missing
