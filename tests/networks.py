"""The families of CNNs in PyTorch for tests and benchmarks, defined here because torchvision is not needed for anything else.

`NETWORKS` holds them by name.  One definition gives a small variant, of which tests run many, and the one of the paper.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al., CVPR 2016, fig. 5 left)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        changes = stride != 1 or inputs != outputs
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)) if changes else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + shortcut)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions and a shortcut (He et al., CVPR 2016, fig. 5 right); the stride lies on the 3 x 3."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        inner = outputs // 4
        self.body = nn.Sequential(
            conv_bn(inputs, inner, 1), conv_bn(inner, inner, 3, stride=stride, padding=1), conv_bn(inner, outputs, 1, None)
        )
        changes = stride != 1 or inputs != outputs
        self.downsample = conv_bn(inputs, outputs, 1, None, stride=stride) if changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.downsample(x))


class ResNet(nn.Module):
    """ResNet-18, and deeper ones by their depths (He et al., CVPR 2016, table 1)."""

    def __init__(
        self,
        widths: Sequence[int] = (64, 64, 128, 256, 512),
        classes: int = 1000,
        depths: Sequence[int] = (2, 2, 2, 2),
        block: Callable[[int, int, int], nn.Module] = BasicBlock,
    ):
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 7, 2, 3, bias=False), nn.BatchNorm2d(first), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        for i, (inputs, outputs, depth) in enumerate(zip(widths, widths[1:], depths, strict=False), 1):
            deeper = (block(outputs, outputs, 1) for _ in range(depth - 1))
            setattr(self, f"layer{i}", nn.Sequential(block(inputs, outputs, 1 if i == 1 else 2), *deeper))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet18() -> ResNet:
    """Return ResNet-18 with random weights, the same ones every time."""
    torch.manual_seed(0)
    return ResNet()


def resnet50() -> nn.Module:
    """Return ResNet-50 with random weights, the same ones every time."""
    return settled(ResNet((64, 256, 512, 1024, 2048), depths=(3, 4, 6, 3), block=Bottleneck), 224)


class VGG(nn.Sequential):
    """VGG-16: 3 x 3 convolutions, poolings and three linear layers (Simonyan and Zisserman, ICLR 2015, table 1, D)."""

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        depths: Sequence[int] = (2, 2, 3, 3, 3),
        cells: int = 7,
        hidden: int = 4096,
        classes: int = 1000,
    ):
        super().__init__()
        inputs = 3
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
            convs = nn.Sequential()
            for _ in range(depth):
                convs.extend([nn.Conv2d(inputs, width, 3, 1, 1), nn.ReLU()])
                inputs = width
            self.add_module(f"stage{i}", nn.Sequential(OrderedDict(convs=convs, pool=nn.MaxPool2d(2))))
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(inputs * cells * cells, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
            nn.Linear(hidden, classes),
        )  # fmt: skip


def vgg16() -> nn.Module:
    """Return VGG-16 with random weights, the same ones every time."""
    return settled(VGG(), 224)


class DenseLayer(nn.Sequential):
    """BN-ReLU-Conv 1 x 1, BN-ReLU-Conv 3 x 3, beside its input (Huang et al., CVPR 2017, DenseNet-B)."""

    def __init__(self, inputs: int, growth: int):
        super().__init__(
            nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, super().forward(x)], 1)


class DenseNet(nn.Sequential):
    """DenseNet-121: all layers of a block are concatenated (Huang et al., CVPR 2017, table 1)."""

    def __init__(self, growth: int = 32, depths: Sequence[int] = (6, 12, 24, 16), stem: int = 64, classes: int = 1000):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 7, 2, 3, bias=False), nn.BatchNorm2d(stem), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        width = stem
        for i, depth in enumerate(depths, 1):
            if i > 1:
                transition = [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
                self.add_module(f"transition{i - 1}", nn.Sequential(*transition))
                width //= 2
            self.add_module(f"block{i}", nn.Sequential(*(DenseLayer(width + j * growth, growth) for j in range(depth))))
            width += depth * growth
        self.norm = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class SqueezeExcite(nn.Module):
    """A gate per channel from the channels' means (Hu et al., CVPR 2018), hard as in MobileNetV3."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1), nn.Hardsigmoid()
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)


def conv_bn(
    inputs: int, outputs: int, kernel: Any, activation: type[nn.Module] | None = nn.ReLU, **options: Any
) -> nn.Sequential:
    """Return convolution, BatchNorm and activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([] if activation is None else [activation()]))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, gate, project, add (Howard et al., ICCV 2019, fig. 4)."""

    def __init__(
        self,
        inputs: int,
        kernel: int,
        expanded: int,
        outputs: int,
        squeezed: int,
        hard: bool,
        stride: int,
        soft: type[nn.Module] = nn.ReLU,
    ):
        super().__init__()
        activation = nn.Hardswish if hard else soft
        self.adds = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            *([conv_bn(inputs, expanded, 1, activation)] if expanded != inputs else []),
            conv_bn(expanded, expanded, kernel, activation, stride=stride, padding=kernel // 2, groups=expanded),
            *([SqueezeExcite(expanded, squeezed)] if squeezed else []),
            conv_bn(expanded, outputs, 1, None),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class MobileNetV3(nn.Sequential):
    """MobileNetV3-Large (Howard et al., ICCV 2019, table 1): stages of (kernel, expanded, outputs, squeezed, hard, stride)."""

    LARGE = (
        ((3, 16, 16, 0, False, 1),),
        ((3, 64, 24, 0, False, 2), (3, 72, 24, 0, False, 1)),
        ((5, 72, 40, 24, False, 2), (5, 120, 40, 32, False, 1), (5, 120, 40, 32, False, 1)),
        (
            (3, 240, 80, 0, True, 2), (3, 200, 80, 0, True, 1), (3, 184, 80, 0, True, 1),
            (3, 184, 80, 0, True, 1), (3, 480, 112, 120, True, 1), (3, 672, 112, 168, True, 1),
        ),
        ((5, 672, 160, 168, True, 2), (5, 960, 160, 240, True, 1), (5, 960, 160, 240, True, 1)),
    )  # fmt: skip
    SMALL = (
        ((3, 8, 8, 0, False, 1),),
        ((3, 16, 8, 0, False, 2), (3, 20, 8, 0, False, 1)),
        ((5, 20, 12, 8, False, 2), (5, 24, 12, 8, False, 1)),
        ((3, 24, 16, 0, True, 2), (3, 32, 16, 8, True, 1)),
    )

    def __init__(self, stages: Sequence = LARGE, stem: int = 16, last: int = 960, hidden: int = 1280, classes: int = 1000):
        super().__init__()
        self.stem = conv_bn(3, stem, 3, nn.Hardswish, stride=2, padding=1)
        width = stem
        for i, rows in enumerate(stages, 1):
            stage = nn.Sequential()
            for row in rows:
                stage.append(InvertedResidual(width, *row))
                width = row[2]
            self.add_module(f"stage{i}", stage)
        self.last = conv_bn(width, last, 1, nn.Hardswish)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, hidden), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(hidden, classes)
        )  # fmt: skip


def mobilenet_v2() -> nn.Module:
    """Return MobileNetV2 with random weights, the same ones every time (Sandler et al., CVPR 2018, table 2)."""
    body = conv_bn(3, 32, 3, nn.ReLU6, stride=2, padding=1)
    width = 32
    for factor, outputs, repeats, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    ):  # fmt: skip
        for i in range(repeats):
            body.append(InvertedResidual(width, 3, factor * width, outputs, 0, False, stride if i == 0 else 1, nn.ReLU6))
            width = outputs
    ends = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, 1000))
    return settled(nn.Sequential(body, conv_bn(width, 1280, 1, nn.ReLU6), *ends), 224)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (N, C, h, w), which it moves last and back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Filter each channel 7 x 7, normalise, mix the channels, scale, add (Liu et al., CVPR 2022, fig. 4)."""

    def __init__(self, width: int):
        super().__init__()
        self.filter = nn.Conv2d(width, width, 7, 1, 3, groups=width)
        self.mix = nn.Sequential(nn.LayerNorm(width, 1e-6), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = self.scale * self.mix(self.filter(x).permute(0, 2, 3, 1))
        return x + mixed.permute(0, 3, 1, 2)


class Mean(nn.Module):
    """The mean over the cells; AdaptiveAvgPool2d would be exported with as_strided behind the permutations, for one image only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


class ConvNeXt(nn.Sequential):
    """ConvNeXt-T (Liu et al., CVPR 2022, table 9)."""

    def __init__(self, widths: Sequence[int] = (96, 192, 384, 768), depths: Sequence[int] = (3, 3, 9, 3), classes: int = 1000):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0], 1e-6))
        before = widths[0]
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
            down = [ChannelNorm(before, 1e-6), nn.Conv2d(before, width, 2, 2)] if i > 1 else []
            self.add_module(f"stage{i}", nn.Sequential(*down, *(ConvNeXtBlock(width) for _ in range(depth))))
            before = width
        self.classifier = nn.Sequential(Mean(), nn.LayerNorm(before, 1e-6), nn.Linear(before, classes))


class Branches(nn.ModuleList):
    """What several paths make of one input, concatenated."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([path(x) for path in self], 1)


def path(scale: int, inputs: int, *steps: tuple) -> nn.Sequential:
    """Return convolutions, each (outputs, kernel) padded to keep the size or (outputs, kernel, stride) without padding.

    All widths are divided by `scale`.
    """
    convs = nn.Sequential()
    for outputs, kernel, *stride in steps:
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        options = {"stride": stride[0]} if stride else {"padding": tuple(k // 2 for k in kernel)}
        convs.append(conv_bn(inputs // scale, outputs // scale, kernel, **options))
        inputs = outputs
    return convs


class Inception(nn.Sequential):
    """Inception-v3 without its auxiliary classifier (Szegedy et al., CVPR 2016, table 1, fig. 5 to 7 and 10).

    The average poolings of the middle grid leave the padding out of their mean; the paper does not say, and both are in use.
    """

    def __init__(
        self,
        scale: int = 1,
        pooled: Sequence[int] = (32, 64, 64),
        middle: Sequence[int] = (128, 160, 160, 192),
        ends: int = 2,
        classes: int = 1000,
    ):
        super().__init__()
        self.stem = nn.Sequential(
            OrderedDict(
                convs1=path(scale, 3 * scale, (32, 3, 2), (32, 3, 1), (64, 3)),
                pool1=nn.MaxPool2d(3, 2),
                convs2=path(scale, 64, (80, 1), (192, 3, 1)),
                pool2=nn.MaxPool2d(3, 2),
            )
        )
        widths = (192, *(224 + p for p in pooled))
        self.stage1 = nn.Sequential(*map(partial(self._square, scale), widths, pooled))
        self.reduce1 = self._reduce(scale, widths[-1], [(384, 3, 2)], [(64, 1), (96, 3), (96, 3, 2)])
        self.stage2 = nn.Sequential(*(self._factorised(scale, 768, m) for m in middle))
        self.reduce2 = self._reduce(scale, 768, [(192, 1), (320, 3, 2)], [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)])
        self.stage3 = nn.Sequential(*(self._expanded(scale, 2048 if i else 1280) for i in range(ends)))
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(), nn.Flatten(), nn.Linear(2048 // scale, classes))

    @staticmethod
    def _square(scale: int, inputs: int, pooled: int) -> Branches:
        to = partial(path, scale, inputs)
        pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), to((pooled, 1)))
        return Branches([to((64, 1)), to((48, 1), (64, 5)), to((64, 1), (96, 3), (96, 3)), pool])

    @staticmethod
    def _factorised(scale: int, inputs: int, m: int) -> Branches:
        to = partial(path, scale, inputs)
        pool = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), to((192, 1)))
        once = to((m, 1), (m, (1, 7)), (192, (7, 1)))
        twice = to((m, 1), (m, (7, 1)), (m, (1, 7)), (m, (7, 1)), (192, (1, 7)))
        return Branches([to((192, 1)), once, twice, pool])

    @staticmethod
    def _expanded(scale: int, inputs: int) -> Branches:
        def fork() -> Branches:
            return Branches([path(scale, 384, (384, kernel)) for kernel in ((1, 3), (3, 1))])

        to = partial(path, scale, inputs)
        once, twice = nn.Sequential(to((384, 1)), fork()), nn.Sequential(to((448, 1), (384, 3)), fork())
        return Branches([to((320, 1)), once, twice, nn.Sequential(nn.AvgPool2d(3, 1, 1), to((192, 1)))])

    @staticmethod
    def _reduce(scale: int, inputs: int, *paths: list[tuple]) -> Branches:
        return Branches([*(path(scale, inputs, *steps) for steps in paths), nn.MaxPool2d(3, 2)])


class Fire(nn.Module):
    """Squeeze to few channels, expand 1 x 1 and 3 x 3 (Iandola et al., arXiv 1602.07360, fig. 1)."""

    def __init__(self, inputs: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(inputs, squeezed, 1), nn.ReLU())
        kernels = ((1, 0), (3, 1))
        self.expand = Branches(
            nn.Sequential(nn.Conv2d(squeezed, expanded, kernel, padding=padding), nn.ReLU()) for kernel, padding in kernels
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.expand(self.squeeze(x))


class SqueezeNet(nn.Sequential):
    """SqueezeNet 1.1, its classifier a convolution, ReLU and mean (Iandola et al., arXiv 1602.07360): stages of (squeezed, expanded)."""

    V1_1 = (((16, 64), (16, 64)), ((32, 128), (32, 128)), ((48, 192), (48, 192), (64, 256), (64, 256)))

    def __init__(self, stages: Sequence = V1_1, stem: int = 64, classes: int = 1000):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, 2), nn.ReLU())
        width = stem
        for i, fires in enumerate(stages, 1):
            self.add_module(f"pool{i}", nn.MaxPool2d(3, 2, ceil_mode=True))
            stage = nn.Sequential()
            for squeezed, expanded in fires:
                stage.append(Fire(width, squeezed, expanded))
                width = 2 * expanded
            self.add_module(f"stage{i}", stage)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(width, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )


def settled(module: nn.Module, size: int) -> nn.Module:
    """Return the module in eval mode with He-scaled weights, the same ones every time.

    Each BatchNorm gets nearly, as after training, the statistics of what reaches it: nothing vanishes or explodes.
    """
    random = torch.Generator().manual_seed(0)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.empty_like(like).uniform_(low, high, generator=random)

    def measure(norm: nn.BatchNorm2d, inputs: tuple[torch.Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
        norm.running_mean.copy_(mean + variance.sqrt() * uniform(mean, -0.4, 0.4))
        norm.running_var.copy_(variance * uniform(mean, 0.5, 1.5))

    with torch.no_grad():
        hooks = []
        for part in module.eval().modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu", generator=random)
            elif isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
                part.weight.uniform_(0.5, 1.5, generator=random)
            elif isinstance(part, ConvNeXtBlock):
                part.scale.uniform_(0.2, 0.6, generator=random)
            if isinstance(getattr(part, "bias", None), nn.Parameter):
                part.bias.normal_(0, 0.1, generator=random)
            if isinstance(part, nn.BatchNorm2d):
                hooks.append(part.register_forward_pre_hook(measure))
        if hooks:
            contrasts = uniform(torch.empty(4, 3, 1, 1), 0.2, 2)
            module(torch.randn(4, 3, size, size, generator=random) * contrasts)
        for hook in hooks:
            hook.remove()
    return module


@dataclass(frozen=True)
class Network:
    """A family of networks.

    Attributes
    ----------
    build : callable
        Returns the network of the paper when called without arguments.
    smaller : mapping
        The arguments of its small variant.
    layers : (str, str, str)
        Modules behind which both variants can be cut: early, before a pooling where there is one, middle, late.
    small_size, full_size : int
        Height and width of the images.
    """

    build: Callable[..., nn.Module]
    smaller: Mapping[str, Any]
    layers: tuple[str, str, str]
    small_size: int = 64
    full_size: int = 224

    def small(self) -> nn.Module:
        return settled(self.build(**self.smaller, classes=10), self.small_size)

    def full(self) -> nn.Module:
        return settled(self.build(), self.full_size)


NETWORKS = {
    "resnet": Network(ResNet, {"widths": (8, 8, 10, 12, 16)}, ("stem.2", "layer2", "layer4")),
    "vgg": Network(
        VGG, {"widths": (6, 8, 10, 12, 12), "depths": (1, 1, 2, 2, 2), "cells": 2, "hidden": 24},
        ("stage1.convs", "stage3.convs", "stage5.convs"),
    ),
    "densenet": Network(DenseNet, {"growth": 4, "depths": (2, 3, 2), "stem": 8}, ("stem.2", "transition2", "norm")),
    "mobilenet": Network(
        MobileNetV3, {"stages": MobileNetV3.SMALL, "stem": 8, "last": 24, "hidden": 32}, ("stem", "stage3", "last")
    ),
    "convnext": Network(
        ConvNeXt, {"widths": (8, 12, 16, 20), "depths": (1, 1, 2, 1)}, ("stem", "stage2", "stage4")
    ),
    "inception": Network(
        Inception, {"scale": 16, "pooled": (64,), "middle": (128,), "ends": 1}, ("stem.convs1", "reduce1", "stage3"), 107, 299
    ),
    "squeezenet": Network(
        SqueezeNet, {"stages": (((3, 6),), ((4, 8),), ((5, 10),)), "stem": 8}, ("stem", "stage2", "stage3"), 50
    ),
}  # fmt: skip
