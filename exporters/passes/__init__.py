"""What is done to a model before it is cut, one step a file, in this order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from onnx import ModelProto

from exporters.border import Border
from exporters.graph import Graph
from exporters.passes.activation import cut_activation
from exporters.passes.batch import free_batch
from exporters.passes.branches import take_branches
from exporters.passes.channels import channels_first
from exporters.passes.constants import lift_constants
from exporters.passes.fold import fold_shape_arithmetic
from exporters.passes.functions import inline_functions
from exporters.passes.image import find_image
from exporters.passes.operators import check_operators
from exporters.passes.opset import raise_opset
from exporters.passes.order import order_nodes
from exporters.passes.output import find_scores
from exporters.passes.pixels import lift_pixel_scaling
from exporters.passes.quantisation import one_dequantiser_each
from exporters.passes.scores import flatten_scores
from exporters.passes.sizes import bound_growth, bound_sizes
from exporters.passes.squeeze import keep_batch
from exporters.passes.strip import strip
from exporters.passes.unfuse import unfuse


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
    source_input, source_output : str
        Their names in the source.
    rounding : (float, float) or None
        Scale and zero point of scores that the source gives as whole numbers.
    batch : int
        Images at once that the source was made for; 1 where that is open.
    border : Border
        How the source's input differs from the image.
    one_by_one : str or None
        Why images cannot share a batch.
    names : tuple of str
        Of the classes, where a ZipMap behind the scores tells them.
    safe : set of str
        Of the views on the model; see `exporters.graph.Graph`.
    """

    model: ModelProto
    size: tuple[int, int] | None = None
    output: str | None = None
    image: str = ""
    logits: str = ""
    activation: str | None = None
    raw_logits: str = ""
    source_input: str = ""
    source_output: str = ""
    rounding: tuple[float, float] | None = None
    batch: int = 1
    border: Border = field(default_factory=Border)
    one_by_one: str | None = None
    names: tuple[str, ...] = ()
    safe: set[str] = field(default_factory=set)

    def graph(self) -> Graph:
        """Return a view on the model as it is now."""
        return Graph(self.model, self.safe)


PASSES: tuple[Callable[[Normal], None], ...] = (
    # what the file holds, and of that what the scores need: nothing else can be a reason to refuse the model
    inline_functions,
    order_nodes,
    find_scores,
    strip,
    # in plain operators; raising the opset writes new Constants, and a Dropout's mode may be one
    raise_opset,
    lift_constants,
    check_operators,
    unfuse,
    # with the size of the image known, so are all others; only then can conditions be folded, and growth be judged
    find_image,
    bound_sizes,
    fold_shape_arithmetic,
    take_branches,
    bound_growth,
    # in one layout, in which pixels are scaled by channel, and an activation stands last, not a Transpose
    keep_batch,
    one_dequantiser_each,
    channels_first,
    cut_activation,
    strip,
    lift_pixel_scaling,
    flatten_scores,
    # last, as all others read shapes, which are those of the batch that the model was made for
    free_batch,
)


def normalise(normal: Normal) -> None:
    """Bring a model into the form that can be cut, in place."""
    for step in PASSES:
        step(normal)
