"""Raise models of old opsets to the lowest one that the added operators can be written in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx.version_converter

from camrt.errors import ExportError, one_line
from exporters.graph import describe, opset
from exporters.inference import impossible_slices, inner_slices

if TYPE_CHECKING:
    from exporters.passes import Normal

LOWEST_OPSET = 13  # Resize with half-pixel centres, axes of Squeeze and Unsqueeze as inputs


def raise_opset(normal: Normal) -> None:
    """Convert a model of an opset below 13 to 13; newer ones stay as they are."""
    version = opset(normal.model)
    if version >= LOWEST_OPSET:
        return
    for node in (*inner_slices(normal.model), *impossible_slices(normal.model, normal.safe)):
        raise ExportError(  # the converter infers shapes too, and would end the process
            f"{describe(node)} cuts a tensor of an impossible or unknown shape, so that the model's opset {version} cannot be "
            f"raised to {LOWEST_OPSET}. Convert it with the tool that made it to opset {LOWEST_OPSET} or later."
        )
    try:
        normal.model = onnx.version_converter.convert_version(normal.model, LOWEST_OPSET)
    except Exception as error:  # the C++ converter raises several types of its own
        raise ExportError(
            f"The model has opset {version}, which cannot be raised to {LOWEST_OPSET}: {one_line(error)}. "
            f"Convert it with the tool that made it to opset {LOWEST_OPSET} or later."
        ) from None
