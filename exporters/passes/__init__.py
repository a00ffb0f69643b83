"""What is done to a model before it is cut, one step a file, in this order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx import ModelProto

from exporters.passes.activation import cut_activation
from exporters.passes.batch import free_batch
from exporters.passes.constants import lift_constants
from exporters.passes.fold import fold_shape_arithmetic
from exporters.passes.functions import inline_functions
from exporters.passes.interface import one_image_one_output
from exporters.passes.opset import raise_opset
from exporters.passes.strip import strip


@dataclass
class Normal:
    """A model on its way to the form that can be cut, and what the steps found out about it.

    Attributes
    ----------
    model : ModelProto
        One image input (N, C, H, W) float32, one output (N, L), every constant an initializer.
    size : (int, int) or None
        Height and width asked for, where the model leaves them open.
    output : str or None
        The output asked for, where the model has several.
    image, logits : str
        Names of the input and of the output.
    activation : str or None
        The trailing Softmax, LogSoftmax or Sigmoid that was cut off.
    raw_logits : str
        The logits' name before the batch was freed and the shape flattened.
    source_output : str
        The output's name in the source.
    batch : int
        Images at once that the source was made for; 1 where that is open.
    """

    model: ModelProto
    size: tuple[int, int] | None = None
    output: str | None = None
    image: str = ""
    logits: str = ""
    activation: str | None = None
    raw_logits: str = ""
    source_output: str = ""
    batch: int = 1


PASSES: tuple[Callable[[Normal], None], ...] = (
    inline_functions,
    raise_opset,
    lift_constants,
    one_image_one_output,
    fold_shape_arithmetic,
    cut_activation,
    free_batch,
    strip,
)


def normalise(normal: Normal) -> None:
    """Bring a model into the form that can be cut, in place."""
    for step in PASSES:
        step(normal)
