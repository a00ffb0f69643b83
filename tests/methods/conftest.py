"""Networks cut into bundles once, for the judges of all methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

from tests.methods.judge import TAILS, Judge, deep, network


@pytest.fixture(scope="package", autouse=True)
def _one_thread():
    """Keep PyTorch off the cores of ONNX Runtime."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def late(tmp_path_factory) -> Judge:
    """Cut where 40 maps are nowhere negative; a tail of three layers and two ReLUs."""
    return Judge(deep(), "late", tmp_path_factory.mktemp("late"), direct=True)


@pytest.fixture(scope="session")
def early(tmp_path_factory) -> Judge:
    """Cut where 20 maps have both signs; five layers are left."""
    return Judge(deep(), "early", tmp_path_factory.mktemp("early"))


@pytest.fixture(params=["late", "early"])
def judge(request) -> Judge:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def behind(tmp_path_factory) -> Callable[[str], Judge]:
    """The network with one of `TAILS`, cut before it."""

    @cache
    def behind(tail: str) -> Judge:
        return Judge(network(*TAILS[tail]()), "late", tmp_path_factory.mktemp("tail"))

    return behind


@pytest.fixture(scope="session")
def linear(behind) -> Judge:
    return behind("global average pooling")


@pytest.fixture(scope="session")
def yes_no(tmp_path_factory) -> Judge:
    """One logit, whose probability is its sigmoid."""
    tail = nn.Conv2d(40, 12, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 6 * 8, 1)
    return Judge(network(*tail), "late", tmp_path_factory.mktemp("yes_no"), kind="sigmoid")
