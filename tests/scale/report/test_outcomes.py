from __future__ import annotations

from camrt.scale.report import page
from camrt.scale.schema import crashed

from .datasets import found, summary_of, unreadable, write


def test_alike_messages_are_counted_together_and_some_photos_named(tmp_path, random):
    photos = [(f"p{i}", f"/a/p{i}.jpg", [unreadable(f"/a/p{i}.jpg: cut short ({i} bytes).")]) for i in range(30)]
    photos += [("q", "/a/q.jpg", [crashed("the worker died (SIGSEGV)")]), ("r", "/a/r.jpg", [found(0, None)])]
    summary = summary_of(write(tmp_path / "out", [photos]))
    assert summary.survey.outcomes.counts == {"unreadable": 30, "crashed": 1, "flat_map": 1}
    first, *others = summary.survey.outcomes.groups
    assert (first.message, first.count, first.named) == ("cut short (0 bytes).", 30, [f"p{i}" for i in range(20)])
    assert {group.outcome for group in others} == {"crashed", "flat_map"}
    html = page(summary)
    assert "and 10 more" in html
    assert "the worker died (SIGSEGV)" in html
    assert "32 of 32 rows have no heatmap" in html
