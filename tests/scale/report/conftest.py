"""A dataset with a shortcut, which several files look at."""

from __future__ import annotations

import numpy as np
import pytest

from .datasets import write_cornered


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def cornered(tmp_path, random) -> str:
    return write_cornered(tmp_path / "cornered", random)
