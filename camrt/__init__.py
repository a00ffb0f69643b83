"""camrt shows where a CNN looked when it named a class, on machines without PyTorch."""

import os

# ONNX Runtime reports usage by default, from the moment it is imported; whoever wants that sets the variable themselves.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

from camrt.errors import (
    BundleError,
    CamrtError,
    DeviceMemoryError,
    ExplanationError,
    ExportError,
    ImageError,
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

__all__ = [
    "BundleError",
    "CamrtError",
    "DeviceMemoryError",
    "Explainer",
    "Explanation",
    "ExplanationError",
    "ExportError",
    "ImageError",
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
