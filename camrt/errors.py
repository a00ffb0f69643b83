"""What can go wrong, as a tree; every message says what was asked, what was found and what to do next.

CamrtError
├── BundleError        a bundle folder is missing, damaged, tampered with or of another version
├── ExportError        a model cannot be cut into a bundle
│   └── UnknownLayer   no tensor, node or module of that name is in the model
├── ProviderError      an execution provider is not installed or did not start
├── DeviceMemoryError  the device has no memory left for a graph or for the images
├── ImageError         an image cannot be read
├── ParameterError     an argument is outside what is allowed
│   ├── UnknownMethod  no method has this name
│   └── UnknownTarget  no class has this name or index
├── MethodUnavailable  what a method needs is not there
├── ExplanationError   an explanation cannot be written
└── BatchError         a dataset of explanations cannot be written, read or gone on with
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CamrtError(Exception):
    """Base of every error that camrt raises on purpose."""


class BundleError(CamrtError):
    """A bundle folder is missing, damaged, tampered with or of another version."""


class ExportError(CamrtError):
    """A model cannot be cut into a bundle."""


class UnknownLayer(ExportError):
    """No tensor, node or module of that name is in the model."""


class ProviderError(CamrtError):
    """An execution provider is not installed or did not start."""


class DeviceMemoryError(CamrtError):
    """The device has no memory left for a graph or for the images."""


class ImageError(CamrtError):
    """An image cannot be read."""


class ParameterError(CamrtError, ValueError):
    """An argument is outside what is allowed."""


class UnknownMethod(ParameterError):
    """No method has this name."""


class UnknownTarget(ParameterError):
    """No class has this name or index."""


class MethodUnavailable(CamrtError):
    """What a method needs is not there: gradients in the bundle, a tail of the right form, an optional package."""


class ExplanationError(CamrtError):
    """An explanation cannot be written."""


class BatchError(CamrtError):
    """A dataset of explanations cannot be written, read or gone on with."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known word nearest to `word`, or an empty string.

    >>> did_you_mean("grad-cm", ["grad-cam", "rise"])
    " Did you mean 'grad-cam'?"
    """
    by_lower = {name.lower(): name for name in known}
    nearest = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return f" Did you mean {by_lower[nearest[0]]!r}?" if nearest else ""


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return an exception's text on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
