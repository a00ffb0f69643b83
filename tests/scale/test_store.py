"""Stores: what is written is read, files appear whole or not at all, and two runs do not meet."""

import os
import subprocess
import sys
from contextlib import suppress

import fsspec
import pytest

from camrt.errors import BatchError
from camrt.scale.store import Bucket, Store, open_store
from tests.scale.stuff import take_fsspec_away


@pytest.fixture(params=["local", "memory", "file"])
def store(request, tmp_path):
    if request.param == "local":
        yield Store(str(tmp_path / "out"))
    elif request.param == "file":
        yield Bucket(f"file://{tmp_path}/out/")
    else:
        yield Bucket("memory://bucket/out")
        with suppress(FileNotFoundError):
            fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_what_is_written_is_read(store):
    store.write("a/b.bin", b"0123456789")
    assert store.read("a/b.bin") == b"0123456789"
    assert store.read("a/b.bin", 3) == b"3456789"
    assert store.read("a/b.bin", 3, 4) == b"3456"
    assert store.read("a/b.bin", 0, 4) == b"0123"
    assert store.read("a/b.bin", 8, 4) == b"89"
    assert store.size("a/b.bin") == 10
    assert store.names("a") == ["b.bin"]
    assert store.names("") == ["a"]
    store.write("a/b.bin", b"new")
    assert store.read("a/b.bin") == b"new"


def test_the_sizes_of_a_folder_are_told_at_once(store):
    store.write("a/b", b"123")
    store.write("a/c", b"")
    assert store.sizes("a") == {"b": 3, "c": 0}
    assert store.sizes("nowhere") == {}


def test_what_is_not_there_is_none(store):
    assert store.read("a") is None
    assert store.size("a/b") is None
    assert store.names("a") == store.names("") == []
    store.remove("a")


def test_empty_files_are_files(store):
    store.write("a", b"")
    assert (store.read("a"), store.size("a")) == (b"", 0)


def test_files_are_written_piece_by_piece(store):
    with store.create("a/b") as file:
        for i in range(10):
            file.write(bytes([i]) * 100_000)
    assert store.size("a/b") == 1_000_000


def test_what_fails_leaves_nothing(store):
    store.write("a/b", b"old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            half_written(store, "a/c", error)
        assert store.names("a") == ["b"]


def half_written(store, name, error):
    with store.create(name) as file:
        file.write(b"half")
        raise error


def test_what_replaces_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    store = Store(str(tmp_path))
    store.write("a", b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.write("a", b"new")
    assert store.names("") == ["a"]
    assert store.read("a") == b"old"


def test_files_move_over_whatever_is_there(store):
    store.write("a", b"1")
    store.write("d/b", b"2")
    store.move("a", "d/b")
    assert (store.read("a"), store.read("d/b")) == (None, b"1")
    store.move("d/b", "new/folder/c")
    assert store.read("new/folder/c") == b"1"


def test_folders_move_over_whatever_is_there(store):
    store.write("new.tmp/a", b"1")
    store.write("new.tmp/sub/b", b"2")
    store.write("old/c", b"3")
    store.move("new.tmp", "old")
    assert store.names("old") == ["a", "sub"]
    assert store.read("old/sub/b") == b"2"
    assert store.names("new.tmp") == []


def test_files_and_folders_are_removed(store):
    for name in ("a/b", "a/c/d", "e"):
        store.write(name, b"1")
    store.remove("a")
    store.remove("e")
    assert (store.names("a"), store.read("a/c/d"), store.read("e")) == ([], None, None)


def test_a_link_to_a_folder_is_removed_not_what_is_in_it(tmp_path):
    store = Store(str(tmp_path))
    store.write("a/b", b"1")
    (tmp_path / "link").symlink_to("a")
    store.remove("link")
    assert store.names("") == ["a"]
    assert store.read("a/b") == b"1"


# --- two runs -------------------------------------------------------------------------------------------------------------
def test_a_second_run_is_refused_while_the_first_lives(tmp_path):
    with Store(str(tmp_path / "out")).locked():
        with pytest.raises(BatchError, match="out: another run writes there"), Store(str(tmp_path / "out")).locked():
            pytest.fail("both run")
        code = f"from camrt.scale.store import Store\nwith Store({str(tmp_path / 'out')!r}).locked(): pass"
        assert b"another run" in subprocess.run([sys.executable, "-c", code], capture_output=True).stderr
    with Store(str(tmp_path / "out")).locked():
        pass


def test_file_systems_without_locks_are_written_to(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with Store(str(tmp_path)).locked():
        pass


# --- locations ------------------------------------------------------------------------------------------------------------
def test_a_url_of_this_machine_is_a_folder(tmp_path):
    store = open_store(f"file://{tmp_path}")
    assert (type(store), str(store)) == (Store, str(tmp_path))
    assert type(open_store("memory://x")) is Bucket


def test_the_root_of_a_file_system_is_a_place(tmp_path):
    store = Bucket("memory://")
    store.write("rooted/a", b"1")
    assert store.names("rooted") == ["a"]
    store.remove("rooted")


def test_what_cannot_be_opened_is_refused(monkeypatch):
    with pytest.raises(BatchError, match="s3://bucket/out cannot be opened: Install s3fs"):
        open_store("s3://bucket/out")
    with pytest.raises(BatchError, match="odd://out cannot be opened: .*Protocol not known: odd"):
        open_store("odd://out")
    with pytest.raises(BatchError, match=r"memory://out\*: an output behind a URL may not have \* in its name"):
        open_store("memory://out*")
    take_fsspec_away(monkeypatch)
    with pytest.raises(
        BatchError, match=r"memory://out is opened by fsspec, which is not installed: pip install 'camrt\[batch\]'"
    ):
        open_store("memory://out")


def test_errors_of_other_packages_are_os_errors(monkeypatch):
    store = Bucket("memory://bucket/out")

    def fail(*_, **__):
        raise RuntimeError("no\ncredentials")

    for name in ("cat_file", "open", "ls", "rm", "mv", "size", "makedirs"):
        monkeypatch.setattr(store._fs, name, fail)
    calls = [
        lambda: store.read("a"), lambda: store.write("a", b""), lambda: store.names("a"), lambda: store.remove("a"),
        lambda: store.move("a", "b"), lambda: store.size("a"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(OSError, match="RuntimeError: no credentials"):
            call()


def test_folders_move_where_there_are_none_as_in_object_stores(monkeypatch):
    store = open_store("memory://without-folders")
    store.write("new.tmp/a", b"1")
    store.write("new.tmp/sub/b", b"2")
    copy = store._fs.cp_file

    def cp_file(old, new, **options):
        if store._fs.isdir(old):
            raise FileNotFoundError(old)  # there is no such key
        copy(old, new, **options)

    monkeypatch.setattr(store._fs, "cp_file", cp_file)
    store.move("new.tmp", "folder")
    assert (store.read("folder/a"), store.read("folder/sub/b")) == (b"1", b"2")
    assert store.names("new.tmp") == []
