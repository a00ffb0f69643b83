from __future__ import annotations

import pytest

import camrt
from camrt.evaluate import find_photos


def test_photos_of_a_folder_are_found_below_it_in_order(folder):
    assert [s.name for s in find_photos([folder / "photos"])] == ["a.png", "sub/b.jpg", "sub/c.png"]


def test_photos_may_be_files_and_folders(folder):
    assert [s.name for s in find_photos([folder / "photos" / "sub", folder / "photos" / "a.png"])] == [
        "a.png",
        "b.jpg",
        "c.png",
    ]


def test_two_photos_of_one_name_are_refused(folder):
    with pytest.raises(camrt.ParameterError, match=r"would both be called 'c\.png'"):
        find_photos([folder / "photos" / "sub", folder / "photos" / "sub" / "c.png"])


@pytest.mark.parametrize(("place", "message"), [("missing", "there is no such photo"), ("empty", "no photo found")])
def test_a_place_without_photos_is_refused(tmp_path, place, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(camrt.ParameterError, match=message):
        find_photos([tmp_path / place])
