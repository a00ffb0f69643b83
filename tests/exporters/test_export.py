"""exporters.export: from an ONNX file to a folder that camrt opens, whole or not at all."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import camrt
from camrt.bundle import open_bundle
from camrt.errors import ExportError, UnknownLayer
from camrt.preprocess import Preprocess, imagenet, squash
from exporters import export, layers, parts
from tests import graphs
from tests.conftest import LABELS
from tests.exporters.helpers import assert_reproduces

SCALED = {"scale": 1 / 255}
FILES = ["bundle.json", "gradient.onnx", "head.onnx", "score.onnx", "tail.onnx", "weights.bin"]


@pytest.fixture
def source(tmp_path) -> str:
    """The path of a classifier, in a folder of its own."""
    (tmp_path / "in").mkdir()
    return graphs.save(graphs.classifier(), tmp_path / "in" / "tiny.onnx")


@pytest.fixture
def out(tmp_path) -> Path:
    """An empty folder to export into."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- what is written ------------------------------------------------------------------------------------------------------
def test_the_bundle_holds_what_the_design_lists(source, out):
    export(source, out / "bundle", overrides=SCALED)
    assert listing(out / "bundle") == FILES
    assert set(open_bundle(out / "bundle").manifest.files) == {*FILES} - {"bundle.json"}


def test_the_bundle_opens_and_is_what_export_returned(source, out):
    manifest = export(source, out / "bundle", labels=LABELS, overrides=SCALED)
    assert open_bundle(out / "bundle").manifest == manifest


def test_the_provenance_is_recorded(source, out):
    built = graphs.classifier()
    built.producer_name, built.producer_version = "pytorch", "2.13"
    graphs.save(built, source)
    manifest = export(source, out / "bundle", overrides=SCALED)
    assert manifest.source.file == "tiny.onnx"
    assert manifest.source.sha256 == hashlib.sha256(Path(source).read_bytes()).hexdigest()
    assert manifest.source.exporter == f"camrt {camrt.__version__}"
    assert manifest.source.producer == "pytorch 2.13"


def test_where_the_model_lay_is_not_recorded(source, out):
    export(source, out / "bundle", overrides=SCALED)
    assert all(str(out.parent).encode() not in path.read_bytes() for path in (out / "bundle").iterdir())


def test_the_same_model_gives_the_same_bundle(source, out):
    for name in ("a", "b"):
        export(source, out / name, overrides=SCALED, name="tiny")
    assert all((out / "a" / name).read_bytes() == (out / "b" / name).read_bytes() for name in FILES)


def test_the_source_stays_as_it_was(source, out):
    before = Path(source).read_bytes()
    export(source, out / "bundle", overrides=SCALED)
    assert Path(source).read_bytes() == before
    assert listing(Path(source).parent) == ["tiny.onnx"]


@pytest.mark.parametrize("name", [None, "cats & dogs"])
def test_a_bundle_is_named_after_its_folder_unless_told(name, source, out):
    assert export(source, out / "my bundle", name=name, overrides=SCALED).name == (name or "my bundle")


def test_missing_folders_above_are_made(source, out):
    export(source, out / "models" / "für 2026" / "bundle", overrides=SCALED)
    assert_reproduces(open_bundle(out / "models" / "für 2026" / "bundle"), graphs.classifier())


RUNNING_SUM = """
    c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)  p = GlobalAveragePool (r)  f = Flatten (p)
    z = MatMul (f, fc)  [running_sum] scores = CumSum (z, one)
    """


def running_sum() -> onnx.ModelProto:
    """Return a classifier that ends in an operator without a gradient rule."""
    return graphs.parse(RUNNING_SUM, image="N,3,32,32", w=(6, 3, 3, 3), fc=(6, 5), one=np.array(1))


def test_a_tail_without_a_gradient_is_exported_with_the_reason(source, out):
    manifest = export(graphs.save(running_sum(), source), out / "bundle", overrides=SCALED)
    assert listing(out / "bundle") == [name for name in FILES if name != "gradient.onnx"]
    assert "CumSum" in manifest.gradient_missing
    assert "running_sum" in manifest.gradient_missing
    assert all("gradient" not in weight.graphs for weight in manifest.weights)
    assert open_bundle(out / "bundle").manifest == manifest
    assert_reproduces(open_bundle(out / "bundle"), running_sum())


def test_a_tail_with_a_gradient_has_no_reason(source, out):
    assert export(source, out / "bundle", overrides=SCALED).gradient_missing is None


def test_a_gradient_graph_that_does_not_run_is_left_out_with_the_reason(source, out, monkeypatch):
    real = parts.gradient

    def broken(*given):
        found = real(*given)
        found.nodes[-1].op_type = "NoSuchOperator"
        return found

    monkeypatch.setattr(parts, "gradient", broken)
    manifests = [export(source, out / name, overrides=SCALED, name="tiny") for name in ("a", "b")]
    assert listing(out / "a") == [name for name in FILES if name != "gradient.onnx"]
    assert "gradient.onnx" in manifests[0].gradient_missing
    assert "NoSuchOperator" in manifests[0].gradient_missing
    assert all("gradient" not in weight.graphs for weight in manifests[0].weights)
    assert open_bundle(out / "a").manifest == manifests[0] == manifests[1]  # whatever folder it was proved in
    assert str(out.parent) not in manifests[0].gradient_missing
    assert_reproduces(open_bundle(out / "a"), graphs.classifier())


def test_a_bundle_can_be_moved(source, out):
    export(source, out / "bundle", overrides=SCALED)
    (out / "bundle").rename(out / "elsewhere")
    assert_reproduces(open_bundle(out / "elsewhere"), graphs.classifier())


def test_the_steps_are_announced(source, out):
    steps: list[str] = []
    export(source, out / "bundle", overrides=SCALED, progress=steps.append)
    assert steps == ["read", "cut", "prove", "write"]


def test_a_layer_that_was_asked_for_is_recorded(source, out):
    manifest = export(source, out / "bundle", layer="relu1", overrides=SCALED)
    assert (manifest.layer.name, manifest.layer.operator, manifest.layer.reason) == ("r1", "Relu", "asked for by name")
    assert manifest.features.shape == (-1, 8, 16, 16)


def test_an_output_that_was_asked_for_is_explained(source, out):
    built = graphs.classifier(end="Softmax")
    built.graph.output.append(onnx.ValueInfoProto(name="pooled", type=helper.make_tensor_type_proto(1, None)))
    path = graphs.save(built, source)
    with pytest.raises(ExportError, match=r"has 2 outputs: scores \(N, 5\), pooled \(N, 12, 1, 1\)"):
        export(path, out / "bundle", overrides=SCALED)
    assert export(path, out / "bundle", output="pooled", overrides=SCALED).classes == 12
    assert_reproduces(open_bundle(out / "bundle"), built, "pooled")


def test_a_model_of_open_size_takes_the_size_asked_for(source, out):
    graphs.save(graphs.classifier(image=("N", 3, "H", "W")), source)
    assert export(source, out / "bundle", size=(24, 40), overrides=SCALED).size == (24, 40)
    assert_reproduces(open_bundle(out / "bundle"), graphs.classifier(image=("N", 3, "H", "W")))


@pytest.mark.parametrize("version", [8, 10, onnx.IR_VERSION])
def test_any_ir_version_is_taken(version, source, out):
    built = graphs.classifier()
    built.ir_version = version
    export(graphs.save(built, source), out / "bundle", overrides=SCALED)
    assert_reproduces(open_bundle(out / "bundle"), graphs.classifier())


@pytest.mark.parametrize("opset", [9, 12, 13, 17])
def test_the_oldest_ir_version_is_taken(opset, source, out):
    # before IR version 4 every initializer is listed among the inputs
    built = graphs.classifier(opset=opset)
    built.ir_version = 3
    built.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in built.graph.initializer)
    export(graphs.save(built, source), out / "bundle", overrides=SCALED)
    assert_reproduces(open_bundle(out / "bundle"), built)


def test_weights_beside_the_model_are_taken(source, out):
    onnx.save(graphs.classifier(), source, save_as_external_data=True, location="large.data", size_threshold=0)
    export(source, out / "bundle", overrides=SCALED)
    assert_reproduces(open_bundle(out / "bundle"), graphs.classifier())


# --- labels and preprocessing ---------------------------------------------------------------------------------------------
def test_labels_are_stored(source, out):
    (out / "labels.txt").write_text("\n".join(LABELS))
    assert export(source, out / "bundle", labels=out / "labels.txt", overrides=SCALED).labels == tuple(LABELS)


def test_labels_that_do_not_fit_stop_the_export(source, out):
    with pytest.raises(ExportError, match="labels has 2 labels, the network has 5 classes"):
        export(source, out / "bundle", labels=["a", "b"], overrides=SCALED)
    assert listing(out) == []


def test_without_preprocessing_photos_are_squashed_with_a_warning(source, out):
    with pytest.warns(UserWarning, match="No preprocessing was given: photos are squashed to 32 x 32, RGB") as caught:
        manifest = export(source, out / "bundle")
    assert manifest.preprocess == squash((32, 32))
    assert caught[0].filename == __file__


def test_the_imagenet_preset_is_taken(source, out):
    assert export(source, out / "bundle", preset="imagenet").preprocess == imagenet((32, 32))


@pytest.mark.parametrize("form", ["mapping", "file", "file with key", "preprocess"])
def test_a_description_is_taken_in_every_form(form, source, out):
    # as model collections write it: real/models/*.json
    mean, std = [104.0, 117.0, 123.0], [1.0, 1.0, 2.0]
    values = {"size": 32, "resize": 40, "mean": mean, "std": std, "scale": 1.0, "channels": "BGR", "layout": "NCHW"}
    expected = Preprocess((32, 32), 40, "bgr", scale=1.0, mean=tuple(mean), std=tuple(std))
    path = out / "model.json"
    path.write_text(json.dumps({"name": "x", "preprocess": values} if form == "file with key" else values))
    given = {"mapping": values, "preprocess": expected}.get(form, path)
    assert export(source, out / "bundle", preprocess=given).preprocess == expected


def test_single_values_override_the_description_and_the_preset(source, out):
    options = {"preset": "imagenet", "preprocess": {"color": "bgr", "resize": 40}, "overrides": {"resize": "letterbox"}}
    found = export(source, out / "bundle", **options).preprocess
    assert (found.color, found.resize, found.mean) == ("bgr", "letterbox", imagenet((32, 32)).mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "imagnet"}, r"There is no preset 'imagnet'\. Known: imagenet"),
        ({"preprocess": "missing.json"}, r"missing\.json: cannot be read"),
        ({"preprocess": "broken.json"}, r"broken\.json is not JSON"),
        ({"preprocess": "list.json"}, r"list\.json: the preprocessing must be an object, got list"),
        ({"preprocess": {"mena": [0, 0, 0]}}, "unknown key 'mena'. Did you mean 'mean'"),
        ({"preprocess": squash((16, 16))}, r"preprocess is for 3 x \(16, 16\), the network takes 3 x \(32, 32\)"),
        ({"preprocess": squash((32, 32), 1)}, "preprocess is for 1 x"),
        ({"overrides": {"mean": [0.5]}}, "'mean' must be a list of 3 numbers"),
        ({"overrides": {"std": [1, 0, 1]}}, "the preprocessing options: std must be positive numbers"),
        ({"overrides": {"crop": 24}}, "'crop' must be the network's input, 32 x 32"),
        ({"overrides": {"resize": "big"}}, "the preprocessing options: .*resize.* must be N .*, WxH or letterbox, got 'big'"),
        ({"overrides": {"resize": 16}}, "resize must be at least the network's longer side, 32, got 16"),
        ({"overrides": {"layout": "NHWC"}}, "'layout' must be NCHW"),
    ],
)
def test_preprocessing_that_does_not_fit_stops_the_export(options, message, source, out, monkeypatch):
    monkeypatch.chdir(Path(source).parent)
    Path("broken.json").write_text("{")
    Path("list.json").write_text("[1]")
    with pytest.raises(ExportError, match=message):
        export(source, out / "bundle", **options)
    assert listing(out) == []


def test_the_imagenet_preset_is_for_three_channels(source, out):
    graphs.save(graphs.classifier(image=("N", 1, 32, 32)), source)
    with pytest.raises(ExportError, match="'imagenet' is for three channels, the network has 1"):
        export(source, out / "bundle", preset="imagenet")


# --- what the output is ---------------------------------------------------------------------------------------------------
PROBABILITIES = """
    c = Conv (x, w)  p = GlobalAveragePool (c)  f = Flatten (p)
    e = Exp (f)  s = ReduceSum <keepdims = 1> (e, one)  scores = Div (e, s)
    """


@pytest.mark.parametrize(
    ("built", "kind"),
    [
        (graphs.classifier(), "logits"),
        (graphs.classifier(end="Softmax"), "logits"),
        (graphs.classifier(end="LogSoftmax"), "logits"),
        (graphs.classifier(end="Sigmoid"), "sigmoid"),
        (graphs.classifier(end="Relu"), "logits"),
        (graphs.parse(PROBABILITIES, w=(5, 3, 3, 3), one=np.array([1])), "probabilities"),
    ],
    ids=["nothing", "softmax", "log-softmax", "sigmoid", "relu", "a softmax of its own"],
)
def test_what_the_output_is_is_found_out(built, kind, cut):
    assert cut(built).manifest.kind == kind


@pytest.mark.parametrize("kind", ["logits", "probabilities", "sigmoid", "scores"])
def test_what_the_output_is_can_be_told(kind, source, out):
    assert export(source, out / "bundle", kind=kind, overrides=SCALED).kind == kind


def test_an_unknown_kind_of_output_gets_a_suggestion(source, out):
    with pytest.raises(ExportError, match=r"kind must be one of .*, got 'logit'\. Did you mean 'logits'\?"):
        export(source, out / "bundle", kind="logit", overrides=SCALED)
    assert listing(out) == []


# --- the target folder ----------------------------------------------------------------------------------------------------
def test_an_existing_bundle_is_kept(source, out):
    export(source, out / "bundle", overrides=SCALED)
    before = (out / "bundle" / "bundle.json").read_bytes()
    with pytest.raises(ExportError, match=r"bundle exists\. Choose another folder with -o, or replace it with --force"):
        export(source, out / "bundle", name="another", overrides=SCALED)
    assert (out / "bundle" / "bundle.json").read_bytes() == before


def test_force_replaces_a_bundle_whole(source, out):
    export(source, out / "bundle", overrides=SCALED)
    (out / "bundle" / "gradient.onnx").write_bytes(b"of the old one")
    export(source, out / "bundle", name="another", overrides=SCALED, force=True)
    assert open_bundle(out / "bundle").manifest.name == "another"
    assert all(path.read_bytes() != b"of the old one" for path in (out / "bundle").iterdir())
    assert [path.name for path in out.iterdir()] == ["bundle"]


def test_force_replaces_a_bundle_by_one_with_fewer_files(source, out):
    export(source, out / "bundle", overrides=SCALED)
    export(graphs.save(running_sum(), source), out / "bundle", overrides=SCALED, force=True)
    assert listing(out / "bundle") == [name for name in FILES if name != "gradient.onnx"]


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_no_bundle_is_never_replaced(force, source, out):
    (out / "photos").mkdir()
    (out / "photos" / "wedding.jpg").write_bytes(b"precious")
    with pytest.raises(ExportError, match=r"photos exists and is no bundle; it is not replaced"):
        export(source, out / "photos", overrides=SCALED, force=force)
    assert listing(out) == ["photos", "photos/wedding.jpg"]


def test_a_bundle_with_something_of_the_users_in_it_is_never_replaced(source, out):
    export(source, out / "bundle", overrides=SCALED)
    (out / "bundle" / "notes.txt").write_text("precious")
    with pytest.raises(ExportError, match=r"is not replaced.*notes\.txt"):
        export(source, out / "bundle", overrides=SCALED, force=True)
    assert (out / "bundle" / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON", '{"format": "another-bundle"}'])
def test_a_bundle_json_of_somebody_else_is_never_replaced(text, source, out):
    (out / "theirs").mkdir()
    (out / "theirs" / "bundle.json").write_text(text)
    with pytest.raises(ExportError, match="is not replaced"):
        export(source, out / "theirs", overrides=SCALED, force=True)
    assert (out / "theirs" / "bundle.json").read_text() == text


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_never_replaced(force, source, out):
    (out / "bundle").write_text("notes")
    with pytest.raises(ExportError, match="exists and is no bundle"):
        export(source, out / "bundle", overrides=SCALED, force=force)
    assert (out / "bundle").read_text() == "notes"


def test_the_source_cannot_be_its_own_target(source, tmp_path):
    with pytest.raises(ExportError, match="exists and is no bundle"):
        export(source, source, overrides=SCALED, force=True)
    assert onnx.load(source) == graphs.classifier()


def test_an_empty_folder_is_filled(source, out):
    export(source, out, overrides=SCALED)
    assert_reproduces(open_bundle(out), graphs.classifier())
    assert listing(out.parent) == ["in", "in/tiny.onnx", "out", *(f"out/{path.name}" for path in sorted(out.iterdir()))]


def test_an_empty_folder_one_stands_in_is_filled(source, out, monkeypatch):
    monkeypatch.chdir(out)
    export(source, ".", overrides=SCALED)
    assert open_bundle(out).manifest.name == "out"


def test_force_through_a_link_leaves_nothing_behind(source, out):
    export(source, out / "v1", overrides=SCALED)
    (out / "current").symlink_to("v1")
    export(source, out / "current", name="new", overrides=SCALED, force=True)
    assert open_bundle(out / "current").manifest.name == "new"
    assert sorted(path.name for path in out.iterdir()) == ["current", "v1"]


def test_a_target_under_a_file_is_refused(source, out):
    (out / "file").write_text("notes")
    with pytest.raises(ExportError, match="the bundle cannot be written .* nothing was changed"):
        export(source, out / "file" / "bundle", overrides=SCALED)
    assert (out / "file").read_text() == "notes"


FAILURES = {
    "unknown layer": ({"layer": "conv9"}, UnknownLayer),
    "not 4-D": ({"layer": "flat"}, ExportError),
    "unknown output": ({"output": "sores"}, ExportError),
    "other size": ({"size": (64, 64)}, ExportError),
    "labels": ({"labels": ["a"]}, ExportError),
    "no labels file": ({"labels": "nowhere.txt"}, ExportError),
    "weights": ({"weights": "w.pt"}, ExportError),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_export_leaves_nothing(name, source, out):
    options, error = FAILURES[name]
    with pytest.raises(error):
        export(source, out / "new" / "bundle", overrides=SCALED, **options)
    assert listing(out) == []


class DiskFull(OSError):
    """What a full disk raises."""

    def __init__(self):
        super().__init__(28, "No space left on device")


@pytest.mark.parametrize("where", ["write_weights", "to_model", "prove", "prove_gradient", "sha256_of"])
@pytest.mark.parametrize("error", [DiskFull, KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_what_was_there(where, error, source, out, monkeypatch):
    export(source, out / "bundle", overrides=SCALED)
    before = {path.name: path.read_bytes() for path in (out / "bundle").iterdir()}

    def fail(*_, **__):
        raise error

    exporting = importlib.import_module("exporters.export")  # the package's own `export` is the function
    monkeypatch.setattr(exporting if hasattr(exporting, where) else parts, where, fail)
    expected, message = (ExportError, "No space left on device.*nothing was changed") if error is DiskFull else (error, None)
    with pytest.raises(expected, match=message):
        export(source, out / "bundle", name="new", overrides=SCALED, force=True)
    assert {path.name: path.read_bytes() for path in (out / "bundle").iterdir()} == before
    assert [path.name for path in out.iterdir()] == ["bundle"]


@pytest.mark.parametrize(("raised", "expected"), [(DiskFull, ExportError), (KeyboardInterrupt, KeyboardInterrupt)])
def test_a_rename_that_fails_brings_the_old_bundle_back(raised, expected, source, out, monkeypatch):
    export(source, out / "bundle", overrides=SCALED)
    rename = Path.rename

    def refuse_new(path, target):
        if path.name.endswith(".part"):
            raise raised
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(expected):
        export(source, out / "bundle", name="new", overrides=SCALED, force=True)
    assert open_bundle(out / "bundle").manifest.name == "bundle"
    assert [path.name for path in out.iterdir()] == ["bundle"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(source, out):
    out.chmod(0o500)
    with pytest.raises(ExportError, match="Permission denied"):
        export(source, out / "bundle", overrides=SCALED)


# --- layers ---------------------------------------------------------------------------------------------------------------
def test_layers_lists_what_export_takes(source, out):
    found = layers(source)
    assert [choice.tensor for choice in found] == ["features", "c2", "r1", "c1"]
    for choice in found:
        manifest = export(source, out / choice.tensor, layer=choice.tensor, overrides=SCALED)
        assert manifest.features.shape == (-1, *choice.shape)
    assert export(source, out / "auto", overrides=SCALED).layer.reason == found[0].reason


def test_layers_writes_nothing(source, tmp_path):
    layers(source)
    assert listing(tmp_path) == ["in", "in/tiny.onnx"]


# --- whole networks in small ----------------------------------------------------------------------------------------------
NETWORKS = {
    "SqueezeNet": (
        """
        c = Conv <strides = [2, 2]> (x, w)  r = Relu (c)
        q = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (r)  s = Conv (q, squeeze)  sr = Relu (s)
        a = Conv (sr, one)  ar = Relu (a)  b = Conv <pads = [1, 1, 1, 1]> (sr, three)  br = Relu (b)
        fire = Concat <axis = 1> (ar, br)  drop = Dropout (fire)  maps = Conv (drop, last)  active = Relu (maps)
        p = GlobalAveragePool (active)  z = Softmax <axis = 1> (p)  scores = Reshape (z, flat)
        """,
        {
            "w": (8, 3, 3, 3), "squeeze": (4, 8, 1, 1), "one": (6, 4, 1, 1), "three": (6, 4, 3, 3), "last": (5, 12, 1, 1),
            "flat": np.array([1, -1]),
        },
        "fire", (12, 7, 7), "p",
    ),
    "VGG": (
        """
        c = Conv <pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)  p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        d = Conv <pads = [1, 1, 1, 1]> (p, v)  s = Relu (d)  q = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (s)
        f = Reshape (q, flat)  g = Gemm <transB = 1> (f, f1)  h = Relu (g)
        drop = Dropout (h)  scores = Gemm <transB = 1> (drop, f2)
        """,
        {"w": (6, 3, 3, 3), "v": (8, 6, 3, 3), "flat": np.array([1, 512]), "f1": (16, 512), "f2": (5, 16)},
        "s", (8, 16, 16), "scores",
    ),
    "GoogLeNet": (
        """
        c = Conv <strides = [2, 2]> (x, w)  r = Relu (c)  n = LRN <size = 3> (r)
        a = Conv (n, one)  ar = Relu (a)  b = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (n)
        i = Concat <axis = 1> (ar, b)
        p = AveragePool <kernel_shape = [5, 5], strides = [5, 5]> (i)  drop = Dropout (p)  f = Flatten (drop)
        scores = Gemm <transB = 1> (f, fc)
        """,
        {"w": (6, 3, 3, 3), "one": (4, 6, 1, 1), "fc": (5, 90)},
        "i", (10, 15, 15), "scores",
    ),
    "MobileNet": (
        """
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  r = Clip (c, low, high)
        d = Conv <group = 8, pads = [1, 1, 1, 1]> (r, depth)  e = Clip (d, low, high)  f = Conv (e, point)  s = Add (r, f)
        m = GlobalAveragePool (s)  k = Conv (m, squeeze)  h = HardSigmoid (k)  gated = Mul (s, h)
        p = ReduceMean <axes = [2, 3], keepdims = 0> (gated)  scores = Gemm <transB = 1> (p, fc)
        """,
        {
            "w": (8, 3, 3, 3), "depth": (8, 1, 3, 3), "point": (8, 8, 1, 1), "squeeze": (8, 8, 1, 1), "fc": (5, 8),
            "low": np.float32(0), "high": np.float32(6),
        },
        "gated", (8, 16, 16), "scores",
    ),
    "DenseNet": (
        """
        c0 = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  n0 = BatchNormalization (c0, g4, b4, b4, g4)  r0 = Relu (n0)
        c1 = Conv <pads = [1, 1, 1, 1]> (r0, w1)  k1 = Concat <axis = 1> (c0, c1)
        n1 = BatchNormalization (k1, g8, b8, b8, g8)  r1 = Relu (n1)
        c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2)  k2 = Concat <axis = 1> (c0, c1, c2)  r2 = Relu (k2)
        p = GlobalAveragePool (r2)  scores = Conv (p, fc)
        """,
        {
            "w": (4, 3, 3, 3), "w1": (4, 4, 3, 3), "w2": (4, 8, 3, 3), "fc": (5, 12, 1, 1),
            **{f"g{n}": np.linspace(0.5, 1.5, n, dtype=np.float32) for n in (4, 8)},
            **{f"b{n}": np.linspace(-0.2, 0.2, n, dtype=np.float32) for n in (4, 8)},
        },
        "r2", (12, 16, 16), "scores",
    ),
    "ShuffleNet": (
        """
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  a, b = Split <axis = 1> (c, halves)
        d = Conv <pads = [1, 1, 1, 1]> (b, v)  e = Relu (d)  j = Concat <axis = 1> (a, e)
        g = Reshape (j, split)  t = Transpose <perm = [0, 2, 1, 3, 4]> (g)  h = Reshape (t, join)
        r = Relu (h)  p = ReduceMean <axes = [2, 3], keepdims = 0> (r)  scores = MatMul (p, fc)
        """,
        {
            "w": (8, 3, 3, 3), "v": (4, 4, 3, 3), "halves": np.array([4, 4]), "fc": (8, 5),
            "split": np.array([1, 2, 4, 16, 16]), "join": np.array([1, 8, 16, 16]),
        },
        "r", (8, 16, 16), "scores",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_network_is_cut_where_it_should_be(name, cut):
    body, weights, layer, shape, logits = NETWORKS[name]
    baked = any(key in weights for key in ("flat", "join"))
    built = graphs.parse(body, image="1,3,32,32" if baked else "N,3,32,32", **weights)
    bundle = cut(built)
    assert (bundle.manifest.layer.name, bundle.manifest.features.shape[1:]) == (layer, shape)
    assert_reproduces(bundle, built, logits)


# Opset 9, IR version 3, weights as ConstantOfShape, initializers listed as inputs, batch 1 in Reshape, Softmax at the end
LIGHT = {
    "resnet50": (2048, 7, 7), "densenet121": (1024, 7, 7), "shufflenet": (544, 7, 7), "squeezenet": (512, 13, 13),
    "inception_v1": (1024, 6, 6), "inception_v2": (1024, 7, 7), "bvlc_alexnet": (256, 12, 12), "vgg19": (512, 14, 14),
    "zfnet512": (512, 12, 12),
}  # fmt: skip
SLOW = ("vgg19", "zfnet512", "bvlc_alexnet", "inception_v1")


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in LIGHT])
def test_the_networks_that_onnx_carries_are_cut_at_their_last_map(name, out):
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    manifest = export(path, out / "bundle", preset="imagenet")
    assert (manifest.features.shape[1:], manifest.classes) == (LIGHT[name], 1000)
    assert manifest.activation == (None if name == "densenet121" else "Softmax")
