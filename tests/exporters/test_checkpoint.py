"""exporters.checkpoint: weights as training leaves them, or a sentence about why they do not fit."""

from __future__ import annotations

import argparse
import warnings

import pytest

from camrt.errors import ExportError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from exporters.checkpoint import find_weights, load_weights  # noqa: E402


def net(seed: int = 0, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes))


def state(seed: int = 1, prefix: str = "") -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in net(seed).state_dict().items()}


def optimizer() -> dict[str, object]:
    module = net()
    made = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    module(torch.ones(2, 3, 3, 3)).sum().backward()
    made.step()
    return made.state_dict()


def loaded(saved: object, tmp_path, module: nn.Module | None = None) -> nn.Module:
    torch.save(saved, tmp_path / "w.pt")
    module = module or net()
    load_weights(module, tmp_path / "w.pt")
    return module


def assert_has(module: nn.Module, seed: int) -> None:
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, net(seed).state_dict()[name]), name


AS_SAVED = {
    "alone": lambda: state(),
    "DataParallel": lambda: nn.DataParallel(net(1)).state_dict(),
    "torch.compile": lambda: state(prefix="_orig_mod."),
    "compiled and parallel": lambda: state(prefix="_orig_mod.module."),
    "a compiled part": lambda: {name.replace("3.", "3._orig_mod."): tensor for name, tensor in state().items()},
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(net(1)).state_dict(),
    "Lightning": lambda: {
        "epoch": 3, "state_dict": state(prefix="model."), "optimizer_states": [optimizer()], "callbacks": {"best": torch.ones(1)},
        "hyper_parameters": {"lr": 0.1}, "lr_schedulers": [], "pytorch-lightning_version": "2",
    },
    "state_dict": lambda: {"epoch": 3, "best": torch.tensor(0.9), "state_dict": state(), "optimizer": optimizer()},
    "model_state_dict": lambda: {"model_state_dict": state(), "optimizer_state_dict": optimizer(), "loss": 0.1},
    "model": lambda: {"model": state(), "scaler": {"scale": torch.ones(1)}, "lr_scheduler": {"last": torch.ones(1)}},
    "net, prefixed": lambda: {"net": state(prefix="net.")},
    "two deep": lambda: {"state": {"model": state(), "optimizer": optimizer()}},
    "timm": lambda: {"arch": "resnet", "state_dict": state(), "args": argparse.Namespace(lr=0.1, size=(3, 3)), "metric": 0.7},
    "only an average": lambda: {"state_dict_ema": state()},
    "without counters": lambda: {n: t for n, t in state().items() if not n.endswith("num_batches_tracked")},
    "two networks": lambda: {"backbone": nn.Linear(2, 2).state_dict(), "classifier": state()},
}  # fmt: skip


@pytest.mark.parametrize("make", AS_SAVED.values(), ids=AS_SAVED)
def test_weights_are_found_as_training_leaves_them(make, tmp_path):
    assert_has(loaded(make(), tmp_path), 1)


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema", "ema", "ema_state_dict", "swa_model"])
def test_of_weights_and_their_average_the_weights_are_taken_with_a_warning(average, tmp_path):
    with pytest.warns(
        UserWarning, match=rf"w\.pt holds weights, 'model', and their average .*'{average}'.* weights were taken"
    ):
        assert_has(loaded({average: state(2), "model": state(1)}, tmp_path), 1)


def test_what_lies_beside_prefixed_weights_is_named(tmp_path):
    saved = {**state(prefix="model."), "loss.weight": torch.ones(3)}
    with pytest.warns(UserWarning, match=r"under 'model\.' were taken, not loss\.weight, which the module has no place for"):
        assert_has(loaded(saved, tmp_path), 1)


def test_of_averages_under_a_prefix_the_weights_are_taken(tmp_path):
    with pytest.warns(UserWarning, match=r"under 'model\.' were taken"):
        assert_has(loaded({**state(prefix="model."), **state(2, prefix="model_ema.")}, tmp_path), 1)


def test_a_prefix_of_the_module_itself_stays(tmp_path):
    assert_has(loaded(state(prefix="module."), tmp_path, nn.DataParallel(net())).module, 1)


def test_safetensors_lose_their_prefix_too(tmp_path):
    pytest.importorskip("safetensors.torch").save_file(state(prefix="module."), tmp_path / "w.safetensors")
    module = net()
    load_weights(module, tmp_path / "w.safetensors")
    assert_has(module, 1)


OTHER = {
    "other names": (
        lambda: {f"a{i}": torch.ones(1) for i in range(5)},
        r"of the weights 8 of 9 are missing \(0\.bias, 0\.weight, 1\.bias, and 5 more\), 5 are unexpected \(a0, a1, a2, and 2 more\)",
    ),
    "one too few behind a prefix": (
        lambda: {n: t for n, t in state(prefix="_orig_mod.module.").items() if not n.endswith("3.bias")},
        r"weights 1 of 9 are missing \(3\.bias\)\. Is it",
    ),
    "one too few": (lambda: {n: t for n, t in state().items() if n != "3.bias"}, r"1 of 9 are missing \(3\.bias\)\."),
    "one too many": (lambda: {**state(), "4.bias": torch.ones(2)}, r"1 are unexpected \(4\.bias\)\."),
    "other classes": (
        lambda: net(classes=7).state_dict(),
        r"2 of other shape \(3\.weight is 7 x 4, the module's 3 x 4; 3\.bias is 7, the module's 3\)\. Does the factory make as many",
    ),
    "two that fit": (
        lambda: {"student": state(), "teacher": state()},
        r"holds several weights, 'student' \(9 tensors\), 'teacher' \(9 tensors\), and several fit Sequential\. Save the right",
    ),
    "two that do not fit": (lambda: {"a": {"x": torch.ones(1)}, "b": {"x": torch.ones(1)}}, "and none fits Sequential"),
    "two prefixes": (lambda: {**state(prefix="a."), **state(prefix="b.")}, r"for Sequential under 'a\.', 'b\.'\. Save the right"),
    "nothing": (dict, "holds no weights: no mapping of names to tensors"),
    "only an optimizer": (lambda: {"optimizer": optimizer()}, "holds no weights"),
    "a module": (lambda: net(), r"it is a pickle that would run torch\.nn\.modules\.container\.Sequential, and nothing in a file"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), OTHER.values(), ids=OTHER)
def test_weights_of_something_else_are_refused_on_one_line(make, message, tmp_path):
    with pytest.raises(ExportError, match=message) as caught:
        loaded(make(), tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "w.pt"))
    assert "\n" not in str(caught.value)


def test_torchscript_is_no_checkpoint(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(net().eval(), torch.ones(1, 3, 3, 3)), tmp_path / "w.pt")
    with pytest.raises(ExportError, match=r"w\.pt is TorchScript, .*is not loaded\. Save the weights"):
        load_weights(net(), tmp_path / "w.pt")


def test_a_mapping_in_a_mapping_is_found_with_its_place():
    assert [key for key, _ in find_weights({"a": {"b": state()}, "c": [state()], "d": {1: torch.ones(1)}})] == ["a.b"]
