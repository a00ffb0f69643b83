from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import exporters.compile
import exporters.fusion.methods
from camrt.bundle import open_bundle
from camrt.engine import Engine
from camrt.errors import BundleError, CamrtError, ExportError, MethodUnavailable, ParameterError
from camrt.explainer import Explainer
from camrt.methods import get_method
from camrt.photo import load_photo
from exporters import compile_bundle, export
from exporters.fusion import proof
from exporters.fusion.graph import LABELS, fuse
from exporters.fusion.proof import Agreement, Comparison, prove, sample_images
from tests import graphs
from tests.conftest import SAMPLES

QUICK = {"method": "grad-cam"}


@pytest.fixture
def target(tmp_path) -> Path:
    """A file to write, in a folder that is there and empty."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "tiny.explain.onnx"


def refused(target: Path, error: type[CamrtError], message: str, bundle: object, **options: object) -> str:
    """Hold that nothing is written, nor left behind, and return the message."""
    before = {path: path.read_bytes() for path in target.parent.iterdir()}
    with pytest.raises(error, match=message) as caught:
        compile_bundle(bundle, target, **options)
    assert {path: path.read_bytes() for path in target.parent.iterdir()} == before
    return str(caught.value)


# --- what is written --------------------------------------------------------------------------------------------------------
def test_the_file_is_one_checked_model_and_the_result_describes_it(tiny_bundle, target):
    found = compile_bundle(tiny_bundle, target, clusters=4)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    onnx.checker.check_model(onnx.load(target), full_check=True)
    assert (found.path, found.size) == (target, target.stat().st_size)
    assert (found.built.method, found.built.pixels) == ("cluster-cam", "float")
    assert found.built.parameters["clusters"] == 4
    assert found.built.parameters.keys() == get_method("cluster-cam").parameters.keys()
    assert found.built.network_size == sum(
        (tiny_bundle / name).stat().st_size for name in ("head.onnx", "tail.onnx", "weights.bin")
    )
    assert found.size <= 1.01 * found.built.network_size + 80_000
    assert json.loads(json.dumps(found.to_json()))["agreement"]["heatmap"] <= 1e-4


def test_what_was_added_is_said_in_percent_and_kilobytes():
    agreement = Agreement(1, 1e-4, 0, 0, 0, 0, 0, None)
    found = exporters.compile.Compiled(
        Path("x"), exporters.compile.Built(bytes(1_030_000), None, 1_000_000, "cam", {}, "float", agreement)
    )
    assert found.growth == "3.00 %, 30 kB"


@pytest.mark.parametrize("pixels", ["float", "uint8"])
def test_metadata_tell_how_the_file_was_proved(tiny_bundle, target, pixels):
    found = compile_bundle(tiny_bundle, target, pixels=pixels, max_masked_batch=5, clusters=4)
    told = {entry.key: entry.value for entry in onnx.load(target).metadata_props}
    assert json.loads(told["camrt.agreement"]) == found.to_json()["agreement"]
    assert told["camrt.input"] == pixels
    assert told["camrt.max_masked_batch"] == "5"
    assert told["camrt.labels"].split("\n") == list(open_bundle(tiny_bundle).manifest.labels)


def test_the_same_bundle_gives_the_same_bytes(tiny_bundle, target):
    compile_bundle(tiny_bundle, target, clusters=3)
    again = target.with_name("again.onnx")
    compile_bundle(tiny_bundle, again, clusters=3)
    assert again.read_bytes() == target.read_bytes()


def test_the_check_reads_the_clusters_and_the_file_does_not_give_them(tiny_bundle, target):
    found = compile_bundle(tiny_bundle, target, clusters=4)
    assert found.built.agreement.clusters == found.built.agreement.images
    assert LABELS not in {output.name for output in onnx.load(target).graph.output}


def test_a_method_without_clusters_counts_none(tiny_bundle, target):
    assert compile_bundle(tiny_bundle, target, **QUICK).built.agreement.clusters is None


def test_a_required_target_has_no_default(tiny_bundle, target):
    compile_bundle(tiny_bundle, target, require_target=True, **QUICK)
    assert "target" not in {tensor.name for tensor in onnx.load(target).graph.initializer}


def test_folders_that_are_missing_are_made(tiny_bundle, tmp_path):
    target = tmp_path / "a" / "b" / "c.onnx"
    compile_bundle(tiny_bundle, target, **QUICK)
    assert target.is_file()


def test_progress_names_every_step(tiny_bundle, target):
    steps: list[str] = []
    compile_bundle(tiny_bundle, target, progress=steps.append, **QUICK)
    assert steps == ["read", "fuse", "check 1 of 8", "check 3 of 8", "check 5 of 8", "check 7 of 8", "check 8 of 8", "write"]


def test_photos_are_proved_on_besides(target):
    found = compile_bundle("shapes", target, photos=[SAMPLES / "star.png"], **QUICK)
    assert found.built.agreement.images == 9


def test_a_photo_that_cannot_be_read_is_refused(tiny_bundle, target):
    refused(target, CamrtError, "there is no such file", tiny_bundle, photos=["missing.png"], **QUICK)


def test_force_replaces_the_whole_file(tiny_bundle, target):
    target.write_bytes(b"x" * 1_000_000)
    compile_bundle(tiny_bundle, target, force=True, **QUICK)
    onnx.checker.check_model(onnx.load(target))
    assert [path.name for path in target.parent.iterdir()] == [target.name]


# --- refusals -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("options", "error", "message"), [
    ({"method": "gradcam"}, ParameterError, "There is no method 'gradcam'. Did you mean 'grad-cam'"),
    ({"method": "rise"}, ParameterError, "rise cannot be compiled into one graph.*These can: cluster-cam"),
    ({"method": "cam"}, ParameterError, "cam cannot be compiled"),
    ({"method": "ablation-cam"}, ParameterError, "ablation-cam cannot be compiled"),
    ({"method": "eigen-cam"}, ParameterError, "eigen-cam cannot be compiled"),
    ({"clusters": "auto"}, ParameterError, "clusters='auto' cannot be compiled: K is fixed in a graph. Give a number"),
    ({"clustering": "spectral"}, ParameterError, "clustering='spectral' cannot be compiled"),
    ({"method": "group-cam", "grouping": "agglomerative"}, ParameterError, "grouping='agglomerative' cannot be compiled"),
    ({"clusters": 0}, ParameterError, "clusters must be a whole number from 1"),
    ({"klusters": 3}, ParameterError, "no parameter 'klusters'. Did you mean 'clusters'"),
    ({"pixels": "unit8"}, ParameterError, "pixels must be float or uint8, got 'unit8'. Did you mean 'uint8'"),
    ({"max_masked_batch": 0}, ParameterError, "max_masked_batch must be a whole number from 1"),
    ({"masking": "features", "baseline": "blur"}, ParameterError, "baseline='blur' goes with masking='both' or 'image'"),
])  # fmt: skip
def test_what_cannot_be_compiled_is_refused(tiny_bundle, target, options, error, message):
    refused(target, error, message, tiny_bundle, **options)


def test_a_bundle_that_there_is_not_is_refused(target):
    refused(target, BundleError, "There is no bundle 'nowhere'", "nowhere")


def test_a_bundle_without_gradients_is_refused_for_methods_that_need_them(target, tmp_path):
    body = """
        [conv1] c = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w1)   [relu1] features = Relu (c)
        [sum] s = CumSum (features, one)
        [pool] p = GlobalAveragePool (s)   [flatten] f = Flatten (p)   [fc] scores = Gemm (f, w2, b2)
    """
    source = graphs.save(graphs.parse(body, w1=(6, 3, 3, 3), w2=(6, 4), b2=(4,), one=np.array(1)), tmp_path / "model.onnx")
    manifest = export(source, tmp_path / "bundle", layer="features", overrides={"scale": 1 / 255})
    assert manifest.gradient_missing
    refused(
        target,
        MethodUnavailable,
        "grad-cam needs gradients.*no gradient rule for CumSum",
        tmp_path / "bundle",
        method="grad-cam",
    )
    compile_bundle(tmp_path / "bundle", target, clusters=3)


def test_an_existing_file_is_kept(tiny_bundle, target):
    target.write_text("mine")
    refused(target, ExportError, "exists. Choose another name, or replace it with --force", tiny_bundle)


def test_a_folder_is_no_file(tiny_bundle, target):
    with pytest.raises(ExportError, match="is a folder. Name the file to write, for instance .*model.explain.onnx"):
        compile_bundle(tiny_bundle, target.parent, force=True)
    assert not list(target.parent.iterdir())


def test_a_file_is_no_folder(tiny_bundle, target):
    target.write_text("mine")
    with pytest.raises(ExportError):
        compile_bundle(tiny_bundle, target / "x.onnx", **QUICK)
    assert target.read_text() == "mine"


def test_a_pipe_is_no_file_even_by_force(tiny_bundle, target):
    os.mkfifo(target)
    with pytest.raises(ExportError, match="is a pipe or a device, not a file"):
        compile_bundle(tiny_bundle, target, force=True, **QUICK)
    assert target.is_fifo()


def test_what_a_link_names_is_what_is_replaced(tiny_bundle, target, tmp_path):
    (tmp_path / "real.onnx").write_text("old")
    target.symlink_to(tmp_path / "real.onnx")
    compile_bundle(tiny_bundle, target, force=True, **QUICK)
    assert target.is_symlink()
    onnx.checker.check_model(onnx.load(tmp_path / "real.onnx"))


def test_a_file_that_appears_meanwhile_is_kept(tiny_bundle, target):
    def progress(step: str) -> None:
        if step == "write":
            target.write_text("somebody else's")

    with pytest.raises(ExportError, match="exists"):
        compile_bundle(tiny_bundle, target, progress=progress, **QUICK)
    assert target.read_text() == "somebody else's"


def test_a_name_that_is_too_long_is_told(tiny_bundle, target):
    with pytest.raises(ExportError, match="cannot be"):
        compile_bundle(tiny_bundle, target.with_name("x" * 300), **QUICK)
    assert not list(target.parent.iterdir())


def test_weights_that_one_file_cannot_hold_are_refused(tiny_bundle, target, monkeypatch):
    monkeypatch.setattr(exporters.compile, "LARGEST", 1000)
    refused(target, ExportError, "larger than the 2 GB that one ONNX file holds", tiny_bundle)


def test_a_disk_that_is_full_is_told_and_the_old_file_stays(tiny_bundle, target, monkeypatch):
    def full(folder, contents):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporters.compile, "write_together", full)
    target.write_text("mine")
    refused(target, ExportError, "No space left on device.*nothing was changed", tiny_bundle, force=True, **QUICK)


# --- the proof ------------------------------------------------------------------------------------------------------------------
def spoil(monkeypatch, method: str, change) -> None:
    """Change what a method's graph computes."""
    emit = exporters.fusion.methods.FUSED[method]

    def spoilt(op, network, image, **settings):
        return change(op, emit(op, network, image, **settings), image)

    monkeypatch.setitem(exporters.fusion.methods.FUSED, method, spoilt)


def test_a_graph_whose_heatmaps_differ_is_refused_with_the_figures(tiny_bundle, target, monkeypatch):
    def squared(op, found, _):
        return _with(found, signed=op.Mul(found.signed, found.signed))

    spoil(monkeypatch, "grad-cam", squared)
    message = refused(target, ExportError, "does not reproduce grad-cam: on sample image 0", tiny_bundle, **QUICK)
    found, allowed, rounding = map(float, re.findall(r"(?:by|is) ([0-9.e-]+\d)", message))
    assert found > allowed == 1e-4
    assert rounding < 1e-4


def test_a_graph_whose_logits_differ_is_refused_with_the_figures(tiny_bundle, target, monkeypatch):
    def moved(op, found, _):
        seen = _with(found.seen, logits=op.Add(found.seen.logits, op.number(0.25)))
        return _with(found, seen=seen)

    spoil(monkeypatch, "grad-cam", moved)
    message = refused(target, ExportError, "does not reproduce the network: on sample image 0", tiny_bundle, **QUICK)
    assert "allowed is 0.0001" in message


def test_a_graph_whose_outcomes_differ_is_refused(tiny_bundle, target, monkeypatch):
    def never_finite(op, found, _):
        return _with(found, seen=_with(found.seen, finite=op.Not(found.seen.finite)))

    spoil(monkeypatch, "hires-cam", never_finite)
    refused(target, ExportError, "its heatmap differs from the Python runtime's by 1,", tiny_bundle, method="hires-cam")


def test_a_graph_that_the_runtime_refuses_is_told(tiny_bundle, target, monkeypatch):
    spoil(monkeypatch, "grad-cam", lambda op, found, _: _with(found, signed=op.Reshape(found.signed, op.constant([7]))))
    refused(target, ExportError, "cannot run the compiled graph|the compiled graph", tiny_bundle, **QUICK)


def test_a_graph_that_differs_on_one_photo_alone_is_refused(target, monkeypatch):
    def fails_on_one_colour(op, found, image):
        extremes = (op.reduce(operator, image, 1, 2, 3) for operator in ("ReduceMax", "ReduceMin"))
        return _with(found, signed=op.Where(op.Equal(*extremes), op.number(np.nan), found.signed))

    spoil(monkeypatch, "grad-cam", fails_on_one_colour)
    compile_bundle("shapes", target, **QUICK)
    gray = np.full((96, 96, 3), 128, np.uint8)
    refused(target, ExportError, "on sample image 8 its heatmap", "shapes", photos=[gray], force=True, **QUICK)


def _with(value, **changes):
    return type(value)(**{**vars(value), **changes})


@pytest.mark.parametrize(("error", "by_rounding", "holds"), [
    (0.0, None, True),
    (1e-4, None, True),
    (1.01e-4, None, False),
    (1.01e-4, 0.0, False),
    (0.1, 0.01, True),
    (0.101, 0.01, False),
    (1.0, 1.0, True),
    (1.0, 0.09, False),
    (float("nan"), None, False),
    (float("nan"), 1.0, False),
])  # fmt: skip
def test_a_comparison_holds_within_the_tolerance_or_ten_times_what_rounding_does(error, by_rounding, holds):
    assert Comparison(error, by_rounding, 0.0, None).holds == holds


def agreement(bundle: Path, method: str = "grad-cam", **parameters: object) -> Agreement:
    """Return what the proof of a bundle's graph finds."""
    opened, chosen = open_bundle(bundle), get_method(method)
    explainer = Explainer(Engine(opened, ["cpu"]))
    settings = chosen.settings(parameters)
    model = fuse(opened, explainer.engine.black_logits(), chosen, settings, pixels="float", max_masked_batch=64)
    return prove(model.SerializeToString(), explainer, chosen, settings, pixels="float")


def test_logits_that_overflow_alike_agree_and_others_do_not():
    overflowing = np.array([np.inf, -np.inf, np.nan, 3], np.float32)
    assert proof._logits_error(overflowing, overflowing.copy()) == 0
    assert proof._logits_error(np.array([np.inf, np.inf, np.nan, 3]), overflowing) == np.inf
    assert proof._logits_error(np.array([np.inf, -np.inf, np.nan, np.nan]), overflowing) == np.inf
    assert proof._logits_error(np.array([1.0, 2.0]), np.array([1.0, 4.0])) == 0.5


def test_images_that_hang_on_rounding_are_told_apart(tiny_bundle, monkeypatch):
    calls = iter([0.3, 0.4, *[0.0] * 20])
    monkeypatch.setattr(proof, "_difference", lambda *_: next(calls))
    monkeypatch.setattr(proof, "_rounding", lambda *_: 0.2)
    found = agreement(tiny_bundle)
    assert (found.images, found.on_rounding, found.rounding, found.heatmap) == (8, 2, 0.4, 0.0)
    assert "heatmaps within 0 on 6 of 8 images" in found.verdict
    assert "within 0.4 on the 2 that hang on rounding" in found.verdict


def test_what_rounding_does_is_asked_only_where_the_heatmaps_differ(tiny_bundle, monkeypatch):
    monkeypatch.setattr(proof, "_rounding", None)
    found = agreement(tiny_bundle)
    assert found.on_rounding == 0
    assert "rounding" not in found.verdict


def test_rounding_moves_a_quantised_network_by_whole_steps(tmp_path):
    body = """
        [conv1] c = Conv <strides=[2,2], pads=[1,1,1,1]> (x, w1)   [relu1] r = Relu (c)
        [scale] s = Mul (r, k)   [round] q = Round (s)   [back] features = Div (q, k)
        [pool] p = GlobalAveragePool (features)   [flatten] f = Flatten (p)   [fc] scores = Gemm (f, w2, b2)
    """
    built = graphs.parse(body, w1=(6, 3, 3, 3), w2=(6, 4), b2=(4,), k=np.float32(2**20 + 0.5))
    source = graphs.save(built, tmp_path / "model.onnx")
    export(source, tmp_path / "bundle", layer="features", overrides={"scale": 1 / 255})
    explainer = Explainer(Engine(open_bundle(tmp_path / "bundle"), ["cpu"]))
    x = np.random.default_rng(0).normal(0, 1, (1, 3, 16, 16)).astype(np.float32)
    chosen = get_method("cluster-cam")
    moved = proof._rounding(explainer, chosen, chosen.settings({"clusters": 3}), x, np.array([[0]]))
    assert 0 < moved < 1e-3


def test_rounding_does_not_move_a_map_that_is_zero(tiny):
    chosen = get_method("grad-cam")
    assert proof._rounding(tiny, chosen, {}, np.zeros((1, 3, 32, 32), np.float32), np.array([[0]])) == 0


# --- samples ----------------------------------------------------------------------------------------------------------------------
def test_sample_images_are_rgb_bytes_of_the_networks_size_and_the_same_every_time(tiny):
    preprocess = tiny.manifest.preprocess
    images = sample_images(preprocess, [], few=False)
    assert len(images) == 8
    assert all(image.shape == (32, 32, 3) and image.dtype == np.uint8 for image in images)
    assert len({image.tobytes() for image in images}) == 8
    assert all((a == b).all() for a, b in zip(images, sample_images(preprocess, [], few=False), strict=True))
    assert set(np.unique(images[-1])) == {0, 255}


def test_methods_of_many_passes_have_few_sample_images(tiny):
    assert len(sample_images(tiny.manifest.preprocess, [], few=True)) == 2


def test_photos_are_samples_as_the_network_sees_them(shapes):
    preprocess = shapes.manifest.preprocess
    photo = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    assert (sample_images(preprocess, [photo], few=True)[-1] == photo).all()
    pixels = load_photo(SAMPLES / "star.png").pixels
    assert sample_images(preprocess, [pixels], few=True)[-1].shape == (96, 96, 3)


def test_photos_are_samples_in_rgb_for_a_network_of_bgr_too(shapes):
    photo = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    assert (sample_images(replace(shapes.manifest.preprocess, color="bgr"), [photo], few=True)[-1] == photo).all()


def test_methods_of_many_passes_are_proved_on_few_images(tiny_bundle, target, monkeypatch):
    monkeypatch.setattr(proof, "MANY_PASSES", 5)
    assert compile_bundle(tiny_bundle, target, clusters=9).built.agreement.images == 2
    assert compile_bundle(tiny_bundle, target, force=True, clusters=3).built.agreement.images == 8


# --- figures ----------------------------------------------------------------------------------------------------------------------
def test_the_split_of_the_bundle_is_among_the_figures(target):
    found = compile_bundle("shapes", target, **QUICK)
    assert found.built.agreement.split == open_bundle("shapes").manifest.split.error > 0


def test_heatmaps_with_other_outcomes_differ_by_1():
    a, b, ok = np.zeros((1, 2, 2)), np.full((1, 2, 2), 0.25), np.array([0])
    assert proof._difference(a, ok, b, ok) == 0.25
    assert proof._difference(a, ok, a, ok + 1) == 1


def test_rounding_moves_as_far_as_its_worst_trial(tiny, monkeypatch):
    found = iter([0.1, 0.3, 0.2])
    monkeypatch.setattr(proof, "_difference", lambda *_: next(found))
    x = np.ones((1, 3, 32, 32), np.float32)
    assert proof._rounding(tiny, get_method("grad-cam"), {}, x, np.array([[0]])) == 0.3


def test_the_size_of_chunks_reaches_the_graph(tiny_bundle, target):
    graphs_of = []
    for chunk in (3, 64):
        compile_bundle(tiny_bundle, target, force=True, clusters=4, max_masked_batch=chunk)
        graphs_of.append(onnx.load(target).graph.SerializeToString(deterministic=True))
    assert graphs_of[0] != graphs_of[1]
