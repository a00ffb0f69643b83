"""Group-CAM: weight groups of channels by their gradients, mask the blurred image with each, merge by what the network says.

Q. Zhang, L. Rao, Y. Yang, "Group-CAM: Group score-weighted visual explanations for deep convolutional networks", 2021 (arXiv
2103.13859).

    Â_i = mean_hw(g_i) · A_i        M_j = ReLU(Σ_{i∈j} Â_i)        m_j = N(up(M_j))
    s_j = p_c(x ⊙ m_j + b ⊙ (1 − m_j)) − p_c(b), b the blurred image, p the probability or the logit

The authors' code changed: since August 2021 the map is Σ_j ReLU(s_j) · M_j; in March 2021 it was ReLU(Σ_j s_j · m_j), and of
every M_j the values up to its 70th percentile became 0, which is the paper's denoising.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.clustering import cluster
from camrt.image import normalise
from camrt.methods.registry import GRADIENTS, MASKED_IMAGES, SCORE, SEED, Parameter, method

if TYPE_CHECKING:
    from camrt.case import Case

VARIANTS = ("2021-08", "2021-03")
GROUPINGS = ("chunks", "kmeans", "agglomerative")
DENOISE = {"2021-08": 0.0, "2021-03": 0.7}


def group_maps(
    features: np.ndarray,
    gradients: np.ndarray,
    groups: int = 32,
    *,
    grouping: str = "chunks",
    denoise: float = 0.0,
    seed: int = 0,
) -> np.ndarray:
    """Return the groups' maps M_j, (N, C, h, w), (N, T, C, h, w) → (N, T, G, h, w).

    Parameters
    ----------
    groups : int
        G; fewer where C has no more chunks of ⌈C / G⌉ channels.
    grouping : {"chunks", "kmeans", "agglomerative"}
        Neighbouring channels, ⌈C / G⌉ each; or the clusters of the rows Â_i.
    denoise : float in [0, 1)
        Values of M_j not above its quantile become 0.
    """
    weighted = gradients.mean(axis=(3, 4))[..., None, None] * features[:, None]
    images, targets, channels = weighted.shape[:3]
    groups = min(groups, channels)
    labels = [_groups_of(weighted[i], groups, grouping, seed) for i in np.ndindex(images, targets)]
    maps = np.zeros((images, targets, 1 + max(int(found.max()) for found in labels), *features.shape[2:]), np.float32)
    for i, found in zip(np.ndindex(images, targets), labels, strict=True):
        np.add.at(maps[i], found, weighted[i])
    np.maximum(maps, 0, out=maps)
    if denoise:
        maps[maps <= np.quantile(maps, denoise, axis=(3, 4), keepdims=True)] = 0
    return maps


def _groups_of(weighted: np.ndarray, groups: int, grouping: str, seed: int) -> np.ndarray:
    """Return every channel's group (C,)."""
    channels = len(weighted)
    if grouping == "chunks":
        return np.arange(channels) // -(-channels // groups)
    return cluster(weighted.reshape(channels, -1), groups, grouping, seed=seed).labels


def group_cam(maps: np.ndarray, scores: np.ndarray, size: tuple[int, int], variant: str = "2021-08") -> np.ndarray:
    """Return the merged map, (N, T, G, h, w), (N, T, G) → (N, T, h, w).

    Parameters
    ----------
    maps : ndarray of shape (N, T, G, h, w)
        M_j.
    scores : ndarray of shape (N, T, G)
        s_j, signed.
    size : (int, int)
        H and W.
    variant : {"2021-08", "2021-03"}
        Σ_j ReLU(s_j) · M_j, or Σ_j s_j · m_j, whose ReLU is taken after upsampling.
    """
    if variant == "2021-03":
        return np.asarray(np.einsum("ntg,ntghw->nthw", scores, normalise(maps, size)), np.float32)
    return np.asarray(np.einsum("ntg,ntghw->nthw", np.maximum(scores, 0), maps), np.float32)


@method(
    "group-cam",
    needs=(GRADIENTS, MASKED_IMAGES),
    passes="2 + T · G + T backward",
    citation="Zhang et al., 2021 (arXiv 2103.13859)",
    parameters={
        "groups": Parameter(32, "G, how many groups of channels at most, and masked images a target", least=1, most=4096),
        "grouping": Parameter("chunks", "neighbouring channels, or clusters of the weighted maps", GROUPINGS),
        "variant": Parameter("2021-08", "the authors' code of August or of March 2021", VARIANTS),
        "denoise": Parameter("auto", "quantile that becomes 0; auto: 0.7 in 2021-03, else 0", ("auto",), least=0, most=0.99),
        "score": SCORE,
        "seed": SEED,
    },
)  # fmt: skip
def run(case: Case, *, groups: int, grouping: str, variant: str, denoise: float | str, score: str, seed: int) -> np.ndarray:
    """Return the maps (N, T, h, w) of a case."""
    gradients = case.gradients()
    quantile = DENOISE[variant] if denoise == "auto" else float(denoise)
    with case.stage("group"):
        maps = group_maps(case.features, gradients, groups, grouping=grouping, denoise=quantile, seed=seed)
    merged = maps.reshape(len(maps), -1, *maps.shape[3:])  # (N, T · G, h, w)
    scores, blank = case.masked_scores(lambda start, stop: merged[:, start:stop], merged.shape[1], baseline="blur", score=score)
    images, targets, each = maps.shape[:3]
    own = np.arange(targets)
    scores = scores.reshape(images, targets, each, targets)[:, own, :, own].transpose(1, 0, 2)  # every map for its own target
    return group_cam(maps, scores - blank[..., None], case.size, variant)
