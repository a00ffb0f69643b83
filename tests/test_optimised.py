"""Graphs kept as ONNX Runtime optimised them: the same results, never in the way, and never another bundle's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import camrt
from camrt import optimised
from camrt.bundle import open_bundle
from camrt.cache import HASHES, TAG
from camrt.cli import camrt as command
from camrt.errors import BundleError
from camrt.manifest import MANIFEST
from camrt.optimised import LIST, open_graph
from camrt.providers import Choice
from camrt.session import open_session

from .conftest import ROOT, SAMPLES

CPU = Choice(("cpu",), explicit=True)
METHODS = ("cluster-cam", "hires-cam", "ablation-cam")  # every graph but the head


@pytest.fixture
def bundle(tiny_bundle, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def expected(tiny_bundle) -> list[np.ndarray]:
    return maps(tiny_bundle, cache=False)


def maps(bundle: Path, **options) -> list[np.ndarray]:
    explainer = camrt.load(bundle, ["cpu"], **options)
    photo = camrt.load_photo(SAMPLES / "star.png").pixels
    return [explainer.explain(photo, method=method, top=3).maps for method in METHODS]


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def folder_of(bundle: Path) -> Path:
    return bundle.parent / f"{bundle.name}.cache"


def kept(bundle: Path) -> list[Path]:
    """Return the folders of kept graphs."""
    return sorted(folder_of(bundle).glob("*-cpu-*/*"))


def weights(folder: Path) -> Path:
    (path,) = folder.glob("*.bin")
    return path


@pytest.fixture
def opened(monkeypatch) -> list[tuple[Path, dict]]:
    """What sessions are opened from, and how."""
    calls = []

    def spy(path, *arguments, **options):
        calls.append((path, options))
        return open_session(path, *arguments, **options)

    monkeypatch.setattr(optimised, "open_session", spy)
    return calls


# --- the same results -------------------------------------------------------------------------------------------------------
def test_a_second_start_opens_what_the_first_one_kept_and_gives_the_same_bits(bundle, expected, opened):
    assert same(maps(bundle), expected)
    assert [path.name for path in kept(bundle)] == ["gradient", "score", "tail"]
    assert all("keep" in options for _, options in opened)
    opened.clear()
    assert same(maps(bundle), expected)
    assert sorted(path.parent for path, _ in opened) == kept(bundle)
    assert all(options["optimise"] is False for _, options in opened)


def test_the_built_in_bundle_gives_the_same_bits_from_kept_graphs(tmp_path):
    bundle = Path(shutil.copytree(ROOT / "models" / "shapes", tmp_path / "shapes", ignore=shutil.ignore_patterns("samples")))
    bare = maps(bundle, cache=False)
    assert all(same(maps(bundle, threads=threads), bare) for threads in (0, 1, 2))


def test_kept_files_are_few_and_no_part_stays_behind(bundle):
    maps(bundle)
    assert {path.name for path in folder_of(bundle).iterdir()} == {TAG, kept(bundle)[0].parent.name}
    assert {path.suffix for path in kept(bundle)[1].iterdir()} == {".onnx", ".bin", ".json"}


# --- what is in a kept graph's place ----------------------------------------------------------------------------------------
def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def huge(path: Path) -> None:
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 40)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.parametrize("damage", [truncate, flip, directory, pipe, huge, loop, Path.unlink])
@pytest.mark.parametrize("which", ["score.onnx", "weights", LIST])
def test_a_damaged_file_is_made_anew(bundle, expected, damage, which):
    maps(bundle)
    folder = kept(bundle)[1]
    damage(weights(folder) if which == "weights" else folder / which)
    assert same(maps(bundle), expected)
    assert optimised._is_whole(open_bundle(bundle, cache=True), folder, "score.onnx")


@pytest.mark.parametrize("text", [
    "", "{}", "[]", "null", "7", '"score.onnx"', '["score.onnx"]', "[" * 100_000, '{"score.onnx": 7}', '{"score.onnx": [1]}',
    '{"score.onnx": [{}, []]}', '{"score.onnx": null}', '{"score.onnx": [1, 2, 3]}', '{"\\u0000": [1, "x"], "score.onnx": [1, "x"]}',
    '{"../../../bundle/bundle.json": [1, "x"], "score.onnx": []}', '{"/dev/zero": [0, "x"], "score.onnx": [0, "x"]}',
    '{"\\ud800": [1, "x"], "score.onnx": []}',
], ids=range(17))  # fmt: skip
def test_a_hostile_list_of_files_is_made_anew(bundle, expected, text):
    maps(bundle)
    (kept(bundle)[1] / LIST).write_text(text)
    assert same(maps(bundle), expected)
    assert len(json.loads((kept(bundle)[1] / LIST).read_text())) == 2


def test_a_list_that_leaves_out_the_graph_does_not_vouch_for_it(bundle, expected):
    maps(bundle)
    folder = kept(bundle)[1]
    listed = json.loads((folder / LIST).read_text())
    del listed["score.onnx"]
    (folder / LIST).write_text(json.dumps(listed))
    flip(folder / "score.onnx")
    assert same(maps(bundle), expected)


def test_a_link_in_a_kept_graphs_place_is_not_followed_out_of_the_folder(bundle, expected):
    maps(bundle)
    folder, precious = kept(bundle)[1], bundle.parent / "precious"
    precious.mkdir()
    (precious / "mine").touch()
    shutil.rmtree(folder)
    folder.symlink_to(precious)
    assert same(maps(bundle), expected)
    assert [path.name for path in precious.iterdir()] == ["mine"]


def test_what_onnx_runtime_does_not_take_is_made_anew(bundle, expected):
    maps(bundle)
    folder = kept(bundle)[1]
    (folder / "score.onnx").write_bytes(b"nonsense")
    listed = json.loads((folder / LIST).read_text())
    listed["score.onnx"] = [8, optimised.sha256_of(folder / "score.onnx")]
    (folder / LIST).write_text(json.dumps(listed))
    assert same(maps(bundle), expected)
    assert (folder / "score.onnx").stat().st_size > 8


def test_graph_and_weights_of_two_processes_cannot_be_mixed(bundle):
    names = []
    for _ in range(2):
        maps(bundle)
        names.append(weights(kept(bundle)[1]).name)
        shutil.rmtree(folder_of(bundle))
    assert names[0] != names[1]


# --- whose graph it is ------------------------------------------------------------------------------------------------------
def other_version(monkeypatch):
    monkeypatch.setattr(optimised, "runtime", lambda: "ONNX Runtime 1.99.0")


def other_build(monkeypatch):
    optimised._maker.cache_clear()
    monkeypatch.setattr(optimised, "build", lambda: "another compiler")


def other_cpu(monkeypatch):
    optimised._maker.cache_clear()
    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **o: open(os.devnull) if str(self) == "/proc/cpuinfo" else real(self, *a, **o)
    )


@pytest.fixture(autouse=True)
def _fresh_maker():
    yield
    optimised._maker.cache_clear()


@pytest.mark.parametrize("change", [other_version, other_build, other_cpu])
def test_versions_builds_and_machines_keep_their_own_side_by_side(bundle, expected, opened, change, monkeypatch):
    maps(bundle)
    with monkeypatch.context() as changed:
        change(changed)
        maps(bundle)
        assert len(kept(bundle)) == 6
    optimised._maker.cache_clear()
    opened.clear()
    assert same(maps(bundle), expected)
    assert all(options["optimise"] is False and "keep" not in options for _, options in opened)


def test_a_bundle_exported_anew_gets_its_own_graphs_and_the_old_ones_go(bundle, tiny_bundle):
    maps(bundle)
    before = kept(bundle)[0].parent
    foreign = folder_of(bundle) / "notes"
    foreign.mkdir()
    values = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps(values | {"name": "another"}))
    maps(bundle)
    assert not before.exists()
    assert foreign.exists()
    assert len(kept(bundle)) == 3


def test_a_graph_is_never_kept_under_the_name_of_a_bundle_it_is_not_of(bundle, monkeypatch):
    verified = open_bundle(bundle, cache=True)
    values = json.loads((bundle / MANIFEST).read_text())

    def replaced_meanwhile(*arguments, **options):
        (bundle / MANIFEST).write_text(json.dumps(values | {"name": "another"}))
        return open_session(*arguments, **options)

    monkeypatch.setattr(optimised, "open_session", replaced_meanwhile)
    with pytest.raises(BundleError, match="was replaced since it was loaded"):
        open_graph(verified, "score", CPU, 0)
    assert kept(bundle) == []
    assert list(folder_of(bundle).glob(".*")) == []


def test_a_bundle_moved_with_its_cache_uses_it(bundle, expected, opened):
    maps(bundle)
    new = bundle.parent / "new"
    bundle.rename(new)
    folder_of(bundle).rename(folder_of(new))
    opened.clear()
    assert same(maps(new), expected)
    assert {path.parent.parent.parent for path, _ in opened} == {folder_of(new)}


# --- where nothing is kept --------------------------------------------------------------------------------------------------
def test_large_weights_are_not_kept(bundle, monkeypatch, expected):
    size = open_bundle(bundle).weights_size
    monkeypatch.setattr(optimised, "LARGEST", size - 1)
    assert same(maps(bundle), expected)
    assert kept(bundle) == []
    monkeypatch.setattr(optimised, "LARGEST", size)
    maps(bundle)
    assert len(kept(bundle)) == 3


def test_only_the_cpus_graphs_are_kept(bundle, monkeypatch):
    calls = []
    monkeypatch.setattr(optimised, "open_session", lambda path, **options: calls.append((path, options)))
    open_graph(open_bundle(bundle, cache=True), "score", Choice(("cuda", "cpu"), explicit=False), 0)
    assert [path for path, _ in calls] == [bundle / "score.onnx"]
    assert not {"keep", "optimise"} & set(calls[0][1])
    assert not folder_of(bundle).exists()


def test_no_cache_writes_nothing(bundle):
    arguments = ["explain", bundle, SAMPLES / "star.png", "--no-cache", "-o", bundle.parent / "out"]
    assert CliRunner().invoke(command, [str(argument) for argument in arguments]).exit_code == 0
    assert {path.name for path in bundle.parent.iterdir()} == {"bundle", "out"}


@pytest.mark.parametrize("refused", ["mkdir", "rename", "write_text"])
def test_where_a_step_fails_the_graph_runs_and_no_part_stays_behind(bundle, expected, monkeypatch, refused):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, refused, refuse)
        assert same(maps(bundle), expected)
    assert kept(bundle) == []
    assert not folder_of(bundle).exists() or not [p for p in folder_of(bundle).iterdir() if p.suffix == ".part"]


def test_the_folder_may_be_deleted_at_any_time(bundle, expected):
    explainer = camrt.load(bundle, ["cpu"])
    shutil.rmtree(folder_of(bundle))
    photo = camrt.load_photo(SAMPLES / "star.png").pixels
    found = [explainer.explain(photo, method=method, top=3).maps for method in METHODS]
    assert same(found, expected)


def test_a_graph_deleted_between_the_look_and_the_opening_is_made_anew(bundle, expected, monkeypatch):
    maps(bundle)

    def deleted(path, *arguments, **options):
        if "cache" in str(path):
            shutil.rmtree(path.parent)
        return open_session(path, *arguments, **options)

    monkeypatch.setattr(optimised, "open_session", deleted)
    assert same(maps(bundle), expected)


# --- as processes -----------------------------------------------------------------------------------------------------------
SCRIPT = """
import hashlib, os, resource, sys
{before}
import camrt
e = camrt.load(sys.argv[1], ["cpu"])
{between}
print(hashlib.sha256(e.explain(sys.argv[2], masking="image").maps.tobytes()).hexdigest())
"""


def process(bundle: Path, before: str = "", between: str = "") -> subprocess.Popen:
    code = SCRIPT.format(before=before, between=between)
    arguments = [sys.executable, "-c", code, str(bundle), str(SAMPLES / "star.png")]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def answer(running: subprocess.Popen) -> str:
    out, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (0, "")
    return out.strip()


def test_processes_that_start_at_once_agree_and_keep_one_graph(bundle):
    answers = {answer(running) for running in [process(bundle) for _ in range(4)]}
    assert len(answers) == 1
    assert [path.name for path in kept(bundle)] == ["score"]
    assert {path.name for path in folder_of(bundle).iterdir()} <= {TAG, HASHES, kept(bundle)[0].parent.name}
    assert optimised._is_whole(open_bundle(bundle, cache=True), kept(bundle)[0], "score.onnx")


def test_a_full_disk_keeps_nothing_and_harms_nothing(bundle):
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"
    bare = answer(process(bundle))
    shutil.rmtree(folder_of(bundle))
    for size in (0, 2000):
        assert answer(process(bundle, before=limit.format(size))) == bare
        assert kept(bundle) == []
        assert not [path for path in folder_of(bundle).iterdir() if path.suffix == ".part"]


def test_a_process_killed_in_the_middle_leaves_what_is_taken_away_later(bundle):
    kill = "import camrt.optimised as o; o._settle = lambda *_: os.kill(os.getpid(), 9)"
    running = process(bundle, before=kill)
    running.communicate(timeout=60)
    assert running.returncode == -9
    (part,) = folder_of(bundle).glob(".*.part")
    maps(bundle)
    assert part.exists()  # it may be another's at work
    os.utime(part, (time.time() - 4000,) * 2)
    maps(bundle)
    assert not part.exists()
    assert len(kept(bundle)) == 3
