from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from camrt import __version__
from camrt.bundle import Bundle, open_bundle
from camrt.engine import Engine
from camrt.errors import ParameterError
from camrt.image import upsample
from camrt.methods import GRADIENTS, METHODS, get_method
from exporters import export
from exporters.fusion.graph import LABELS, drop_labels, fuse, write_metadata
from exporters.fusion.methods import FUSED
from exporters.graph import STANDARD, all_names, renamed
from tests import graphs

from .conftest import BUNDLES
from .helpers import every_graph, every_node, fused

every_method = pytest.mark.parametrize("method", list(FUSED))
ADDED = 80_000  # bytes of nodes: two K-means among them


def compiled(bundle: Bundle, method: str = "cluster-cam", *, pixels: str = "float", require_target: bool = False, **parameters):
    """Return the model as a file holds it, without its metadata."""
    chosen = get_method(method)
    black = Engine(bundle, ["cpu"]).black_logits()
    model = fuse(
        bundle, black, chosen, chosen.settings(parameters), pixels=pixels, max_masked_batch=64, require_target=require_target
    )  # fmt: skip
    drop_labels(model)
    return model


def network_size(bundle: Bundle, *parts: str) -> int:
    """Return the bytes of a bundle's weights and graphs."""
    return sum((bundle.folder / name).stat().st_size for name in ("weights.bin", *(f"{part}.onnx" for part in parts)))


def constants(model: ModelProto) -> list[onnx.TensorProto]:
    return [tensor for graph in every_graph(model.graph) for tensor in graph.initializer]


# --- form -------------------------------------------------------------------------------------------------------------------
@every_method
@pytest.mark.parametrize("name", [name for name in BUNDLES if name not in ("dead on dark", "one by one")])
def test_the_checker_finds_nothing(bundle, name, method):
    onnx.checker.check_model(compiled(bundle(name), method), full_check=True)


@every_method
def test_all_operators_are_standard(bundle, method):
    model = compiled(bundle("classifier"), method)
    assert {node.domain for node in every_node(model)} <= set(STANDARD)
    assert {entry.domain for entry in model.opset_import} <= set(STANDARD)
    assert not model.functions


@every_method
def test_nothing_is_carried_that_is_not_needed(bundle, method):
    model = compiled(bundle("shapes"), method)
    assert not any(node.metadata_props or node.doc_string for node in every_node(model))
    assert sum(len(graph.value_info) for graph in every_graph(model.graph)) <= 2
    assert not any(tensor.doc_string for tensor in constants(model))
    assert LABELS not in {name for graph in every_graph(model.graph) for name in all_names(graph)}


@every_method
def test_only_the_nodes_that_a_wrong_target_stops_have_names(bundle, method):
    model = compiled(bundle("classifier"), method)
    named = {node.op_type: node for node in every_node(model) if node.name}
    assert sorted(named) == ["Expand", "Gather"]
    assert all(node.name.startswith("target: ") and "target" in node.input for node in named.values())


@every_method
def test_the_network_stands_in_the_graph_once(bundle, method):
    opened = bundle("classifier")
    parts = ["head", "tail", *(["gradient"] if GRADIENTS in METHODS[method].needs else [])]
    network = Counter(node.op_type for part in parts for node in onnx.load(opened.path(part)).graph.node)
    found = Counter(node.op_type for node in every_node(compiled(opened, method)))
    blurs = 2 if method == "group-cam" else 0
    assert network["Conv"] == 2
    assert found["Conv"] == network["Conv"] + blurs
    assert found["GlobalAveragePool"] == network["GlobalAveragePool"]
    assert found["Gemm"] == network["Gemm"]


@every_method
def test_the_explanation_adds_little_to_the_networks_size(bundle, method):
    for name in ("classifier", "shapes"):
        model, parts = compiled(bundle(name), method), ["head", "tail"]
        if GRADIENTS in METHODS[method].needs:
            parts.append("gradient")
        network = network_size(bundle(name), *parts)
        assert model.ByteSize() <= 1.01 * network + ADDED


@every_method
def test_no_large_tensor_is_stored_twice(bundle, method):
    model = compiled(bundle("shapes"), method)
    large = [t for t in constants(model) if len(numpy_helper.to_array(t).tobytes()) > 1000]
    hashes = Counter(hashlib.sha256(numpy_helper.to_array(t).tobytes()).hexdigest() for t in large)
    assert set(hashes.values()) == {1}


@pytest.mark.parametrize(("masking", "batches"), [("both", 2), ("image", 1), ("features", 1)])
def test_every_batch_in_the_loop_has_a_name(bundle, masking, batches):
    model = compiled(bundle("residual"), masking=masking)
    (told,) = (graph.value_info for graph in every_graph(model.graph) if graph.value_info)
    names = [value.type.tensor_type.shape.dim[0].dim_param for value in told]
    assert len(names) == len(set(names)) == batches
    assert all(names)


def test_names_are_written_once(bundle):
    model = compiled(bundle("classifier"), "group-cam", grouping="kmeans")
    written = Counter(name for node in every_node(model) for name in node.output if name)
    written.update(tensor.name for tensor in constants(model))
    assert set(written.values()) == {1}


@pytest.mark.parametrize(("name", "opset"), [("classifier", 17), ("scores", 13), ("opset 21", 21)])
def test_the_operator_set_is_the_models_and_the_file_format_the_lowest_that_holds_it(bundle, name, opset):
    model = compiled(bundle(name))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
    assert model.ir_version == {13: 8, 17: 8, 21: 10}[opset]


# --- interface ----------------------------------------------------------------------------------------------------------------
def declared(values) -> dict[str, tuple[int, list]]:
    return {
        v.name: (v.type.tensor_type.elem_type, [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim])
        for v in values
    }


def test_inputs_and_outputs_are_those_of_the_contract(bundle):
    model = compiled(bundle("early, not square"), "cluster-cam", clusters=4)
    float32, int64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    assert declared(model.graph.input) == {"image": (float32, ["N", 3, 16, 20]), "target": (int64, ["1 or N", "T"])}
    assert declared(model.graph.output) == {
        "logits": (float32, ["N", 5]),
        "targets": (int64, ["N", "T"]),
        "probabilities": (float32, ["N", "T"]),
        "heatmap": (float32, ["N", "T", 16, 20]),
        "outcomes": (int64, ["N", "T"]),
        "scores": (float32, ["N", "M", "T"]),
    }
    assert all(value.doc_string for value in (*model.graph.input, *model.graph.output))


def test_pixels_are_rgb_bytes_with_the_channels_last(bundle):
    model = compiled(bundle("one channel, probabilities"), pixels="uint8")
    assert declared(model.graph.input)["image"] == (onnx.TensorProto.UINT8, ["N", 24, 24, 3])


@every_method
def test_scores_are_there_where_images_are_masked(bundle, method):
    names = [output.name for output in compiled(bundle("classifier"), method).graph.output]
    assert ("scores" in names) == (method in ("cluster-cam", "group-cam", "score-cam"))


@pytest.mark.parametrize(("method", "settings", "masked"), [
    ("cluster-cam", {"clusters": 4}, 4),
    ("cluster-cam", {"clusters": 4, "baseline": "blur"}, 4),
    ("cluster-cam", {"clusters": 4, "masking": "image", "baseline": "blur"}, 4),
    ("cluster-cam", {"clusters": 4, "masking": "features"}, 4),
    ("cluster-cam", {"clusters": 99}, 12),
    ("group-cam", {"groups": 5}, 4),
    ("score-cam", {}, 12),
])  # fmt: skip
def test_there_is_a_score_for_everything_that_was_masked(both, method, settings, masked):
    one = both("classifier", method, **settings)
    (scores,) = one.session.run(["scores"], {"image": one.images(2), "target": np.array([[0, 1, 2]])})
    assert scores.shape == (2, masked, 3)


def test_scores_of_cluster_cam_are_what_the_network_says_to_the_masked_images(both):
    one = both("classifier", clusters=4)
    x = one.images(2)
    labels, scores, targets = one.session.run([LABELS, "scores", "targets"], {"image": x})
    for i in range(2):
        masked = np.stack([_masked(one, x[i], labels[i] == k) for k in range(4)])
        (logits,) = graphs.run(one.bundle.path("tail"), {"features": _features(one, masked)})
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(scores[i, :, 0], expected[:, targets[i, 0]], rtol=1e-4)


def _features(one, x):
    return graphs.run(one.bundle.path("head"), {"image": x})[0]


def _masked(one, image, members):
    mask = upsample(_features(one, image[None])[0][members].mean(axis=0), image.shape[1:])
    return image * (mask - mask.min()) / (mask.max() - mask.min())


@pytest.mark.parametrize("pixels", ["float", "uint8"])
def test_a_target_may_be_left_out(bundle, pixels):
    model = compiled(bundle("classifier"), "grad-cam", pixels=pixels)
    (default,) = (numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "target")
    assert (default.dtype, default.tolist()) == (np.int64, [[-1]])


def test_a_required_target_has_no_default(bundle):
    model = compiled(bundle("classifier"), "grad-cam", require_target=True)
    assert "target" not in {tensor.name for tensor in model.graph.initializer}
    with pytest.raises(ValueError, match=r"[Rr]equired inputs .*target"):
        graphs.run(model, {"image": np.zeros((1, 3, 32, 32), np.float32)})


@pytest.mark.parametrize("target", [5, 99, -6, -99])
@every_method
def test_a_class_that_there_is_not_stops_the_run_by_name_and_range(both, method, target):
    one = both("classifier", method)
    with pytest.raises(Exception, match=r"target: a class index.*\[-5,\s?4\]"):
        one.session.run(None, {"image": one.images(), "target": np.array([[0, target]])})


@pytest.mark.parametrize("target", [4, 0, -5])
def test_the_first_and_last_class_are_classes(both, target):
    one = both("classifier", "grad-cam")
    assert one.graph(one.images(), [[target]]).targets.shape == (1, 1)


@every_method
def test_pixels_explain_what_their_preprocessed_image_does(both, method):
    floats, pixels = both("not square, sigmoid", method), both("not square, sigmoid", method, {"pixels": "uint8"})
    given = np.random.default_rng(0).integers(0, 256, (2, 40, 28, 3), np.uint8)
    a = pixels.graph(given, [[-1, 0]])
    b = floats.graph(((given.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25).astype(np.float32), [[-1, 0]])
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-4)
    np.testing.assert_allclose(a.heatmap, b.heatmap, atol=1e-4)


# --- names that the source model brings -----------------------------------------------------------------------------------------
CLASHES = {
    "interface": {
        "x": "target",
        "c1": "logits",
        "r1": "targets",
        "c2": "probabilities",
        "features": "heatmap",
        "pooled": "outcomes",
        "flat": "image",
        "w1": "camrt/labels",
    },
    "emitter": {"c1": "camrt/e/Mul_1", "r1": "camrt/e/Loop_2", "w1": "camrt/e/constant_0", "c2": "camrt/e/turn_1"},
    "weights": {"w1": "target", "w2": "image", "b2": "heatmap", "w3": "outcomes", "b3": "logits"},
}


@pytest.mark.parametrize("clash", CLASHES)
@pytest.mark.parametrize("method", ["cluster-cam", "grad-cam"])
def test_a_model_whose_tensors_are_named_as_ours_compiles(cut, clash, method):
    source = graphs.classifier()
    before = {"image": np.random.default_rng(0).normal(0, 1, (2, 3, 32, 32)).astype(np.float32)}
    expected = graphs.run(fused(cut(source), method, **_few(method))[0], before, "logits", "heatmap")
    bundle = cut(_renamed(source, CLASHES[clash]), force=True)
    model = compiled(bundle, method, **_few(method))
    onnx.checker.check_model(model, full_check=True)
    for a, b in zip(graphs.run(model, before, "logits", "heatmap"), expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def _few(method: str) -> dict[str, int]:
    return {"clusters": 4} if method == "cluster-cam" else {}


def _renamed(model: ModelProto, names: dict[str, str]) -> ModelProto:
    for node in model.graph.node:
        node.CopyFrom(renamed(node, names))
    for tensor in (*model.graph.initializer, *model.graph.input):
        tensor.name = names.get(tensor.name, tensor.name)
    return model


# --- metadata -----------------------------------------------------------------------------------------------------------------------
def metadata(bundle: Bundle, **more) -> dict[str, str]:
    model = compiled(bundle)
    chosen = get_method("cluster-cam")
    how = {"input": "float", "max_masked_batch": 64, "require_target": False, "agreement": {}, "verdict": "exact"}
    write_metadata(model, bundle, chosen, chosen.settings({"clusters": 4}), **how | more)
    return {entry.key: entry.value for entry in model.metadata_props}


def test_metadata_say_what_the_file_is(bundle):
    found, opened = metadata(bundle("shapes"), input="uint8", max_masked_batch=7), bundle("shapes")
    assert all(key.startswith("camrt.") for key in found)
    manifest = opened.manifest
    assert found["camrt.version"] == __version__
    assert found["camrt.bundle"] == "shapes"
    assert found["camrt.bundle_sha256"] == opened.sha256
    assert found["camrt.source"] == manifest.source.file
    assert found["camrt.source_sha256"] == manifest.source.sha256
    assert found["camrt.layer"] == manifest.layer.name
    assert found["camrt.method"] == "cluster-cam"
    assert "Feng" in found["camrt.citation"]
    assert json.loads(found["camrt.parameters"])["clusters"] == 4
    assert json.loads(found["camrt.parameters"]).keys() == METHODS["cluster-cam"].parameters.keys()
    assert found["camrt.output_kind"] == "logits"
    assert json.loads(found["camrt.outcomes"]) == ["ok", "flat_map", "no_positive_evidence", "not_finite"]
    assert json.loads(found["camrt.preprocess"]) == manifest.preprocess.to_json()
    assert found["camrt.labels"].split("\n") == list(manifest.labels)
    assert found["camrt.input"] == "uint8"
    assert json.loads(found["camrt.max_masked_batch"]) == 7


def test_labels_stand_one_a_line_whatever_is_in_them(bundle):
    labels = ("crane, hoist", "two\nlines", " tab\there ", "größe", "")
    opened = bundle("classifier")
    odd = replace(opened, manifest=replace(opened.manifest, labels=labels))
    assert metadata(odd)["camrt.labels"].split("\n") == ["crane, hoist", "two lines", "tab here", "größe", ""]


def test_a_bundle_without_labels_has_none_in_its_metadata(bundle):
    assert metadata(bundle("classifier"))["camrt.labels"] == ""


def test_the_graph_says_by_which_method_it_was_made(bundle):
    model = compiled(bundle("classifier"), clusters=4)
    assert model.producer_name == "camrt"
    assert model.producer_version == __version__
    assert "cluster-cam (clusters=4, merge=positive" in model.graph.doc_string


# --- refusals -----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", sorted(METHODS.keys() - FUSED.keys()))
def test_methods_that_cannot_be_one_graph_are_refused_with_those_that_can(bundle, method):
    with pytest.raises(ParameterError, match=f"{method} cannot be compiled into one graph.*These can: .*grad-cam"):
        compiled(bundle("classifier"), method)


def test_a_wide_layer_is_stored_once_too(tmp_path):
    source = graphs.save(graphs.classifier(40, 300), tmp_path / "wide.onnx")
    export(source, tmp_path / "bundle", overrides={"scale": 1 / 255})
    bundle = open_bundle(tmp_path / "bundle")
    model = compiled(bundle, "group-cam", grouping="kmeans")
    assert model.ByteSize() <= 1.01 * network_size(bundle, "head", "tail", "gradient") + ADDED
