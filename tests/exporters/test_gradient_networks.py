"""gradient.onnx of whole networks: every family in PyTorch, the graphs that onnx carries, real models; torch.autograd judges."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, ValueInfoProto

import camrt
from camrt.bundle import Bundle, open_bundle
from camrt.image import preprocess_photo
from exporters import export
from exporters.source import read_source
from tests import graphs
from tests.exporters.helpers import images
from tests.light import LIGHT, at, evaluate, light, logits_of
from tests.networks import NETWORKS

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from torch import nn  # noqa: E402

TOLERANCE = 1e-4
KINKS = {"Relu": nn.ReLU, "MaxPool": nn.MaxPool2d, "HardSwish": nn.Hardswish, "HardSigmoid": nn.Hardsigmoid, "Clip": nn.ReLU6}
CASES = [(name, layer) for name, network in NETWORKS.items() for layer in network.layers]
Source = tuple[nn.Module, Path]


@dataclass(frozen=True)
class Answer:
    """What a bundle's graphs say: features (N, C, h, w), cotangent (N, L), gradients (N, C, h, w).

    `seen` holds what gradient.onnx found in front of the tail's kinks, by tensor, where it was watched.
    """

    features: np.ndarray
    cotangent: np.ndarray
    gradients: np.ndarray
    seen: Mapping[str, torch.Tensor]


def answer(bundle: Bundle, x: np.ndarray, *, watched: bool = False) -> Answer:
    """Run head and gradient graph on images, with a seeded cotangent."""
    assert bundle.manifest.gradient_missing is None
    (features,) = graphs.run(bundle.path("head"), {"image": x})
    cotangent = np.random.default_rng(11).standard_normal((len(x), bundle.manifest.classes), np.float32)
    feeds = {"features": features, "cotangent": cotangent}
    (gradients,) = graphs.run(bundle.path("gradient"), feeds, "gradients")
    return Answer(features, cotangent, gradients, watch(bundle, feeds) if watched else {})


def watch(bundle: Bundle, feeds: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Run gradient.onnx again with more outputs, the tensors in front of the tail's kinks, and return these.

    They are what it computed without being watched: the gradients of both runs have been found to be equal bit for bit.
    """
    model = onnx.load(bundle.path("gradient"), load_external_data=False)
    names = sorted({name for node in model.graph.node for name in node.output}.intersection(kinks(bundle)))
    model.graph.output.extend(ValueInfoProto(name=name) for name in names)
    path = bundle.path("gradient").with_name("watched.onnx")  # beside weights.bin
    onnx.save(model, path)
    values = graphs.run(path, feeds, *names) if names else []
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


def kinks(bundle: Bundle) -> list[str]:
    """Return the tensors in front of the tail's kinks, in order."""
    nodes = onnx.load(bundle.path("tail"), load_external_data=False).graph.node
    return [node.input[0] for node in nodes if node.op_type in KINKS]


def autograd(module: nn.Module, layer: str, x: np.ndarray, answer: Answer, kinks: list[str] | None = None) -> np.ndarray:
    """Return the gradients of a module's tail behind a layer, at the bundle's features, in float64.

    With the names of the kinks, each is decided as gradient.onnx did; see `tests.light.at`.
    """
    module = copy.deepcopy(module).double().requires_grad_(False)
    leaf = torch.from_numpy(answer.features).double().requires_grad_()
    order: Iterator[str] | None = None

    def swap(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        nonlocal order
        assert (output - leaf).abs().max() <= 1e-3 * leaf.abs().max()  # it is the layer that the bundle was cut at
        order = iter(kinks or ())
        return leaf

    def decide(_module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        name = next(order, None) if order else None
        return (at(inputs[0], answer.seen[name]),) if name in answer.seen else None

    module.get_submodule(layer).register_forward_hook(swap)
    for part in module.modules():
        if isinstance(part, tuple(KINKS.values())):
            part.register_forward_pre_hook(decide)
    logits = module(torch.from_numpy(x).double())
    assert order is None or next(order, None) is None  # every kink of the graph has been met
    return torch.autograd.grad(logits, leaf, torch.from_numpy(answer.cotangent).double())[0].numpy()


def interpreted(model: ModelProto, layer: str, answer: Answer) -> np.ndarray:
    """Return the same of an ONNX model as it was found, image by image, as its batch may be fixed."""
    rows = []
    for i in range(len(answer.features)):
        leaf = torch.from_numpy(answer.features[i : i + 1]).double().requires_grad_()
        known = {name: value[i : i + 1] for name, value in answer.seen.items()}
        logits = evaluate(model, layer, leaf, logits_of(model), known).reshape(1, -1)
        cotangent = torch.from_numpy(answer.cotangent[i : i + 1]).double()
        rows.append(torch.autograd.grad(logits, leaf, cotangent)[0].numpy())
    return np.concatenate(rows)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference, relative to the largest gradient."""
    assert found.shape == expected.shape
    assert np.abs(expected).max(axis=(1, 2, 3)).min() > 0  # for no image is there nothing to find
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """A folder that is removed at once: the bundles of the large networks would fill the disk."""
    yield tmp_path / "bundle"
    shutil.rmtree(tmp_path)


def cut(source: object, folder: Path, layer: str, **options: object) -> Bundle:
    export(source, folder, layer=layer, **{"overrides": {"scale": 1 / 255}, **options})
    return open_bundle(folder)


# --- PyTorch --------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Callable[..., Source]:
    """Return a network and the ONNX file that exporters makes of it; one is kept, for all its layers."""

    @lru_cache(1)
    def convert(name: str, *, full: bool = False) -> Source:
        network = NETWORKS[name]
        module, size = (network.full(), network.full_size) if full else (network.small(), network.small_size)
        path = tmp_path_factory.getbasetemp() / "network.onnx"
        onnx.save(read_source(module, None, (size, size)).model, path)
        return module, path

    return convert


@pytest.mark.parametrize(("name", "layer"), CASES)
def test_gradients_of_every_family_are_those_of_autograd(name, layer, converted, folder):
    module, path = converted(name)
    bundle = cut(path, folder, layer)
    x = images(bundle, 2)
    found = answer(bundle, x)
    assert error(found.gradients, autograd(module, layer, x, found)) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layer"), CASES)
def test_gradients_in_full_size_are_those_of_autograd_at_the_same_kinks(name, layer, converted, folder):
    module, path = converted(name, full=True)
    bundle = cut(path, folder, layer)
    x = images(bundle, 2)
    found = answer(bundle, x, watched=True)
    assert error(found.gradients, autograd(module, layer, x, found, kinks(bundle))) <= TOLERANCE


WEIGHTS = {
    "resnet": 11_689_512, "vgg": 138_357_544, "densenet": 7_978_856, "mobilenet": 5_483_032, "convnext": 28_589_128,
    "inception": 23_834_568, "squeezenet": 1_235_496,
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_full_networks_have_as_many_weights_as_the_published_ones(name):
    with torch.device("meta"):
        module = NETWORKS[name].build()
    assert sum(weight.numel() for weight in module.parameters()) == WEIGHTS[name]


# --- ONNX -----------------------------------------------------------------------------------------------------------------
QUICK = ("shufflenet", "squeezenet")


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in LIGHT])
def test_gradients_of_the_networks_that_onnx_carries_are_those_of_autograd_at_the_same_kinks(name, folder, tmp_path):
    model = light(name)
    source = graphs.save(model, tmp_path / "light.onnx")
    bundle = cut(source, folder, "r0")  # behind the first convolution: every operator is in the tail
    found = answer(bundle, 64 * images(bundle, 2), watched=True)  # as large as pixels: on small numbers LRN does nothing
    assert error(found.gradients, interpreted(model, "r0", found)) <= TOLERANCE


REAL = {
    "mobilenet_v2_tv": ("hardtanh", "hardtanh_34"),
    "squeezenet11_gluon": ("/features/features.1/Relu_output_0", "/features/features.12/Concat_output_0"),
    "googlenet_caffe": ("conv1/7x7_s2", "inception_5b/output"),
}


@pytest.mark.real
@pytest.mark.parametrize("layer", ["earliest", "auto"])
@pytest.mark.parametrize("name", REAL)
def test_gradients_of_real_models_on_photos_are_those_of_autograd_at_the_same_kinks(name, layer, real, folder):
    source = real / "models" / f"{name}.onnx"
    earliest, automatic = REAL[name]
    bundle = cut(
        source, folder, "auto" if layer == "auto" else earliest, preprocess=source.with_suffix(".json"), overrides=None
    )
    assert bundle.manifest.layer.name == (automatic if layer == "auto" else earliest)
    photos = [camrt.load_photo(path).pixels for path in sorted((real / "photos" / "sample").iterdir())[:2]]
    x = np.stack([preprocess_photo(pixels, bundle.manifest.preprocess)[0] for pixels in photos])
    found = answer(bundle, x, watched=True)
    assert error(found.gradients, interpreted(onnx.load(source), bundle.manifest.layer.name, found)) <= TOLERANCE
