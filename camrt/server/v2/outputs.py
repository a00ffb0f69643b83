"""The outputs that a request may choose from, as a table: datatype, shape, whether it takes an explanation, values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from camrt.case import probabilities
from camrt.explanation import Explanation
from camrt.manifest import Manifest
from camrt.question import Question
from camrt.server.errors import Refusal
from camrt.server.pictures import OVERLAY, Look, check_area, pictures, shrunk
from camrt.server.v2.tensors import BYTES, Tensor, Values


@dataclass(frozen=True)
class Found:
    """What was found about the images of a request.

    Attributes
    ----------
    manifest : Manifest
    question : Question
    logits : ndarray of shape (N, L)
    explanations : sequence of Explanation, length N
        Empty where none was needed.
    look : Look
        Of overlays.
    most : int
        Pixels of all overlays together.
    """

    manifest: Manifest
    question: Question
    logits: np.ndarray
    explanations: Sequence[Explanation]
    look: Look
    most: int

    @property
    def targets(self) -> np.ndarray:
        """Class indices, (N, T)."""
        return self.question.targets(self.logits)

    @property
    def probabilities(self) -> np.ndarray:
        """Those of the targets, (N, T)."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.take_along_axis(probabilities(self.logits, self.manifest.kind), self.targets, axis=1)

    @property
    def outcomes(self) -> np.ndarray:
        """How each heatmap came out, (N, T)."""
        return np.array([[target.outcome for target in one.targets] for one in self.explanations], np.int32)


@dataclass(frozen=True)
class Output:
    """An output.

    Attributes
    ----------
    datatype : str
    shape : callable
        manifest → its shape, −1 where that varies: in the numbers N of images and T of classes.
    values : callable
        Found → the values of N × T…; elements of BYTES row by row.
    explained : bool
        Whether it takes an explanation; without, one bare pass of the network is enough.
    in_base64 : bool
        Whether its BYTES are no text.
    """

    datatype: str
    shape: Callable[[Manifest], tuple[int, ...]]
    values: Callable[[Found], Values]
    explained: bool = True
    in_base64: bool = False

    def tensor(self, name: str, found: Found) -> Tensor:
        """Return the output as it was found."""
        values = self.values(found)
        return Tensor(name, self.datatype, found.targets.shape if isinstance(values, list) else values.shape, values)


def _each(_: Manifest) -> tuple[int, ...]:
    return -1, -1


def _labels(found: Found) -> list[bytes]:
    return [found.manifest.label(int(index)).encode() for index in found.targets.flat]


def _heatmaps(found: Found) -> np.ndarray:
    return np.stack([explanation.network_heatmap for explanation in found.explanations])


def _overlays(found: Found) -> list[bytes]:
    """Return a PNG for every image and class."""
    small = [shrunk(explanation, found.look.longest) for explanation in found.explanations]
    check_area(small, found.most)
    return list(chain.from_iterable(pictures(one, OVERLAY, found.look) for one in small))


OUTPUTS: Mapping[str, Output] = {
    "logits": Output("FP32", lambda m: (-1, m.classes), lambda found: found.logits, explained=False),
    "probabilities": Output("FP32", _each, lambda found: found.probabilities, explained=False),
    "targets": Output("INT64", _each, lambda found: found.targets.astype(np.int64, copy=False), explained=False),
    "labels": Output(BYTES, _each, _labels, explained=False),
    "heatmap": Output("FP32", lambda m: (-1, -1, *m.size), _heatmaps),  # on the network's input
    "maps": Output(
        "FP32", lambda m: (-1, -1, *m.features.shape[2:]), lambda found: np.stack([e.maps for e in found.explanations])
    ),
    "outcomes": Output("INT32", _each, lambda found: found.outcomes),
    "overlay": Output(BYTES, _each, _overlays, in_base64=True),
}
DEFAULTS = ("logits", "probabilities", "targets", "heatmap", "outcomes")


def check_heatmaps(manifest: Manifest, images: int, classes: int, most: int) -> None:
    """Refuse heatmaps of more pixels than one answer may have.

    Raises
    ------
    Refusal
        422.
    """
    height, width = manifest.size
    if images * classes * height * width > most:
        raise Refusal(
            422,
            f"{images} x {classes} heatmaps of {width} x {height} pixels are more than {most:,} in all. "
            "Ask for fewer images or classes, or for the output maps.",
        )
