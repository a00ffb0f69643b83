"""Prove a split: tail(head(x)) and the score graph must reproduce the source on seeded noise and on extreme images.

max|Δ| ≤ tol · max(1, max|z|)

The gradient graph must give the slope that the tail's own values have: along v = g / ‖g‖, g = Jᵀu, the central difference
⟨u, f(A + εv) − f(A − εv)⟩ / 2ε is ‖g‖.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from camrt.case import probabilities
from camrt.errors import BundleError, ExportError, one_line
from camrt.image import upsampling_matrix
from camrt.manifest import Split
from camrt.preprocess import Preprocess
from camrt.providers import Choice
from camrt.runtime import Session, runtime
from camrt.session import is_out_of_memory, open_session
from exporters.border import Border
from exporters.graph import Graph, fitting_ir, output_quantiser
from exporters.passes import Normal
from exporters.passes.quantisation import DYNAMIC
from exporters.place import check_place
from exporters.vjps import NoGradient

TOLERANCES = {TensorProto.FLOAT16: 2e-3, TensorProto.BFLOAT16: 2e-2}  # where the model computes in such numbers
TOLERANCE = 1e-4  # float32
DYNAMIC_TOLERANCE = 1e-2
STEP_SLACK = 1.001  # an output step computed in float32 is no exact multiple
SEED = 0
NOISE_IMAGES = 3
SLOPE_TOLERANCE = 0.02  # of the gradient; wrong rules are off by far more, central differences in float32 by 0.005 at most
FREE_BATCH = "If the model was made for a fixed batch, export it with a free one."
STEPS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # ε over ‖A‖: a linear tail wants long steps, one with many kinks short ones
JITTER = 0.01  # of the features' spread: moves them off the kinks that lie at exact ties, such as equal zeros under a MaxPool

Reference = Callable[[np.ndarray], np.ndarray]  # (N, 3, H, W) → logits (N, L)
# For each kind of input: images (N, 3, H, W) and the source's outputs (N, L).
Answers = dict[str, tuple[np.ndarray, np.ndarray]]


def test_images(preprocess: Preprocess, whole: bool) -> dict[str, np.ndarray]:
    """Return the inputs (N, 3, H, W) of a proof: noise, black, white, and saturated pixels.

    The noise lies around the mean colour; that of a network that takes whole numbers is of random pixels.
    """
    rng = np.random.default_rng(SEED)
    shape = (preprocess.channels, *preprocess.size)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (preprocess.mean, preprocess.std))
    pixels = {
        "black": np.zeros((1, *shape)),
        "white": np.full((1, *shape), 255.0),
        "saturated": rng.choice([0.0, 255.0], (1, *shape)),
    }
    noise = rng.standard_normal((NOISE_IMAGES, *shape), np.float32)
    if whole:
        noise = ((rng.integers(0, 256, noise.shape) * preprocess.scale - mean) / std).astype(np.float32)
    elif preprocess.scale > 0.1:  # pixels of 0…255 without a std: noise of that size
        noise *= np.float32(255 * preprocess.scale / 4 / np.mean(preprocess.std))
    return {"noise": noise} | {n: ((p * preprocess.scale - mean) / std).astype(np.float32) for n, p in pixels.items()}


def onnx_reference(source: ModelProto, normal: Normal, output: str) -> Reference:
    """Return the source model as a function that gives the tensor `output`; it runs the batch that the model was made for."""
    model = deepcopy(source)
    model.ir_version = min(model.ir_version, fitting_ir(model))
    graph = Graph(model)
    inputs = graph.inputs
    kept = [v for v in source.graph.output if v.name == output] or [onnx.ValueInfoProto(name=output)]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    nodes = [graph.nodes[i] for i in sorted(graph.above([output]))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)  # ONNX Runtime would run the others too, whatever they cost
    try:
        session = open_graph(model.SerializeToString(), "the source model")
    except ExportError as error:
        raise _rare_numbers(model, error) from None
    image, batch = normal.source_input, normal.batch
    idle = {v.name: _anything(v) for v in inputs if v.name != image}  # that the scores do not depend on

    def run(x: np.ndarray) -> np.ndarray:
        images = normal.border.source_input(x)
        feeds = [{image: np.repeat(one[None], batch, axis=0), **idle} for one in images]
        scores = np.stack([run_graph(session, feed, "the source model", output).reshape(batch, -1)[0] for feed in feeds])
        if np.issubdtype(scores.dtype, np.integer) and normal.rounding is not None:
            scale, zero_point = normal.rounding
            return np.asarray((scores - np.float32(zero_point)) * np.float32(scale))
        return scores.astype(np.float32)

    return run


def _rare_numbers(model: ModelProto, error: ExportError) -> ExportError:
    """Say which element types ONNX Runtime may lack operators for, where the model has such weights."""
    rare = {TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64"}
    found = sorted({rare[t.data_type] for t in model.graph.initializer if t.data_type in rare})
    if not found:
        return error
    return ExportError(
        f"{error} The model has weights in {' and '.join(found)}, for which ONNX Runtime has few operators on a CPU: export "
        "it in float32 or float16."
    )


def _anything(value: onnx.ValueInfoProto) -> np.ndarray:
    tensor = value.type.tensor_type
    return np.zeros([d.dim_value or 1 for d in tensor.shape.dim], helper.tensor_dtype_to_np_dtype(tensor.elem_type))


def ask(reference: Reference, preprocess: Preprocess, border: Border) -> Answers:
    """Return what the source says to every test image."""
    images = {name: border.reachable(x) for name, x in test_images(preprocess, border.whole).items()}
    return {name: (x, reference(x)) for name, x in images.items()}


def finite_images(answers: Answers) -> dict[str, np.ndarray]:
    """Return the images, by kind, on which the source is finite."""
    return {name: x for name, (x, expected) in answers.items() if np.isfinite(expected).all()}


def tolerance(graph: Graph) -> float:
    """Return what the split may differ by, relative to the largest logit, by the coarsest numbers that the model computes in.

    Where a scale is taken from what comes in, a rounding of float32 may move a value by a step of 1/255 of the largest.
    """
    dynamic = any(node.op_type in DYNAMIC for node in graph.nodes)
    found = (TOLERANCES[element] for element in graph.types.values() if element in TOLERANCES)
    return max(*found, TOLERANCE, DYNAMIC_TOLERANCE if dynamic else 0.0)


def open_parts(folder: Path) -> dict[str, Session]:
    """Return sessions of head and tail, which every proof of a bundle's graphs runs."""
    return {name: _open(folder, name) for name in ("head", "tail")}


def _open(folder: Path, name: str) -> Session:
    return open_graph(folder / f"{name}.onnx", f"{name}.onnx")


def prove(
    folder: Path,
    parts: Mapping[str, Session],
    answers: Answers,
    activation: str | None,
    *,
    allowed: float = TOLERANCE,
    step: float | None = None,
    one_by_one: bool = False,
) -> Split:
    """Return how well the graphs in `folder` reproduce the source.

    Parameters
    ----------
    folder : Path
    parts : mapping of str to Session
        Of `open_parts`.
    answers : Answers
        The source's.
    activation : str or None
        What the source applies to its logits, and the graphs leave out.
    allowed : float
        Relative to the largest logit.
    step : float, optional
        The output step of a quantised model, which is then the tolerance.
    one_by_one : bool
        Run single images, as those of a batch would change each other.

    Raises
    ------
    ExportError
        They do not, or the source is finite on none of the inputs.
    """
    sessions = {**parts, "score": _open(folder, "score")}
    for name, session in sessions.items():
        if isinstance(images := session.get_outputs()[0].shape[0], int):
            raise ExportError(
                f"{runtime()} takes {name}.onnx for a graph of {images} image(s), not of any number. {FREE_BATCH}"
            )
    finite = {name: answers[name] for name in finite_images(answers)}
    skipped = [name for name in answers if name not in finite]
    if not finite:
        raise ExportError(
            f"The source model gives NaN or infinity on every test input ({', '.join(skipped)}), so the split cannot be "
            "proved. Check its weights and the preprocessing."
        )
    x = np.concatenate([images for images, _ in finite.values()])  # images as different as these show whether they mix
    together = [x] if not one_by_one else np.split(x, len(x))
    pieces = [_through(sessions, images, masks=1 if one_by_one else 2) for images in together]
    logits, masked = (np.concatenate(found) for found in zip(*pieces, strict=True))
    errors: dict[str, float] = {}
    largest, start = 0.0, 0
    for name, (images, expected) in finite.items():
        rows = slice(start, start := start + len(images))
        _check_shape(logits[rows], expected)
        found = (
            np.abs(_activate(logits[rows], activation) - expected).max(),
            np.abs(_activate(masked[rows], activation) - expected[:, None]).max(),
        )
        size = float(np.abs(expected).max())
        _check(name, found, allowed, size, step)
        errors[name] = float(max(found))
        largest = max(largest, size)
    bound = "tolerance · max(1, max|z|)"
    if step is not None:
        bound = f"one output step of the quantised model, or {allowed:g} · max(1, max|z|) where that is more"
    return Split(allowed if step is None else step, bound, errors, largest, tuple(skipped))


def _through(sessions: Mapping[str, Session], x: np.ndarray, masks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of the two parts (N, L), and of the score graph under masks of ones, (N, K, L)."""
    features = run_graph(sessions["head"], {"image": x}, "head.onnx")
    logits = run_graph(sessions["tail"], {"features": features}, "tail.onnx")
    maps = np.ones((len(x), masks, *features.shape[2:]), np.float32)  # they show the image itself
    return logits, run_score(sessions["score"], x, maps, normalise=False)


def run_score(session: Session, x: np.ndarray, maps: np.ndarray, normalise: bool) -> np.ndarray:
    """Return the logits (N, K, L) of images (N, 3, H, W) masked with maps (N, K, h, w) before a black baseline."""
    rows, columns = (upsampling_matrix(n, out) for n, out in zip(maps.shape[2:], x.shape[2:], strict=True))
    feeds = {"image": x, "baseline": np.zeros_like(x), "maps": maps, "normalise": np.array(normalise)}
    return run_graph(session, feeds | {"up_rows": rows[None], "up_columns": columns.T[None]}, "score.onnx")


def prove_place(parts: Mapping[str, Session], answers: Answers, layer: str) -> None:
    """Hold that the features lie as the image does; see `exporters.place`.

    Raises
    ------
    ExportError
        They do not.
    """
    check_place(lambda x: run_graph(parts["head"], {"image": x}, "head.onnx"), answers["noise"][0][:2], layer)


def prove_gradient(folder: Path, parts: Mapping[str, Session], answers: Answers, smooth: bool) -> float | None:
    """Return how far gradient.onnx is from the tail's central differences, relative; None where they cannot tell.

    Parameters
    ----------
    folder : Path
    parts : mapping of str to Session
        Of `open_parts`.
    answers : Answers
        The source's; the noise images are taken.
    smooth : bool
        The tail has slopes.  A quantised one is a staircase, whose gradient is another thing by design.

    Raises
    ------
    NoGradient
        ONNX Runtime cannot run the graph, or it gives NaN, or another slope.
    """
    try:
        sessions = {**parts, "gradient": _open(folder, "gradient")}
        rng = np.random.default_rng(SEED)
        features = run_graph(sessions["head"], {"image": answers["noise"][0][:1]}, "head.onnx")
        moved = features + (JITTER * features.std(dtype=np.float64) * rng.standard_normal(features.shape)).astype(np.float32)
        logits = run_graph(sessions["tail"], {"features": moved}, "tail.onnx")
        if not np.isfinite(logits).all():
            return None
        u = rng.standard_normal(logits.shape).astype(np.float32)
        g = run_graph(sessions["gradient"], {"features": moved, "cotangent": u}, "gradient.onnx")
    except ExportError as error:
        raise NoGradient(str(error)) from None
    if g.shape != features.shape or not np.isfinite(g).all():
        raise NoGradient("the gradient graph gives NaN or infinity on noise")
    slope = float(np.sqrt(np.square(g, dtype=np.float64).sum()))
    if not smooth or slope == 0:
        return None
    error = min(
        abs(_central_difference(sessions["tail"], moved, (g / slope).astype(np.float32), u, step) / slope - 1) for step in STEPS
    )
    if not error <= SLOPE_TOLERANCE:
        raise NoGradient(
            f"the gradient graph differs from the slope of the tail by {error:.2g} of it, allowed is {SLOPE_TOLERANCE:g}"
        )
    return error


def _central_difference(tail: Session, features: np.ndarray, v: np.ndarray, u: np.ndarray, step: float) -> float:
    """Return the slope of ⟨u, tail⟩ along v, by two values `step` · ‖A‖ to both sides."""
    length = np.float32(step * max(1e-6, float(np.linalg.norm(features.astype(np.float64)))))
    after, before = (run_graph(tail, {"features": features + sign * length * v}, "tail.onnx") for sign in (1, -1))
    return float((u * (after.astype(np.float64) - before)).sum() / (2 * length))


def _activate(logits: np.ndarray, activation: str | None) -> np.ndarray:
    if activation is None:
        return logits
    if activation == "LogSoftmax":
        shifted = logits - logits.max(axis=-1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
    return probabilities(logits, kind_before(activation))


def kind_before(activation: str) -> str:
    """Return what stands before an activation: the kind of output that is left when it is cut off."""
    return "sigmoid" if activation == "Sigmoid" else "logits"


def output_kind(answers: Answers, activation: str | None) -> str:
    """Return what the outputs are, by the activation that was cut off, else by looking at them.

    A single number, numbers in [0, 1] that are no distribution, and shares of another whole, such as percent, are scores of
    their own: a Softmax of them would be no probability.
    """
    if activation is not None:
        return kind_before(activation)
    outputs = np.concatenate([found for _, found in answers.values() if np.isfinite(found).all()])
    if outputs.shape[1] == 1:
        return "scores"
    if (outputs < 0).any() or not outputs.any():
        return "logits"
    sums = outputs.sum(axis=1)
    if np.allclose(sums, 1, atol=1e-3):
        return "probabilities"
    return "scores" if outputs.max() <= 1 or np.allclose(sums, sums.mean(), rtol=1e-2) else "logits"


def _check_shape(logits: np.ndarray, expected: np.ndarray) -> None:
    if logits.shape != expected.shape:
        raise ExportError(
            f"The split does not reproduce the model: it gives scores of shape {logits.shape}, the model {expected.shape}. "
            f"Something in the model depends on the batch. {FREE_BATCH}"
        )


def _check(name: str, found: tuple[np.floating, np.floating], relative: float, size: float, step: float | None) -> None:
    allowed = max(relative * max(1.0, size), STEP_SLACK * (step or 0.0))
    for part, error in zip(("tail(head(x))", "the score graph"), found, strict=True):
        if not error <= allowed:  # NaN is refused too
            what = "one output step" if allowed > relative * max(1.0, size) else f"{relative:g} of the largest logit"
            raise ExportError(
                f"The split does not reproduce the model: on {name!r} images {part} differs by {error:.3g}, allowed is "
                f"{allowed:.3g} ({what}). Something in the model depends on the batch, or is random; try another layer."
            )


def output_step(graph: Graph, logits: str) -> float | None:
    """Return the step of the last QuantizeLinear before the logits; None for a model that does not end in one."""
    graph = graph.standard
    node = output_quantiser(graph, logits)
    if node is None or node.input[1] not in graph.initializers:
        return None
    return float(numpy_helper.to_array(graph.initializers[node.input[1]]).max())


def open_graph(model: Path | bytes, name: str) -> Session:
    """Return a session on the CPU; `name` is how messages name the graph."""
    try:
        return open_session(model, Choice(("cpu",), explicit=True), name=name)[0]
    except BundleError as error:
        raise ExportError(str(error)) from None


def run_graph(session: Session, feeds: dict[str, np.ndarray], name: str, output: str | None = None) -> np.ndarray:
    """Return the named output, or the first."""
    try:
        return np.asarray(session.run(output and [output], feeds)[0])
    except Exception as error:  # ONNX Runtime's exceptions have no common public base
        images = len(next(iter(feeds.values())))
        if is_out_of_memory(error):
            raise ExportError(
                f"{runtime()} has no memory to run {name} on {images} image(s). Export the model for a smaller --size, or on a "
                "larger machine."
            ) from None
        raise ExportError(f"{runtime()} cannot run {name} on {images} image(s): {one_line(error)} {FREE_BATCH}") from None
