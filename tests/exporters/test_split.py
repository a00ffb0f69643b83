"""exporters.split: head, tail and the graph that scores masked images."""

from __future__ import annotations

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from camrt.errors import ExportError
from camrt.image import upsampling_matrix
from exporters.graph import Graph
from exporters.split import Shapes, head, rename_interface, score, tail
from tests import graphs
from tests.exporters.helpers import assert_reproduces, images, operators, source_scores, split

SHAPES = Shapes((3, 32, 32), (12, 8, 8), 5)
ORT_OPSETS = (13, 15, 17, 18, 20, 21, 22, 23, 24)  # ReduceMin changed in 18


@pytest.fixture(scope="module")
def whole() -> Graph:
    built = graphs.classifier()
    rename_interface(built, "x", "features", "scores")
    return Graph(built)


# --- the three graphs -----------------------------------------------------------------------------------------------------
def test_head_ends_where_tail_begins(whole):
    assert [node.name for node in head(whole, SHAPES).nodes] == ["conv1", "relu1", "conv2", "relu2"]
    assert [node.name for node in tail(whole, SHAPES).nodes] == ["pool", "flatten", "fc"]


def test_each_part_reads_its_own_weights(whole):
    assert head(whole, SHAPES).reads(whole) == {"w1", "w2", "b2"}
    assert tail(whole, SHAPES).reads(whole) == {"w3", "b3"}
    assert score(whole, SHAPES).reads(whole) == {"w1", "w2", "b2", "w3", "b3"}


def test_a_tail_that_needs_more_than_the_features_is_refused():
    built = graphs.residual()
    rename_interface(built, "x", "d", "scores")
    shapes = Shapes((3, 32, 32), (6, 8, 8), 4)
    assert head(Graph(built), shapes).nodes
    with pytest.raises(ExportError, match=r"features → logits lacks image\. Choose another layer"):
        tail(Graph(built), shapes)


def signature(path) -> dict[str, list]:
    """Return names and shapes of a graph's inputs and outputs."""
    graph = onnx.load(path, load_external_data=False).graph
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)}


def test_the_interface_is_what_the_design_says(tiny_bundle):
    assert signature(tiny_bundle / "head.onnx") == {"image": ["N", 3, 32, 32], "features": ["N", 12, 8, 8]}
    assert signature(tiny_bundle / "tail.onnx") == {"features": ["N", 12, 8, 8], "logits": ["N", 5]}
    assert signature(tiny_bundle / "score.onnx") == {
        "image": ["N", 3, 32, 32],
        "baseline": ["N", 3, 32, 32],
        "maps": ["N", "K", "rows", "columns"],
        "up_rows": ["own or one", 32, "rows"],
        "up_columns": ["own or one", "columns", 32],
        "normalise": [],
        "logits": ["N", "K", 5],
        "features": ["masked", 12, 8, 8],
    }
    assert signature(tiny_bundle / "gradient.onnx") == {
        "features": ["N", 12, 8, 8],
        "cotangent": ["N", 5],
        "gradients": ["N", 12, 8, 8],
    }


@pytest.mark.parametrize("part", ["head", "tail", "gradient", "score"])
def test_every_graph_is_valid_onnx(tiny_bundle, part):
    model = onnx.load(tiny_bundle / f"{part}.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.producer_name == "camrt"


def test_module_paths_and_comments_stay_out_of_the_graphs(cut):
    built = graphs.classifier()
    for node in built.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File /home/somebody/secret.py")
    bundle = cut(built)
    assert all(b"somebody" not in path.read_bytes() for path in bundle.folder.iterdir())


@pytest.mark.parametrize("layer", ["c1", "r1", "c2", "features"])
def test_every_layer_splits_into_the_same_model(layer, cut):
    built = graphs.classifier()
    bundle = cut(built, layer=layer)
    assert bundle.manifest.layer.name == layer
    assert_reproduces(bundle, built)


@pytest.mark.parametrize("opset", ORT_OPSETS)
def test_every_opset_is_cut_and_scored(opset, cut):
    built = graphs.classifier(opset=opset)
    built.ir_version = max(8, helper.find_min_ir_version_for(built.opset_import))
    bundle = cut(built)
    assert_reproduces(bundle, built)
    x = images(bundle, 2)
    maps = np.random.default_rng(3).random((2, 3, 8, 8), np.float32)
    found = run_score(bundle.path("score"), x, np.zeros_like(x), maps, True)
    np.testing.assert_allclose(found, by_steps(built, x, np.zeros_like(x), maps, True), rtol=1e-5, atol=1e-5)


def test_a_network_of_one_channel_is_cut(cut):
    built = graphs.classifier(image=("N", 1, 32, 32))
    bundle = cut(built)
    assert bundle.manifest.image.shape == (-1, 1, 32, 32)
    assert_reproduces(bundle, built)


# --- names ----------------------------------------------------------------------------------------------------------------
def renamed(built: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    graph = built.graph
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return built


@pytest.mark.parametrize(
    "names",
    [
        {"c1": "image", "r1": "features", "c2": "logits", "pooled": "maps", "flat": "baseline", "features": "f"},
        {"w1": "image", "w2": "features", "b2": "logits", "w3": "maps", "b3": "normalise", "features": "f"},
        {"x": "logits", "features": "image", "scores": "features"},
        {"x": "maps", "features": "baseline", "scores": "normalise", "flat": "image", "c1": "features"},
        {"x": "camrt/Shape_0", "c1": "camrt/logits", "features": "camrt/MatMul_3", "w1": "camrt/constant_0"},
        {"pooled": "up_rows", "w3": "up_columns"},
        {"c1": "image", "r1": "image/camrt", "features": "f"},
        {"x": "image", "scores": "logits"},
        {"pooled": "cotangent", "flat": "gradients"},
        {"w3": "cotangent", "b3": "gradients", "w2": "image"},
        {"features": "gradients", "scores": "cotangent"},
        {"pooled": "camrt/Identity_2", "flat": "camrt/constant_1", "w3": "camrt/Gemm_0", "b3": "camrt/Sum_1"},
    ],
    ids=[
        "tensors", "weights", "swapped", "all six", "prefix", "matrices", "prefix behind", "own", "gradient's tensors", "gradient's weights",
        "gradient's swapped", "gradient's prefix",
    ],
)  # fmt: skip
def test_no_name_inside_a_model_meets_those_of_the_interface(names, cut):
    built = renamed(graphs.classifier(), names)
    bundle = cut(built, layer=names.get("features", "features"))
    assert_reproduces(bundle, built)
    x = images(bundle, 2)
    maps = np.random.default_rng(3).random((2, 3, 8, 8), np.float32)
    found = run_score(bundle.path("score"), x, np.zeros_like(x), maps, True)
    np.testing.assert_allclose(found, by_steps(built, x, np.zeros_like(x), maps, True), rtol=1e-5, atol=1e-5)
    u = np.random.default_rng(4).standard_normal((2, 5), np.float32)
    (gradients,) = graphs.run(bundle.path("gradient"), {"features": maps[:, :1].repeat(12, axis=1), "cotangent": u})
    w3 = next(numpy_helper.to_array(t) for t in graphs.classifier().graph.initializer if t.name == "w3")
    expected = np.broadcast_to((u @ w3.T / 64)[..., None, None], gradients.shape)  # of a mean over 8 x 8 and a linear layer
    np.testing.assert_allclose(gradients, expected, rtol=1e-4, atol=1e-6)


def test_names_inside_a_branch_are_kept_apart_too(cut):
    built = graphs.parse(
        """
        c = Conv (x, w)  p = GlobalAveragePool (c)  f = Flatten (p)  m = ReduceMax <keepdims = 0> (c)  yes = Greater (m, zero)
        scores = If (yes) <
            then_branch = a () => (float[N,5] image) { features = Mul (f, two)  image = Abs (features) },
            else_branch = b () => (float[N,5] logits) { logits = Neg (f) }>
        """,
        w=(5, 3, 3, 3), zero=np.float32(0), two=np.float32(2),
    )  # fmt: skip
    bundle = cut(built, layer="c")
    x = images(bundle, 1)
    np.testing.assert_allclose(split(bundle, x), source_scores(built, x), rtol=1e-4, atol=1e-5)


# --- the score graph ------------------------------------------------------------------------------------------------------
def run_score(path, x, baseline, maps, normalise) -> np.ndarray:
    rows, columns = (upsampling_matrix(n, out) for n, out in zip(maps.shape[2:], x.shape[2:], strict=True))
    feeds = {"image": x, "baseline": baseline, "maps": maps, "normalise": np.array(normalise)}
    return graphs.run(path, feeds | {"up_rows": rows[None], "up_columns": columns.T[None]})[0]


def masks_of(maps: np.ndarray, size: tuple[int, int], normalise: bool) -> np.ndarray:
    """Upsample bilinearly, scale each to [0, 1]; a flat map hides everything."""
    up = np.array([[cv2.resize(m, size[::-1], interpolation=cv2.INTER_LINEAR) for m in of_image] for of_image in maps])
    if not normalise:
        return up
    low, high = up.min((2, 3), keepdims=True), up.max((2, 3), keepdims=True)
    return np.divide(up - low, high - low, out=np.zeros_like(up), where=high > low)


def by_steps(built, x, baseline, maps, normalise) -> np.ndarray:
    masks = masks_of(maps, x.shape[2:], normalise)[:, :, None]
    masked = baseline[:, None] + (x - baseline)[:, None] * masks
    return np.array([source_scores(built, of_image.astype(np.float32)) for of_image in masked])


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 4), (2, 3)])
def test_the_score_graph_equals_the_steps_one_by_one(tiny_bundle, n, k, normalise):
    rng = np.random.default_rng(n * 10 + k)
    x, baseline = rng.standard_normal((2, n, 3, 32, 32), np.float32)
    maps = rng.normal(0.3, 2, (n, k, 8, 8)).astype(np.float32)
    found = run_score(tiny_bundle / "score.onnx", x, baseline, maps, normalise)
    assert found.shape == (n, k, 5)
    expected = by_steps(graphs.classifier(), x, baseline, maps, normalise)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("size", [(1, 3), (5, 3), (16, 8), (32, 32), (40, 50)])
def test_maps_of_any_size_are_scored(tiny_bundle, size, normalise):
    rng = np.random.default_rng(5)
    x, baseline = rng.standard_normal((2, 2, 3, 32, 32), np.float32)
    maps = rng.normal(0.3, 2, (2, 3, *size)).astype(np.float32)
    found = run_score(tiny_bundle / "score.onnx", x, baseline, maps, normalise)
    np.testing.assert_allclose(found, by_steps(graphs.classifier(), x, baseline, maps, normalise), rtol=1e-5, atol=1e-5)


def test_maps_that_are_not_square_are_scored(cut):
    built = graphs.classifier(image=("N", 3, 24, 40))
    bundle = cut(built)
    x = images(bundle, 2)
    maps = np.random.default_rng(0).random((2, 3, 6, 10), np.float32)
    found = run_score(bundle.path("score"), x, np.zeros_like(x), maps, True)
    np.testing.assert_allclose(found, by_steps(built, x, np.zeros_like(x), maps, True), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [-3.0, 0.0, 1.0, 0.1, 1 / 3, 1e-30, 1e30])
def test_a_flat_map_hides_everything(tiny_bundle, value):
    x, baseline = np.random.default_rng(0).standard_normal((2, 1, 3, 32, 32), np.float32)
    maps = np.full((1, 2, 8, 8), value, np.float32)
    found = run_score(tiny_bundle / "score.onnx", x, baseline, maps, True)
    hidden = source_scores(graphs.classifier(), baseline)
    np.testing.assert_allclose(found[0], np.repeat(hidden, 2, 0), rtol=1e-5, atol=1e-5)


def test_maps_of_ones_show_the_image_and_of_zeros_the_baseline(tiny_bundle):
    x, baseline = np.random.default_rng(0).standard_normal((2, 1, 3, 32, 32), np.float32)
    maps = np.stack([np.ones((8, 8), np.float32), np.zeros((8, 8), np.float32)])[None]
    found = run_score(tiny_bundle / "score.onnx", x, baseline, maps, False)[0]
    expected = source_scores(graphs.classifier(), np.concatenate([x, baseline]))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6])
def test_the_size_of_a_maps_values_does_not_matter(tiny_bundle, scale):
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32), np.float32)
    maps = np.random.default_rng(1).random((1, 3, 8, 8), np.float32)
    found = [run_score(tiny_bundle / "score.onnx", x, np.zeros_like(x), m, True) for m in (maps, maps * np.float32(scale))]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_a_slice_of_the_maps_gives_a_slice_of_the_scores(tiny_bundle):
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    maps = np.random.default_rng(1).random((2, 5, 8, 8), np.float32)
    whole = run_score(tiny_bundle / "score.onnx", x, np.zeros_like(x), maps, True)
    parts = [run_score(tiny_bundle / "score.onnx", x, np.zeros_like(x), maps[:, a:b], True) for a, b in ((0, 2), (2, 5))]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-5, atol=1e-6)


def test_the_score_graph_runs_the_model_once(whole):
    kinds = [node.op_type for node in score(whole, SHAPES).nodes]
    assert kinds.count("Gemm") == 1
    assert kinds.count("Conv") == operators(whole.model).count("Conv")
