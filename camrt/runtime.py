"""ONNX Runtime itself: what to install where it is missing, its types, its version, and whether it reports usage."""

from __future__ import annotations

import os
from typing import TypeAlias

from camrt import ONNXRUNTIME_CAME_FIRST, __version__

try:
    import onnxruntime as ort
except ImportError as error:
    raise ImportError(
        "camrt needs ONNX Runtime: pip install onnxruntime, or onnxruntime-gpu[cuda,cudnn] on a machine with CUDA. "
        "The two packages exclude each other, so camrt installs neither by itself."
    ) from error

__all__ = ["OrtValue", "Session", "build", "ort", "runtime", "telemetry", "versions"]

Session: TypeAlias = ort.InferenceSession
OrtValue: TypeAlias = ort.OrtValue


def telemetry() -> str:
    """Say whether ONNX Runtime may report usage: it reads the variable once, when it is imported."""
    if os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
        return "on, as ORT_DISABLE_TELEMETRY is not 1"
    if ONNXRUNTIME_CAME_FIRST:
        return "unknown, as onnxruntime was imported before camrt; import camrt first"
    return "off"


def runtime() -> str:
    """Return the runtime's name and version, for messages."""
    return f"ONNX Runtime {ort.__version__}"


def build() -> str:
    """Return what tells apart builds of the same version."""
    return str(ort.get_build_info())


def versions() -> dict[str, str]:
    """Return the versions that a result reports."""
    return {"camrt": __version__, "onnxruntime": ort.__version__}
