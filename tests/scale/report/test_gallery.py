from __future__ import annotations

import re

import cv2
import numpy as np

from camrt.scale.report import page
from camrt.scale.report.gallery import Gallery

from .datasets import SIDE, found, spot, summary_of, write


def test_the_least_probable_and_the_strangest_are_shown_first(tmp_path, random):
    photos = [(f"usual-{i}", "", [found(0, spot(1, 1) + 0.1 * random.random((SIDE, SIDE)))]) for i in range(30)]
    photos.insert(7, ("unsure", "", [found(0, spot(1, 1), probability=0.2)]))
    photos.insert(9, ("strange", "", [found(0, spot(5, 5))]))
    summary = summary_of(write(tmp_path / "out", [photos[:8], photos[8:]]))
    html = page(summary)
    assert re.search(r'<section id="unsure">.*?<b title="unsure">', html)
    assert '<b title="usual-' not in re.search(r'<section id="unsure">.*?<b title="unsure">', html)[0]
    assert '<b title="usual-' not in re.search(r'<section id="strange">.*?<b title="strange">', html)[0]


def test_photos_that_cannot_be_read_are_missing_but_not_those_that_nobody_asked_for(tmp_path):
    cv2.imwrite(str(tmp_path / "there.png"), np.full((40, 60, 3), 90, np.uint8))
    row = {"where": (40, 60, 32, 32, 0, 0, 32, 32)}
    photos = [(name, str(tmp_path / f"{name}.png"), [found(0, spot(0, 0), **row)]) for name in ("there", "gone")]
    summary = summary_of(write(tmp_path / "out", [photos]))
    asked, not_asked = Gallery(summary, True), Gallery(summary, False)
    shown, hidden = ("".join(gallery.least_probable()) for gallery in (asked, not_asked))
    assert "Heatmap over there" in shown
    assert "Heatmap, without the photo, of gone" in shown
    assert "Heatmap over" not in hidden
    assert (asked.missing, not_asked.missing) == (1, 0)
