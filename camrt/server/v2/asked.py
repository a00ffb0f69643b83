"""What a request's parameters ask for: the method and its own parameters, the classes, the time, the look of overlays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from reprlib import repr as brief
from typing import Any

from camrt.explainer import DEFAULT_METHOD
from camrt.manifest import Manifest
from camrt.server.errors import Refusal
from camrt.server.pictures import Look
from camrt.server.v2.classes import read_classes
from camrt.server.v2.parts import Scalar

IGNORED = ("priority", "sequence_id", "sequence_start", "sequence_end", "binary_data_output", "headers", "content_type")
RESERVED = "triton_"  # what Triton's own parameters start with
CLASSES = ("target", "top", "versus")


@dataclass(frozen=True)
class Asked:
    """What a request's parameters ask for.

    Attributes
    ----------
    method : str
    classes : mapping
        target, targets, top and versus, as `Explainer.explain` takes them.
    settings : mapping
        The method's own parameters, unchecked.
    timeout : float or None
        Seconds.
    look : Look
    """

    method: str
    classes: Mapping[str, Any]
    settings: Mapping[str, Scalar]
    timeout: float | None
    look: Look


def read_asked(parameters: Mapping[str, Scalar], manifest: Manifest, most: int) -> Asked:
    """Return what parameters ask for; `most` is how many classes the server allows.

    Raises
    ------
    ParameterError, UnknownTarget
        What is asked for is not there, or not allowed.
    Refusal
        400: the timeout is no number of microseconds.
    """
    rest = {name: value for name, value in parameters.items() if name not in IGNORED and not name.startswith(RESERVED)}
    method = rest.pop("method", DEFAULT_METHOD)
    classes: dict[str, Any] = {name: rest.pop(name) for name in CLASSES if name in rest}
    if "targets" in rest:
        classes["targets"] = read_classes(manifest, str(rest.pop("targets")), most)
    timeout = _seconds(rest.pop("timeout", 0))
    look: dict[str, Any] = {name: rest.pop(name) for name in ("alpha", "colormap", "longest") if name in rest}
    return Asked(method, classes, rest, timeout, Look(**look))  # type: ignore[arg-type]  # the method is checked by its name


def _seconds(timeout: Scalar) -> float | None:
    """Return a timeout in microseconds as seconds; 0 is none."""
    if type(timeout) is not int or not 0 <= timeout < 1 << 63:
        raise Refusal(400, f"timeout must be a whole number of microseconds, got {brief(timeout)}.")
    return timeout / 1e6 or None
