"""Prove a split: tail(head(x)) and the score graph must reproduce the source on seeded noise and on extreme images.

max|Δ| ≤ tol · max(1, max|z|)

The gradient graph must give the slope that the tail's own values have: along v = g / ‖g‖, g = Jᵀu, the central difference
⟨u, f(A + εv) − f(A − εv)⟩ / 2ε is ‖g‖.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from camrt.case import probabilities
from camrt.errors import BundleError, ExportError, one_line
from camrt.manifest import Split
from camrt.preprocess import Preprocess
from camrt.providers import Choice, Session, open_session, runtime
from exporters.graph import Graph, fitting_ir, output_quantiser
from exporters.vjps import NoGradient

TOLERANCE = 1e-4  # float32
SEED = 0
NOISE_IMAGES = 3
SLOPE_TOLERANCE = 0.02  # of the gradient; wrong rules are off by far more, central differences in float32 by 0.005 at most
STEPS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # ε over ‖A‖: a linear tail wants long steps, one with many kinks short ones
JITTER = 0.01  # of the features' spread: moves them off the kinks that lie at exact ties, such as equal zeros under a MaxPool

Reference = Callable[[np.ndarray], np.ndarray]  # (N, 3, H, W) → logits (N, L)
Answers = dict[
    str, tuple[np.ndarray, np.ndarray]
]  # for each kind of input: images (N, 3, H, W) and the source's outputs (N, L)


def test_images(preprocess: Preprocess) -> dict[str, np.ndarray]:
    """Return the inputs (N, 3, H, W) of a proof: noise around the mean colour, black, white, and saturated pixels."""
    rng = np.random.default_rng(SEED)
    shape = (preprocess.channels, *preprocess.size)
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (preprocess.mean, preprocess.std))
    pixels = {
        "black": np.zeros((1, *shape)),
        "white": np.full((1, *shape), 255.0),
        "saturated": rng.choice([0.0, 255.0], (1, *shape)),
    }
    noise = rng.standard_normal((NOISE_IMAGES, *shape), np.float32)
    if preprocess.scale > 0.1:  # pixels of 0…255 without a std: noise of that size
        noise *= np.float32(255 * preprocess.scale / 4 / np.mean(preprocess.std))
    return {"noise": noise} | {n: ((p * preprocess.scale - mean) / std).astype(np.float32) for n, p in pixels.items()}


def onnx_reference(source: ModelProto, output: str) -> Reference:
    """Return the source model as a function that gives the tensor `output`; it runs the batch that the model was made for."""
    model = ModelProto()
    model.CopyFrom(source)
    model.ir_version = min(model.ir_version, fitting_ir(model))
    image = Graph(model).inputs[0]
    if output not in {v.name for v in model.graph.output}:
        model.graph.output.append(onnx.ValueInfoProto(name=output))
    session = _session(model.SerializeToString(), "the source model")
    batch = image.type.tensor_type.shape.dim[0].dim_value or 1

    def run(x: np.ndarray) -> np.ndarray:
        feeds = [{image.name: np.repeat(one[None], batch, axis=0)} for one in x]
        return np.stack([_run(session, feed, "the source model", output)[0].reshape(-1) for feed in feeds])

    return run


def ask(reference: Reference, preprocess: Preprocess) -> Answers:
    """Return what the source says to every test image."""
    return {name: (x, reference(x)) for name, x in test_images(preprocess).items()}


def prove(folder: Path, answers: Answers, activation: str | None, step: float | None = None) -> Split:
    """Return how well the graphs in `folder` reproduce the source.

    Parameters
    ----------
    folder : Path
    answers : Answers
        The source's.
    activation : str or None
        What the source applies to its logits, and the graphs leave out.
    step : float, optional
        The output step of a quantised model, which is then the tolerance.

    Raises
    ------
    ExportError
        They do not, or the source is finite on none of the inputs.
    """
    sessions = {name: _session(folder / f"{name}.onnx", f"{name}.onnx") for name in ("head", "tail", "score")}
    errors: dict[str, float] = {}
    skipped, largest = [], 0.0
    for name, (x, expected) in answers.items():
        if not np.isfinite(expected).all():
            skipped.append(name)
            continue
        features = _run(sessions["head"], {"image": x}, "head.onnx")
        logits = _run(sessions["tail"], {"features": features}, "tail.onnx")
        maps = np.ones((len(x), 2, *features.shape[2:]), np.float32)  # masks of ones show the image itself
        feeds = {"image": x, "baseline": np.zeros_like(x), "maps": maps, "normalise": np.array(False)}
        masked = _run(sessions["score"], feeds, "score.onnx")
        found = (
            np.abs(_activate(logits, activation) - expected).max(),
            np.abs(_activate(masked, activation) - expected[:, None]).max(),
        )
        size = float(np.abs(expected).max())
        _check(name, found, TOLERANCE * max(1.0, size) if step is None else step, step)
        errors[name] = float(max(found))
        largest = max(largest, size)
    if not errors:
        raise ExportError(
            f"The source model gives NaN or infinity on every test input ({', '.join(skipped)}), so the split cannot be "
            "proved. Check its weights and the preprocessing."
        )
    bound = "tolerance · max(1, max|z|)" if step is None else "one output step of the quantised model"
    return Split(TOLERANCE if step is None else step, bound, errors, largest, tuple(skipped))


def prove_gradient(folder: Path, answers: Answers, smooth: bool) -> float | None:
    """Return how far gradient.onnx is from the tail's central differences, relative; None where they cannot tell.

    Parameters
    ----------
    folder : Path
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
        sessions = {name: _session(folder / f"{name}.onnx", f"{name}.onnx") for name in ("head", "tail", "gradient")}
        rng = np.random.default_rng(SEED)
        features = _run(sessions["head"], {"image": answers["noise"][0][:1]}, "head.onnx")
        moved = features + (JITTER * features.std(dtype=np.float64) * rng.standard_normal(features.shape)).astype(np.float32)
        logits = _run(sessions["tail"], {"features": moved}, "tail.onnx")
        if not np.isfinite(logits).all():
            return None
        u = rng.standard_normal(logits.shape).astype(np.float32)
        g = _run(sessions["gradient"], {"features": moved, "cotangent": u}, "gradient.onnx")
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
    after, before = (_run(tail, {"features": features + sign * length * v}, "tail.onnx") for sign in (1, -1))
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
    """Return what the outputs are, by the activation that was cut off, else by looking at them."""
    if activation is not None:
        return kind_before(activation)
    _, outputs = answers["noise"]
    distribution = bool((outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-3))
    return "probabilities" if distribution else "logits"


def _check(name: str, found: tuple[np.floating, np.floating], allowed: float, step: float | None) -> None:
    for part, error in zip(("tail(head(x))", "the score graph"), found, strict=True):
        if not error <= allowed:  # NaN is refused too
            what = "one output step" if step is not None else f"{TOLERANCE:g} of the largest logit"
            raise ExportError(
                f"The split does not reproduce the model: on {name!r} images {part} differs by {error:.3g}, allowed is "
                f"{allowed:.3g} ({what}). Something in the model depends on the batch, or is random; try another layer."
            )


def output_step(graph: Graph, logits: str) -> float | None:
    """Return the step of the last QuantizeLinear before the logits; None for a model that does not end in one."""
    node = output_quantiser(graph, logits)
    if node is None or node.input[1] not in graph.initializers:
        return None
    return float(numpy_helper.to_array(graph.initializers[node.input[1]]).max())


def _session(model: Path | bytes, name: str) -> Session:
    try:
        return open_session(model, Choice(("cpu",), explicit=True), name=name)[0]
    except BundleError as error:
        raise ExportError(str(error)) from None


def _run(session: Session, feeds: dict[str, np.ndarray], name: str, output: str | None = None) -> np.ndarray:
    """Return the named output, or the first."""
    try:
        return np.asarray(session.run(output and [output], feeds)[0])
    except Exception as error:  # ONNX Runtime's exceptions have no common public base
        images = len(next(iter(feeds.values())))
        raise ExportError(
            f"{runtime()} cannot run {name} on {images} image(s): {one_line(error)} If the model was made for a fixed "
            "batch, export it with a free one."
        ) from None
