"""What is asked: locations are the same from every folder, and none is empty."""

from pathlib import Path

import pytest

from camrt.errors import ParameterError
from camrt.scale.asked import absolute, ask
from camrt.scale.lists import Columns


def test_locations_are_the_same_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ask("shapes", ["photos", "file:///data", "s3://bucket/*"], "out", columns=Columns(root="there"))
    assert asked.inputs.places == [f"{tmp_path}/photos", "/data", "s3://bucket/*"]
    assert asked.inputs.columns.root == asked.asked["columns"]["root"] == f"{tmp_path}/there"
    assert asked.setup.output == f"{tmp_path}/out"


def test_one_input_needs_no_list(tmp_path):
    for photos in (tmp_path, str(tmp_path), [tmp_path]):
        assert ask("shapes", photos, Path("/out")).inputs.places == [str(tmp_path)]


def test_empty_locations_are_refused():
    for values in ((["a", ""], "out"), (["a"], "")):
        with pytest.raises(ParameterError, match="is empty, and must be a path or a URL"):
            ask("shapes", *values)
    with pytest.raises(ParameterError, match="The root is empty"):
        absolute("", "root")


def test_shards_hold_photos():
    with pytest.raises(ParameterError, match="at least 1 photo, got 0"):
        ask("shapes", ["a"], "out", shard_size=0)
