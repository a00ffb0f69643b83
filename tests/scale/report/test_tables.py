from __future__ import annotations

from camrt.scale.report import page

from .datasets import found, summary_of, wandering, write


def test_classes_beyond_two_hundred_are_counted(tmp_path, random):
    photos = [[found(i, wandering(random, 3))] for i in range(205)] + [[found(204, wandering(random, 3))]]
    html = page(summary_of(write(tmp_path / "out", [photos])))
    assert html.count('alt="Mean heatmap of class-') == 200
    assert "5 classes more" in html
    assert 'alt="Mean heatmap of class-204"' in html
