"""Folders, globs and files as they are named: their order, their ids, and what is refused."""

import os
import stat
from pathlib import Path

import pytest

from camrt.photo import load_photo
from camrt.scale.inputs import Inputs
from camrt.scale.lists import Columns
from camrt.scale.part import text_of
from camrt.scale.paths import Paths
from camrt.scale.places import _walk
from tests.scale.stuff import NAMES, PIXEL, ids, items_of, make_folder, refused, unreadable


@pytest.fixture
def folder(tmp_path) -> Path:
    return make_folder(tmp_path)


# --- folders --------------------------------------------------------------------------------------------------------------
def test_a_folder_is_walked_in_the_order_of_its_names(folder):
    assert ids(str(folder)) == sorted(NAMES)


def test_the_order_is_not_that_of_the_disk(folder, monkeypatch):
    class Backwards:
        def __init__(self, path):
            self._entries = scandir(path)

        def __enter__(self):
            return sorted(self._entries, key=lambda entry: entry.name, reverse=True)

        def __exit__(self, *error):
            self._entries.close()

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", Backwards)
    assert ids(str(folder)) == sorted(NAMES)


def test_a_trailing_slash_makes_no_difference(folder):
    assert ids(f"{folder}/") == ids(str(folder))


def test_links_to_folders_are_not_followed(folder):
    (folder / "b" / "up").symlink_to("..")
    (folder / "away").symlink_to("b")
    assert ids(str(folder)) == sorted(NAMES)


def test_links_to_photos_are_photos_and_broken_ones_say_so(tmp_path):
    (tmp_path / "a.jpg").write_bytes(PIXEL)
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "c.jpg").symlink_to("c.jpg")
    (tmp_path / "d.jpg").symlink_to("nowhere")
    assert unreadable(str(tmp_path)) == ["c.jpg", "d.jpg"]


def test_a_pipe_is_a_photo_that_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "photo.jpg")
    assert unreadable(str(tmp_path)) == unreadable(str(tmp_path / "photo.jpg")) == ["photo.jpg"]


def test_names_that_are_no_text_are_read_and_shown(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(PIXEL)
    (item,) = items_of(str(tmp_path))
    assert (item.id, item.source) == (r"\xff.png", rf"{tmp_path}/\xff.png")
    assert load_photo(item.image).pixels.shape == (1, 1, 3)


def test_a_deep_folder_is_walked():
    depth = 5000  # more than Python's limit of recursion
    assert list(_walk(lambda folder: iter(["d/"] if folder.count("/") < depth else ["a.png"]), "")) == ["d/" * depth + "a.png"]


def test_a_folder_without_photos_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    refused(tmp_path, match=r"holds no photos \(bmp.*'shards/\*\.tar'")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_refused(folder):
    (folder / "b").chmod(0)
    try:
        refused(folder, match="/b/ cannot be read \\(Permission denied")
    finally:
        (folder / "b").chmod(stat.S_IRWXU)


def test_a_folder_that_is_called_like_a_file_is_a_folder(tmp_path):
    (tmp_path / "x.tar").mkdir()
    (tmp_path / "x.tar" / "a.png").write_bytes(PIXEL)
    assert ids(str(tmp_path)) == ["x.tar/a.png"]
    assert ids(str(tmp_path / "x.tar")) == ["a.png"]


# --- globs ----------------------------------------------------------------------------------------------------------------
def test_ids_of_a_glob_begin_where_it_does(folder):
    assert ids(f"{folder}/b*/*.jpg") == ["b/1.jpg"]
    assert ids(f"{folder}/b/*") == ["1.jpg"]
    assert ids(f"{folder}/[ab]*.jpg") == ["a\nb.jpg", "a.jpg", "b0.jpg"]


def test_two_stars_are_any_number_of_folders(folder):
    (folder / "b" / "up").symlink_to("..")
    assert ids(f"{folder}/**/*.j*") == [name for name in sorted(NAMES) if ".j" in name]
    assert ids(f"{folder}/**/c/**") == ["b/c/2.TIFF"]
    assert ids(f"{folder}/**/**/2.*") == ["b/c/2.TIFF"]


def test_a_glob_follows_links_that_it_meets_itself(folder):
    (folder / "away").symlink_to("b")
    assert ids(f"{folder}/a*/1.jpg") == ["away/1.jpg"]


def test_hidden_files_are_found_by_who_asks(folder):
    assert ids(f"{folder}/.h*") == [".hidden.jpg"]
    assert ids(f"{folder}/.t*/*") == [".thumbs/a.jpg"]


def test_what_is_called_like_a_glob_is_itself(tmp_path):
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "a[1]" / "b*.png").write_bytes(PIXEL)
    assert ids(str(tmp_path / "a[1]")) == ids(str(tmp_path / "a[1]" / "b*.png")) == ["b*.png"]


def test_a_glob_that_nothing_matches_is_refused(folder):
    refused(f"{folder}/*.gif", match=r"\*\.gif: no file matches")
    refused(f"{folder}/nowhere/*.gif", match=r"nowhere/ cannot be read \(No such file")


# --- ids ------------------------------------------------------------------------------------------------------------------
def test_ids_of_several_inputs_are_their_paths(folder):
    (folder / "b0").mkdir()
    (folder / "b0" / "1.jpg").write_bytes(PIXEL)
    assert ids(f"{folder}/b0", f"{folder}/b/*.jpg") == [f"{folder}/b0/1.jpg", f"{folder}/b/1.jpg"]


def test_parts_are_of_one_size_whatever_the_inputs(folder):
    parts = list(Inputs([str(folder), f"{folder}/b"], Columns(), 4).parts())
    assert [part.photos for part in parts] == [4, 4, 4, 1]
    assert all(isinstance(part, Paths) for part in parts)


# --- what is refused ------------------------------------------------------------------------------------------------------
def test_what_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "a", match="/a: there is no such file or folder. A glob stands in quotes")
    refused(f"{tmp_path}/\0", match="there is no such file or folder")
    refused(f"{tmp_path}/\0/*", match="cannot be read")
    refused("x" * 5000, match="there is no such file or folder")


def test_a_file_of_no_known_kind_is_refused(tmp_path):
    (tmp_path / "photos.zip").touch()
    refused(tmp_path / "photos.zip", match=r"photos.zip ends in none of bmp, .*, tar, .*, parquet, so it is unclear")


def test_nothing_that_is_named_raises_anything_else(tmp_path):
    (tmp_path / "x").symlink_to("x")
    for ending in (".csv", ".tsv", ".txt", ".parquet"):
        os.mkfifo(tmp_path / f"pipe{ending}")
        (tmp_path / f"broken{ending}").symlink_to("nowhere")
        refused(tmp_path / f"pipe{ending}", match="a pipe or a device")
        refused(tmp_path / f"broken{ending}", match="No such file")
    refused(tmp_path / "x", match="ends in none of")
    refused(tmp_path / "x" / "y", match="there is no such")


def test_text_of_any_name_is_text():
    assert text_of("a\udcff") == r"a\xff"


def test_photos_that_no_decoder_reads_are_told_and_not_left_out(tmp_path):
    for name in ("a.png", "b.HEIC", "c.avif", "d.txt"):
        (tmp_path / name).write_bytes(b"ftypheic")
    (part,) = Inputs([str(tmp_path)], Columns(), 10).parts()
    assert [name for name, _ in part.listed] == ["a.png", "b.HEIC", "c.avif"]
