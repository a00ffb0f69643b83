from __future__ import annotations

import re

from camrt.scale.asked import ask
from camrt.scale.report import page

from ..conftest import run
from .datasets import summary_of, write_hostile


def test_the_page_needs_nothing_beside_it_and_runs_nothing(cornered):
    html = page(summary_of(cornered))
    assert "default-src &#x27;none&#x27;" in html
    assert "<script" not in html
    assert not re.search(r'(src|href)="(?!data:image/jpeg;base64,|#)', html)


def test_texts_of_the_dataset_are_never_markup(tmp_path, random):
    html = page(summary_of(write_hostile(tmp_path / "out", random)))
    assert "<img src=x" not in html
    assert html.count("&lt;img src=x onerror=alert(1)&gt;") > 20
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_what_batch_wrote_is_shown_with_its_photos(tiny_bundle, photos, tmp_path):
    run(ask(tiny_bundle, [str(photos)], str(tmp_path / "out"), shard_size=5, top=2))
    html = page(summary_of(tmp_path / "out"))
    assert "Heatmap over 00.png" in html
    assert "Heatmap, without the photo" not in html
