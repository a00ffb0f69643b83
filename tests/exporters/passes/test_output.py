"""exporters.passes.output: the scores are found before any decision is taken."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests import graphs
from tests.exporters.helpers import CONV, MEAN, W, assert_refused, logits, normal, operators, shape_of


def two_outputs() -> onnx.ModelProto:
    body = f"{CONV} p = GlobalAveragePool (r) main = Flatten (p)  n = GlobalMaxPool (c)  auxiliary = Flatten (n)"
    return graphs.parse(body, outputs=("main", "auxiliary"), w=W)


def test_an_unknown_output_gets_a_suggestion():
    assert_refused(
        two_outputs(),
        r"no output 'auxilary'\. Did you mean 'auxiliary'\? It has: main \(N, 5\), auxiliary \(N, 5\)",
        output="auxilary",
    )


def test_several_outputs_ask_for_a_choice():
    assert_refused(two_outputs(), r"has 2 outputs: main \(N, 5\), auxiliary \(N, 5\)\. Choose one: --output NAME")


def test_the_other_output_and_what_only_it_needs_is_left_out():
    found = normal(two_outputs(), output="auxiliary")
    assert [value.name for value in found.model.graph.output] == ["auxiliary"]
    assert operators(found.model) == ["Conv", "GlobalMaxPool", "Flatten"]


def test_an_output_without_a_recorded_type_is_taken():
    built = graphs.classifier()
    built.graph.output[0].ClearField("type")
    assert shape_of(normal(built), "scores") == ("N", 5)


def test_a_sequence_of_scores_is_refused():
    built = graphs.parse(f"{CONV} p = GlobalAveragePool (r) f = Flatten (p) scores = SequenceConstruct (f)", w=W)
    built.graph.output[0].type.Clear()
    built.graph.output[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    assert_refused(built, "'scores' is a sequence or a map")


# --- decisions ------------------------------------------------------------------------------------------------------------
IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
LABELS = np.array(["ant", "bee", "crane", "dog", "elk"], object)
DECISIONS = {  # nodes behind f, outputs, the tensor that is explained, the activation that was cut off
    "argmax": ("scores = ArgMax <axis = 1> (f)", ["int64[N,1] scores"], "f", None),
    "argmax of softmax": ("s = Softmax (f)  scores = ArgMax <axis = 1> (s)", ["int64[N,1] scores"], "f", "Softmax"),
    "argmin": ("scores = ArgMin <axis = 1> (f)", ["int64[N,1] scores"], "f", None),
    "topk": ("best, at = TopK (f, three)", ["best", "int64[N,3] at"], "f", None),
    "topk of softmax": ("s = Softmax (f)  best, at = TopK (s, three)", ["int64[N,3] at", "best"], "f", "Softmax"),
    "whole numbers": ("scores = Cast <to = 7> (f)", ["int64[N,5] scores"], "f", None),
    "yes or no": ("s = Sigmoid (f)  scores = Greater (s, half)", ["bool[N,5] scores"], "f", "Sigmoid"),
    "zeros and ones": (
        "s = Sigmoid (f)  b = GreaterOrEqual (s, half)  scores = Cast <to = 6> (b)", ["int32[N,5] scores"], "f", "Sigmoid"
    ),
    "one of all": ("a = ArgMax <axis = 1, keepdims = 0> (f)  scores = OneHot (a, five, off_on)", ["scores"], "f", None),
    "a hard maximum": ("s = Softmax (f)  scores = Hardmax (s)", ["scores"], "f", "Softmax"),
    "binarizer": ("s = Sigmoid (f)  scores = ai.onnx.ml.Binarizer <threshold = 0.5> (s)", ["scores"], "f", "Sigmoid"),
    "name": ("a = ArgMax <axis = 1, keepdims = 0> (f)  scores = Gather (names, a)", ["string[N] scores"], "f", None),
    "label and probabilities": (
        "s = Softmax (f)  a = ArgMax <axis = 1> (s)  label = ai.onnx.ml.ArrayFeatureExtractor (numbers, a)",
        ["int64[1,N] label", "s"], "f", "Softmax",
    ),
    "a label that is a fraction": (
        "a = ArgMax <axis = 1> (f)  scores = ai.onnx.ml.ArrayFeatureExtractor (fractions, a)", ["scores"], "f", None
    ),
    "logits and probabilities": ("scores = Softmax (f)", ["f", "scores"], "f", "Softmax"),
    "probabilities and logits": ("scores = Softmax (f)", ["scores", "f"], "f", "Softmax"),
    "best of the classes": ("scores = ReduceMax <axes = [1]> (f)", ["scores"], "f", None),
    "the scores and the best": ("s = LogSoftmax (f)  m = ReduceMax <axes = [1]> (s)", ["m", "s"], "f", "LogSoftmax"),
}  # fmt: skip


@pytest.mark.parametrize(("end", "outputs", "scores", "activation"), DECISIONS.values(), ids=DECISIONS)
def test_the_scores_before_a_decision_are_explained(end, outputs, scores, activation):
    built = graphs.parse(
        f"{MEAN} {end}", outputs=tuple(outputs), w=W, three=np.array([3]), half=np.float32(0.5), names=LABELS,
        numbers=np.arange(10, 15),
        fractions=np.linspace(0, 1, 5).astype(np.float32), five=np.array(5), off_on=np.array([0, 1], np.float32),
    )  # fmt: skip
    found = normal(built)
    assert found.activation == activation
    assert operators(found.model) == ["Conv", "Relu", "GlobalAveragePool", "Flatten"]
    built.graph.output.append(onnx.ValueInfoProto(name="f") if scores not in outputs else built.graph.output[0])
    if scores in outputs:
        del built.graph.output[-1]
    np.testing.assert_allclose(logits(found, IMAGE), graphs.run(built, {"x": IMAGE}, scores)[0], rtol=1e-5, atol=1e-6)


def zipped(*outputs: str) -> onnx.ModelProto:
    """Return what scikit-learn's converter ends in: a label, and a map from each label to its probability."""
    body = f"{MEAN} s = Softmax (f)  z = ai.onnx.ml.ZipMap <classlabels_int64s = [0, 1, 2, 3, 4]> (s)"
    built = graphs.parse(f"{body} label = ArgMax <axis = 1, keepdims = 0> (s)", outputs=("int64[N] label",), w=W)
    entry = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    built.graph.output.append(helper.make_value_info("z", helper.make_sequence_type_proto(entry)))
    chosen = [value for name in outputs for value in built.graph.output if value.name == name]
    del built.graph.output[:]
    built.graph.output.extend(chosen)
    return built


def named() -> onnx.ModelProto:
    """Return a model whose ZipMap calls the classes by name."""
    built = zipped("z")
    zipmap = next(node for node in built.graph.node if node.op_type == "ZipMap")
    del zipmap.attribute[:]
    zipmap.attribute.append(helper.make_attribute("classlabels_strings", ["ant", "bee", "cat", "dög", "eel"]))
    built.graph.output[0].type.sequence_type.elem_type.map_type.key_type = TensorProto.STRING
    return built


def test_the_names_of_a_zipmap_are_the_labels_unless_others_are_given(cut, tmp_path):
    assert cut(named()).manifest.labels == ("ant", "bee", "cat", "dög", "eel")
    others = list("vwxyz")
    assert cut(named(), labels=others, force=True).manifest.labels == tuple(others)


@pytest.mark.parametrize("outputs", [("label", "z"), ("z",), ("z", "label")])
def test_a_map_of_probabilities_is_no_obstacle(outputs, cut):
    built = zipped(*outputs)
    bundle = cut(built)
    assert bundle.manifest.activation == "Softmax"
    assert bundle.manifest.classes == 5
    found = normal(built)
    (mapped,) = graphs.run(built, {"x": IMAGE}, "z")[0]
    z = np.exp(logits(found, IMAGE)[0])
    np.testing.assert_allclose(z / z.sum(), list(mapped.values()), rtol=1e-5)


def test_the_best_place_of_each_class_is_a_pooling_and_no_decision():
    built = graphs.parse(f"{CONV} scores = ReduceMax <axes = [2, 3], keepdims = 0> (r)", w=W)
    found = normal(built)
    assert operators(found.model)[-1] == "ReduceMax"
    np.testing.assert_allclose(logits(found, IMAGE), graphs.run(built, {"x": IMAGE})[0], rtol=1e-5)


def test_a_rounded_score_is_no_decision():
    body = f"{MEAN} scores = QuantizeLinear (f, scale, zero)"
    found = normal(graphs.parse(body, outputs=("uint8[N,5] scores",), w=W, scale=np.float32(0.05), zero=np.uint8(100)))
    assert found.source_output == "scores"
    assert operators(found.model)[-2:] == ["QuantizeLinear", "DequantizeLinear"]


ENDS = {  # in ONNX Runtime's operators between whole numbers: behind the quantised scores q, and behind the maps m
    "add": "scores = com.microsoft.QLinearAdd (q, scale, zero, b, scale, zero, scale, zero)",
    "mean": "scores = com.microsoft.QLinearGlobalAveragePool <channels_last = 0> (m, scale, zero, scale, zero)",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_what_computes_scores_between_whole_numbers_is_no_decision(end):
    body = f"{MEAN} q = QuantizeLinear (f, scale, zero)  m = QuantizeLinear (r, scale, zero)  {end}"
    quantised = {"scale": np.float32(0.05), "zero": np.uint8(100), "b": np.array([[0, 60, 100, 140, 250]], np.uint8)}
    built = graphs.parse(body, outputs=("uint8 scores",), w=W, **quantised)
    found = normal(built)
    assert found.source_output == "scores"
    scores = (graphs.run(built, {"x": IMAGE})[0].reshape(1, 5) - np.float32(100)) * np.float32(0.05)
    np.testing.assert_allclose(logits(found, IMAGE), scores, atol=1e-6)


def test_a_decision_between_two_tensors_is_left_as_it_is():
    body = f"{MEAN} n = Neg (f)  g = Greater (f, n)  scores = Cast <to = 1> (g)"
    assert operators(normal(graphs.parse(body, w=W)).model)[-3:] == ["Neg", "Greater", "Cast"]


def test_a_choice_between_two_tensors_is_refused():
    built = graphs.parse(f"{MEAN} n = Neg (f)  scores = Greater (f, n)", outputs=("bool[N,5] scores",), w=W)
    assert_refused(built, "The output 'scores' holds BOOL, not scores")


def test_heads_of_which_one_is_no_function_of_the_other_ask_for_a_choice():
    built = graphs.parse(
        f"{MEAN} a = Softmax (f)  n = GlobalMaxPool (c)  g = Flatten (n)  b = Softmax (g)", outputs=("a", "b"), w=W
    )
    assert_refused(built, r"has 2 outputs: a \(N, 5\), b \(N, 5\)\. Choose one: --output NAME")
    assert normal(built, output="b").logits == "g"
    assert normal(built, output="a").logits == "f"


def test_maps_beside_the_scores_leave_one_choice():
    built = graphs.parse(f"{MEAN} scores = Softmax (f)", outputs=("r", "scores"), w=W)
    assert normal(built).source_output == "scores"


def test_outputs_none_of_which_is_one_score_per_class_are_no_classifiers():
    built = graphs.parse(f"{CONV} boxes = Identity (r)  maps = Relu (r)", outputs=("boxes", "maps"), w=W)
    assert_refused(built, r"boxes \(N, 5, 16, 16\), maps \(N, 5, 16, 16\)\. None is one score per class, \(N, L\)")
