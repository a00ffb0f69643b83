"""camrt shows where a CNN looked when it named a class, on machines without PyTorch.

The names below are loaded when they are first used, so that `import camrt` costs nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

# ONNX Runtime reports usage by default, from the moment it is imported; whoever wants that sets the variable themselves.
ONNXRUNTIME_CAME_FIRST = "onnxruntime" in sys.modules
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from camrt.errors import (
        BatchError,
        BundleError,
        CamrtError,
        DeviceMemoryError,
        ExplanationError,
        ExportError,
        ImageError,
        MethodUnavailable,
        ParameterError,
        ProviderError,
        UnknownLayer,
        UnknownMethod,
        UnknownTarget,
    )
    from camrt.explainer import Explainer, load
    from camrt.explanation import Explanation, Target
    from camrt.heatmap import Outcome
    from camrt.photo import Photo, load_photo
    from camrt.stream import Failure

_HOME = {
    "BatchError": "errors",
    "BundleError": "errors",
    "CamrtError": "errors",
    "DeviceMemoryError": "errors",
    "Explainer": "explainer",
    "Explanation": "explanation",
    "ExplanationError": "errors",
    "ExportError": "errors",
    "Failure": "stream",
    "ImageError": "errors",
    "MethodUnavailable": "errors",
    "Outcome": "heatmap",
    "ParameterError": "errors",
    "Photo": "photo",
    "ProviderError": "errors",
    "Target": "explanation",
    "UnknownLayer": "errors",
    "UnknownMethod": "errors",
    "UnknownTarget": "errors",
    "load": "explainer",
    "load_photo": "photo",
}

__all__ = [
    "BatchError",
    "BundleError",
    "CamrtError",
    "DeviceMemoryError",
    "Explainer",
    "Explanation",
    "ExplanationError",
    "ExportError",
    "Failure",
    "ImageError",
    "MethodUnavailable",
    "Outcome",
    "ParameterError",
    "Photo",
    "ProviderError",
    "Target",
    "UnknownLayer",
    "UnknownMethod",
    "UnknownTarget",
    "__version__",
    "load",
    "load_photo",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'camrt' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"camrt.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
