"""exporters.passes.operators: what no bundle can hold is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests import graphs
from tests.exporters.helpers import CONV, MEAN, W, assert_refused, assert_reproduces, normal, operators


def test_a_custom_operator_is_refused():
    built = graphs.parse(f"{CONV} [nms] d = my.company.Detect (r)  scores = Flatten (d)", w=W)
    assert_refused(built, "Detect 'nms' is a custom operator of domain 'my.company'.*Export the model with standard operators")


def test_what_onnx_runtime_brings_is_no_custom_operator(cut):
    built = graphs.parse(f"{CONV} g = com.microsoft.Gelu (r)  p = GlobalAveragePool (g)  scores = Flatten (p)", w=W)
    unknown_to_onnx = helper.make_tensor_value_info("g", TensorProto.FLOAT, ["N", 5, 16, 16])
    built.graph.value_info.append(unknown_to_onnx)
    assert_reproduces(cut(built, layer="r"), built)


def test_an_opset_of_operators_that_are_not_used_does_no_harm(cut):
    built = graphs.classifier()
    for domain in ("com.microsoft", "ai.onnx.ml", "ai.onnx.training", "com.microsoft.nchwc", "org.pytorch.aten"):
        built.opset_import.append(helper.make_opsetid(domain, 1))
    assert_reproduces(cut(built), built)


BEHIND = "p = GlobalAveragePool (y)  scores = Flatten (p)"
ONES = {name: np.ones(5, np.float32) for name in ("scale", "bias", "mean", "var")}
YES, NO = np.array(True), np.array(False)
TRAINS = "is in training mode and answers differently every time"
REFUSED = {  # nodes from r to y, constants, the refusal
    "custom": ("[own] y = my.company.Detect (r)", {}, "Detect 'own' is a custom operator of domain 'my.company'"),
    "nchwc": ("[own] y = com.microsoft.nchwc.Conv (r, v)", {"v": (5, 5, 1, 1)}, "was optimised by ONNX Runtime for one kind of machine"),
    "nhwc": ("[own] y = com.ms.internal.nhwc.Conv (r, v)", {"v": (5, 5, 1, 1)}, "of domain 'com.ms.internal.nhwc': this file was optimised"),
    "normal": ("[own] n = RandomNormal <shape = [1, 5, 1, 1]> ()  y = Add (r, n)", {}, "RandomNormal 'own' is random"),
    "normal like": ("[own] n = RandomNormalLike (r)  y = Add (r, n)", {}, "RandomNormalLike 'own' is random, so that no cut can be proved"),
    "uniform": ("[own] n = RandomUniform <shape = [1, 5, 1, 1]> ()  y = Add (r, n)", {}, "RandomUniform 'own' is random"),
    "uniform like": ("[own] n = RandomUniformLike (r)  y = Add (r, n)", {}, "RandomUniformLike 'own' is random"),
    "bernoulli": ("s = Sigmoid (r)  [own] n = Bernoulli (s)  y = Add (r, n)", {}, "Bernoulli 'own' is random"),
    "multinomial": (
        "g = GlobalAveragePool (r)  h = Flatten (g)  [own] m = Multinomial (h)  n = Cast <to = 1> (m)  y = Add (r, n)",
        {}, "Multinomial 'own' is random",
    ),
    "dropout": ("[own] y = Dropout (r, half, mode)", {"half": np.float32(0.5), "mode": YES}, f"Dropout 'own' {TRAINS}"),
    "dropout by default ratio": ("[own] y = Dropout (r, , mode)", {"mode": YES}, f"Dropout 'own' {TRAINS}"),
    "dropout by a computed mode": (
        "m = ReduceMax <keepdims = 0> (r)  mode = Cast <to = 9> (m)  [own] y = Dropout (r, , mode)", {}, f"Dropout 'own' {TRAINS}"
    ),
    "in a branch": (
        """m = ReduceMax <keepdims = 0> (r)  yes = Cast <to = 9> (m)
        y = If (yes) <then_branch = a () => (t) { [own] t = RandomNormalLike (r) }, else_branch = b () => (e) { e = Relu (r) }>""",
        {}, "RandomNormalLike 'own' is random",
    ),
    "in a branch of a branch": (
        """m = ReduceMax <keepdims = 0> (r)  yes = Cast <to = 9> (m)
        y = If (yes) <then_branch = a () => (t) { t = If (yes) <
                then_branch = d () => (u) { [own] u = my.company.Detect (r) }, else_branch = f () => (v) { v = Neg (r) }> },
            else_branch = b () => (e) { e = Relu (r) }>""",
        {}, "Detect 'own' is a custom operator",
    ),
    "a mode inside a branch": (
        """m = ReduceMax <keepdims = 0> (r)  yes = Cast <to = 9> (m)
        y = If (yes) <then_branch = a () => (t) { [own] t = Dropout (r, half, mode) }, else_branch = b () => (e) { e = Relu (r) }>""",
        {"half": np.float32(0.5), "mode": YES}, f"Dropout 'own' {TRAINS}",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("body", "constants", "message"), REFUSED.values(), ids=REFUSED)
def test_what_no_bundle_can_hold_is_refused_by_name(body, constants, message):
    assert_refused(graphs.parse(f"{CONV} {body} {BEHIND}", w=W, **constants), message)


@pytest.mark.parametrize(("body", "constants", "message"), REFUSED.values(), ids=REFUSED)
def test_what_the_scores_do_not_depend_on_is_no_obstacle(body, constants, message):
    body = f"{MEAN} scores = Identity (f)  {body.replace('p =', 'q =')}"
    found = normal(graphs.parse(body, w=W, **constants))
    assert operators(found.model) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Identity"], message


@pytest.mark.parametrize("opset", [12, 13, 14, 15, 17])
def test_a_dropout_that_drops_is_refused(opset):
    weights = {"w": W, "half": np.float32(0.5)}
    built = graphs.parse(f"{CONV} [own] y = Dropout (r, half, mode) {BEHIND}", opset=opset, mode=YES, **weights)
    assert_refused(built, "(?s)Dropout .* is in training mode and .* Export the model in evaluation mode")
    built = graphs.parse(f"{CONV} y = Dropout (r, half, mode) {BEHIND}", opset=opset, mode=NO, **weights)
    assert "Dropout" in operators(normal(built).model)


@pytest.mark.parametrize("opset", [12, 13, 14, 15, 17])
def test_a_batch_normalization_by_the_batch_is_refused(opset):
    trained = "y, m, v" if opset > 13 else "y, m, v, sm, sv"
    mode = "<training_mode = 1>" if opset > 13 else ""
    norm = "BatchNormalization {} (r, scale, bias, mean, var)"
    built = graphs.parse(f"{CONV} [own] {trained} = {norm.format(mode)} {BEHIND}", opset=opset, w=W, **ONES)
    assert_refused(
        built, "BatchNormalization .* is in training mode and answers differently every time, or by the other images"
    )
    built = graphs.parse(f"{CONV} y = {norm.format('')} {BEHIND}", opset=opset, w=W, **ONES)
    assert "BatchNormalization" in operators(normal(built).model)


def test_a_batch_normalization_by_the_batch_is_refused_where_nothing_else_is_read():
    built = graphs.parse(f"{CONV} y = BatchNormalization <training_mode = 1> (r, scale, bias, mean, var) {BEHIND}", w=W, **ONES)
    assert_refused(built, "BatchNormalization 'y' is in training mode")


def test_a_dropout_without_a_mode_drops_nothing():
    built = graphs.parse(f"{CONV} y = Dropout (r, half, mode) {BEHIND}", w=W, half=np.float32(0.5))
    built.graph.node[2].input[2] = ""
    assert "Dropout" in operators(normal(built).model)


def test_a_mode_that_is_a_constant_node_is_known(cut):
    body = f"{CONV} mode = Constant <value = bool {{0}}> ()  y = Dropout (r, , mode) {BEHIND}"
    built = graphs.parse(body, w=W)
    assert_reproduces(cut(built), built)


@pytest.mark.parametrize("operator", ['ai.onnx.ml.Normalizer <norm = "L2"> (f)', "com.microsoft.Inverse (f)"])
def test_the_operators_of_a_domain_that_onnx_runtime_brings_are_known(operator):
    built = graphs.parse(f"{MEAN} g = {operator}  scores = MatMul (g, fc)", w=W, fc=(5, 4))
    built.graph.value_info.append(helper.make_tensor_value_info("g", TensorProto.FLOAT, ["N", 5]))
    assert operators(normal(built).model)[-2:] == [operator.split(" ")[0].split(".")[-1], "MatMul"]
