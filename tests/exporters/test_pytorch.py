"""exporters.pytorch: a module in memory or behind a factory, with its weights, cut at a module's output."""

from __future__ import annotations

import pickle
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from camrt.bundle import Bundle, open_bundle
from camrt.errors import ExportError, UnknownLayer
from exporters import export, layers
from tests import graphs
from tests.exporters.helpers import images, split
from tests.networks import resnet18

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from torch import nn  # noqa: E402

SHAPES = Path(__file__).parents[2] / "models" / "shapes"
SCALED = {"scale": 1 / 255}


class Tiny(nn.Module):
    """conv → relu → mean → linear."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


def tiny() -> Tiny:
    torch.manual_seed(3)
    return Tiny()


def cut(source: object, folder: Path, **options: object) -> Bundle:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The module is in training mode")
        export(source, folder, **{"size": (16, 16), "overrides": SCALED, **options})
    return open_bundle(folder)


def assert_equals_module(bundle: Bundle, module: nn.Module) -> None:
    """Hold that tail(head(x)) equals the module in eval mode, three images in one batch."""
    x = images(bundle)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).reshape(3, -1).numpy()
    np.testing.assert_allclose(split(bundle, x), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """Write a module of that text, importable, and return its name."""
    (tmp_path / "code").mkdir()
    monkeypatch.syspath_prepend(tmp_path / "code")

    def write(name: str, text: str = "from tests.exporters.test_pytorch import tiny as make") -> str:
        (tmp_path / "code" / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return f"{name}:make"

    return write


# --- what is exported -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tiny_module_bundle(tmp_path_factory) -> Bundle:
    return cut(tiny().eval(), tmp_path_factory.mktemp("torch") / "bundle")


def test_a_module_in_memory_is_exported(tiny_module_bundle):
    assert tiny_module_bundle.manifest.features.shape == (-1, 6, 8, 8)
    assert tiny_module_bundle.manifest.split.error < 1e-5
    assert_equals_module(tiny_module_bundle, tiny())


def test_the_module_of_the_layer_and_the_class_are_recorded(tiny_module_bundle):
    manifest = tiny_module_bundle.manifest
    assert manifest.layer.module == "body.1"
    assert manifest.source.file == "Tiny"
    assert manifest.source.producer.startswith("pytorch")


def test_the_digest_is_that_of_the_weights(tmp_path, tiny_module_bundle):
    same = cut(tiny().eval(), tmp_path / "same")
    with torch.no_grad():
        changed = tiny().eval()
        changed.fc.bias[0] += 1
    other = cut(changed, tmp_path / "other")
    assert same.manifest.source.sha256 == tiny_module_bundle.manifest.source.sha256 != other.manifest.source.sha256


def test_the_digest_covers_every_type_of_weight(tmp_path):
    module = tiny().eval()
    module.register_buffer("brain_float", torch.ones(2, dtype=torch.bfloat16))
    assert len(cut(module, tmp_path / "bundle").manifest.source.sha256) == 64


@pytest.mark.parametrize(("name", "shape"), [("stage3", (80, 12, 12)), ("stage1.0", (40, 24, 24))])
def test_a_module_path_is_a_layer(name, shape, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SHAPES)
    import network

    torch.manual_seed(0)
    module = network.shapenet().eval()
    bundle = cut(module, tmp_path / "bundle", layer=name, size=(96, 96))
    assert bundle.manifest.features.shape[1:] == shape
    x, seen = images(bundle), []
    with torch.no_grad():
        module.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: seen.append(output.numpy()))
        module(torch.from_numpy(x))
    np.testing.assert_allclose(graphs.run(bundle.path("head"), {"image": x})[0], seen[0], rtol=1e-4, atol=1e-4)
    assert_equals_module(bundle, module)


def test_layers_lists_module_paths():
    found = layers(tiny().eval(), size=(16, 16))
    assert [(choice.module, choice.shape) for choice in found] == [("body.1", (6, 8, 8)), ("body.0", (6, 8, 8))]


def test_an_unknown_module_path_gets_a_suggestion(tmp_path):
    with pytest.raises(UnknownLayer, match="Tiny has no layer 'bdy'. Did you mean 'body'"):
        cut(tiny().eval(), tmp_path / "bundle", layer="bdy")


def test_the_usual_size_is_224():
    assert layers(tiny().eval())[0].shape == (6, 112, 112)


def test_a_size_need_not_be_square(tmp_path):
    bundle = cut(tiny().eval(), tmp_path / "bundle", size=(16, 24))
    assert bundle.manifest.size == (16, 24)
    assert_equals_module(bundle, tiny())


class End(nn.Module):
    """A classifier with something at its end."""

    def __init__(self, end: nn.Module):
        super().__init__()
        self.model, self.end = tiny(), end

    def forward(self, x):
        return self.end(self.model(x))


@pytest.mark.parametrize(("end", "kind"), [(nn.Softmax(1), "logits"), (nn.LogSoftmax(1), "logits"), (nn.Sigmoid(), "sigmoid")])
def test_a_closing_activation_is_cut_off(end, kind, tmp_path):
    bundle = cut(End(end).eval(), tmp_path / "bundle")
    assert (bundle.manifest.activation, bundle.manifest.kind) == (type(end).__name__, kind)
    assert_equals_module(bundle, tiny())


class Several(Tiny):
    """Returns scores and features."""

    def forward(self, x):
        features = self.body(x)
        return self.fc(features.mean((2, 3))), features


@dataclass
class Found:
    """What a module returns, as dataclasses of libraries do."""

    loss: torch.Tensor | None
    logits: torch.Tensor
    hidden: list[torch.Tensor]


class Named(Several):
    """Returns them by name, under a name that its input has too."""

    def forward(self, x):
        logits, features = super().forward(x)
        return Found(None, logits, [features, {"x": logits + 1}])


@pytest.mark.parametrize(
    ("kind", "name", "listed"),
    [
        (Named, "logits", r"logits \(1, 4\), hidden_0 \(1, 6, 8, 8\), hidden_1_x \(1, 4\)"),
    ],
)
def test_one_of_several_outputs_is_exported_by_the_name_it_has_in_torch(kind, name, listed, tmp_path):
    torch.manual_seed(3)
    module = kind().eval()
    with pytest.raises(ExportError, match=rf"has \d outputs: {listed}\. Choose one: --output NAME"):
        cut(module, tmp_path / "bundle")
    assert_equals_module(cut(module, tmp_path / "bundle", output=name), tiny())


class Block(nn.Module):
    """What older torch networks have in them: a shuffle, a resize, a group norm, a gate, a view with the batch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.Hardswish())
        self.down = nn.Conv2d(8, 8, 3, 2, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.last = nn.ReLU()
        self.fc = nn.Linear(8 * 4, 4)

    def forward(self, x):
        x = self.stem(x)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = x + nn.functional.interpolate(self.down(x), size=(h, w), mode="bilinear")
        x = x + nn.functional.interpolate(nn.functional.avg_pool2d(x, 2), scale_factor=2, mode="nearest")
        x = self.last(x * self.gate(x))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 2).view(n, -1))


def test_shuffles_resizes_and_gates_take_any_batch(tmp_path):
    torch.manual_seed(0)
    module = Block().eval()
    bundle = cut(module, tmp_path / "bundle")
    assert bundle.manifest.layer.module == "last"
    assert_equals_module(bundle, module)


# --- mode -----------------------------------------------------------------------------------------------------------------
def test_training_mode_is_left_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="training mode; it is exported in eval mode") as caught:
        export(tiny(), tmp_path / "bundle", size=(16, 16), overrides=SCALED)
    assert caught[0].filename == __file__
    assert_equals_module(open_bundle(tmp_path / "bundle"), tiny())


def test_the_module_stays_in_the_mode_it_was_in(tmp_path):
    module = nn.Sequential(tiny().train(), nn.Dropout(0.5))
    cut(module, tmp_path / "bundle")
    assert module.training
    assert module[0].training


def test_dropout_and_batch_statistics_are_those_of_eval_mode(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.9), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module[1].running_mean += 0.5
    assert_equals_module(cut(module, tmp_path / "bundle"), module)


def test_a_factory_is_exported_in_silence(tmp_path, factory, capfd):
    export(factory("silent"), tmp_path / "bundle", size=(16, 16), overrides=SCALED)
    assert capfd.readouterr() == ("", "")
    assert_equals_module(open_bundle(tmp_path / "bundle"), tiny())


# --- batches ---------------------------------------------------------------------------------------------------------------
class OneByOne(Tiny):
    """Takes one image at a time, as code that was never run in batches does."""

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)).view(1, -1))


def test_a_module_for_single_images_becomes_a_bundle_for_any_number(tmp_path):
    torch.manual_seed(3)
    with pytest.warns(
        UserWarning, match="OneByOne itself works for one image at a time; the bundle takes any number"
    ) as caught:
        export(OneByOne().eval(), tmp_path / "bundle", size=(16, 16), overrides=SCALED)
    assert [warning.filename for warning in caught] == [__file__]
    assert_equals_module(open_bundle(tmp_path / "bundle"), tiny())


# --- factories and weights ------------------------------------------------------------------------------------------------
def other_weights() -> Tiny:
    torch.manual_seed(8)
    return Tiny()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_a_factory_gets_its_weights(suffix, tmp_path, factory):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(other_weights().state_dict(), path)
    else:
        torch.save(other_weights().state_dict(), path)
    bundle = cut(factory("weighted"), tmp_path / "bundle", weights=path)
    assert bundle.manifest.source.file == "weighted:make"
    assert_equals_module(bundle, other_weights())


def test_a_factory_in_the_current_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "beside_me.py").write_text("from tests.exporters.test_pytorch import tiny as make")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert cut("beside_me:make", tmp_path / "bundle").manifest.classes == 4
    assert sys.path == path


def test_a_factory_in_a_package_is_found(tmp_path):
    assert cut("tests.exporters.test_pytorch:tiny", tmp_path / "bundle").manifest.classes == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def make(): raise RuntimeError('no\\nGPU')", r"calling it without arguments failed \(RuntimeError: no GPU\)"),
        ("def make(classes): pass", r"failed \(TypeError: make\(\) missing 1 required"),
        ("import a_module_that_is_not_there", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("def mak(): pass", "has no 'make'. Did you mean 'mak'"),
        ("make = 3", "TypeError: 'int' object is not callable"),
        ("def make(:", "SyntaxError"),
        ("def make(): return {'weight': 1}", "gave dict, not an nn.Module"),
        ("def make(): return None", "gave NoneType, not an nn.Module"),
        ("from tests.exporters.test_pytorch import Tiny\ndef make(): return Tiny", "gave type, not an nn.Module"),
    ],
)
def test_a_factory_that_gives_no_module_is_refused(text, message, tmp_path, factory):
    with pytest.raises(ExportError, match=message) as caught:
        cut(factory("bad", text), tmp_path / "bundle")
    assert "bad:make" in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_a_factory_that_is_nowhere_is_refused(tmp_path):
    with pytest.raises(ExportError, match="nowhere_at_all:make: .*No module named 'nowhere_at_all'"):
        cut("nowhere_at_all:make", tmp_path / "bundle")


@pytest.mark.parametrize("source", [None, 3, {"a": 1}, Tiny])
def test_what_is_no_module_is_refused(source, tmp_path):
    with pytest.raises(ExportError, match="not an nn.Module"):
        cut(source, tmp_path / "bundle")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_a_module_of_another_precision_is_refused(kind, tmp_path):
    with pytest.raises(ExportError, match=rf"Tiny has weights of {kind}; a bundle computes in float32\. Give model\.float\(\)"):
        cut(tiny().to(kind), tmp_path / "bundle")


def test_torchscript_in_memory_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(tiny().eval(), torch.zeros(1, 3, 16, 16))
    with pytest.raises(ExportError, match="is TorchScript, which torch cannot export. Give the nn.Module"):
        cut(traced, tmp_path / "bundle")


def write_weights(kind: str, path: Path) -> Path:
    """Write a weights file that is not one for `tiny`."""
    if kind == "garbage":
        path.write_bytes(b"garbage")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"a": print}))
    elif kind == "cut short":
        torch.save(tiny().state_dict(), path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind != "missing":
        saved = {
            "module": tiny(),
            "list": [torch.ones(2)],
            "tensor": torch.ones(2),
            "other network": nn.Linear(2, 2).state_dict(),
            "other shape": {**tiny().state_dict(), "fc.bias": torch.ones(7)},
            "numbers": dict.fromkeys(tiny().state_dict(), 1.0),
            "indices": {0: torch.ones(2)},
        }
        torch.save(saved[kind], path)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "there is no such file. Give the checkpoint"),
        ("garbage", "no readable state dict"),
        ("pickle", "no readable state dict"),
        ("cut short", "no readable state dict"),
        ("module", "no readable state dict"),
        ("list", "holds no weights"),
        ("tensor", "holds no weights"),
        ("other network", "does not fit Tiny"),
        ("other shape", "does not fit Tiny: .* 1 of other shape .*fc.bias is 7, the module's 4"),
        ("numbers", "holds no weights"),
        ("indices", "holds no weights"),
    ],
)
def test_weights_that_do_not_fit_are_refused(kind, message, tmp_path):
    with pytest.raises(ExportError, match=message) as caught:
        cut(tiny(), tmp_path / "bundle", weights=write_weights(kind, tmp_path / "w.pt"))
    assert "w.pt" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_a_safetensors_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"garbage")
    with pytest.raises(ExportError, match=r"w\.safetensors: no readable state dict"):
        cut(tiny(), tmp_path / "bundle", weights=tmp_path / "w.safetensors")


def test_a_pickle_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "hacked", "yes"))

    torch.save({"fc.bias": Evil()}, tmp_path / "w.pt")
    with pytest.raises(ExportError, match="no readable state dict"):
        cut(tiny(), tmp_path / "bundle", weights=tmp_path / "w.pt")
    assert not (tmp_path / "hacked").exists()


class Stubborn(Tiny):
    """What torch.export cannot trace."""

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3))) if x.sum().item() > 0 else x


class Compares(Tiny):
    """Normalises by the batch, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.body.append(nn.BatchNorm2d(6, track_running_stats=False))


def test_a_module_that_compares_images_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"depends on the other images in its batch \('body\.2' normalises by the batch"):
        cut(Compares().eval(), tmp_path / "bundle")


def test_a_module_that_torch_cannot_export_is_told_on_one_line(tmp_path, capfd):
    with pytest.raises(ExportError, match=r"torch cannot export Stubborn for an image of 1 x 3 x 16 x 16 \(--size\)") as caught:
        cut(Stubborn().eval(), tmp_path / "bundle")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_size_that_does_not_fit_is_told(tmp_path):
    with pytest.raises(ExportError, match="for an image of 1 x 3 x 16 x 16"):
        cut(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 900, 5)).eval(), tmp_path / "bundle")


def test_an_onnx_file_needs_no_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "exporters.pytorch", raising=False)
    assert cut(graphs.save(graphs.classifier(), tmp_path / "m.onnx"), tmp_path / "bundle", size=None).manifest.classes == 5
    with pytest.raises(ExportError, match=r"needs PyTorch: pip install torch onnxscript safetensors"):
        export("some:factory", tmp_path / "other")


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "shape"), [("auto", (512, 7, 7)), ("layer3", (256, 14, 14)), ("layer2.0", (128, 28, 28))])
def test_resnet18_is_reproduced_at_every_stage(layer, shape, tmp_path):
    module = resnet18().eval()
    manifest = export(module, tmp_path / "bundle", layer=layer, preset="imagenet", size=(224, 224))
    assert manifest.features.shape == (-1, *shape)
    x = np.random.default_rng(0).standard_normal((2, 3, 224, 224), np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    found = split(open_bundle(tmp_path / "bundle"), x)
    assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max())
