from __future__ import annotations

import pytest

from camrt.scale.report import cautions, headline, page

from .datasets import found, spot, summary_of, wandering, write


def test_one_class_alone_cannot_be_compared(tmp_path):
    summary = summary_of(write(tmp_path / "out", [[[found(4, spot(0, 0))] for _ in range(20)]]))
    assert (summary.classes[0].agreement, summary.classes[0].others) == (pytest.approx(1, abs=1e-5), None)
    assert not summary.suspects
    assert "cannot be compared" in headline(summary)
    assert "with others" in page(summary)


def test_without_ten_photos_of_any_class_nothing_is_said(tmp_path, random):
    summary = summary_of(write(tmp_path / "out", [[[found(i, wandering(random))] for i in range(9)]]))
    assert headline(summary).startswith("Whether the model takes shortcuts cannot be said")
    assert cautions(summary) == []
