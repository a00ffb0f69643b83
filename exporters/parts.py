"""The graphs of a bundle in a folder: cut from a network, written with their weights, and proved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from camrt.manifest import WEIGHTS, Split, Weight
from exporters.gradient import gradient
from exporters.graph import Graph
from exporters.proof import Answers, open_graph, open_parts, output_step, prove, prove_gradient, prove_place, tolerance
from exporters.split import IMAGE, LOGITS, Cut, Shapes, head, score, tail, to_model
from exporters.vjps import NoGradient
from exporters.weights import write_weights


@dataclass(frozen=True)
class Cuts:
    """The graphs cut from a network, where their weights lie, and why the gradient's is not among them."""

    graphs: Mapping[str, Cut]
    weights: tuple[Weight, ...]
    gradient_missing: str | None


@dataclass(frozen=True)
class Written:
    """What lies in a folder of graphs, and how well it was proved; see `Manifest`."""

    weights: tuple[Weight, ...]
    split: Split
    gradient_missing: str | None
    gradient_error: float | None

    def without_gradient(self, folder: Path, reason: str) -> Written:
        """Take gradient.onnx away and say why."""
        (folder / "gradient.onnx").unlink(missing_ok=True)
        weights = tuple(replace(w, graphs=tuple(g for g in w.graphs if g != "gradient")) for w in self.weights)
        return replace(self, weights=weights, gradient_missing=reason, gradient_error=None)


def write_cuts(folder: Path, graph: Graph, shapes: Shapes, progress: Callable[[str], None]) -> Cuts:
    """Cut a network, its interface renamed, and write the graphs and their weights into a folder."""
    cuts = {"head": head(graph, shapes), "tail": tail(graph, shapes), "score": score(graph, shapes)}
    missing = None
    try:
        cuts["gradient"] = gradient(graph, shapes)
    except NoGradient as reason:
        missing = str(reason)
    progress("cut")
    folder.mkdir(exist_ok=True)
    used = {part: cut.reads(graph) for part, cut in cuts.items()}
    table = write_weights(graph, IMAGE, used, folder / WEIGHTS)
    for part, cut in cuts.items():
        (folder / f"{part}.onnx").write_bytes(to_model(cut, graph, table).SerializeToString(deterministic=True))
    return Cuts(cuts, table, missing)


def prove_cuts(
    folder: Path,
    graph: Graph,
    cut: Cuts,
    answers: Answers,
    activation: str | None,
    layer: str,
    *,
    one_by_one: bool = False,
    slopes: Path | None = None,
) -> Written:
    """Prove the graphs in a folder.

    Parameters
    ----------
    folder : Path
    graph : Graph
        What they were cut from.
    cut : Cuts
        From `write_cuts`.
    answers : Answers
        Of the network that they must reproduce.
    activation : str or None
        What that applies to its logits, and the graphs leave out.
    layer : str
        How messages name the features.
    one_by_one : bool
        Images cannot share a batch.
    slopes : Path, optional
        A folder whose tail tells the slopes instead: in float16 values go in steps too coarse for that.

    Raises
    ------
    ExportError
        They do not reproduce it.  A gradient that is not the tail's slope is only taken away.
    """
    parts = open_parts(folder)
    split = prove(
        folder, parts, answers, activation, allowed=tolerance(graph), step=output_step(graph, LOGITS), one_by_one=one_by_one
    )
    prove_place(parts, answers, layer)
    written = Written(cut.weights, split, cut.gradient_missing, None)
    try:
        if cut.gradient_missing is None:
            smooth = not cut.graphs["tail"].has("QuantizeLinear")
            if slopes is not None:
                parts["tail"] = open_graph(slopes / "tail.onnx", "tail.onnx")
            written = replace(written, gradient_error=prove_gradient(folder, parts, answers, smooth))
    except NoGradient as reason:
        written = written.without_gradient(folder, str(reason))
    parts.clear()  # the folder is moved, which not every system lets happen to files in use
    return written
