"""camrt.evaluate.page: it holds what was found, needs nothing beside it, and takes names for text."""

from __future__ import annotations

import base64
import re
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import camrt
from camrt.cli import camrt as cli
from camrt.evaluate import METRICS, Summary, summarise
from camrt.evaluate.gallery import window_of
from camrt.evaluate.page import page
from camrt.evaluate.variant import CONTROLS
from camrt.image import preprocess_photo
from camrt.markup import readable
from camrt.photo import load_photo
from camrt.picture import SIDE

from .conftest import GONE, HOSTILE, METHODS, evaluation_of

VOID = {"meta", "img", "br", "wbr"}


class Parsed(HTMLParser):
    """Tags with their attributes, the text by the element around it, and whether every tag is closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(part) for tag, part in self.text.items() if tag not in ("style", "script"))


@pytest.fixture(scope="module")
def text(summary) -> str:
    return page(summary)


@pytest.fixture(scope="module")
def parsed(text) -> Parsed:
    return Parsed(text)


def test_it_needs_nothing_beside_it(text, parsed):
    links = [
        value for _, attributes in parsed.tags for name, value in attributes.items() if name in ("src", "href", "xlink:href")
    ]
    assert links
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in links)
    assert not parsed.all("link")
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_a_policy_lets_only_its_own_script_run(text, parsed):
    policy = next(meta["content"] for meta in parsed.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert re.search(r"script-src 'sha256-[\w+/]+='", policy)
    assert len(parsed.all("script")) == 1
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]


def test_every_method_is_there_with_its_intervals(summary, parsed):
    names = [attributes["data-value"] for attributes in parsed.all("th") if "data-value" in attributes]
    assert names == [name for name in [*METHODS, *CONTROLS] if name != "cam"]
    for row in summary.rows[:3]:
        for figure in row.figures.values():
            assert f"{figure.low:z.3f} … {figure.high:z.3f}".replace("-", "−") in parsed.text["small"]
    reason = next(row.unavailable for row in summary.rows if row.variant.name == "cam")
    assert reason in parsed.words
    for name in summary.measured:
        assert METRICS[name].help in parsed.words


def test_every_difference_that_is_decided_is_marked_by_more_than_colour(summary, parsed):
    verdicts = Counter(difference.verdict for row in summary.rows for difference in row.differences.values())
    assert verdicts["worse"]
    assert verdicts["undecided"]
    unseen = Counter(word.strip() for word in parsed.text["span"] if word in (" better", " worse"))
    marks = Counter(word for word in parsed.text["span"] if word in ("▲", "▼"))
    assert unseen == {word: verdicts[word] for word in ("better", "worse") if verdicts[word]}
    assert (marks["▲"], marks["▼"]) == (verdicts["better"], verdicts["worse"])


def test_names_and_errors_are_text_and_never_markup(text, parsed):
    assert readable(HOSTILE) in parsed.words
    assert "<script>no photo" not in text
    assert "onerror=alert" not in "".join(map(str, parsed.all("img")[0].keys()))
    assert not any(image.get("src") == "x" for image in parsed.all("img"))
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_pictures_have_alternatives_and_their_size(summary, parsed):
    images = parsed.all("img")
    shown = [shown for shown in summary.shown if shown.name != GONE]
    assert len(images) == sum(1 + len(shown.results) for shown in shown)
    for image in images:
        assert image["alt"]
        data = np.frombuffer(base64.b64decode(image["src"].partition(",")[2]), np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (int(image["height"]), int(image["width"]), 3)


def test_a_photo_that_has_vanished_is_told_of_in_its_place(summary, parsed):
    assert GONE in [shown.name for shown in summary.shown]
    assert sum(GONE in paragraph and "cannot be read" in paragraph for paragraph in parsed.text["p"]) == 1


def test_a_photo_that_has_changed_is_not_shown_under_the_old_figures(shapes, scenes, tmp_path):
    (tmp_path / "photo.png").write_bytes((scenes / "photos" / "b.png").read_bytes())
    evaluation = evaluation_of(shapes, tmp_path, ["grad-cam"])
    summary = summarise(evaluation, evaluation.run(tmp_path / "report"))
    assert Parsed(page(summary)).all("img")
    (tmp_path / "photo.png").write_bytes((scenes / "photos" / "c.png").read_bytes())
    changed = Parsed(page(summary))
    assert not changed.all("img")
    assert "has changed since it was measured" in changed.words


def test_headings_are_in_order_and_ids_there_once(parsed):
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in parsed.all("a")} <= set(ids)
    assert parsed.all("html") == [{"lang": "en"}]


def test_everything_that_is_needed_to_repeat_it_is_told(summary, parsed):
    engine, manifest = summary.evaluation.explainer.engine, summary.evaluation.explainer.manifest
    for value in (engine.bundle.sha256, manifest.source.sha256, camrt.__version__, engine.provider, "protocol rise, 5 points"):
        assert value in parsed.words
    for variant in summary.evaluation.variants:
        assert all(f"{name} = {value}" in parsed.words for name, value in variant.settings.items())


def test_failed_photos_and_heatmaps_of_zeros_are_named(summary):
    key = ("b.png", "grad-cam")
    results = {**summary.results, key: replace(summary.results[key], outcome="no_positive_evidence")}
    words = Parsed(page(replace(summary, results=results))).words
    assert "1 photo could not be measured" in words
    assert "grad-cam: no positive evidence (1)" in words


def test_it_is_the_same_every_time(summary, text):
    assert page(summary) == text


def test_it_stays_small(text):
    assert len(text) < 2_000_000


def test_it_says_better_only_where_the_interval_excludes_0(summary, parsed):
    finding = " ".join(parsed.text["p"][:1])
    assert finding.startswith("On 4 photos, ")
    better = [
        row.variant.name for row in summary.rows
        if row.variant.method and "insertion_deletion" in row.differences and row.differences["insertion_deletion"].verdict == "better"
    ]  # fmt: skip
    assert ("no method is better than" in finding) == (not better)
    assert all(name in finding for name in better)
    assert "4 photos are few" in parsed.words


def summary_of(shapes, scenes, tmp_path, photos, methods, **options) -> Summary:
    (tmp_path / "photos").mkdir()
    for name in photos:
        (tmp_path / "photos" / name).write_bytes((scenes / "photos" / name).read_bytes())
    evaluation = evaluation_of(shapes, tmp_path / "photos", methods, **options)
    return summarise(evaluation, evaluation.run(tmp_path / "report"))


@pytest.mark.parametrize(
    ("photos", "methods", "options", "told"),
    [
        (["b.png"], ["grad-cam", "eigen-cam"], {}, "On 1 photo, no method is better than grad-cam"),
        (
            ["b.png", "c.png"],
            ["grad-cam"],
            {"controls": False},
            "On 2 photos, only grad-cam was measured: insertion − deletion",
        ),
        (["b.png"], ["grad-cam"], {"controls": False, "groups": ("seeds",)}, "No figure applies to these photos"),
        (["b.png"], ["cam"], {"controls": False}, "None of the methods could run on this bundle"),
        (["b.png"], ["cam"], {}, "None of the methods could run on this bundle"),
        (["none.png"], ["grad-cam"], {}, "Of 1 photo, none could be measured"),
    ],
    ids=["one photo", "one method", "no figure", "no method", "controls alone", "no photo"],
)
def test_a_report_with_little_in_it_says_so(shapes, scenes, tmp_path, photos, methods, options, told):
    words = Parsed(page(summary_of(shapes, scenes, tmp_path, photos, methods, **options))).words
    assert told in words
    assert "nan" not in words.lower().split()


def test_the_photo_is_shown_as_the_network_sees_it(shapes, scenes):
    evaluation = evaluation_of(shapes, scenes / "photos", ["grad-cam"])
    subject = next(s for s in evaluation.subjects if s.name == "b.png")
    window = window_of(subject, shapes)
    x, _ = preprocess_photo(load_photo(subject.path).pixels, shapes.manifest.preprocess)
    assert window.shape == (96, 96, 3)  # smaller than SIDE, so it is not resized
    assert SIDE >= 96
    np.testing.assert_allclose(window.transpose(2, 0, 1), (x + 1) * 127.5, rtol=0, atol=0.51)


@pytest.mark.parametrize(("module", "groups"), [("matplotlib.figure", "faithfulness"), ("scipy.stats", "faithfulness,road")])
def test_a_missing_package_is_told_before_anything_is_measured(monkeypatch, scenes, tmp_path, module, groups):
    monkeypatch.setitem(sys.modules, module, None)
    arguments = ["evaluate", "shapes", str(scenes / "photos"), "-o", str(tmp_path / "report"), "--metrics", groups]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert re.search("pip install (matplotlib|scipy)", result.output)
    assert not (tmp_path / "report").exists()
