"""A float32 network in float16: what is converted and what is kept, what is refused, and the bundle that comes of it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

import camrt
from camrt.errors import ExportError
from camrt.manifest import MANIFEST
from exporters import export
from exporters.precision import KEPT, check_float32, to_float16
from tests import graphs
from tests.exporters.helpers import images, normal, operators, source_scores, split
from tests.exporters.test_half import DOUBLE, FLOAT, HALF, NETWORKS, gradient_of, head
from tests.exporters.variants import converted

CONV = "c = Conv <pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)"
END = "p = GlobalAveragePool (y)  f = Flatten (p)  scores = MatMul (f, fc)"
WEIGHTS = {"w": (6, 3, 3, 3), "fc": (6, 5)}
every_network = pytest.mark.parametrize("name", NETWORKS)


def in_float16(built: ModelProto) -> ModelProto:
    """Return a model in normal form and float16, checked."""
    found = normal(built)
    model = to_float16(found.graph(), found.image, found.logits)
    onnx.checker.check_model(model, full_check=True)
    return model


def with_body(body: str, **weights: object) -> ModelProto:
    return graphs.parse(f"{CONV}  {body}  {END}", **WEIGHTS | weights)


def element_types(model: ModelProto) -> dict[str, int]:
    model = onnx.shape_inference.infer_shapes(model)
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    return {v.name: v.type.tensor_type.elem_type for v in values} | {t.name: t.data_type for t in model.graph.initializer}


def answers(built: ModelProto) -> tuple[np.ndarray, np.ndarray]:
    """Return what a model and its float16 form say to noise."""
    x = np.random.default_rng(1).standard_normal((2, 3, 16, 16), np.float32)
    found = normal(built)
    half = to_float16(found.graph(), found.image, found.logits)
    return tuple(graphs.run(model, {found.image: x}, found.logits)[0] for model in (found.model, half))


# --- what is converted ------------------------------------------------------------------------------------------------------
def test_image_and_logits_stay_float32_and_all_between_is_float16():
    types = element_types(in_float16(with_body("y = Sigmoid (r)")))
    assert {name for name, element in types.items() if element == FLOAT} == {"x", "scores"}
    assert {types[name] for name in ("w", "fc", "c", "r", "y", "p", "f")} == {HALF}


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax", "Exp"])
def test_what_leaves_the_range_inside_is_computed_in_float32(operator):
    assert operator in KEPT
    model = in_float16(with_body(f"y = {operator} (r)"))
    (node,) = [node for node in model.graph.node if node.op_type == operator]
    types = element_types(model)
    assert (types[node.input[0]], types[node.output[0]], types["r"]) == (FLOAT, FLOAT, HALF)


def test_two_that_are_kept_share_the_tensor_that_they_read():
    built = with_body("a = Softmax <axis = 1> (r)  b = Exp (r)  y = Add (a, b)")
    assert operators(in_float16(built)).count("Cast") == 1 + 1 + 2 + 1  # image, what both read, what each gives, logits
    np.testing.assert_allclose(*answers(built), rtol=5e-3, atol=5e-3)


def test_a_resize_keeps_its_scales_in_float32():
    built = with_body('y = Resize <mode = "linear"> (r, , scales)', scales=np.array([1, 1, 1.5, 1.5], np.float32))
    types = element_types(in_float16(built))
    assert (types["scales"], types["y"]) == (FLOAT, HALF)
    np.testing.assert_allclose(*answers(built), rtol=5e-3, atol=5e-3)


def test_a_normalisation_stays_float32_with_its_numbers():
    ones = {name: np.ones(6, np.float32) for name in "gbmv"}
    types = element_types(in_float16(with_body("y = BatchNormalization (r, g, b, m, v)", **ones)))
    assert [types[name] for name in "gbmvy"] == [FLOAT] * 5


def test_a_weight_that_is_read_in_both_is_there_in_both():
    built = with_body("a = Softmax <axis = 1> (r)  b = Add (r, shift)  d = Pow (r, shift)  e = Add (a, d)  y = Add (e, b)",
                      shift=np.full((6, 1, 1), 0.3, np.float32))  # fmt: skip
    model = in_float16(built)
    assert sorted(t.data_type for t in model.graph.initializer if t.name.startswith("shift")) == [FLOAT, HALF]
    np.testing.assert_allclose(*answers(built), rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(
    "body",
    [
        "k = Constant <value_float = 0.5> ()  h = CastLike (one, k)  y = Mul (r, h)",
        "i = Cast <to = 7> (r)  h = Cast <to = 1> (i)  y = Add (r, h)",
        "z = Cast <to = 9> (r)  y = Where (z, r, c)",
        "m, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)  y = Identity (m)",
        "s = Shape (r)  k = ConstantOfShape (s)  y = Add (r, k)",
        "s = Shape (r)  k = ConstantOfShape <value = float[1] {2.5}> (s)  y = Add (r, k)",
    ],
)
def test_types_that_a_node_names_follow(body):
    built = with_body(body, one=np.array(1))
    in_float16(built)
    np.testing.assert_allclose(*answers(built), rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("bound", [3.4028235e38, np.inf])
def test_a_bound_beyond_the_range_is_none(bound):
    built = with_body("y = Clip (r, zero, top)", zero=np.float32(0), top=np.float32(bound))
    (top,) = [numpy_helper.to_array(t) for t in in_float16(built).graph.initializer if t.name == "top"]
    assert top >= 65504
    np.testing.assert_allclose(*answers(built), rtol=5e-3, atol=5e-3)


def test_a_small_constant_does_not_become_zero():
    built = with_body("d = Sub (r, r)  n = Add (d, eps)  y = Div (d, n)", eps=np.float32(1e-12))  # 0 / 0 otherwise
    assert np.isfinite(answers(built)[1]).all()


def test_names_that_the_conversion_would_give_may_be_taken():
    built = graphs.parse(
        "r/float32 = Conv (x, w)  r = Relu (r/float32)  x/float16 = Softmax <axis = 1> (r)  y = Add (x/float16, r)  "
        f"{END.replace('f =', 'scores/float16 =').replace('(f,', '(scores/float16,')}".replace("/", "__slash__"),
        **WEIGHTS,
    )
    for node in built.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("__slash__", "/") for name in names]
    in_float16(built)
    np.testing.assert_allclose(*answers(built), rtol=5e-3, atol=5e-3)


def test_nodes_may_be_named_as_tensors_are(cut):
    body = "[scores] c = Conv (x, w)  [x] r = Relu (c)  [r] y = Softmax <axis = 1> (r)"
    assert cut(graphs.parse(f"{body}  {END}", **WEIGHTS), layer="r", precision="fp16").manifest.precision


# --- what is refused --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("large", [7e4, -1e30])
def test_a_weight_beyond_the_range_is_refused_by_name(large, tmp_path):
    built = with_body("y = Mul (r, big)", big=np.array([[[1.0]], [[large]]] * 3, np.float32))
    with pytest.raises(ExportError, match=r"cannot hold the weight 'big' of Mul .*: it has .*float16 ends at 65504.*Leave out"):
        in_float16(built)


@pytest.mark.parametrize(("element", "text"), [(HALF, "computes in float16 already"), (DOUBLE, "has double numbers")])
def test_other_numbers_than_float32_are_refused(element, text):
    found = normal(graphs.classifier())
    model = converted(found.model, element)
    del model.graph.value_info[:]
    with pytest.raises(ExportError, match=f"{text}.*Leave out --precision"):
        check_float32(type(found.graph())(model))


def test_a_quantised_network_is_refused(tmp_path):
    scale = {"s": np.float32(0.02), "z": np.uint8(0)}
    source = graphs.save(
        with_body("q = QuantizeLinear (r, s, z)  y = DequantizeLinear (q, s, z)", **scale), tmp_path / "m.onnx"
    )
    with pytest.raises(ExportError, match="goes with a float32 network, and this one is quantised: QuantizeLinear"):
        export(source, tmp_path / "bundle", overrides={"scale": 1 / 255}, precision="fp16")
    assert not (tmp_path / "bundle").exists()


def test_an_unknown_precision_is_refused_with_the_nearest(tmp_path):
    source = graphs.save(graphs.classifier(), tmp_path / "m.onnx")
    with pytest.raises(ExportError, match="one of fp32, fp16, got 'fp61'. Did you mean 'fp16'"):
        export(source, tmp_path / "bundle", overrides={"scale": 1 / 255}, precision="fp61")


# --- the bundle -------------------------------------------------------------------------------------------------------------
@every_network
def test_weights_are_float16_and_borders_float32(name, cut):
    bundle = cut(NETWORKS[name][0](), precision="fp16")
    kept = {w.name for w in bundle.manifest.weights if w.dtype == "float32"}
    assert all(name[0] in "gb" for name in kept), "those of a BatchNormalization alone"
    for part in ("head", "tail", "score", "gradient"):
        model = onnx.load(bundle.path(part), load_external_data=False)
        found = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
        assert found <= {FLOAT, TensorProto.BOOL}
        assert HALF in {tensor.data_type for tensor in model.graph.initializer}, part


def test_weights_take_half_the_room(cut):
    sizes = [
        sum(w.length for w in cut(graphs.classifier(), precision=p, force=True).manifest.weights) for p in ("fp32", "fp16")
    ]
    assert sizes[0] == 2 * sizes[1]


@every_network
def test_layer_and_logits_are_those_of_the_float32_network(name, cut):
    network, layer = NETWORKS[name]
    bundle = cut(network(), precision="fp16")
    assert bundle.manifest.layer.name == layer
    x = images(bundle)
    expected = source_scores(network(), x, "z" if name == "inverted residual" else None)
    np.testing.assert_allclose(split(bundle, x), expected, rtol=0, atol=5e-3 * max(1, np.abs(expected).max()))


@every_network
def test_gradients_are_those_of_the_float32_network(name, cut):
    network, _ = NETWORKS[name]
    half = cut(network(), precision="fp16")
    features = head(half, images(half))
    found = gradient_of(half, features)
    expected = gradient_of(cut(network(), force=True), features)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3 * np.abs(expected).max())


def test_a_gradient_through_a_maximum_runs(cut):
    bundle = cut(
        with_body("m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)  y = Sigmoid (m)"), layer="r", precision="fp16"
    )
    assert bundle.manifest.gradient_missing is None
    assert "hires-cam" in bundle.manifest.precision.heatmaps


def test_the_split_is_proved_as_for_a_source_in_float16(cut):
    manifest = cut(graphs.residual(), precision="fp16").manifest
    assert manifest.split.tolerance == 2e-3
    assert set(manifest.split.errors) == {"noise", "black", "white", "saturated", "pattern"}


def test_what_float16_changes_is_in_the_manifest(cut):
    bundle = cut(graphs.classifier(), precision="fp16")
    written = json.loads((bundle.folder / MANIFEST).read_text())["precision"]
    assert written["computes"] == "float16"
    assert 0 < written["logits"] < written["allowed"] == 0.05
    assert (written["images"], written["same_top"]) == (14, 14)
    maps = written["heatmaps"]
    assert set(maps) == {"cluster-cam", "cluster-cam clustered anew", "hires-cam"}
    assert all(maps[name]["correlation"] > 0.99 and maps[name]["mean"] < 0.01 for name in ("cluster-cam", "hires-cam"))


def test_a_bundle_as_its_source_does_not_speak_of_it(cut):
    bundle = cut(graphs.classifier())
    assert bundle.manifest.precision is None
    assert "precision" not in json.loads((bundle.folder / MANIFEST).read_text())


def test_nothing_else_is_left_beside_the_bundle(cut):
    bundle = cut(graphs.classifier(), precision="fp16")
    assert {path.name for path in bundle.folder.iterdir()} == {MANIFEST, *bundle.manifest.files}
    assert {path.name for path in bundle.folder.parent.iterdir()} == {"bundle", "model.onnx"}


def test_two_exports_are_the_same(cut):
    first = cut(graphs.classifier(), precision="fp16").manifest
    assert cut(graphs.classifier(), precision="fp16", force=True).manifest == first


def test_a_photo_is_explained_as_in_float32(cut, pixels):
    found, expected = (
        camrt.load(cut(graphs.classifier(), precision=p, force=True).folder, providers=["cpu"]).explain(
            pixels, target=2, method="hires-cam"
        )
        for p in ("fp16", "fp32")
    )
    assert found.targets[0].outcome == expected.targets[0].outcome
    np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=0, atol=0.02)


# --- real models ------------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "logits"), [("mobilenet_v2_tv", 0.035), ("squeezenet11_gluon", 0.01), ("googlenet_caffe", 0.005)]
)
def test_real_models_lose_little(name, logits, real, tmp_path):
    source, described = (real / "models" / f"{name}.{end}" for end in ("onnx", "json"))
    manifest = export(source, tmp_path / "half", preprocess=described, precision="fp16")
    assert manifest.precision.logits < logits
    assert manifest.precision.same_top == manifest.precision.images
    assert manifest.gradient_missing is None
    for method in ("cluster-cam", "hires-cam"):
        found = manifest.precision.heatmaps[method]
        assert found.mean < 0.01
        assert found.correlation > 0.999
    assert (tmp_path / "half" / "weights.bin").stat().st_size < 0.51 * source.stat().st_size
