"""The judge of the methods: a small network that PyTorch runs in float64 beside the bundle that camrt runs in float32.

Nothing here uses camrt's mathematics: features, gradients and edited features come from hooks on the uncut network.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, helper
from torch import Tensor, nn
from torch.nn import functional as F

import camrt
from exporters import export
from tests import graphs
from tests.networks import settled

SIZE = (45, 60)  # neither square nor a multiple of the feature maps' 12 x 15
CLASSES = 6
TOLERANCE = 1e-4  # of the largest value of the reference
ASKED: list[dict[str, Any]] = [{"targets": [3, 0, 5]}, {"targets": [4, 1], "versus": 2}]

Reference = Callable[["Judge", Tensor, Tensor], Tensor]  # image (1, 3, H, W), which classes count how (L,) → map


# --- networks -------------------------------------------------------------------------------------------------------------
def network(*tail: nn.Module) -> nn.Sequential:
    """Return a CNN with `early`, 20 signed maps, and `late`, 40 maps that are nowhere negative, both 12 x 15."""
    parts = OrderedDict[str, nn.Module](
        stem=nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()),
        early=nn.Conv2d(8, 20, 3, 2, 1),
        middle=nn.Conv2d(20, 40, 3, 1, 1),  # at once: behind a ReLU the gradients would be 0 wherever `early` is negative
        late=nn.ReLU(),
        tail=nn.Sequential(*tail),
    )
    return settled(nn.Sequential(parts), size=0)  # of no consequence without BatchNorm


def deep() -> nn.Sequential:
    """Return the network whose tail is a convolution and two linear layers: every gradient differs from place to place."""
    tail = nn.Conv2d(40, 12, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 6 * 8, 24), nn.ReLU(), nn.Linear(24, CLASSES)
    module = network(*tail)
    with torch.no_grad():
        module.tail[-1].weight *= 12  # decided answers: the scores of masked images differ by far more than float32 rounds
    return module


TAILS = {
    "global average pooling": lambda: (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, CLASSES)),
    "average pooling": lambda: (nn.AvgPool2d(3), nn.Flatten(), nn.Linear(40 * 4 * 5, CLASSES)),
    "flatten": lambda: (nn.Flatten(), nn.Linear(40 * 12 * 15, CLASSES)),
    "global maximum": lambda: (nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(40, CLASSES)),
    "two linear layers": lambda: (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, CLASSES)),
}  # fmt: skip


def in_onnx(source: nn.Sequential) -> ModelProto:
    """Return such a network as ONNX, its nodes named as its modules; in a hundredth of the time of torch.onnx.export."""
    nodes, weights, last = [], {}, "x"
    for name, module in source.named_modules():
        match module:
            case nn.Conv2d():
                operator, attributes = "Conv", {"strides": module.stride, "pads": module.padding * 2}
            case nn.Linear():
                operator, attributes = "Gemm", {"transB": 1}
            case nn.AvgPool2d():
                operator, attributes = "AveragePool", {"kernel_shape": [module.kernel_size] * 2, "strides": [module.stride] * 2}
            case nn.ReLU() | nn.Flatten() | nn.AdaptiveAvgPool2d() | nn.AdaptiveMaxPool2d():
                operator, attributes = SAME[type(module)], {}
            case _:
                continue
        read = {f"{name}.{key}": value.detach().numpy() for key, value in module.named_parameters()}
        output = name if module is not source.tail[-1] else "scores"
        nodes.append(helper.make_node(operator, [last, *read], [output], name=name, **attributes))
        weights, last = weights | read, output
    return graphs.model(nodes, weights, image=("N", 3, *SIZE))


SAME = {
    nn.ReLU: "Relu",
    nn.Flatten: "Flatten",
    nn.AdaptiveAvgPool2d: "GlobalAveragePool",
    nn.AdaptiveMaxPool2d: "GlobalMaxPool",
}


def photos(count: int = 3) -> list[np.ndarray]:
    """Return photos (H, W, 3) of the network's own size: coloured squares of 5 x 5 pixels."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (9, 12, 3), np.uint8).repeat(5, axis=0).repeat(5, axis=1) for _ in range(count)]


# --- judge ----------------------------------------------------------------------------------------------------------------
class Judge:
    """A network in PyTorch and the explainer of its bundle.

    Attributes
    ----------
    explainer : Explainer
        Of the bundle that is made of the ONNX model, with `direct` of the module itself.
    network : nn.Module
        In float64.
    layer : nn.Module
        Where the bundle is cut.
    images : list of Tensor
        x of `photos()`, each (1, 3, H, W): the same objects every time, so that what a formula asks the network about an image
        can be remembered for all classes.
    """

    def __init__(self, source: nn.Sequential, layer: str, folder: Path, *, direct: bool = False, **options: Any):
        model = source if direct else graphs.save(in_onnx(source), folder / "model.onnx")
        preprocessing = {"scale": 1 / 127.5, "mean": [1, 1, 1]}
        export(model, folder / "bundle", layer=layer, size=SIZE, overrides=preprocessing, name="judged", **options)
        self.explainer = camrt.load(folder / "bundle", providers=["cpu"], threads=1)
        self.network = copy.deepcopy(source).double()
        self.layer = self.network.get_submodule(layer)
        self.images = [self.image(photo) for photo in photos()]

    def image(self, photo: np.ndarray) -> Tensor:
        """Return x (1, 3, H, W): pixels of 0…255 become −1…1."""
        return torch.tensor(photo, dtype=torch.float64).permute(2, 0, 1)[None] / 127.5 - 1

    @contextmanager
    def _hooked(self, hook: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        handle = self.layer.register_forward_hook(lambda module, inputs, output: hook(output))
        try:
            yield
        finally:
            handle.remove()

    def features(self, x: Tensor) -> Tensor:
        """Return A (C, h, w)."""
        kept: list[Tensor] = []
        with torch.no_grad(), self._hooked(kept.append):
            self.network(x)
        return kept[0][0]

    def gradients(self, x: Tensor, classes: Tensor) -> Tensor:
        """Return g = ∂(z · classes)/∂A (C, h, w)."""
        kept: list[Tensor] = []
        with self._hooked(kept.append):
            logits = self.network(x)[0]
        (gradients,) = torch.autograd.grad(logits @ classes, kept)
        return gradients[0]

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return z (M, L) of images (M, 3, H, W)."""
        return torch.cat([self.network(part) for part in images.split(8)])

    @torch.no_grad()
    def edited(self, x: Tensor, factors: Tensor) -> Tensor:
        """Return z (M, L) when the features are multiplied by factors (M, C or 1, h or 1, w or 1)."""
        with self._hooked(lambda features: features * factors):
            return self.network(x)

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.explainer.manifest.kind == "sigmoid" else logits.softmax(dim=1)

    def engine_features(self, x: Tensor) -> np.ndarray:
        """Return camrt's own A (C, h, w), for what rounding could turn over: who clusters with whom."""
        engine = self.explainer.engine
        return engine.features(engine.put(x.float().numpy())).numpy()[0]

    def engine_gradients(self, x: Tensor, classes: Tensor) -> np.ndarray:
        """Return camrt's own g (C, h, w)."""
        cotangents = classes.float().numpy()[None, None]
        return self.explainer.engine.gradients(self.engine_features(x)[None], cotangents).values[0, 0]


# --- letters of the formulas ----------------------------------------------------------------------------------------------
def up(maps: Tensor, size: tuple[int, int] = SIZE, aligned: bool = False) -> Tensor:
    """Return maps (K, h, w) as (K, H, W)."""
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=aligned)[0]


def low_high(maps: Tensor) -> tuple[Tensor, Tensor]:
    return maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)


def N(maps: Tensor) -> Tensor:
    """Return (M − min M) / (max M − min M), zeros for a flat map."""
    low, high = low_high(maps)
    return torch.where(high > low, (maps - low) / (high - low), 0)


def masked(x: Tensor, masks: Tensor, baseline: Tensor | float = 0.0) -> Tensor:
    """Return the images (M, 3, H, W) that masks (M, H, W) leave of x."""
    return x * masks[:, None] + baseline * (1 - masks[:, None])


def blurred(x: Tensor) -> Tensor:
    """Return x behind a Gaussian of 51 x 51 pixels and σ 50, reflected at the border."""
    axis = torch.arange(51, dtype=x.dtype) - 25
    bell = torch.exp(-(axis**2) / (2 * 50.0**2))
    kernel = (bell / bell.sum()).expand(3, 1, 1, 51)
    padded = F.pad(x, (25, 25, 25, 25), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.mT, groups=3)


def of_channels(weights: Tensor, features: Tensor) -> Tensor:
    """Return ReLU(Σ_i w_i A_i)."""
    return torch.einsum("c,chw->hw", weights, features).relu()


# --- verdict --------------------------------------------------------------------------------------------------------------
def classes(judge: Judge, target: int, versus: int | None = None) -> Tensor:
    """Return (L,): 1 for the target, −1 for the class that it is set against."""
    counts = torch.zeros(judge.explainer.manifest.classes, dtype=torch.float64)
    counts[target] += 1
    if versus is not None:
        counts[versus] -= 1
    return counts


def check(judge: Judge, method: str, reference: Reference, *, whole: bool = False, **parameters: Any) -> None:
    """Refuse maps that differ from the reference's by more than the tolerance, for several images and targets.

    With `whole` the reference is as large as the image, and the maps are compared after upsampling.
    """
    for question in [{"targets": [0]}] if judge.explainer.manifest.classes == 1 else ASKED:
        explanations = judge.explainer.explain(photos(), method=method, **question, **parameters)
        maps = torch.tensor(np.stack([explanation.maps for explanation in explanations]), dtype=torch.float64)
        counted = [classes(judge, target, question.get("versus")) for target in question["targets"]]
        expected = torch.stack([torch.stack([reference(judge, x, c).detach() for c in counted]) for x in judge.images])
        assert expected.any(), f"{method}, {parameters}, {question}: the reference is 0 everywhere"
        compare(torch.stack([up(m) for m in maps]) if whole else maps, expected, f"{method}, {parameters}, {question}")


def compare(found: Tensor, expected: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """Refuse what differs from what is expected by more than a part of its largest value."""
    assert found.shape == expected.shape, f"{what}: {found.shape}, not {expected.shape}"
    error, largest = (found - expected).abs().max(), expected.abs().max()
    assert error <= tolerance * largest, f"{what}: off by {error:.3g}, the largest value is {largest:.3g}"
