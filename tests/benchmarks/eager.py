"""Cluster-CAM and HiResCAM by hand in eager PyTorch, as one would write them beside a network."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def twin(model: nn.Module, *, trains: bool) -> nn.Module:
    """Return the module once more, with the same weights in memory and no hooks; `trains` tells whether they want gradients."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=trains) for p in model.parameters()}
    memo |= {id(b): b for b in model.buffers()}
    return copy.deepcopy(model, memo)


def stretch(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return N(up(maps)), (K, h, w) → (K, H, W)."""
    large = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    return (large - low) / (high - low).clamp_min(1e-12)


class Eager:
    """A network in eager PyTorch with a hook on one layer; its weights want no gradients.

    Parameters
    ----------
    model : nn.Module
    layer : str
        Module path.
    size : (int, int)
        H and W.
    """

    def __init__(self, model: nn.Module, layer: str, size: tuple[int, int]):
        self.model, self.size = twin(model, trains=False), size
        self.model.get_submodule(layer).register_forward_hook(self._keep)
        with torch.inference_mode():
            self.black = self.model(torch.zeros(1, 3, *size)).softmax(1)  # (1, L), the same for every image

    def _keep(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        self.features = output.detach().requires_grad_(torch.is_grad_enabled())  # gradients are of the tail alone
        return self.features

    @torch.inference_mode()
    def cluster_cam(self, x: torch.Tensor, target: int, labels: Any) -> np.ndarray:
        """Return the heatmap (H, W) merge "positive"; `labels` makes clusters of the points (C, h · w)."""
        self.model(x)
        features = self.features[0]  # (C, h, w)
        found = torch.as_tensor(labels(features.flatten(1).numpy())).long()
        chosen = F.one_hot(found).float()  # (C, K)
        maps = torch.einsum("ck,chw->khw", chosen / chosen.sum(0), features)
        masks = stretch(maps, self.size)
        scores = self.model(x * masks[:, None]).softmax(1)  # (K, L)
        weights = (scores - self.black)[:, target].relu()
        return stretch(torch.einsum("k,khw->hw", weights, masks)[None], self.size)[0].numpy()

    def hires_cam(self, x: torch.Tensor, target: int) -> np.ndarray:
        """Return the heatmap (H, W)."""
        logits = self.model(x)
        (gradient,) = torch.autograd.grad(logits[0, target], self.features)
        with torch.inference_mode():
            return stretch((gradient * self.features).sum(1).relu(), self.size)[0].numpy()


def forward(model: nn.Module, *batches: torch.Tensor) -> np.ndarray:
    """Run the bare network, batch after batch, and return the last logits."""
    with torch.inference_mode():
        return [model(batch) for batch in batches][-1].numpy()
