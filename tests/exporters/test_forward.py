"""exporters.forward: a module as a judge, image by image where it takes no more."""

from __future__ import annotations

import contextlib
import warnings
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest

from camrt.errors import ExportError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from exporters.forward import evaluating, know_dataclasses, module_reference, tensors  # noqa: E402

SHAPE = (1, 3, 5, 6)
X = np.random.default_rng(1).standard_normal((4, *SHAPE[1:]), np.float32)


class Scores(nn.Module):
    """What `end` makes of the channels' means."""

    def __init__(self, end=lambda means: means, *parts):
        super().__init__()
        self.parts, self.end = nn.Sequential(*parts), end

    def forward(self, x):
        return self.end(self.parts(x).mean((2, 3)))


SINGLE = {
    "view": lambda means: means.view(1, -1),
    "first": lambda means: means[:1],
    "reshape": lambda means: means.reshape(1, 3),
    "no batch": lambda means: means.view(3)[None],
}
ANY = {
    "plain": lambda means: means,
    "shape": lambda means: means.view(int(means.shape[0]), -1),
    "dict": lambda m: {"logits": m},
}


@pytest.mark.parametrize("end", ANY.values(), ids=ANY)
def test_a_module_that_takes_batches_is_asked_in_one(end):
    asked = []
    module = Scores(end)
    reference = module_reference(module, SHAPE)
    module.register_forward_pre_hook(lambda _module, inputs: asked.append(len(inputs[0])))
    np.testing.assert_allclose(reference(X), X.mean((2, 3)), atol=1e-6)
    assert asked == [4]


@pytest.mark.parametrize("end", SINGLE.values(), ids=SINGLE)
def test_a_module_for_single_images_is_asked_one_by_one_with_a_warning(end):
    with pytest.warns(UserWarning, match="Scores itself works for one image at a time"):
        reference = module_reference(Scores(end), SHAPE)
    np.testing.assert_allclose(reference(X), X.mean((2, 3)), atol=1e-6)


DEPENDENT = {
    "its batch": Scores(lambda means: means - means.mean(0)),
    "'parts.0' normalises by the batch, as it has no running statistics": Scores(
        lambda means: means.square() + 1, nn.BatchNorm2d(3, track_running_stats=False), nn.ReLU()
    ),
}


@pytest.mark.parametrize(("cause", "module"), DEPENDENT.items(), ids=["mean", "batch norm"])
def test_a_module_that_compares_images_is_refused(cause, module):
    with pytest.raises(ExportError, match=f"What Scores says of an image depends on the other images in .*{cause}"):
        module_reference(module.eval(), SHAPE)


def test_statistics_of_the_batch_are_refused_where_it_has_one_image_too():
    with pytest.raises(ExportError, match="'parts.0' normalises by the batch"):
        module_reference(Scores(lambda m: m.view(1, -1), nn.BatchNorm2d(3, track_running_stats=False)), SHAPE)


def test_chance_is_refused():
    with pytest.raises(ExportError, match="Scores says something else of the same image every time"):
        module_reference(Scores(lambda means: means + torch.rand(3)), SHAPE)


def test_infinite_scores_are_left_to_the_proof():
    assert np.isinf(module_reference(Scores(lambda means: means * torch.inf), SHAPE)(X)).all()


def test_the_reference_is_that_of_eval_mode_and_leaves_the_mode():
    module = Scores(lambda means: means, nn.Dropout(0.5)).train()
    np.testing.assert_allclose(module_reference(module, SHAPE)(X), X.mean((2, 3)), atol=1e-6)
    assert module.training
    assert module.parts[0].training


def test_a_mode_is_restored_part_by_part_after_an_error():
    module = nn.Sequential(nn.ReLU().eval(), nn.ReLU())
    with contextlib.suppress(ZeroDivisionError), evaluating(module):
        assert not module[1].training
        raise ZeroDivisionError
    assert [part.training for part in module] == [False, True]


@dataclass
class Plain:
    """A dataclass that torch does not know."""

    loss: torch.Tensor | None
    logits: torch.Tensor


Pair = namedtuple("Pair", "logits aux")
ONE, TWO = torch.ones(1), torch.ones(2)
RESULTS = {
    "tensor": (ONE, ["output"]),
    "tuple": ((ONE, TWO), ["output_0", "output_1"]),
    "list": ([ONE, None, 3, TWO], ["output_0", "output_3"]),
    "dict": (OrderedDict(b=ONE, a=TWO), ["b", "a"]),
    "dataclass": (Plain(None, ONE), ["logits"]),
    "named tuple": (Pair(ONE, TWO), ["logits", "aux"]),
    "nested": ({"scores": (ONE, {"deep": TWO})}, ["scores_0", "scores_1_deep"]),
    "number": (3.5, []),
}


@pytest.mark.parametrize(("result", "names"), RESULTS.values(), ids=RESULTS)
def test_results_are_named_as_the_module_names_them(result, names):
    assert list(tensors(result)) == names


def test_dataclasses_become_known_once_and_for_all():
    for _ in range(2):
        know_dataclasses([{"inner": Plain(None, ONE)}])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Scores(lambda means: Plain(None, means)), (torch.zeros(SHAPE),))
    assert list(tensors(program.module()(torch.zeros(SHAPE)))) == ["logits"]
