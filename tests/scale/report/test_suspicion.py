from __future__ import annotations

import pytest

from camrt.scale.report import cautions, headline

from .datasets import found, spot, summary_of, wandering, write


def test_a_class_that_always_looks_at_one_corner_is_named_first(cornered):
    summary = summary_of(cornered)
    assert [one.index for one in summary.suspects] == [3]
    assert summary.classes[0].index == 3
    assert (summary.classes[0].peak.words, summary.classes[0].peak.distance) == ("bottom right", 1)
    assert headline(summary).startswith(
        "“class-3” looks like a shortcut: in photo after photo the model looks at the bottom right"
    )
    assert summary.classes[0].agreement > 0.9
    assert all(one.agreement < 0.3 for one in summary.classes[1:])


def test_where_most_classes_are_shortcuts_all_of_them_are_found(tmp_path, random):
    corners = [(0, 0), (0, 5), (5, 0)]
    photos = [[found(i, spot(*corner))] for i, corner in enumerate(corners) for _ in range(12)]
    photos += [[found(9, wandering(random))] for _ in range(12)]
    summary = summary_of(write(tmp_path / "out", [photos]))
    assert {one.index for one in summary.suspects} == {0, 1, 2}
    assert headline(summary).startswith("3 classes look like shortcuts")
    for place in ("top left", "top right", "bottom left"):
        assert place in headline(summary)


def test_photos_that_are_all_centred_are_no_shortcut_of_a_class_but_are_told_of(tmp_path, random):
    photos = [[found(i % 4, spot(*(2.5 + random.normal(0, 0.3, 2))))] for i in range(80)]
    summary = summary_of(write(tmp_path / "out", [photos]))
    assert summary.agreement > 0.8
    assert not summary.suspects
    assert headline(summary).startswith("No class looks like a shortcut")
    (caution,) = cautions(summary)
    assert "agree whatever the class" in caution
    assert "the centre" in caution


@pytest.mark.parametrize(("count", "suspected"), [(9, False), (10, True)])
def test_few_photos_are_never_suspicious(tmp_path, random, count, suspected):
    photos = [[found(0, spot(0, 0))] for _ in range(count)] + [[found(1, wandering(random))] for _ in range(30)]
    summary = summary_of(write(tmp_path / "out", [photos]))
    assert [one.index for one in summary.suspects] == ([0] if suspected else [])
