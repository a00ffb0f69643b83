"""The largest numbers in a network, tensor by tensor: where one lies beyond float16's range, it is named."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from onnx import ModelProto, ValueInfoProto

from camrt.errors import ExportError
from exporters.emitter import Emitter
from exporters.graph import Graph, all_names, describe, unused
from exporters.precision import LARGEST, WITHOUT
from exporters.proof import open_graph, run_graph

PEAKS = "peaks"


class Peaks:
    """A float32 network that gives the largest magnitude of each of its tensors.

    Parameters
    ----------
    graph : Graph
    image : str
        Its input.
    tensors : collection of str
        The tensors to look at.
    """

    def __init__(self, graph: Graph, image: str, tensors: Collection[str]):
        self.image = image
        watched = set(tensors)
        self.writers = [(node, name) for node in graph.nodes for name in node.output if name in watched]
        self._session = open_graph(_watching(graph, [name for _, name in self.writers]).SerializeToString(), "the source model")

    def check(self, images: Mapping[str, np.ndarray]) -> None:
        """Refuse a network of which a tensor leaves float16's range on one of the images (N, 3, H, W), each by itself.

        Raises
        ------
        ExportError
            It names the first such operator on the way from the image.
        """
        for kind, batch in images.items():
            for one in batch:
                found = run_graph(self._session, {self.image: one[None]}, "the source model")
                if (beyond := np.flatnonzero(found > LARGEST)).size:
                    node, name = self.writers[beyond[0]]
                    raise ExportError(
                        f"--precision fp16 cannot hold what {describe(node)} gives: {found[beyond[0]]:.4g} in {name!r} on "
                        f"{kind!r} images, and float16 ends at {LARGEST:g}. {WITHOUT}."
                    )


def _watching(graph: Graph, tensors: list[str]) -> ModelProto:
    """Return the model with one output, the largest |value| of every tensor."""
    names = all_names(graph.proto)
    op = Emitter(unused(PEAKS, {name.split("/")[0] for name in names}))
    each = [op.several("ReduceMax", 1, op.Abs(name), keepdims=0)[0] for name in tensors]
    peaks = op.Concat(*(op.Unsqueeze(peak, op.constant([0])) for peak in each), axis=0)
    model = ModelProto()
    model.CopyFrom(graph.model)
    model.graph.node.extend(op.nodes)
    model.graph.initializer.extend(op.initializers)
    del model.graph.output[:]
    model.graph.output.append(ValueInfoProto(name=peaks))
    return model
