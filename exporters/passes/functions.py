"""Inline model-local functions, so that every node is a standard operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx.inliner

if TYPE_CHECKING:
    from exporters.passes import Normal


def inline_functions(normal: Normal) -> None:
    """Replace calls of local functions by their bodies."""
    if normal.model.functions:
        normal.model = onnx.inliner.inline_local_functions(normal.model)
