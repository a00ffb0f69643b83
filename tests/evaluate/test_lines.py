from __future__ import annotations

import json

import pytest

from camrt.evaluate.lines import KINDS, read_line

RESULT = {
    "photo": "a.png", "state": "0", "variant": "cam", "values": {"insertion": 0.5, "pointing": None}, "curves": {"road": [0.5, None]},
    "outcome": "ok", "notes": [], "passes": 1, "tail_passes": 0, "backward_passes": 0, "ms": 2.5, "thumbnail": "",
}  # fmt: skip
PHOTO = {
    "photo": "a.png", "state": "0", "target": 1, "top": 2, "label": None, "probability": 0.5, "size": [8, 8], "object": None,
    "one_ms": 1.0, "pass_ms": 1.5,
}  # fmt: skip


def text(line) -> bytes:
    return json.dumps(line).encode()


@pytest.mark.parametrize("line", [RESULT, PHOTO])
def test_a_line_as_it_was_written_is_read(line):
    assert read_line(text(line)) == line


@pytest.mark.parametrize(("line", "kind", "key"), [(line, kind, key) for line, kind in ((RESULT, "values"), (PHOTO, "target")) for key in KINDS[kind] if key != kind])  # fmt: skip
def test_a_line_that_lacks_something_is_refused(line, kind, key):
    with pytest.raises(ValueError, match=f"'{key}' of a line with '{kind}' is missing"):
        read_line(text({k: v for k, v in line.items() if k != key}))


@pytest.mark.parametrize(("line", "key", "value"), [
    (RESULT, "photo", 3), (RESULT, "values", "text"), (RESULT, "values", {"insertion": "x"}), (RESULT, "values", {"insertion": 10**400}),
    (RESULT, "values", {"insertion": 1e308}), (RESULT, "values", {"insertion": True}), (RESULT, "curves", {"road": []}),
    (RESULT, "passes", -1), (RESULT, "outcome", None), (RESULT, "thumbnail", 7), (RESULT, "ms", "quick"),
    (PHOTO, "target", 8), (PHOTO, "top", -1), (PHOTO, "label", 1.5), (PHOTO, "probability", None), (PHOTO, "one_ms", 0),
])  # fmt: skip
def test_a_line_with_something_else_in_it_is_refused(line, key, value):
    with pytest.raises(ValueError, match=f"'{key}' of a line with"):
        read_line(text({**line, key: value}), classes=8)
