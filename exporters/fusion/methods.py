"""The methods that can be one graph: what each computes in `camrt.methods`, emitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from camrt.errors import ParameterError
from camrt.methods.cluster_cam import SOFT
from camrt.methods.group_cam import DENOISE
from camrt.methods.xgrad_cam import EPSILON
from exporters.emitter import Emitter
from exporters.fusion.arithmetic import BOOL, FLOAT, INT64, cut_last, length, relu, reshape, shape_of, unsqueeze
from exporters.fusion.kmeans import Clusters, kmeans
from exporters.fusion.maps import normalised, scaled, upsample, window
from exporters.fusion.network import Blend, Edits, Network, Prediction
from exporters.fusion.pixels import blurred

Emit = Callable[..., "Explained"]
FUSED: dict[str, Emit] = {}


@dataclass(frozen=True)
class Explained:
    """Names of what a method found.

    Attributes
    ----------
    seen : Prediction
    signed : str
        (N, T, h, w), signed maps.
    scores : str or None
        (N, M, T) of what was masked; None for a method that masks nothing.
    labels : str or None
        (N, C), the clusters of the feature maps.
    """

    seen: Prediction
    signed: str
    scores: str | None = None
    labels: str | None = None


def fused(name: str) -> Callable[[Emit], Emit]:
    """Enter the decorated function, (op, network, image, **settings) → Explained, into the table."""

    def enter(emit: Emit) -> Emit:
        FUSED[name] = emit
        return emit

    return enter


def fused_passes(method: str, settings: Mapping[str, Any], channels: int) -> int:
    """Return roughly how many forward passes an image costs for one target."""
    masked = {"cluster-cam": settings.get("clusters"), "group-cam": settings.get("groups"), "score-cam": channels}
    return 1 + min(channels, int(masked.get(method) or 0))


def _only(name: str, value: str, *allowed: str) -> None:
    """Refuse what only the Python runtime can do."""
    if value not in allowed:
        raise ParameterError(
            f"{name}={value!r} cannot be compiled into one graph, only {' or '.join(map(repr, allowed))}. "
            "Change the parameter, or explain with the bundle itself."
        )


# --- masked images --------------------------------------------------------------------------------------------------------
@fused("cluster-cam")
def cluster_cam(
    op: Emitter, network: Network, image: str, *, clusters: int | str, merge: str, clustering: str, metric: str, baseline: str,
    score: str, masking: str, tail_clusters: int, seed: int,
) -> Explained:  # fmt: skip
    """Emit Σ_k w_k m_k, w_k by what the network says to the image masked with m_k, or to the features without S_k, or both."""
    _only("clustering", clustering, "kmeans")
    if clusters == "auto":
        raise ParameterError("clusters='auto' cannot be compiled: K is fixed in a graph. Give a number, such as clusters=10.")
    count, finer = (min(int(k), network.channels) for k in (clusters, tail_clusters))
    shown = count + (masking != "features" and baseline == "blur")
    times = -(-finer // shown)  # edited features for each masked image

    def clustered(op: Emitter, seen: Prediction, clusters: int) -> tuple[Clusters, str]:
        points, cells = reshape(op, seen.features, 0, 0, -1), int(np.prod(network.cells))
        found = kmeans(op, points, clusters, seed=seed, channels=network.channels, cells=cells, metric=metric)
        return found, normalised(op, reshape(op, found.maps, 0, 0, *network.cells), network.window)

    def plan(op: Emitter, seen: Prediction) -> list[str]:
        found, maps = clustered(op, seen, int(clusters))
        kept = [maps, found.real, found.labels]
        if masking == "features":
            return [_all_but(op, found.labels, shown), *kept]
        asked = _with_blank(op, maps) if baseline == "blur" else maps
        if masking == "image":
            return [asked, *kept]
        parts, their_maps = clustered(op, seen, tail_clusters)
        return [asked, _all_but(op, parts.labels, times * shown), *kept, their_maps, parts.real]

    dtypes = [FLOAT, BOOL, INT64]
    if masking == "features":
        answers = network.edited_scores(op, image, plan, _edited, count, dtypes, score)
        maps, real, labels = answers.kept[1:]
        losses = _losses(op, network, answers.seen, answers.scores, real, score)
        weights = _cluster_weights(op, losses, op.number(0), merge, real, count)
        return Explained(answers.seen, _weighted_sum(op, weights, maps, network), answers.scores, labels)
    odds = "log-odds" if score == "probability" else score
    edits, dtypes = (None, dtypes) if masking == "image" else (Edits(_edited, odds, times), [FLOAT, *dtypes, FLOAT, BOOL])
    answers = network.masked_scores(op, image, plan, _masked(op, network, image, baseline), shown, dtypes, score, edits)
    scores, blank = _split_baseline(op, network, answers.scores, answers.seen, baseline, score)
    maps, real, labels = answers.kept[1 if edits is None else 2 :][:3]
    weights = _cluster_weights(op, scores, blank, merge, real, count)
    if answers.edited is None:
        return Explained(answers.seen, _weighted_sum(op, weights, maps, network), scores, labels)
    *_, their_maps, they = answers.kept
    edited = op.Slice(answers.edited, op.constant([0]), op.constant([finer]), op.constant([1]))
    losses = _losses(op, network, answers.seen, edited, they, odds)
    signed = _agreement(op, _shared_map(op, weights, maps, network), _shared_map(op, losses, their_maps, network))
    return Explained(answers.seen, signed, scores, labels)


def _losses(op: Emitter, network: Network, seen: Prediction, edited: str, real: str, score: str) -> str:
    """Return l_k (N, K, T): how far the targets' scores fall to those of the edited features; 0 where there is no cluster."""
    whole = network.scores(op, unsqueeze(op, seen.logits, 1), seen.targets, score)
    return op.Where(real, op.Sub(whole, edited), op.number(0))


def _shared_map(op: Emitter, weights: str, maps: str, network: Network) -> str:
    """Return Σ_k w_k / Σ|w| · m_k / mean m_k (N, T, h, w)."""
    total, mean = op.reduce("ReduceSum", op.Abs(weights), 1), op.reduce("ReduceMean", maps, 2, 3)
    shares = op.Div(weights, op.Where(op.Equal(total, op.number(0)), op.number(1), total))
    even = op.Div(maps, op.Where(op.Greater(mean, op.number(0)), mean, op.number(1)))
    return _weighted_sum(op, shares, even, network)


def _agreement(op: Emitter, gains: str, losses: str) -> str:
    """Return √((ReLU(G) + δ)(ReLU(L) + δ)) − δ (N, T, h, w)."""
    softened = [op.Add(relu(op, side), op.number(SOFT)) for side in (gains, losses)]
    return op.Sub(op.Sqrt(op.Mul(*softened)), op.number(SOFT))


def _cluster_weights(op: Emitter, scores: str, blank: str, merge: str, real: str, count: int) -> str:
    """Return w_k (N, K, T) of scores (N, K, T), the baseline's (N, 1, T), and which clusters there are (N, K, 1)."""
    total = op.reduce("ReduceSum", op.Where(real, scores, op.number(0)), 1)
    if merge == "positive":
        weights = relu(op, op.Sub(scores, blank))
    elif merge == "evidence":
        weights = op.Sub(scores, op.Div(total, op.reduce("ReduceSum", op.Cast(real, to=FLOAT), 1)))
    else:
        highest = op.ArgMax(op.Where(real, scores, op.number(-np.inf)), axis=1, keepdims=1)
        lowest = op.ArgMin(op.Where(real, scores, op.number(np.inf)), axis=1, keepdims=1)
        ids = op.constant(np.arange(count)[:, None])
        weights = op.Sub(*(op.Cast(op.Equal(ids, which), to=FLOAT) for which in (highest, lowest)))
    not_finite = op.Mul(op.Add(total, blank), op.number(0))  # NaN where a score is not finite
    return op.Add(op.Where(real, weights, op.number(0)), not_finite)


@fused("group-cam")
def group_cam(
    op: Emitter, network: Network, image: str, *, groups: int, grouping: str, variant: str, denoise: float | str, score: str,
    seed: int,
) -> Explained:  # fmt: skip
    """Emit Σ_j ReLU(s_j) M_j, or Σ_j s_j m_j, s_j by what the network says to the blurred image unmasked with m_j."""
    _only("grouping", grouping, "chunks", "kmeans")
    channels, cells = network.channels, int(np.prod(network.cells))
    quantile = DENOISE[variant] if denoise == "auto" else float(denoise)
    each = -(-channels // min(groups, channels))
    count = -(-channels // each) if grouping == "chunks" else min(groups, channels)

    def plan(op: Emitter, seen: Prediction) -> list[str]:
        weighted = op.Mul(op.reduce("ReduceMean", network.gradients(op, seen), 3, 4), unsqueeze(op, seen.features, 1))
        rows = reshape(op, weighted, -1, channels, cells)  # (N · T, C, h · w)
        if grouping == "chunks":
            padded = op.Pad(rows, op.constant([0, 0, 0, 0, count * each - channels, 0]))
            sums = op.reduce("ReduceSum", reshape(op, padded, -1, count, each, cells), 2, keepdims=False)
        else:
            found = kmeans(op, rows, groups, seed=seed, channels=channels, cells=cells)
            ids = op.constant(np.arange(count)[:, None])
            sums = op.MatMul(op.Cast(op.Equal(unsqueeze(op, found.labels, 1), ids), to=FLOAT), rows)
        maps = relu(op, sums)
        if quantile:
            maps = op.Where(op.LessOrEqual(maps, _quantile(op, maps, quantile, cells)), op.number(0), maps)
        images = length(op, seen.targets, 0)
        maps = reshape(op, maps, images, -1, *network.cells)  # (N, T · G, h, w)
        masks = normalised(op, maps, network.window)
        return [_with_blank(op, masks), maps if variant == "2021-08" else masks]

    targets = length(op, network.target, 1)
    shown = op.Add(op.Mul(targets, op.constant([count])), op.constant([1]))
    answers = network.masked_scores(op, image, plan, _masked(op, network, image, "blur"), shown, [FLOAT], score)
    scores, blank = _split_baseline(op, network, answers.scores, answers.seen, "blur", score)
    apart = op.Transpose(reshape(op, scores, 0, -1, count, targets), perm=[0, 2, 1, 3])  # (N, G, T of the map, T)
    number = op.Range(op.constant(0), op.Squeeze(targets), op.constant(1))
    own = op.Equal(unsqueeze(op, number, 1), number)
    scores = op.reduce("ReduceSum", op.Where(own, apart, op.number(0)), 3, keepdims=False)  # (N, G, T)
    weights = op.Sub(scores, blank)
    weights = relu(op, weights) if variant == "2021-08" else weights
    maps = reshape(op, answers.kept[1], 0, -1, count, cells)  # (N, T, G, h · w)
    signed = op.MatMul(unsqueeze(op, op.Transpose(weights, perm=[0, 2, 1]), 2), maps)
    return Explained(answers.seen, reshape(op, signed, 0, -1, *network.cells), scores)


def _quantile(op: Emitter, rows: str, part: float, cells: int) -> str:
    """Return the quantile (N, G, 1) of rows (N, G, D), between two values by linear interpolation."""
    ascending, _ = op.several("TopK", 2, rows, op.constant([cells]), axis=2, largest=0)
    place = part * (cells - 1)
    below, above = (op.Gather(ascending, op.constant([int(f(place))]), axis=2) for f in (np.floor, np.ceil))
    return op.Add(below, op.Mul(op.Sub(above, below), op.number(place - np.floor(place))))


@fused("score-cam")
def score_cam(op: Emitter, network: Network, image: str, *, variant: str) -> Explained:
    """Emit ReLU(Σ_i α_i A_i), α the softmax of what the network says to the image masked with each channel."""
    kind = "probability" if variant == "paper" else "logit"

    def plan(op: Emitter, seen: Prediction) -> list[str]:
        masks = {
            "paper": lambda: normalised(op, seen.features, network.window),
            "pytorch-grad-cam": lambda: seen.features,
            "torchcam": lambda: scaled(op, seen.features),
        }[variant]()
        return [masks, seen.features]

    blend = _masked(op, network, image, "black", aligned=variant == "pytorch-grad-cam")
    answers = network.masked_scores(op, image, plan, blend, network.channels, [FLOAT], kind)
    weights = op.Softmax(answers.scores, axis=1)
    return Explained(answers.seen, relu(op, _weighted_sum(op, weights, answers.kept[1], network)), answers.scores)


# --- gradients alone --------------------------------------------------------------------------------------------------------
@fused("hires-cam")
def hires_cam(op: Emitter, network: Network, image: str, *, raw: bool) -> Explained:
    """Emit ReLU(Σ_i g_i ⊙ A_i), or the sum itself."""

    def signed(op: Emitter, features: str, gradients: str) -> str:
        found = op.reduce("ReduceSum", op.Mul(gradients, features), 2, keepdims=False)
        return found if raw else relu(op, found)

    return _by_gradients(op, network, image, signed)


@fused("grad-cam")
def grad_cam(op: Emitter, network: Network, image: str) -> Explained:
    """Emit ReLU(Σ_i w_i A_i), w_i = mean_hw g_i."""
    return _by_weights(op, network, image, lambda op, _, g: op.reduce("ReduceMean", g, 3, 4))


@fused("grad-cam++")
def grad_cam_plus_plus(op: Emitter, network: Network, image: str) -> Explained:
    """Emit ReLU(Σ_i w_i A_i), w_i = Σ_hw α ReLU(g), α = 1 / (2 + g Σ_hw A), 0 where g = 0."""

    def weights(op: Emitter, features: str, g: str) -> str:
        below = op.Add(op.Mul(g, op.reduce("ReduceSum", features, 3, 4)), op.number(2))
        none = op.Or(op.Equal(g, op.number(0)), op.Equal(below, op.number(0)))
        alpha = op.Where(none, op.number(0), op.Div(op.number(1), op.Where(none, op.number(1), below)))
        return op.reduce("ReduceSum", op.Mul(alpha, relu(op, g)), 3, 4)

    return _by_weights(op, network, image, weights)


@fused("xgrad-cam")
def xgrad_cam(op: Emitter, network: Network, image: str) -> Explained:
    """Emit ReLU(Σ_i w_i A_i), w_i = Σ_hw g A / (Σ_hw A + ε)."""

    def weights(op: Emitter, features: str, g: str) -> str:
        total = op.Add(op.reduce("ReduceSum", features, 3, 4), op.number(EPSILON))
        return op.Div(op.reduce("ReduceSum", op.Mul(g, features), 3, 4), total)

    return _by_weights(op, network, image, weights)


@fused("layer-cam")
def layer_cam(op: Emitter, network: Network, image: str) -> Explained:
    """Emit ReLU(Σ_i ReLU(g_i) ⊙ A_i)."""

    def signed(op: Emitter, features: str, gradients: str) -> str:
        return relu(op, op.reduce("ReduceSum", op.Mul(relu(op, gradients), features), 2, keepdims=False))

    return _by_gradients(op, network, image, signed)


def _by_gradients(op: Emitter, network: Network, image: str, signed: Callable[[Emitter, str, str], str]) -> Explained:
    """Return what `signed` makes of the features (N, 1, C, h, w) and gradients (N, T, C, h, w)."""
    seen = network.predict(op, image)
    return Explained(seen, signed(op, unsqueeze(op, seen.features, 1), network.gradients(op, seen)))


def _by_weights(op: Emitter, network: Network, image: str, weights: Callable[[Emitter, str, str], str]) -> Explained:
    """Return ReLU(Σ_i w_i A_i), `weights` giving w (N, T, C, 1, 1)."""

    def signed(op: Emitter, features: str, gradients: str) -> str:
        return relu(op, op.reduce("ReduceSum", op.Mul(weights(op, features, gradients), features), 2, keepdims=False))

    return _by_gradients(op, network, image, signed)


# --- parts --------------------------------------------------------------------------------------------------------------------
def _masked(op: Emitter, network: Network, image: str, baseline: str, *, aligned: bool = False) -> Blend:
    """Return what makes masked images (N, k, 3, H, W) of maps in [0, 1]; with `aligned` scaled when upsampled."""
    background = blurred(op, image, network.image_shape[0], network.size) if baseline == "blur" else None
    over = image if background is None else op.Sub(image, background)

    to = window(op, network.cells, network.size, aligned=True) if aligned else network.window

    def blend(op: Emitter, _: str, maps: str) -> str:
        masks = upsample(op, maps, to)
        masks = unsqueeze(op, scaled(op, masks) if aligned else masks, 2)  # (N, k, 1, H, W)
        shown = op.Mul(unsqueeze(op, over, 1), masks)
        return shown if background is None else op.Add(shown, unsqueeze(op, background, 1))

    return blend


def _all_but(op: Emitter, labels: str, count: int) -> str:
    """Return factors (N, K, C, 1, 1) of labels (N, C): 0 for the features of each cluster; 1 for all if there is no such."""
    ids = op.constant(np.arange(count)[:, None])
    return unsqueeze(op, op.Cast(op.Not(op.Equal(unsqueeze(op, labels, 1), ids)), to=FLOAT), 3, 4)


def _edited(op: Emitter, features: str, factors: str) -> str:
    """Return edited features (N, k, C, h, w), of features (N, C, h, w) and factors (N, k, C, 1, 1)."""
    return op.Mul(unsqueeze(op, features, 1), factors)


def _with_blank(op: Emitter, maps: str) -> str:
    """Return maps (N, K, h, w) with one of zeros behind them, which shows the baseline."""
    first = op.Gather(maps, op.constant([0]), axis=1)
    return op.Concat(maps, op.Sub(first, first), axis=1)


def _split_baseline(op: Emitter, network: Network, scores: str, seen: Prediction, baseline: str, score: str) -> tuple[str, str]:
    """Return the scores (N, K, T) of what was masked and of the baseline (N, 1, T)."""
    if baseline == "blur":
        masked, blank = cut_last(op, scores, 1)
        return masked, blank
    black = op.constant(network.black_logits.reshape(1, 1, -1), "float32")
    images = length(op, seen.targets, 0)
    return scores, network.scores(op, op.Expand(black, shape_of(op, images, 1, 1)), seen.targets, score)


def _weighted_sum(op: Emitter, weights: str, maps: str, network: Network) -> str:
    """Return Σ_k w_k M_k (N, T, h, w) of weights (N, K, T) and maps (N, K, h, w)."""
    summed = op.MatMul(op.Transpose(weights, perm=[0, 2, 1]), reshape(op, maps, 0, 0, -1))
    return reshape(op, summed, 0, -1, *network.cells)
