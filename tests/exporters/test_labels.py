"""exporters.labels: one label per class, from text, JSON or a list."""

from __future__ import annotations

import json

import pytest

from camrt.errors import ExportError
from exporters.labels import read_labels

LABELS = ("tench", "goldfish, Carassius auratus", "crème brûlée")


def write(path, content) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "\n".join(LABELS)),
        ("crlf.txt", "\r\n".join(LABELS) + "\r\n\r\n"),
        ("spaces.txt", " \t\n".join(LABELS) + "\n"),
        ("mark.txt", b"\xef\xbb\xbf" + "\n".join(LABELS).encode()),
        ("list.json", json.dumps(LABELS)),
        ("dict.json", json.dumps(dict(enumerate(LABELS)))),
        ("shuffled.json", json.dumps({str(i): LABELS[i] for i in (2, 0, 1)})),
        ("wordnet.JSON", json.dumps({i: [f"n0{i}", label.replace(" ", "_")] for i, label in enumerate(LABELS)})),
    ],
)
def test_every_usual_file_is_read(tmp_path, name, content):
    assert read_labels(write(tmp_path / name, content), 3) == LABELS


def test_a_list_is_taken_as_it_is():
    assert read_labels(list(LABELS), 3) == LABELS


def test_a_bundles_own_labels_are_taken():
    assert read_labels(LABELS, 3) == LABELS


def test_no_labels_are_no_labels():
    assert read_labels(None, 3) == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("few.txt", "a\nb\n", r"few.txt has 2 labels, the network has 3 classes"),
        ("many.json", '["a", "b", "c", "d"]', r"many.json has 4 labels, the network has 3 classes"),
        ("empty.txt", "", r"has 0 labels"),
        ("latin.txt", "crème\na\nb".encode("latin-1"), "latin.txt is not UTF-8"),
        ("utf16.txt", "a\nb\nc".encode("utf-16"), "is not UTF-8"),
        ("broken.json", '["a", "b"', "broken.json is not JSON"),
        ("deep.json", "[" * 100_000, "deep.json is not JSON"),
        ("number.json", "3", "must be a list, or a dict from index to label, got int"),
        ("numbers.json", "[1, 2, 3]", "numbers.json: labels must be text"),
        ("nested.json", '{"0": "a", "1": "b", "2": []}', "labels must be text"),
        ("from_one.json", '{"1": "a", "2": "b", "3": "c"}', "there is no label for class 0 of 3"),
        ("gap.json", '{"0": "a", "1": "b", "3": "d"}', "there is no label for class 2 of 3"),
        ("keys.json", '{"0": "a", "1": "b", "cat": "c"}', "must be class indices, got 'cat'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, name, content, message):
    with pytest.raises(ExportError, match=message):
        read_labels(write(tmp_path / name, content), 3)


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", 3], []])
def test_a_list_that_does_not_fit_is_refused(labels):
    with pytest.raises(ExportError, match=r"^labels"):
        read_labels(labels, 3)


def test_a_mapping_is_not_taken_for_its_keys():
    with pytest.raises(ExportError, match=r"^labels"):
        read_labels({"0": "tench", "1": "goldfish", "2": "shark"}, 3)


@pytest.mark.parametrize("path", ["missing.txt", "missing.json", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, path):
    with pytest.raises(ExportError, match="cannot be read"):
        read_labels(tmp_path / path, 3)
