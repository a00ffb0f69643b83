"""A network in float16, on its way into a bundle: written before the cut, proved by itself, measured against float32.

The chain is: the source; the float32 graphs (1e-4); the network in float16, whose difference is measured and bounded; its
graphs (2e-3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from camrt.precision import Precision
from exporters.fidelity import measure, open_network, why_no_gradient
from exporters.graph import Graph
from exporters.parts import Written, prove_cuts, write_cuts
from exporters.peaks import Peaks
from exporters.precision import check_float32, float16_tensors, to_float16
from exporters.proof import open_graph, run_graph
from exporters.split import IMAGE, Shapes, bridge, rename_interface

NETWORK = "the network in float16"


@dataclass(frozen=True)
class Half:
    """A network in float16, not yet cut, and the float32 one with the largest number of each tensor.

    Attributes
    ----------
    model : ModelProto
        In normal form; its interface is renamed when it is cut.
    image, logits : str
        Its input and output before that.
    peaks : Peaks
    """

    model: ModelProto
    image: str
    logits: str
    peaks: Peaks

    @classmethod
    def of(cls, graph: Graph, image: str, logits: str) -> Half:
        """Write a float32 network in float16.

        Raises
        ------
        ExportError
            It is no float32 network, or has a weight that float16 cannot hold.
        """
        check_float32(graph)
        model = to_float16(graph, image, logits)
        return cls(model, image, logits, Peaks(graph, image, float16_tensors(model)))

    def write(
        self, folder: Path, exact: Path, layer: str, shapes: Shapes, images: Mapping[str, np.ndarray], natural: str, kind: str,
        progress: Callable[[str], None],
    ) -> tuple[Written, Precision]:  # fmt: skip
        """Cut it at a layer, prove the graphs in `folder`, and return what float16 changes.

        Parameters
        ----------
        folder, exact : Path
            Where the graphs go, and where those in float32 lie.
        layer : str
        shapes : Shapes
        images : mapping of str to ndarray of shape (N, 3, H, W)
            By kind.
        natural, kind : str
            See `exporters.fidelity.measure`.
        progress : callable
            Called with the name of each step.

        Raises
        ------
        ExportError
            A number leaves the range of float16, the graphs do not reproduce the network, or float16 changes too much.
        """
        self.peaks.check(images)
        rename_interface(self.model, self.image, bridge(self.model, layer), self.logits)
        graph = Graph(self.model)
        cut = write_cuts(folder, graph, shapes, progress)
        progress("prove")
        uncut = open_graph(self.model.SerializeToString(), NETWORK)
        answers = {name: (x, run_graph(uncut, {IMAGE: x}, NETWORK)) for name, x in images.items()}
        written = prove_cuts(folder, graph, cut, answers, None, layer, slopes=exact)
        found = measure(open_network(exact), open_network(folder, rounding=True), images, natural, kind)
        reason = why_no_gradient(found)
        return written if reason is None else written.without_gradient(folder, reason), found
