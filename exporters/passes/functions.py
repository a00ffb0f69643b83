"""Inline model-local functions, so that every node is a standard operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx.inliner

from camrt.errors import ExportError
from exporters.graph import STANDARD, describe

if TYPE_CHECKING:
    from exporters.passes import Normal

KNOWN = (*STANDARD, "ai.onnx.ml", "com.microsoft")


def inline_functions(normal: Normal) -> None:
    """Replace calls of local functions by their bodies; refuse operators that ONNX Runtime does not bring."""
    if normal.model.functions:
        normal.model = onnx.inliner.inline_local_functions(normal.model)
    for node in normal.model.graph.node:
        if node.domain not in KNOWN:
            raise ExportError(
                f"{describe(node)} is a custom operator of domain {node.domain!r}; it would need its library wherever the "
                "bundle runs. Export the model with standard operators."
            )
