"""On the built-in network: what changes, what stays, and that a randomised copy is still one network."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest

import camrt
from camrt.bundle import open_bundle
from camrt.errors import BundleError, ParameterError
from camrt.manifest import WEIGHTS, Weight
from camrt.metrics import depths, randomised
from camrt.metrics.randomisation import permuted
from tests.conftest import ROOT, SAMPLES

LAST, FIRST = 27, 0  # depths of the built-in network's classifier and stem


@pytest.fixture(scope="module")
def bundle():
    return open_bundle("shapes")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 3, 96, 96)).astype(np.float32)


def opened(folder) -> camrt.Explainer:
    return camrt.load(folder, providers=["cpu"], cache=False)


def tensors(folder) -> dict[str, np.ndarray]:
    found = open_bundle(folder)
    data = (found.folder / WEIGHTS).read_bytes()
    return {w.name: np.frombuffer(data[w.offset : w.offset + w.length], w.dtype) for w in found.manifest.weights}


# --- what changes -----------------------------------------------------------------------------------------------------
def test_tensors_from_the_depth_on_keep_their_values_and_lose_their_order(bundle, tmp_path):
    before, after = tensors(bundle.folder), tensors(randomised(bundle, tmp_path / "copy", 20))
    depth_of = {w.name: w.depth for w in bundle.manifest.weights}
    for name, values in before.items():
        assert np.array_equal(np.sort(values), np.sort(after[name]))
        assert np.array_equal(values, after[name]) == (depth_of[name] < 20), name


def test_a_longer_cascade_contains_the_shorter(bundle, tmp_path):
    short, long = (tensors(randomised(bundle, tmp_path / str(depth), depth)) for depth in (25, 11))
    depth_of = {w.name: w.depth for w in bundle.manifest.weights}
    for name, depth in depth_of.items():
        assert np.array_equal(short[name], long[name]) == (depth >= 25 or depth < 11), name


def test_each_tensor_and_each_seed_has_a_permutation_of_its_own():
    weights = [Weight(name, "int32", (50,), 200 * i, 200, 0, ("head",)) for i, name in enumerate("ab")]
    data = np.tile(np.arange(50, dtype=np.int32), 2).tobytes()
    found, again, other = (np.frombuffer(permuted(data, weights, 0, seed), np.int32).reshape(2, 50) for seed in (0, 0, 1))
    assert np.array_equal(found, again)
    assert len({tuple(row) for row in (*found, *other)}) == 4


@pytest.mark.parametrize("depth", [LAST, 13, FIRST])
def test_the_logits_change_and_the_copy_is_still_one_network(bundle, shapes, images, tmp_path, depth):
    copy = opened(randomised(bundle, tmp_path / "copy", depth))
    logits = copy.engine.forward(images)
    assert np.isfinite(logits).all()
    assert np.abs(logits - shapes.engine.forward(images)).max() > 0.1
    np.testing.assert_allclose(copy.engine.whole(copy.engine.put(images))[1], logits, rtol=0, atol=1e-4)


def test_the_features_change_only_when_the_cascade_reaches_the_head(bundle, shapes, images, tmp_path):
    features = [
        engine.features(engine.put(images)).numpy()
        for engine in (shapes.engine, *(opened(randomised(bundle, tmp_path / str(d), d)).engine for d in (25, 20)))
    ]
    assert np.array_equal(features[0], features[1])
    assert np.abs(features[0] - features[2]).max() > 0.1


def test_gradients_are_those_of_the_randomised_tail(bundle, tmp_path):
    copy = opened(randomised(bundle, tmp_path / "copy", 25))
    features = np.random.default_rng(0).random((1, *bundle.manifest.features.shape[1:])).astype(np.float32)
    cotangents = np.zeros((1, 1, bundle.manifest.classes), np.float32)
    cotangents[..., 2] = 1
    gradient = copy.engine.gradients(features, cotangents).values[0, 0]
    along = np.random.default_rng(1).normal(size=features.shape).astype(np.float32) * 1e-2
    change = copy.engine.logits(features + along)[0, 2] - copy.engine.logits(features - along)[0, 2]
    assert (gradient * along[0]).sum() * 2 == pytest.approx(change, rel=2e-2)


def test_beyond_the_last_layer_nothing_changes(bundle, shapes, images, tmp_path):
    folder = randomised(bundle, tmp_path / "copy", LAST + 1)
    assert (folder / WEIGHTS).read_bytes() == (bundle.folder / WEIGHTS).read_bytes()
    assert np.array_equal(opened(folder).engine.forward(images), shapes.engine.forward(images))


def test_a_randomised_copy_explains_photos(bundle, tmp_path):
    explanation = opened(randomised(bundle, tmp_path / "copy", FIRST)).explain(SAMPLES / "star.png")
    assert np.isfinite(explanation.heatmap).all()


# --- what stays -------------------------------------------------------------------------------------------------------
def test_only_the_weights_their_hash_and_the_name_differ(bundle, tmp_path):
    folder = randomised(bundle, tmp_path / "copy", 20, seed=3)
    copy = open_bundle(folder).manifest.to_json()
    ours = bundle.manifest.to_json()
    assert copy.pop("name") == "shapes, randomised from depth 20 on, seed 3"
    assert ours.pop("name") == "shapes"
    assert copy["files"].pop(WEIGHTS) == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert ours["files"].pop(WEIGHTS) != hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert copy == ours
    assert sorted(p.name for p in folder.iterdir()) == sorted(["bundle.json", *bundle.manifest.files])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float16", "bfloat16", "float64", "int64"])
def test_elements_of_any_type_move_whole(dtype):
    size = {"int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2, "float64": 8, "int64": 8}[dtype]
    data = np.random.default_rng(0).integers(0, 256, 3 + 40 * size, np.uint8).tobytes()
    found = permuted(data, [Weight("w", dtype, (8, 5), 3, 40 * size, 0, ("head",))], 0, 0)
    assert found[:3] == data[:3]
    elements = [[part[i : i + size] for i in range(3, len(part), size)] for part in (data, found)]
    assert elements[0] != elements[1]
    assert sorted(elements[0]) == sorted(elements[1])


def test_single_elements_and_empty_tensors_stay():
    data = np.arange(4, dtype=np.int32).tobytes()
    weights = [Weight(str(i), "int32", (1,), 4 * i, 4, 0, ("head",)) for i in range(4)] + [
        Weight("none", "int32", (0,), 8, 0, 0, ("head",))
    ]
    assert permuted(data, weights, 0, 0) == data


# --- tensors over the same bytes --------------------------------------------------------------------------------------
def shared(second: Weight) -> tuple[bytes, list[Weight]]:
    return np.arange(40, dtype=np.int32).tobytes(), [Weight("a", "int32", (20,), 0, 80, 3, ("head",)), second]


def test_tensors_over_the_same_bytes_are_permuted_once():
    data, weights = shared(Weight("b", "float32", (4, 5), 0, 80, 3, ("tail",)))
    assert permuted(data, weights, 0, 0) == permuted(data, weights[:1], 0, 0)


def test_shared_bytes_stay_until_the_cascade_reaches_their_first_layer():
    data, weights = shared(Weight("b", "int32", (20,), 0, 80, 9, ("tail",)))
    assert permuted(data, weights, 9, 0) == data
    assert permuted(data, weights, 3, 0) != data


def test_tensors_that_overlap_in_part_keep_their_values_together():
    data, weights = shared(Weight("b", "int32", (20,), 40, 80, 3, ("tail",)))
    found = np.frombuffer(permuted(data, weights, 0, 0), np.int32)
    assert sorted(found[:30]) == list(range(30))
    assert found[30:].tolist() == list(range(30, 40))


def test_tensors_of_other_elements_over_the_same_bytes_are_refused():
    data, weights = shared(Weight("b", "int8", (80,), 0, 80, 3, ("tail",)))
    with pytest.raises(BundleError, match="'a' and 'b' share bytes .* Export the model again"):
        permuted(data, weights, 0, 0)


# --- depths -----------------------------------------------------------------------------------------------------------
def test_depths_go_from_the_last_layer_to_the_first(bundle):
    assert depths(bundle.manifest, 100) == [27, 25, 20, 18, 16, 13, 11, 9, 6, 4, 2, 0]


@pytest.mark.parametrize("stages", range(1, 13))
def test_so_many_depths_are_spread_over_the_layers(bundle, stages):
    found = depths(bundle.manifest, stages)
    every = depths(bundle.manifest, 100)
    assert len(found) == stages
    assert found[0] == LAST
    assert stages == 1 or found[-1] == FIRST
    steps = np.diff([every.index(depth) for depth in found])
    assert (steps > 0).all()
    assert stages == 1 or steps.max() - steps.min() <= 1


def test_no_stage_is_refused(bundle):
    with pytest.raises(ParameterError, match="stages must be 1 or more, got 0"):
        depths(bundle.manifest, 0)


# --- refusals ---------------------------------------------------------------------------------------------------------
def test_nothing_is_overwritten(bundle, tmp_path):
    (tmp_path / "photo.txt").write_text("mine")
    with pytest.raises(ParameterError, match="is not empty, and nothing is overwritten"):
        randomised(bundle, tmp_path, 20)
    assert [p.name for p in tmp_path.iterdir()] == ["photo.txt"]
    with pytest.raises(ParameterError, match="is not empty"):
        randomised(bundle, bundle.folder, 20)


def test_a_bundle_that_changed_meanwhile_is_refused(tmp_path):
    shutil.copytree(ROOT / "models" / "shapes", tmp_path / "mine")
    found = open_bundle(tmp_path / "mine")
    (tmp_path / "mine" / "tail.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match="tail.onnx was changed since the bundle was opened"):
        randomised(found, tmp_path / "copy", 20)
    assert not (tmp_path / "copy").exists()


def test_a_folder_that_cannot_be_made_is_refused(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="the randomised copy cannot be made"):
        randomised(bundle, tmp_path / "file", 20)
