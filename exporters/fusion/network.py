"""The bundle's network inside one graph: what it says to an image, its gradients, and its answers to masked images.

The network stands in the graph once, in the body of a Loop with its weights: the first turn sees the image, the following
ones the masked images, some at a time.  There ONNX Runtime optimises it as it does a model of its own, and keeps one copy of
the repacked weights; used from a body, weights that lie outside of it are run without that (1.2 to 3 × slower on a CPU).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from camrt.bundle import Bundle
from exporters.emitter import Emitter
from exporters.fusion.arithmetic import BOOL, FLOAT, INT64, finite_in, length, reshape, scalar, shape_of, unsqueeze
from exporters.fusion.maps import flat_features, window
from exporters.fusion.scores import log_odds, probabilities
from exporters.graph import STANDARD, all_names, node_inputs, rename, renamed, unused
from exporters.split import COTANGENT, FEATURES, IMAGE, PREFIX

INTERFACE = ("image", "target", "logits", "targets", "probabilities", "heatmap", "outcomes", "scores")  # of the file

Plan = Callable[[Emitter, "Prediction"], list[str]]  # what to mask with (N, M, …), then what the merging needs
Blend = Callable[[Emitter, str, str], str]  # image or features (N, …), some of the masks (N, k, …) → what is run (N, k, …)


@dataclass(frozen=True)
class Prediction:
    """Names of what the network said to the images.

    Attributes
    ----------
    logits : str
        (N, L)
    targets : str
        (N, T) int64, the classes to explain.
    finite, flat : str
        (N, 1) bool: the network gave neither NaN nor infinity; its features are the same everywhere.
    features : str
        (N, C, h, w), zeros where the network was not finite; not carried out of a Loop.
    """

    logits: str
    targets: str
    finite: str
    flat: str
    features: str = ""

    DTYPES = (FLOAT, INT64, BOOL, BOOL)

    @property
    def carried(self) -> list[str]:
        return [self.logits, self.targets, self.finite, self.flat]


@dataclass(frozen=True)
class Edits:
    """What goes through the tail beside the masked images: all of the features but something.

    Attributes
    ----------
    blend : Blend
        Features (N, C, h, w), k of what the plan names second (N, k, …) → edited features (N, k, C, h, w).
    score : {"probability", "logit", "log-odds"}
        What is kept of what the tail says.
    times : int
        How many of them there are for each masked image.
    """

    blend: Blend
    score: str
    times: int


@dataclass(frozen=True)
class Answers:
    """What the masked images gave.

    Attributes
    ----------
    seen : Prediction
        The image's own answers.
    kept : list of str
        What the plan kept.
    scores : str
        (N, M, T)
    edited : str or None
        (N, M · times, T) of the edited features, where there were any.
    """

    seen: Prediction
    kept: list[str]
    scores: str
    edited: str | None = None


class Network:
    """A bundle's graphs, to be written into one.

    Parameters
    ----------
    bundle : Bundle
    parts : sequence of str
        Its graphs that are needed, "head", "tail" and "gradient".
    black_logits : ndarray of shape (L,)
        What the network says to the black image.
    batch : int
        Most masked images, and edited features, in one turn.
    target : str
        The input (1 or N, T), int64: class indices; −1 is the most probable class, −2 the second.
    """

    def __init__(self, bundle: Bundle, parts: Sequence[str], black_logits: np.ndarray, batch: int, target: str):
        manifest = bundle.manifest
        self.batch, self.target = batch, target
        self.classes, self.kind, self.size = manifest.classes, manifest.kind, manifest.size
        self.image_shape, self.black_logits = manifest.image.shape[1:], black_logits
        self.channels, *cells = manifest.features.shape[1:]
        self.cells: tuple[int, int] = (cells[0], cells[1])
        self.parts = _load({name: bundle.path(name) for name in parts})
        # Several batches go through the tail one by one where it takes no batch, and where it is quantised: of a Concat between
        # DequantizeLinear and QuantizeLinear with another input ONNX Runtime 1.31 ends the process.
        tails = [part.graph for name, part in self.parts.items() if name == "tail"]
        quantised = any(node.op_type == "QuantizeLinear" for tail in tails for node in tail.node)
        self.one_by_one = manifest.one_by_one is not None
        self.apart = self.one_by_one or quantised
        self.weights = {t.name: t for part in self.parts.values() for t in part.graph.initializer}
        self._used = {*INTERFACE, *self.weights}
        self.operator_sets = _operator_sets(self.parts.values())
        standard = next(entry.version for entry in self.operator_sets if not entry.domain)
        self.op = op = Emitter(f"{PREFIX}/e", opset=standard)
        self.window = window(op, self.cells, self.size)
        # Looked up among 0 … L − 1, where −1 is L − 1, a target that is no class stops the run here, by name.
        self.numbers = op.Range(op.constant(0), op.constant(self.classes), op.constant(1))
        self.index = op.Gather(self.numbers, target)
        op.nodes[-1].name = "target: a class index, or -1 for the most probable class, -2 for the second"

    # --- what a method may ask ------------------------------------------------------------------------------------------
    def predict(self, op: Emitter, image: str) -> Prediction:
        """Run head and tail on images (N, 3, H, W)."""
        features = self._run(op, "head", {IMAGE: image})
        return self._seen(op, features, self._run(op, "tail", {FEATURES: features}))

    def gradients(self, op: Emitter, seen: Prediction) -> str:
        """Return g = ∂z_c/∂A of every target, (N, T, C, h, w)."""
        images, targets = length(op, seen.targets, 0), length(op, seen.targets, 1)
        whole = [self.channels, *self.cells]
        repeated = op.Expand(unsqueeze(op, seen.features, 1), shape_of(op, images, targets, *whole))
        one_hot = op.Equal(unsqueeze(op, seen.targets, 2), self.numbers)
        feeds = {
            FEATURES: reshape(op, repeated, -1, *whole),
            COTANGENT: reshape(op, op.Cast(one_hot, to=FLOAT), -1, self.classes),
        }
        return reshape(op, self._run(op, "gradient", feeds), images, targets, *whole)

    def masked_scores(
        self, op: Emitter, image: str, plan: Plan, blend: Blend, count: int | str, dtypes: Sequence[int], score: str,
        edits: Edits | None = None,
    ) -> Answers:  # fmt: skip
        """Show the network the image, then everything that `blend` makes of what `plan` says, and keep the targets' scores.

        Parameters
        ----------
        image : str
            (N, 3, H, W)
        plan : callable
            Emitter, Prediction → what to mask with (N, M, …), and what is needed afterwards.
        blend : callable
            Emitter, image, k of the M → images (N, k, 3, H, W).
        count : int or str
            M, or the name of an int64 of shape (1,).
        dtypes : sequence of int
            Element types of what the plan keeps.
        score : {"probability", "logit"}
        edits : Edits, optional
            Run edited features beside the masked images.
        """
        return self._in_turns(op, ("head", "tail"), image, plan, blend, count, dtypes, score, edits)

    def edited_scores(
        self, op: Emitter, image: str, plan: Plan, blend: Blend, count: int | str, dtypes: Sequence[int], score: str
    ) -> Answers:
        """Do the same with the tail alone: `blend` gives edited features (N, k, C, h, w)."""
        features = self._run(op, "head", {IMAGE: image})
        return self._in_turns(op, ("tail",), features, plan, blend, count, dtypes, score)

    def scores(self, op: Emitter, logits: str, targets: str, score: str) -> str:
        """Return the targets' scores (N, k, T) from logits (N, k, L)."""
        values = {
            "probability": lambda: probabilities(op, logits, self.kind),
            "logit": lambda: logits,
            "log-odds": lambda: log_odds(op, logits, self.kind, self.numbers, self.classes),
        }[score]()
        k = length(op, logits, 1)
        chosen = op.Expand(unsqueeze(op, targets, 1), shape_of(op, length(op, targets, 0), k, length(op, targets, 1)))
        return op.GatherElements(values, chosen, axis=2)

    # --- steps ----------------------------------------------------------------------------------------------------------
    def _in_turns(
        self, op: Emitter, parts: Sequence[str], first: str, plan: Plan, blend: Blend, count: int | str, dtypes: Sequence[int],
        score: str, edits: Edits | None = None,
    ) -> Answers:  # fmt: skip
        """Run the parts in a Loop: in the first turn on `first`, then on all that the plan names."""
        images = length(op, first, 0)
        total = op.constant([count]) if isinstance(count, int) else count
        kinds = [score, *([edits.score] if edits else [])]
        most = max(self.batch // len(kinds), 1)
        chunk = op.Max(op.Div(op.constant([most]), op.Max(images, op.constant([1]))), op.constant([1]))
        turns = op.Add(op.Div(op.Sub(op.Add(total, chunk), op.constant([1])), chunk), op.constant([1]))
        carried, last = len(Prediction.DTYPES), len(Prediction.DTYPES) + 1 + len(dtypes)
        dtypes = [*Prediction.DTYPES, FLOAT, *dtypes, *([FLOAT] if edits else []), *(FLOAT for _ in kinds)]

        def turn(op: Emitter, number: str, state: list[str]) -> tuple[None, list[str]]:
            begins = op.Equal(number, op.constant(0))

            def some(op: Emitter, what: str, times: int = 1) -> str:
                many = op.Mul(chunk, op.constant([times])) if times > 1 else chunk
                start = op.Mul(op.Sub(number, op.constant(1)), many)
                return op.Slice(what, start, op.Add(start, many), op.constant([1]))

            def masked(op: Emitter) -> list[str]:
                return [blend(op, first, some(op, state[carried]))]

            (shown,) = op.branch(begins, [FLOAT], lambda op: [unsqueeze(op, first, 1)], masked)
            shape = self.image_shape if parts[0] == "head" else (self.channels, *self.cells)
            # Behind the branch, where it copies nothing.  With a name for the batch ONNX Runtime sees which tensors are of one
            # size, and adds the shortcuts of a residual network in place.
            features = op.tell(reshape(op, shown, -1, *shape), "masked", *shape)
            if parts[0] == "head":
                features = self._run(op, "head", {IMAGE: features})
            batches = [features]
            if edits:
                factors = partial(some, what=state[carried + 1], times=edits.times)
                edited = self._beside(op, begins, features, lambda op: edits.blend(op, state[last], factors(op)), edits.times)
                batches.append(edited)
            answers = self._tail(op, batches, edits.times if edits else 1)

            def prepare(op: Emitter) -> list[str]:
                seen = self._seen(op, features, answers[0])
                nothing = op.ConstantOfShape(shape_of(op, images, 0, length(op, seen.targets, 1)))
                return [*seen.carried, *plan(op, seen), *([seen.features] if edits else []), *(nothing for _ in kinds)]

            def gather(op: Emitter) -> list[str]:
                found = []
                for before, logits, kind in zip(state[-len(kinds) :], answers, kinds, strict=True):
                    new = self.scores(op, reshape(op, logits, images, -1, self.classes), state[1], kind)
                    found.append(op.Concat(before, new, axis=1))
                return [*state[: -len(kinds)], *found]

            return None, op.branch(begins, dtypes, prepare, gather)

        start = [_nothing(op, dtype) for dtype in dtypes]
        state = op.loop(scalar(op, turns), start, dtypes, turn)
        return Answers(Prediction(*state[:carried]), state[carried:last], *state[-len(kinds) :])

    def _beside(self, op: Emitter, begins: str, features: str, edited: Callable[[Emitter], str], times: int) -> str:
        """Return edited features as a batch; in the first turn none, or, where batches go apart, any."""
        none = op.constant([0])
        any_of_them = op.Concat(*[features] * times, axis=0) if times > 1 else features
        first = any_of_them if self.apart else op.Slice(features, none, none, none)
        (batch,) = op.branch(begins, [FLOAT], lambda op: [first], lambda op: [edited(op)])
        return reshape(op, batch, -1, self.channels, *self.cells)

    def _tail(self, op: Emitter, batches: Sequence[str], times: int) -> list[str]:
        """Return the logits of batches of features, which go through the tail as one, so that it stands in the graph once.

        Where rows cannot share a pass, the second batch has `times` of them, and the tail stands there for each.
        """
        if self.one_by_one and times > 1:
            rows = [op.Slice(batches[1], op.constant([i]), op.constant([i + 1]), op.constant([0])) for i in range(times)]
            first, *others = (self._run(op, "tail", {FEATURES: row}) for row in (batches[0], *rows))
            return [first, op.Concat(*others, axis=0)]
        if len(batches) == 1 or self.apart:
            return [self._run(op, "tail", {FEATURES: batch}) for batch in batches]
        together = op.tell(op.Concat(*batches, axis=0), "beside each other", self.channels, *self.cells)
        logits = self._run(op, "tail", {FEATURES: together})
        first, end, axis = length(op, batches[0], 0), op.constant([np.iinfo(np.int64).max]), op.constant([0])
        return [op.Slice(logits, op.constant([0]), first, axis), op.Slice(logits, first, end, axis)]

    def _seen(self, op: Emitter, features: str, logits: str) -> Prediction:
        finite = op.And(finite_in(op, logits, 1), reshape(op, finite_in(op, features, 1, 2, 3), -1, 1))
        clean = op.Where(unsqueeze(op, finite, 2, 3), features, op.number(0))
        return Prediction(logits, self._targets(op, logits), finite, flat_features(op, clean), clean)

    def _targets(self, op: Emitter, logits: str) -> str:
        """Return the classes (N, T) that are asked for: those of negative index by rank."""
        _, ranked = op.several("TopK", 2, logits, op.constant([self.classes]), axis=1)
        images = shape_of(op, length(op, logits, 0), 1)
        asked = op.Expand(self.target, images)
        op.nodes[-1].name = "target: one row for all images, or one for each"
        index = op.Expand(self.index, images)
        by_rank = op.GatherElements(ranked, op.Sub(op.constant(self.classes - 1), index), axis=1)
        return op.Where(op.Less(asked, op.constant(0)), by_rank, asked)

    def _run(self, op: Emitter, part: str, feeds: dict[str, str]) -> str:
        """Write a part's nodes, and return the name of what comes out."""
        graph = self.parts[part].graph
        new = dict(feeds)
        for name in sorted(all_names(graph) - self.weights.keys() - feeds.keys()):
            new[name] = unused(name, self._used)
            self._used.add(new[name])
        for node in graph.node:
            op.nodes.append(renamed(node, new))
            op.nodes[-1].ClearField("name")
        return new[graph.output[0].name]


def _load(paths: Mapping[str, Path]) -> dict[str, ModelProto]:
    """Return the parts, their weights by names that the interface does not have."""
    parts = {name: onnx.load(path) for name, path in paths.items()}
    taken = {*INTERFACE}.union(*(all_names(part.graph) for part in parts.values()))
    weights = {tensor.name for part in parts.values() for tensor in part.graph.initializer}
    new = {name: unused(name, taken) for name in weights.intersection(INTERFACE)}
    for part in parts.values():
        for node in part.graph.node:
            rename(node, new)
        for tensor in part.graph.initializer:
            tensor.name = new.get(tensor.name, tensor.name)
    return parts


def _operator_sets(parts: Iterable[ModelProto]) -> list[onnx.OperatorSetIdProto]:
    """Return the operator sets that the parts need together."""
    versions: dict[str, int] = {}
    for entry in (entry for part in parts for entry in part.opset_import):
        domain = "" if entry.domain in STANDARD else entry.domain
        versions[domain] = max(entry.version, versions.get(domain, 0))
    return [helper.make_opsetid(domain, version) for domain, version in versions.items()]


def _nothing(op: Emitter, dtype: int) -> str:
    """Return an empty tensor, which a state begins with."""
    return op.constant([], helper.tensor_dtype_to_np_dtype(dtype))


def place_weights(nodes: Sequence[NodeProto], weights: dict[str, TensorProto]) -> list[TensorProto]:
    """Put every weight where it is read: into the body that alone reads it, else return it for the graph itself."""
    readers: dict[str, set[int]] = {}
    bodies = {}
    for node in nodes:
        loops = [a.g for a in node.attribute if a.HasField("g")] if node.op_type == "Loop" else []
        inside = set(node_inputs(node)) & weights.keys()
        for body in loops:
            bodies[id(body)] = body
        for name in inside:
            readers.setdefault(name, set()).add(id(loops[0]) if loops else 0)
    outside = []
    for name, where in readers.items():
        place = next(iter(where)) if len(where) == 1 else 0
        if place:
            bodies[place].initializer.append(weights[name])
        else:
            outside.append(weights[name])
    return outside
