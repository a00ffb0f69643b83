from __future__ import annotations

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

import camrt
from camrt.evaluate import GROUPS, METRICS, Asked, describe, find_photos, summarise
from camrt.evaluate import attempt as attempts
from camrt.evaluate import evaluation as module
from camrt.evaluate.attempt import FAILED, attempt
from camrt.evaluate.measures import measure
from camrt.evaluate.records import FILE
from camrt.evaluate.scene import scene_of
from camrt.evaluate.scorer import Scorer
from camrt.evaluate.summary import verdict
from camrt.evaluate.tables import methods_csv, photos_csv, text_table, to_json
from camrt.evaluate.thumbnail import read_thumbnail, thumbnail
from camrt.metrics import PROTOCOLS, Interval, deletion, insertion

from ..conftest import SAMPLES
from . import conftest

COARSE = replace(PROTOCOLS["rise"], points=5)
NAMES = ["star.png", "two.png"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two scenes, and a picture that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for source, name in zip(sorted(SAMPLES.glob("*.png")), NAMES, strict=False):
        shutil.copy(source, folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    return folder


def evaluation_of(explainer, photos, methods=("grad-cam", "cluster-cam"), **options):
    return conftest.evaluation_of(explainer, photos, methods, **{"controls": False, **options})


@pytest.fixture(scope="module")
def found(shapes, photos, tmp_path_factory):
    """Every figure of two methods and the controls."""
    evaluation = evaluation_of(shapes, photos, groups=GROUPS, controls=True)
    records = evaluation.run(tmp_path_factory.mktemp("report"))
    return summarise(evaluation, records)


def test_the_figures_are_those_of_the_metrics(shapes, photos, tmp_path):
    evaluation = evaluation_of(shapes, photos, ["grad-cam"])
    summary = summarise(evaluation, evaluation.run(tmp_path))
    scene = scene_of(shapes, evaluation.subjects[1], "top")
    heatmap = shapes.explain(photos / "star.png", method="grad-cam").network_heatmap[0]
    given = attempt(shapes, scene.x, evaluation.variants[0], scene.target)
    assert np.abs(given.heatmap - heatmap).max() < 1e-6
    values = summary.results["star.png", "grad-cam"].values
    score = Scorer(shapes, scene.target)
    assert values["insertion"] == pytest.approx(insertion(scene.x, given.heatmap, score, COARSE).area, abs=1e-5)
    assert values["deletion"] == pytest.approx(deletion(scene.x, given.heatmap, score, COARSE).area, abs=1e-5)
    whole, left = score(np.stack([scene.x, scene.x * given.heatmap]))
    assert values["average_drop"] == pytest.approx(max(0, whole - left) / whole, abs=1e-5)
    assert values["increase"] == float(left > whole)


def test_every_figure_has_a_value_where_it_applies(found):
    of_method = found.rows[1].figures
    assert set(of_method) == set(METRICS) - {"pointing", "energy"}  # nobody told where the objects lie
    assert set(found.rows[0].figures) == set(of_method) - {"seeds"}  # Grad-CAM has none
    assert all(np.isfinite([i.mean, i.low, i.high]).all() and i.low <= i.mean <= i.high for i in of_method.values())


def test_shuffled_weights_change_the_heatmap(found):
    assert found.rows[1].figures["randomisation"].mean < 0.9


def test_a_control_costs_nothing_and_is_no_better_than_methods(found):
    random = next(row for row in found.rows if row.variant.name == "random map")
    assert (random.passes, random.ms, random.ratio, random.memory) == (0, None, None, None)
    assert random.figures["insertion_deletion"].mean < found.rows[0].figures["insertion_deletion"].mean


def test_a_broken_photo_is_told_and_the_rest_is_measured(found):
    assert list(found.failed) == ["broken.jpg"]
    assert list(found.photos) == NAMES


def test_costs_are_those_of_the_method(found):
    row = found.rows[1]
    assert row.cost == "11 passes + 40 of the tail"
    assert row.ms is not None
    assert row.ms > 0
    assert row.memory is not None
    assert row.memory > 20


def test_a_run_goes_on_where_it_was_stopped_and_ends_with_the_same_results(shapes, photos, tmp_path):
    class Stop(Exception):
        pass

    evaluation = evaluation_of(shapes, photos)
    whole = evaluation.run(tmp_path / "whole")
    for stop_after in (1, 2, 3, 4):
        steps = []

        def stop(count, steps=steps, limit=stop_after):
            steps.append(count)
            if sum(steps) >= limit + 2:  # the broken photo takes two
                raise Stop

        with pytest.raises(Stop):
            evaluation.run(tmp_path / "stopped", step=stop)
    again = evaluation.run(tmp_path / "stopped")
    values = [{key: result.values for key, result in summarise(evaluation, r).results.items()} for r in (whole, again)]
    assert values[0] == values[1]
    results = [line for line in map(json.loads, (tmp_path / "stopped" / FILE).read_text().splitlines()) if "values" in line]
    assert len(results) == 4  # nothing was measured twice


def test_a_second_run_measures_nothing(shapes, photos, tmp_path, monkeypatch):
    evaluation = evaluation_of(shapes, photos)
    evaluation.run(tmp_path)
    monkeypatch.setattr(module, "measure", None)
    monkeypatch.setattr(module, "footprint", None)
    evaluation.run(tmp_path)


def test_methods_can_be_added_later(shapes, photos, tmp_path):
    evaluation_of(shapes, photos, ["grad-cam"]).run(tmp_path)
    evaluation = evaluation_of(shapes, photos, ["hires-cam", "grad-cam"])
    summary = summarise(evaluation, evaluation.run(tmp_path))
    assert summary.reference == "hires-cam"
    assert [len(row.figures) for row in summary.rows] == [5, 5]
    assert not summary.rows[0].differences


def test_a_photo_that_changed_is_measured_again(shapes, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    evaluation = evaluation_of(shapes, tmp_path / "photos", ["grad-cam"])
    before = summarise(evaluation, evaluation.run(tmp_path / "report"))
    pixels = cv2.imread(str(tmp_path / "photos" / "star.png"))
    cv2.imwrite(str(tmp_path / "photos" / "star.png"), np.roll(pixels, 40, axis=1))
    after = summarise(evaluation, evaluation.run(tmp_path / "report"))
    key, other = ("star.png", "grad-cam"), ("two.png", "grad-cam")
    assert before.results[key].values != after.results[key].values
    assert before.results[other] == after.results[other]


def test_a_photo_that_is_again_what_it_was_has_its_first_figures(shapes, photos, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    first, second = ((folder / name).read_bytes() for name in NAMES)
    found = []
    for data in (first, second, first, b"broken", first):
        (folder / NAMES[0]).write_bytes(data)
        evaluation = evaluation_of(shapes, folder, ["grad-cam"], groups=("faithfulness",))
        summary = summarise(evaluation, evaluation.run(tmp_path / "report"))
        found.append(summary.photos[NAMES[0]].probability if NAMES[0] in summary.photos else None)
    assert found[0] == found[2] == found[4] != found[1]
    assert found[3] is None


def test_figures_of_shuffled_weights_are_those_of_the_photo_as_it_is(shapes, photos, tmp_path):
    folder = shutil.copytree(photos, tmp_path / "photos")
    figures = []
    for name in NAMES:
        (folder / NAMES[0]).write_bytes((photos / name).read_bytes())
        evaluation = evaluation_of(shapes, folder, ["grad-cam"], groups=("randomisation",))
        summary = summarise(evaluation, evaluation.run(tmp_path / "report"))
        figures.append({name: summary.results[name, "grad-cam"].values["randomisation"] for name in NAMES})
    assert figures[1][NAMES[0]] == figures[1][NAMES[1]] == figures[0][NAMES[1]] != figures[0][NAMES[0]]


@pytest.mark.parametrize("text", ["!!", "AAAA", "é"])
def test_a_damaged_thumbnail_is_refused(text):
    with pytest.raises(camrt.ParameterError, match="damaged"):
        read_thumbnail(text)


def test_more_points_than_pixels_are_refused_before_anything_is_measured(shapes, photos):
    with pytest.raises(camrt.ParameterError, match="has at most"):
        replace(evaluation_of(shapes, photos, ["cam"]), asked=Asked(replace(COARSE, points=10**30)))


def test_restart_forgets_what_is_there(shapes, photos, tmp_path):
    evaluation_of(shapes, photos, ["grad-cam"]).run(tmp_path)
    other = replace(evaluation_of(shapes, photos, ["grad-cam"]), asked=Asked(PROTOCOLS["group-cam"], ("adcc",)))
    with pytest.raises(camrt.ParameterError, match="protocol was 'rise', is 'group-cam'"):
        other.run(tmp_path)
    other.run(tmp_path, restart=True)


def test_a_method_that_the_bundle_cannot_run_is_told(shapes, photos, tmp_path):
    evaluation = evaluation_of(shapes, photos, ["cam", "grad-cam"])
    summary = summarise(evaluation, evaluation.run(tmp_path))
    assert "global average pooling" in (summary.rows[0].unavailable or "")
    assert summary.reference == "grad-cam"


def test_a_bundle_without_gradients_is_measured_by_the_methods_that_need_none(tiny_bundle, photos, tmp_path):
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    known = json.loads((bundle / "bundle.json").read_text())
    known["gradient"] = {"missing": "no rule for Bend", "error": None}
    del known["files"]["gradient.onnx"]
    (bundle / "bundle.json").write_text(json.dumps(known))
    (bundle / "gradient.onnx").unlink()
    evaluation = evaluation_of(camrt.load(bundle, ["cpu"]), photos, ["grad-cam", "eigen-cam"])
    rows = summarise(evaluation, evaluation.run(tmp_path / "report")).rows
    assert "no rule for Bend" in rows[0].unavailable
    assert rows[1].unavailable is None


def test_a_method_whose_package_was_installed_since_is_measured(shapes, photos, tmp_path, monkeypatch):
    def refuse(*_):
        raise camrt.MethodUnavailable("no package")

    evaluation = evaluation_of(shapes, photos, ["grad-cam", "eigen-cam"])
    with monkeypatch.context() as patched:
        patched.setattr("camrt.evaluate.measures.attempt", lambda *a: refuse() if a[2].name == "eigen-cam" else attempt(*a))
        before = evaluation.run(tmp_path)
        kept = len(evaluation.run(tmp_path).lines) - len(before.lines)
    assert summarise(evaluation, before).rows[1].unavailable == "no package"
    assert kept == 2  # that it cannot run, and the photo that cannot be read: no line of a photo once more
    assert summarise(evaluation, evaluation.run(tmp_path)).rows[1].unavailable is None


def test_a_method_that_breaks_off_counts_with_a_heatmap_of_zeros(shapes, photos, tmp_path, monkeypatch):
    def full(*_):
        raise camrt.DeviceMemoryError("cpu has no memory left.")

    evaluation = evaluation_of(shapes, photos)
    monkeypatch.setattr(attempts, "signed_maps", full)
    summary = summarise(evaluation, evaluation.run(tmp_path))
    row = summary.rows[0]
    assert row.outcomes == {FAILED: 2}
    assert row.degenerate == 2
    assert row.figures["average_drop"].n == 2
    assert summary.results["star.png", "grad-cam"].notes == ["cpu has no memory left."]


def test_degenerate_heatmaps_count(tiny, tmp_path):
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "grey.png"), np.full((32, 32, 3), 127, np.uint8))
    evaluation = evaluation_of(tiny, tmp_path / "photos", ["grad-cam"], groups=("faithfulness", "adcc", "stability"))
    row = summarise(evaluation, evaluation.run(tmp_path / "report")).rows[0]
    assert sum(row.outcomes.values()) == 1
    assert all(np.isfinite(interval.mean) for interval in row.figures.values())


def test_labels_are_explained_where_that_is_asked_and_all_are_known(shapes, photos, tmp_path):
    with pytest.raises(camrt.ParameterError, match="3 of 3 photos have none"):
        evaluation_of(shapes, photos, target="label")
    (tmp_path / "labels.csv").write_text("file,class\nstar.png,ring\ntwo.png,star\nbroken.jpg,star\n")
    evaluation = evaluation_of(shapes, photos, ["grad-cam"], target="label", labels=tmp_path / "labels.csv")
    summary = summarise(evaluation, evaluation.run(tmp_path / "report"))
    ring = shapes.manifest.labels.index("ring")
    assert summary.photos["star.png"].target == ring
    assert summary.accuracy[1] == 2


def test_pointing_is_measured_where_the_object_is_known_and_named(shapes, photos, tmp_path):
    top = shapes.explain(photos / "star.png").targets[0].index
    height, width = camrt.load_photo(photos / "star.png").pixels.shape[:2]
    (tmp_path / "boxes.csv").write_text(
        f"file,class_index,x0,y0,x1,y1\nstar.png,{top},0,0,{width},{height}\ntwo.png,{(top + 1) % 8},0,0,9,9\n"
    )
    evaluation = evaluation_of(shapes, photos, ["grad-cam"], groups=("localisation",), boxes=tmp_path / "boxes.csv")
    summary = summarise(evaluation, evaluation.run(tmp_path / "report"))
    assert summary.results["star.png", "grad-cam"].values == {"pointing": 1.0, "energy": pytest.approx(1, abs=1e-6)}
    assert summary.results["two.png", "grad-cam"].values == {"pointing": None, "energy": None}
    assert summary.rows[0].figures["pointing"].n == 1


@pytest.mark.parametrize("shape", [(224, 224), (30, 90), (1, 1)])
def test_a_thumbnail_keeps_the_heatmap(shape):
    smooth = cv2.resize(np.random.default_rng(0).random((5, 5), np.float32), shape[::-1])
    small = read_thumbnail(thumbnail(smooth))
    assert max(small.shape) <= 56
    assert np.abs(cv2.resize(small, shape[::-1]) - smooth).mean() < 0.03


def test_the_tables_agree_with_the_figures(found):
    described = to_json(found)
    json.dumps(described, allow_nan=False)
    row = described["methods"][1]
    assert row["figures"]["deletion"]["mean"] == found.rows[1].figures["deletion"].mean
    assert len(described["protocol"]["fractions"]) == len(row["curves"]["deletion"]) == 5
    assert [p["photo"] for p in described["by_photo"]] == NAMES
    header, *rows = methods_csv(found).decode().splitlines()
    assert header.startswith("method,unavailable,photos,degenerate,insertion_deletion,insertion_deletion_low")
    assert len(rows) == 4
    assert len(photos_csv(found).decode().splitlines()) == 1 + 2 * 4
    assert len(text_table(found)) == 5


def test_a_cell_of_the_csv_is_never_a_formula(shapes, photos, tmp_path):
    (tmp_path / "photos").mkdir()
    shutil.copy(photos / "star.png", tmp_path / "photos" / "=1+1.png")
    evaluation = evaluation_of(shapes, tmp_path / "photos", ["grad-cam"])
    summary = summarise(evaluation, evaluation.run(tmp_path / "report"))
    assert "\r\n'=1+1.png," in photos_csv(summary).decode()


def test_steps_add_up_whether_measured_or_kept(shapes, photos, tmp_path):
    evaluation = evaluation_of(shapes, photos, ["grad-cam", "cam"], groups=("faithfulness", "randomisation"))
    for _ in range(2):
        steps = []
        evaluation.run(tmp_path, step=steps.append)
        assert sum(steps) == evaluation.steps


def test_an_object_that_was_cropped_away_is_not_looked_for(tiny, tmp_path, pixels, monkeypatch):
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), pixels[..., ::-1])
    top = tiny.explain(pixels).targets[0].index
    (tmp_path / "boxes.csv").write_text(f"file,class_index,x0,y0,x1,y1\na.png,{top},0,0,3,3\n")
    subjects = describe(find_photos([tmp_path / "photos"]), tiny.manifest, boxes=tmp_path / "boxes.csv")
    assert scene_of(tiny, subjects[0], "top").region.any()
    monkeypatch.setattr("camrt.evaluate.scene.on_network", lambda region, _: np.zeros_like(region))
    assert scene_of(tiny, subjects[0], "top").region is None


def test_a_measure_of_a_scene_asks_for_no_more_than_its_groups(shapes, photos):
    evaluation = evaluation_of(shapes, photos, ["grad-cam"])
    scene = scene_of(shapes, evaluation.subjects[1], "top")
    found = measure(shapes, scene, evaluation.variants[0], Asked(COARSE, ("adcc",)))
    assert set(found.values) == {"coherency", "complexity", "adcc"}


def test_fewer_photos_than_can_tell_decide_nothing():
    interval = Interval(0.2, 0.1, 0.3, 9)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("camrt.evaluate.summary.FEWEST", 10)
        assert verdict("insertion", interval) == "undecided"
        assert verdict("insertion", replace(interval, n=10)) == "better"
        assert verdict("deletion", replace(interval, n=10)) == "worse"


def test_localisation_alone_is_refused_where_nobody_told_where_objects_lie(shapes, photos):
    with pytest.raises(camrt.ParameterError, match="nobody told where objects lie"):
        evaluation_of(shapes, photos, groups=("localisation",))


def test_one_photo_alone_decides_nothing(shapes, photos, tmp_path):
    evaluation = evaluation_of(shapes, photos / "star.png")
    row = summarise(evaluation, evaluation.run(tmp_path)).rows[1]
    assert row.differences["insertion"].interval.mean != 0
    assert {difference.verdict for difference in row.differences.values()} == {"undecided"}
