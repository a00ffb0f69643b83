"""The folder beside a bundle: what is remembered, for how long, in whose folder, and that nothing in it is needed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from camrt import cache, files
from camrt.bundle import open_bundle
from camrt.cache import HASHES, TAG, Cache
from camrt.cli import camrt
from camrt.errors import BundleError
from camrt.manifest import MANIFEST


@pytest.fixture
def bundle(tiny_bundle, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture
def settled(monkeypatch) -> None:
    """Take files for old that were just written."""
    monkeypatch.setattr(cache, "SETTLED", -1)


def path_of(file) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{file.fileno()}"))


@pytest.fixture
def hashed(monkeypatch) -> list[str]:
    """The names of files that are really hashed."""
    names: list[str] = []
    real = hashlib.file_digest

    def noted(file, kind):
        names.append(path_of(file).name)
        return real(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return names


def folder_of(bundle: Path) -> Path:
    return bundle.parent / f"{bundle.name}.cache"


def listed(bundle: Path) -> dict:
    return json.loads((folder_of(bundle) / HASHES).read_text())


def rewrite(bundle: Path, change) -> None:
    """Change every entry of the list of hashes."""
    entries = listed(bundle)
    for entry in entries.values():
        change(entry)
    (folder_of(bundle) / HASHES).write_text(json.dumps(entries))


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


# --- what is remembered ---------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("settled")
def test_files_that_did_not_change_are_hashed_once(bundle, hashed):
    first = open_bundle(bundle, cache=True)
    assert sorted(hashed) == sorted(first.manifest.files)
    hashed.clear()
    assert open_bundle(bundle, cache=True).sha256 == first.sha256
    assert hashed == []


def test_a_file_that_changed_a_moment_ago_is_hashed_each_time(bundle, hashed):
    for _ in range(2):
        open_bundle(bundle, cache=True)
    assert hashed.count("weights.bin") == 2
    assert not folder_of(bundle).exists()


def test_a_copy_that_keeps_an_old_time_is_as_young_as_it_is(bundle, hashed):
    for name in ("head.onnx", "weights.bin"):
        age(bundle / name, 10**6)
    open_bundle(bundle, cache=True)
    assert not folder_of(bundle).exists()


@pytest.mark.usefixtures("settled")
def test_a_file_of_the_future_is_not_remembered(bundle):
    for path in bundle.iterdir():
        age(path, -1000)
    open_bundle(bundle, cache=True)
    assert not folder_of(bundle).exists()


def test_how_old_a_file_is_counts_from_before_it_was_read(bundle, monkeypatch):
    real, clock = hashlib.file_digest, [time.time() + 1]

    def slow(file, kind):
        clock[0] += 100
        return real(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", slow)
    monkeypatch.setattr(time, "time", lambda: clock[0])
    hasty, patient = Cache(bundle), Cache(bundle)
    hasty.sha256(bundle / "weights.bin", "")
    hasty.save()
    assert not folder_of(bundle).exists()
    patient.sha256(bundle / "weights.bin", "")
    patient.save()
    assert len(listed(bundle)) == 1


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("name", ["head.onnx", "weights.bin"])
def test_one_changed_byte_is_noticed_though_size_and_time_are_put_back(bundle, name):
    open_bundle(bundle, cache=True)
    path = bundle / name
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BundleError, match=f"{name} is not the file"):
        open_bundle(bundle, cache=True)


@pytest.mark.usefixtures("settled")
def test_another_file_of_the_same_size_and_time_is_noticed(bundle):
    open_bundle(bundle, cache=True)
    path, before = bundle / "weights.bin", (bundle / "weights.bin").stat()
    other = bundle.parent / "other"
    other.write_bytes(path.read_bytes()[::-1])
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    with pytest.raises(BundleError, match="weights.bin is not the file"):
        open_bundle(bundle, cache=True)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("position", range(5))
def test_device_inode_size_and_both_times_all_count(bundle, hashed, position):
    open_bundle(bundle, cache=True)
    hashed.clear()

    def change(entry):
        entry[position] += 1

    rewrite(bundle, change)
    open_bundle(bundle, cache=True)
    assert "weights.bin" in hashed


@pytest.mark.usefixtures("settled")
def test_a_remembered_hash_that_is_wrong_does_not_refuse_a_good_bundle(bundle, hashed):
    open_bundle(bundle, cache=True)
    hashed.clear()

    def change(entry):
        entry[-1] = "0" * 64

    rewrite(bundle, change)
    open_bundle(bundle, cache=True)
    assert "weights.bin" in hashed


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("seconds", [cache.BELIEVED + 1, -100])
def test_a_hash_is_believed_for_a_day_and_not_from_the_future(bundle, hashed, seconds):
    open_bundle(bundle, cache=True)
    hashed.clear()

    def change(entry):
        entry[5] -= seconds

    rewrite(bundle, change)
    open_bundle(bundle, cache=True)
    assert "weights.bin" in hashed
    assert all(abs(entry[5] - time.time()) < 60 for entry in listed(bundle).values())


@pytest.mark.usefixtures("settled")
def test_what_may_not_have_reached_the_disk_is_not_remembered(bundle, monkeypatch):
    def refuse(_):
        raise OSError

    monkeypatch.setattr(os, "fsync", refuse)
    open_bundle(bundle, cache=True)
    assert not folder_of(bundle).exists()


@pytest.mark.usefixtures("settled")
def test_a_file_that_changes_while_it_is_read_is_not_remembered(bundle, monkeypatch):
    real = hashlib.file_digest

    def digest(file, kind):
        found = real(file, kind)
        age(path_of(file), 5)
        return found

    monkeypatch.setattr(hashlib, "file_digest", digest)
    open_bundle(bundle, cache=True)
    assert not folder_of(bundle).exists()


@pytest.mark.usefixtures("settled")
def test_two_processes_that_hash_different_files_lose_nothing_of_each_other(bundle):
    first, second = Cache(bundle), Cache(bundle)
    for one, name in ((first, "head.onnx"), (second, "tail.onnx")):
        one.sha256(bundle / name, "")
    first.save()
    second.save()
    assert len(listed(bundle)) == 2


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("move", [shutil.copytree, shutil.move])
def test_a_bundle_that_was_copied_or_moved_with_its_cache_is_verified(bundle, hashed, move):
    open_bundle(bundle, cache=True)
    hashed.clear()
    new = bundle.parent / "new"
    move(folder_of(bundle), folder_of(new))
    move(bundle, new)
    open_bundle(new, cache=True)
    assert ("weights.bin" in hashed) == (move is shutil.copytree)


# --- what is in the list's place --------------------------------------------------------------------------------------------
ENTRY = [1, 2, 3, 4, 5, int(time.time()), "0" * 64]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("text", [
    "", "{", "nonsense", "[1, 2]", "null", "7", '"text"', "[" * 100_000, "9" * 10_000, '{"a": NaN}', "\xff\xfe",
    "[" + "[]," * 300_000 + "[]]",
    json.dumps({"a": None, "b": [], "c": [1] * 7, "d": ENTRY[:6], "e": {}, "\ud800": ENTRY, "x" * 5000: ENTRY, "/root/a": ENTRY}),
    json.dumps({"a": [*ENTRY[:5], 10**4000, "x"], "b": [*ENTRY[:5], -(10**4000), "x"], "c": [*ENTRY[:5], 1e308, "x"]}),
    json.dumps({"a": [*ENTRY[:5], True, None], "b": [[], {}, None, "5", True, ENTRY[5], {}]}),
], ids=range(15))  # fmt: skip
def test_a_damaged_list_of_hashes_is_made_anew(bundle, text, hashed):
    open_bundle(bundle, cache=True)
    hashed.clear()
    (folder_of(bundle) / HASHES).write_bytes(text.encode("latin-1"))
    open_bundle(bundle, cache=True)
    assert "weights.bin" in hashed
    hashed.clear()
    open_bundle(bundle, cache=True)
    assert hashed == []


def directory(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def link(path: Path) -> None:
    (path.parent.parent / "precious").write_text("mine")
    path.symlink_to(path.parent.parent / "precious")


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("put", [directory, os.mkfifo, huge, link, lambda path: path.symlink_to(path)])
def test_what_is_no_list_of_hashes_is_neither_waited_for_nor_followed(bundle, put):
    open_bundle(bundle, cache=True)
    path = folder_of(bundle) / HASHES
    path.unlink()
    put(path)
    assert open_bundle(bundle, cache=True).manifest.classes == 5
    if put is link:
        assert (bundle.parent / "precious").read_text() == "mine"


# --- whose folder it is -----------------------------------------------------------------------------------------------------
def a_file(folder: Path, _: Path) -> None:
    folder.write_text("mine")


def a_pipe(folder: Path, _: Path) -> None:
    os.mkfifo(folder)


def a_folder_of_photos(folder: Path, _: Path) -> None:
    folder.mkdir()
    (folder / "photo.jpg").touch()


def a_bundle(folder: Path, bundle: Path) -> None:
    shutil.copytree(bundle, folder)


def a_link(folder: Path, _: Path) -> None:
    (folder.parent / "home").mkdir()
    folder.symlink_to("home")


def a_loop(folder: Path, _: Path) -> None:
    folder.symlink_to(folder)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("put", [a_file, a_pipe, a_folder_of_photos, a_bundle, a_link, a_loop])
def test_what_is_not_camrts_own_is_left_as_it_is(bundle, put):
    put(folder_of(bundle), bundle)
    before = tree(bundle.parent)
    opened = open_bundle(bundle, cache=True)
    assert not opened.cache.enabled
    assert tree(bundle.parent) == before


@pytest.mark.usefixtures("settled")
def test_a_folder_in_which_others_may_write_is_not_believed(bundle, hashed):
    open_bundle(bundle, cache=True)
    hashed.clear()
    bundle.chmod(0o755)
    folder_of(bundle).chmod(0o777)
    assert not open_bundle(bundle, cache=True).cache.enabled
    assert "weights.bin" in hashed
    bundle.chmod(0o777)  # who may write in the cache may as well write in the bundle
    assert open_bundle(bundle, cache=True).cache.enabled


@pytest.mark.usefixtures("settled")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_another_users_folder_is_not_believed(bundle):
    open_bundle(bundle, cache=True)
    os.chown(folder_of(bundle), 12345, -1)
    assert not open_bundle(bundle, cache=True).cache.enabled
    os.chown(bundle, 12345, -1)
    assert open_bundle(bundle, cache=True).cache.enabled


@pytest.mark.usefixtures("settled")
def test_a_folder_that_another_made_a_moment_before_is_not_believed(bundle):
    opened = Cache(bundle)
    opened.sha256(bundle / "head.onnx", "")
    folder_of(bundle).mkdir()
    folder_of(bundle).chmod(0o777)
    bundle.chmod(0o755)
    opened.save()
    assert list(folder_of(bundle).iterdir()) == []


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o077, 0o700), (0, 0o700)])
def test_where_new_files_are_open_to_all_the_folder_is_closed(bundle, umask, mode):
    before = os.umask(umask)
    try:
        open_bundle(bundle, cache=True)
    finally:
        os.umask(before)
    assert folder_of(bundle).stat().st_mode & 0o777 == mode
    assert open_bundle(bundle, cache=True).cache.enabled


def test_the_folder_is_marked_as_one_that_backups_leave_out(bundle, monkeypatch):
    monkeypatch.setattr(cache, "SETTLED", -1)
    open_bundle(bundle, cache=True)
    assert (folder_of(bundle) / TAG).read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")


@pytest.mark.usefixtures("settled")
def test_a_process_that_ended_before_the_mark_was_written_leaves_a_folder_that_is_used(bundle):
    folder_of(bundle).mkdir(mode=0o755)
    open_bundle(bundle, cache=True)
    assert tree(folder_of(bundle)) == {TAG, HASHES}


# --- where nothing is kept --------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("settled")
def test_without_the_cache_nothing_is_read_or_written(bundle, hashed):
    open_bundle(bundle)
    assert not folder_of(bundle).exists()
    open_bundle(bundle, cache=True)
    hashed.clear()
    before = tree(bundle.parent)
    open_bundle(bundle, cache=False)
    assert "weights.bin" in hashed
    assert tree(bundle.parent) == before


@pytest.mark.usefixtures("settled")
def test_without_the_cache_a_late_graph_is_hashed_again(bundle, hashed):
    opened = open_bundle(bundle)
    hashed.clear()
    opened.check_unchanged("gradient")
    assert hashed == ["gradient.onnx", "weights.bin"]


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("function", ["mkdir", "write_text"])
def test_where_nothing_can_be_written_a_bundle_opens_all_the_same(bundle, monkeypatch, function):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, function, refuse)
    assert open_bundle(bundle, cache=True).manifest.classes == 5


@pytest.mark.usefixtures("settled")
def test_a_list_that_cannot_be_written_is_no_error_and_tried_again(bundle, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(cache, "write_together", refuse)
        opened = open_bundle(bundle, cache=True)
    assert not (folder_of(bundle) / HASHES).exists()
    opened.cache.save()
    assert (folder_of(bundle) / HASHES).exists()


def test_a_file_that_is_missing_is_told_as_without_the_cache(bundle):
    (bundle / "tail.onnx").unlink()
    with pytest.raises(BundleError, match="lacks tail.onnx"):
        open_bundle(bundle, cache=True)


@pytest.mark.usefixtures("settled")
def test_a_pipe_in_the_place_of_a_file_whose_hash_is_known_is_refused(bundle):
    open_bundle(bundle, cache=True)
    (bundle / "head.onnx").unlink()
    os.mkfifo(bundle / "head.onnx")
    with pytest.raises(BundleError, match="a pipe or a device"):
        open_bundle(bundle, cache=True)


@pytest.mark.usefixtures("settled")
def test_what_a_killed_process_left_is_taken_away_after_an_hour(bundle):
    open_bundle(bundle, cache=True)
    kept = tree(folder_of(bundle))
    for name, seconds in ((".a.part", 4000), (".b.part", 10), (".c.part", 4000), (".d.part", 4000), (".e.part", -4000)):
        path = folder_of(bundle) / name
        if name in (".a.part", ".b.part"):
            path.mkdir()
            (path / "score.bin").touch()
        elif name == ".d.part":
            path.symlink_to(bundle)
        else:
            path.touch()
        age(path, seconds)
    open_bundle(bundle, cache=True)
    assert tree(folder_of(bundle)) == kept | {".b.part", ".b.part/score.bin"}
    assert (bundle / MANIFEST).exists()


def test_neither_export_nor_compile_nor_info_keeps_anything(bundle, tiny_bundle):
    folder = bundle.parent
    for arguments in (
        ["export", tiny_bundle.parent / "tiny.onnx", "-o", folder / "exported"],
        ["compile", bundle, "-o", folder / "explain.onnx"],
        ["info", bundle],
    ):
        assert CliRunner().invoke(camrt, [str(argument) for argument in arguments]).exit_code == 0
    assert {path.name for path in folder.iterdir()} == {"bundle", "exported", "explain.onnx"}


# --- identity ---------------------------------------------------------------------------------------------------------------
def test_identity_is_of_the_file_that_is_open(tmp_path):
    path = tmp_path / "file"
    path.write_text("a")
    with files.open_regular(path) as file:
        before = files.identity(file)
        (tmp_path / "other").write_text("b")
        (tmp_path / "other").replace(path)
        assert files.identity(file)[:4] == before[:4]
    with files.open_regular(path) as file:
        assert files.identity(file)[1] != before[1]
