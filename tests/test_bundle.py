from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.bundle import find_bundle, open_bundle
from camrt.errors import BundleError
from camrt.manifest import MANIFEST, Manifest, match_label

from .conftest import ROOT


@pytest.fixture
def bundle(tiny_bundle, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def edit(bundle: Path, change) -> None:
    values = json.loads((bundle / MANIFEST).read_text())
    change(values)
    (bundle / MANIFEST).write_text(json.dumps(values))


def test_a_bundle_that_was_not_touched_opens(bundle):
    opened = open_bundle(bundle)
    assert opened.manifest.classes == 5
    assert opened.sha256 == hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()


def test_the_manifest_survives_a_round_trip(bundle):
    values = json.loads((bundle / MANIFEST).read_text())
    manifest = Manifest.from_json(values)
    assert manifest.to_json() == values
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_bundle_is_found_by_built_in_name():
    assert find_bundle("shapes") == ROOT / "models" / "shapes"


def test_the_built_in_bundle_is_small():
    folder = ROOT / "models" / "shapes"
    files = [folder / name for name in (MANIFEST, *open_bundle(folder).manifest.files)]
    assert sum(f.stat().st_size for f in files) < 2_000_000


@pytest.mark.parametrize(("place", "text"), [
    ("shaps", "Did you mean 'shapes'"),
    ("models", r"has no bundle\.json"),
    ("pyproject.toml", "is a file, a bundle is a folder"),
    ("missing.onnx", "There is no bundle"),
])  # fmt: skip
def test_what_is_no_bundle_is_refused(place, text, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(BundleError, match=text):
        open_bundle(place)


# --- a zoo of broken bundles --------------------------------------------------------------------------------------------
FILES = ["head.onnx", "tail.onnx", "gradient.onnx", "score.onnx", "weights.bin"]


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"lacks {name}"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_named(bundle, name):
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError, match=f"{name} is not the file that bundle.json describes"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_one_changed_byte_is_noticed(bundle, name):
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 3] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256"):
        open_bundle(bundle)


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[1, 2]", "null", "\xff", '{"format": "camrt-bundle"', "[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(bundle, text):
    (bundle / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError, match=r"bundle\.json"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/head.onnx", "..", "head.onnx/../../x", "other.onnx", ""])
def test_no_file_outside_the_folder_can_be_named(bundle, name):
    edit(bundle, lambda v: v["files"].update({name: "0" * 64}))
    with pytest.raises(BundleError, match="'files' names"):
        open_bundle(bundle)


def set_at(path: str, value):
    def change(values):
        *parents, last = path.split(".")
        for key in parents:
            values = values[int(key) if key.isdecimal() else key]
        if value is DELETE:
            del values[last]
        else:
            values[int(last) if last.isdecimal() else last] = value

    return change


DELETE = object()


@pytest.mark.parametrize(("path", "value", "text"), [
    ("format", "zip", "'format' must be 'camrt-bundle', got 'zip'"),
    ("version", 2, "format version 2, this camrt reads version 1"),
    ("version", "1", "'version' must be a whole number"),
    ("version", DELETE, "'version' is missing"),
    ("name", 7, "'name' must be a string, got 7"),
    ("extra", 1, "unknown key 'extra'"),
    ("tensors.image.shape", ["N", 3, 32], "'tensors.image.shape' must be \"N\" and 3 positive"),
    ("tensors.image.shape", [1, 3, 32, 32], "'tensors.image.shape'"),
    ("tensors.image.shape", ["N", 3, -1, 32], "'tensors.image.shape'"),
    ("tensors.features.shape", ["N", 3, True, 32], "'tensors.features.shape'"),
    ("tensors.output.shape", ["N", 6], "'labels' must be empty or 6 strings"),
    ("tensors.features", DELETE, "'tensors.features' is missing"),
    ("output.kind", "magic", "'output.kind' must be one of logits"),
    ("labels", "ant", "'labels' must be a list"),
    ("labels", ["ant"], "5 strings, one per class, got '1 labels'"),
    ("labels", [1, 2, 3, 4, 5], "a list of strings"),
    ("preprocess.mean", [1], "'preprocess.std' must be a list of 1 numbers"),
    ("preprocess.mean", [0, 0, "0"], "'preprocess.mean' must be a list of 3 numbers"),
    ("preprocess.std", [1, 1, 0], "std must be positive numbers"),
    ("preprocess.scale", float("nan"), "'preprocess.scale' must be a finite number"),
    ("preprocess.size", [64, 64], "resize must be at least|'preprocess.size' must be"),
    ("preprocess.resize", "huge", "resize must be N"),
    ("preprocess.color", "hsv", "'preprocess.color' must be one of rgb, bgr"),
    ("preprocess.layout", "NHWC", "'preprocess.layout' must be one of NCHW"),
    ("split.tolerance", "tight", "'split.tolerance' must be a number"),
    ("gradient.missing", "no rule", "'gradient.missing' must be null with gradient.onnx, or the reason without, got 'no rule'"),
    ("gradient.missing", 3, "'gradient.missing' must be a string"),
    ("gradient.error", "small", "'gradient.error' must be a"),
    ("gradient.error", float("nan"), "'gradient.error' must be a finite number"),
    ("gradient.file", "gradient.onnx", "unknown key 'gradient.file'"),
    ("gradient", DELETE, "'gradient' is missing"),
    ("files", [], "'files' must be an object"),
    ("files", {}, "'files' lacks head.onnx"),
    ("files", {"head.onnx": "abc"}, "a SHA-256 in hexadecimal"),
    ("weights.0.dtype", "complex", "'weights\\[0\\].dtype' must be one of"),
    ("weights.0.length", 1, "'weights\\[0\\].length' must be"),
    ("weights.0.offset", -4, "'weights\\[0\\].offset' must be a whole number of at least 0"),
    ("weights.0.offset", 10**9, "ends beyond weights.bin"),
    ("weights.0.shape", [10**4000 - 1] * 8, "'weights\\[0\\].shape'"),
    ("weights.0.shape", [3] * 1000, "'weights\\[0\\].shape'"),
    ("weights.0.shape", [True], "'weights\\[0\\].shape'"),
    ("preprocess.scale", 10**400, "'preprocess.scale' must be a finite number"),
    ("preprocess.scale", 1e300, "x is a float32"),
    ("preprocess.size", [32.5, 32], "'preprocess.size' must be"),
    ("preprocess.resize", "9" * 5000, "resize must be N"),
    ("name", "\ud800", "'name' must be text that can be written as UTF-8"),
    ("weights.0.shape", [-1], "'weights\\[0\\].shape'"),
])  # fmt: skip
def test_a_wrong_value_is_named_with_what_it_must_be(bundle, path, value, text):
    edit(bundle, set_at(path, value))
    with pytest.raises(BundleError, match=text):
        open_bundle(bundle)


def without_gradient(bundle: Path, missing: str | None) -> None:
    (bundle / "gradient.onnx").unlink()

    def change(values):
        del values["files"]["gradient.onnx"]
        values["gradient"] = {"missing": missing, "error": None}

    edit(bundle, change)


def test_a_bundle_may_lack_its_gradient_and_say_why(bundle):
    without_gradient(bundle, "no gradient rule for CumSum")
    manifest = open_bundle(bundle).manifest
    assert manifest.gradient_missing == "no gradient rule for CumSum"
    assert manifest.to_json() == json.loads((bundle / MANIFEST).read_text())


def test_a_bundle_that_lacks_its_gradient_and_does_not_say_why_is_refused(bundle):
    without_gradient(bundle, None)
    with pytest.raises(
        BundleError, match="'gradient.missing' must be null with gradient.onnx, or the reason without, got None"
    ):
        open_bundle(bundle)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_value_anywhere_gives_a_manifest_or_a_bundle_error(tiny_bundle, data):
    values = copy.deepcopy(json.loads((tiny_bundle / MANIFEST).read_text()))
    node, key = values, None
    for _ in range(data.draw(st.integers(1, 4))):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        parent, key = node, data.draw(st.sampled_from(keys))
        node = node[key]
        if not isinstance(node, dict | list):
            break
    parent[key] = data.draw(JSON)
    try:
        assert isinstance(Manifest.from_json(values), Manifest)
    except BundleError as error:
        assert str(error).startswith("bundle.json")


@pytest.mark.parametrize("name", ["head.onnx", "weights.bin"])
def test_a_pipe_in_a_files_place_is_refused_instead_of_waited_for(bundle, name):
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError, match="a pipe or a device"):
        open_bundle(bundle)


def test_a_path_too_long_for_the_system_is_refused():
    with pytest.raises(BundleError, match="File name too long"):
        open_bundle("x" * 5000)


# --- later --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(("name", "text"), [
    (MANIFEST, "was replaced since it was loaded"), ("gradient.onnx", "gradient.onnx is not the file"),
    ("weights.bin", "weights.bin is not the file"),
])  # fmt: skip
def test_what_changed_since_it_was_loaded_is_noticed_before_a_late_graph_opens(bundle, monkeypatch, cache, name, text):
    monkeypatch.setattr("camrt.cache.SETTLED", -1)
    opened = open_bundle(bundle, cache=cache)
    opened.check_unchanged("gradient")
    (bundle / name).write_bytes((bundle / name).read_bytes()[:-1] + b"!")
    with pytest.raises(BundleError, match=text):
        opened.check_unchanged("gradient")


def test_the_size_of_all_weights_is_that_of_the_file_less_what_aligns_them(bundle):
    opened = open_bundle(bundle)
    assert 0 <= (bundle / "weights.bin").stat().st_size - opened.weights_size < 64 * len(opened.manifest.weights)


# --- labels -------------------------------------------------------------------------------------------------------------
def test_a_label_matches_as_a_line_or_by_one_of_its_names():
    labels = ["tench, Tinca tinca", "crane", "crane, hoist", "dog"]
    assert match_label(labels, "TINCA Tinca") == [0]
    assert match_label(labels, "tench, tinca tinca") == [0]
    assert match_label(labels, "dog ") == [3]
    assert match_label(labels, "crane") == [1, 2]
    assert match_label(labels, "crane, hoist") == [2]
    assert match_label(labels, "do") == []
    assert match_label([], "dog") == []
