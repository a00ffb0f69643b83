from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

import camrt
from camrt import Outcome
from camrt.errors import ExplanationError, ParameterError
from camrt.explanation import Explanation, Target, slug
from camrt.render import COLORMAPS, overlay

from .conftest import SAMPLES


@pytest.fixture(scope="module")
def explanation(shapes) -> Explanation:
    return shapes.explain(SAMPLES / "star_ring.png", top=2)


# --- looking at it --------------------------------------------------------------------------------------------------------
def test_the_overlay_has_the_photos_size_and_is_hot_where_the_heatmap_is(explanation):
    drawn = explanation.overlay(0, colormap="jet", alpha=1.0)
    assert (drawn.shape, drawn.dtype) == ((384, 384, 3), np.uint8)
    heat = explanation.heatmap[0]
    hot, cold = drawn[heat > 0.95].mean(axis=0), drawn[heat < 0.05].mean(axis=0)
    assert hot[0] > hot[2]
    assert cold[2] > cold[0]


def test_what_the_network_did_not_see_is_not_coloured(tiny_bundle, tmp_path):
    from exporters import export
    from tests import graphs

    source = graphs.save(graphs.classifier(), tmp_path / "m.onnx")
    export(source, tmp_path / "cropped", overrides={"resize": 40, "scale": 1 / 255})
    photo = np.random.default_rng(0).integers(0, 256, (50, 100, 3), np.uint8)
    explanation = camrt.load(tmp_path / "cropped").explain(photo)
    seen = explanation.geometry.seen()
    assert 0 < seen.mean() < 1
    drawn = explanation.overlay()
    assert np.array_equal(drawn[~seen], photo[~seen])
    assert (drawn[seen] != photo[seen]).any(axis=1).mean() > 0.9
    assert not explanation.heatmap[:, ~seen].any()


def test_alpha_zero_is_the_photo(explanation):
    assert np.array_equal(explanation.overlay(alpha=0), explanation.photo.pixels)


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_every_colormap_draws(colormap):
    ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (8, 1))
    drawn = overlay(np.zeros((8, 32, 3), np.uint8), ramp, np.ones((8, 32), bool), alpha=1, colormap=colormap)
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 16


@pytest.mark.parametrize("options", [{"alpha": 2}, {"alpha": -0.1}, {"colormap": "pink"}, {"target": 2}, {"target": -1}])
def test_an_overlay_that_cannot_be_drawn_is_refused(explanation, options):
    with pytest.raises(ParameterError):
        explanation.overlay(**options)


def test_the_repr_shows_targets_and_shapes_not_contents(explanation):
    text = repr(explanation)
    assert "star" in text
    assert "(2, 12, 12)" in text
    assert len(text) < 160


# --- writing it ---------------------------------------------------------------------------------------------------------
def test_saving_writes_overlays_heatmaps_and_json(explanation, tmp_path):
    files = explanation.save(tmp_path / "new" / "out")
    assert sorted(f.name for f in files) == [
        "star_ring.explanation.json", "star_ring.npy", "star_ring.ring.png", "star_ring.star.png"
    ]  # fmt: skip
    assert sorted((tmp_path / "new" / "out").iterdir()) == sorted(files)
    array = np.load(tmp_path / "new/out/star_ring.npy")
    assert array.dtype == np.float32
    assert np.array_equal(array, explanation.heatmap)
    drawn = cv2.imread(str(tmp_path / "new/out/star_ring.star.png"))[..., ::-1]
    assert np.array_equal(drawn, explanation.overlay([t.name for t in explanation.targets].index("star")))
    described = json.loads((tmp_path / "new/out/star_ring.explanation.json").read_text())
    assert {t["label"] for t in described["targets"]} == {"star", "ring"}
    assert (described["passes"], described["tail_passes"], described["backward_passes"]) == (11, 40, 0)
    assert described["bundle"]["name"] == "shapes"
    assert described["files"]["heatmap"] == "star_ring.npy"


def test_saving_again_replaces_whole_files(explanation, tmp_path):
    explanation.save(tmp_path)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    explanation.save(tmp_path)
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_two_targets_of_one_name_get_two_files(tiny, pixels, tmp_path):
    tiny.explain(pixels, targets=[2, 4]).save(tmp_path, "photo")
    assert {f.name for f in tmp_path.glob("*.png")} == {"photo.crane-2.png", "photo.crane-4.png"}


def test_a_target_versus_another_class_is_named_after_both(tiny, pixels, tmp_path):
    explanation = tiny.explain(pixels, targets=["dog", "honeybee"], versus="ant", method="hires-cam")
    assert "dog versus ant" in repr(explanation)
    files = explanation.save(tmp_path, "photo")
    assert [f.name for f in files] == [
        "photo.dog_versus_ant.png", "photo.bee_versus_ant.png", "photo.npy", "photo.explanation.json"
    ]  # fmt: skip
    described = json.loads(files[-1].read_text())
    assert [t["label"] for t in described["targets"]] == ["dog", "bee, honeybee"]
    assert [t["versus"] for t in described["targets"]] == [{"index": 0, "label": "ant"}] * 2
    assert (described["passes"], described["tail_passes"], described["backward_passes"]) == (1, 0, 2)


def test_two_targets_of_one_name_versus_another_get_two_files(tiny, pixels, tmp_path):
    tiny.explain(pixels, targets=[2, 4], versus="dog").save(tmp_path, "photo")
    assert {f.name for f in tmp_path.glob("*.png")} == {"photo.crane_versus_dog-2.png", "photo.crane_versus_dog-4.png"}


def test_without_versus_the_json_says_so(explanation):
    assert [t["versus"] for t in explanation.to_json()["targets"]] == [None, None]


def test_a_failed_save_leaves_nothing_behind(explanation, tmp_path, monkeypatch):
    import camrt.files

    (tmp_path / "star_ring.npy").write_bytes(b"from before")
    written = []

    def full_disk(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(camrt.files.os, "fsync", full_disk)
    with pytest.raises(ExplanationError, match="No space left on device.*nothing was changed"):
        explanation.save(tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["star_ring.npy"]
    assert (tmp_path / "star_ring.npy").read_bytes() == b"from before"


def test_a_file_in_the_folders_place_is_an_error(explanation, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(ExplanationError, match="cannot be written"):
        explanation.save(tmp_path / "out")


def test_a_probability_that_is_not_a_number_is_null_in_json(explanation):
    target = Target(1, "x", float("nan"), Outcome.NOT_FINITE)
    other = Explanation(explanation.photo, (target,), explanation.maps[:1], explanation.geometry, (), explanation.run, explanation.logits)
    assert json.loads(json.dumps(other.to_json(), allow_nan=False))["targets"][0]["probability"] is None


@pytest.mark.parametrize(("text", "expected"), [
    ("great white shark", "great_white_shark"), ("../../etc", "etc"), ("a/b\\c", "a_b_c"), ("", "image"), ("...", "image"),
    ("Hündchen", "Hündchen"), ("x" * 500, "x" * 80), ("日" * 90, "日" * 26), ("line\nbreak", "line_break"),
])  # fmt: skip
def test_names_become_safe_parts_of_file_names(text, expected):
    assert slug(text) == expected


def test_the_same_target_twice_gets_two_files(tiny, pixels, tmp_path):
    files = tiny.explain(pixels, targets=[3, "dog", 3]).save(tmp_path, "photo")
    assert [f.name for f in files[:3]] == ["photo.dog-3.png", "photo.dog-3.2.png", "photo.dog-3.3.png"]
    assert np.load(tmp_path / "photo.npy").shape[0] == 3


def test_a_folder_in_the_way_of_one_file_leaves_the_others_as_they_were(explanation, tmp_path):
    explanation.save(tmp_path)
    before = (tmp_path / "star_ring.star.png").read_bytes()
    (tmp_path / "star_ring.npy").unlink()
    (tmp_path / "star_ring.npy").mkdir()
    with pytest.raises(ExplanationError, match="star_ring.npy is a folder"):
        explanation.save(tmp_path, alpha=0.9)
    assert (tmp_path / "star_ring.star.png").read_bytes() == before


def test_the_explanation_does_not_share_the_callers_buffer(tiny, pixels):
    explanation = tiny.explain(pixels)
    before = explanation.overlay()
    pixels[:] = 0
    assert np.array_equal(explanation.overlay(), before)
