"""The network of the default bundle: a small residual CNN whose classifier still sees where things stand.

Its tail is a 3 x 3 grid of pooled features and two linear layers, not one global mean, so that methods which agree on
globally pooled networks (CAM, Grad-CAM, HiResCAM) can be told apart on it.
"""

from __future__ import annotations

import torch
from torch import nn

CLASSES = 8


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


class Residual(nn.Module):
    """x + F(x) with two 3 x 3 convolutions, then ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.second(self.first(x)))


class ShapeNet(nn.Module):
    """(N, 3, 96, 96) → logits (N, 8)."""

    def __init__(self):
        super().__init__()
        self.stem = convolution(3, 24, 2)
        self.stage1 = nn.Sequential(convolution(24, 40, 2), Residual(40))
        self.stage2 = nn.Sequential(convolution(40, 64, 2), Residual(64))
        self.stage3 = nn.Sequential(convolution(64, 80), Residual(80))
        self.pool = nn.AvgPool2d(4)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(80 * 9, 48), nn.ReLU())
        self.classifier = nn.Linear(48, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.classifier(self.hidden(self.pool(x)))


def shapenet() -> ShapeNet:
    """Return the network, untrained: the factory that `camrt export` is given."""
    return ShapeNet()
