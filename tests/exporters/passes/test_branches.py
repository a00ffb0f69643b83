"""exporters.passes.branches: the branch that is taken stands in the place of the If."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from exporters.graph import rename
from tests import graphs
from tests.exporters.helpers import CONV, MEAN, W, assert_reproduces, logits, normal, operators


def test_a_condition_on_the_image_stays():
    built = graphs.parse(
        f"""
        {CONV} p = GlobalAveragePool (r)  f = Flatten (p)  m = ReduceMax <keepdims = 0> (c)  yes = Greater (m, zero)
        scores = If (yes) <
            then_branch = a () => (float[N,5] t) {{ t = Mul (f, two) }},
            else_branch = b () => (float[N,5] e) {{ e = Neg (f) }}>
        """,
        w=W, zero=np.float32(0), two=np.float32(2),
    )  # fmt: skip
    assert operators(normal(built).model)[-1] == "If"


IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
YES, NO = np.array(True), np.array(False)


def assert_taken(built, *, left: int = 0) -> None:
    """Hold that no If is left, or that many, and that no number changed."""
    found = normal(built)
    assert operators(found.model).count("If") == left
    np.testing.assert_allclose(logits(found, IMAGE), graphs.run(built, {"x": IMAGE})[0], rtol=1e-5, atol=1e-6)


def either(then: str, other: str, condition: str = "yes", out: str = "scores") -> str:
    """Return an If with two bodies that write y."""
    return f"{out} = If ({condition}) <then_branch = a () => (y) {{ {then} }}, else_branch = b () => (y) {{ {other} }}>"


@pytest.mark.parametrize("yes", [YES, NO, np.array([True]), np.array([[False]])], ids=str)
def test_the_branch_of_a_known_condition_is_taken(yes):
    assert_taken(graphs.parse(f"{MEAN} {either('y = Exp (f)', 'y = Neg (f)')}", w=W, yes=yes))


@pytest.mark.parametrize("yes", [YES, NO])
def test_names_that_both_branches_use_for_different_things_do_no_harm(yes):
    then, other = "h = Exp (f)  k = Mul (h, h)  y = Add (k, h)", "h = Neg (f)  k = Sin (h)  y = Sub (h, k)"
    assert_taken(graphs.parse(f"{MEAN} {either(then, other)}", w=W, yes=yes))


@pytest.mark.parametrize("yes", [YES, NO])
def test_two_ifs_with_the_same_names_inside_do_no_harm(yes):
    first = either("h = Exp (f)  y = Mul (h, h)", "h = Neg (f)  y = Sin (h)", out="g")
    second = either("h = Cos (g)  y = Mul (h, h)", "h = Sin (g)  y = Neg (h)")
    assert_taken(graphs.parse(f"{MEAN} {first} {second}", w=W, yes=yes))


@pytest.mark.parametrize("name", ["scores", "scores/h", "scores/y"])
def test_a_name_inside_that_stands_outside_too_is_changed(name):
    built = graphs.parse(f"{MEAN} {either('h = Exp (f)  y = Mul (h, h)', 'y = Neg (f)')}", w=W, yes=YES)
    for node in built.graph.node:  # an outer tensor by the name that the pass would give
        for names in (node.input, node.output):
            for i, each in enumerate(names):
                if name != "scores" and each == "p":
                    names[i] = name
    assert_taken(built)


def test_names_inside_that_would_become_the_same_stay_apart():
    built = graphs.parse(f"{MEAN} {either('h = Exp (f)  k = Neg (f)  y = Sub (h, k)', 'y = Neg (f)')}", w=W, yes=YES)
    body = next(a.g for a in built.graph.node[-1].attribute if a.name == "then_branch")
    for node in body.node:
        rename(node, {"k": "h'"})
    for node in built.graph.node:
        rename(node, {"p": "scores/h"})
    assert_taken(built)


@pytest.mark.parametrize("outer", [YES, NO])
@pytest.mark.parametrize("inner", [YES, NO])
def test_an_if_in_an_if_is_taken(outer, inner):
    nested = """y = If (inner) <then_branch = d () => (z) { h = Exp (f)  z = Mul (h, h) },
        else_branch = e () => (z) { h = Sin (f)  z = Mul (h, f) }>"""
    assert_taken(graphs.parse(f"{MEAN} {either(nested, 'h = Neg (f)  y = Abs (h)')}", w=W, yes=outer, inner=inner))


def test_an_inner_if_reads_what_the_outer_body_computed():
    nested = """k = Exp (f)  y = If (inner) <then_branch = d () => (z) { z = Mul (k, k) }, else_branch = e () => (z) { z = Neg (k) }>"""
    assert_taken(graphs.parse(f"{MEAN} {either(nested, 'y = Neg (f)')}", w=W, yes=YES, inner=NO))


def test_an_if_on_the_image_inside_a_taken_branch_stays():
    nested = """k = Exp (f)  m = ReduceMax <keepdims = 0> (k)  asked = Greater (m, nought)
        y = If (asked) <then_branch = d () => (z) { z = Mul (k, k) }, else_branch = e () => (z) { z = Neg (k) }>"""
    assert_taken(graphs.parse(f"{MEAN} {either(nested, 'y = Neg (f)')}", w=W, yes=YES, nought=np.float32(0)), left=1)


def with_body_weights(built):
    """Give the two bodies initializers of the same name and different values."""
    bodies = [a.g for a in built.graph.node[-1].attribute]
    for value, body in enumerate(bodies, 2):
        body.initializer.append(numpy_helper.from_array(np.float32(value), "k"))
    return built


@pytest.mark.parametrize("yes", [YES, NO])
def test_weights_that_only_a_body_holds_come_along(yes):
    body = f"{MEAN} {either('y = Mul (f, k)', 'y = Sub (f, k)')}"
    assert_taken(with_body_weights(graphs.parse(body, w=W, yes=yes)))


def test_constant_nodes_and_identities_inside_become_weights():
    then = "k = Constant <value_float = 3.0> ()  i = Identity (k)  y = Mul (f, i)"
    built = graphs.parse(f"{MEAN} {either(then, 'y = Neg (f)')}", w=W, yes=YES)
    assert "Constant" not in operators(normal(built).model)
    assert_taken(built)


def test_a_branch_that_gives_what_stands_outside_is_taken():
    built = graphs.parse(f"{MEAN} {either('y = Identity (f)', 'y = Neg (f)')}", w=W, yes=YES)
    assert_taken(built)
    body = next(a.g for a in built.graph.node[-1].attribute if a.name == "then_branch")
    del body.node[:]  # as no runtime takes it, but ONNX does
    body.output[0].name = "f"
    found = normal(built)
    expected = graphs.run(graphs.parse(MEAN, outputs=("f",), w=W), {"x": IMAGE})[0]
    np.testing.assert_allclose(logits(found, IMAGE), expected, rtol=1e-6)


def test_several_results_are_taken():
    body = "g, h = If (yes) <then_branch = a () => (s, t) { s = Exp (f)  t = Neg (f) }, else_branch = b () => (s, t) { s = Neg (f) t = Exp (f) }>"
    assert_taken(graphs.parse(f"{MEAN} {body} scores = Sub (g, h)", w=W, yes=NO))


ASKED = "s = Shape (c)  n = Gather <axis = 0> (s, two)  yes = {}"


@pytest.mark.parametrize("question", ["Equal (n, sixteen)", "Greater (n, sixteen)", "Less (two, n)"])
def test_a_question_about_a_shape_is_answered(question, cut):
    body = f"{CONV} {ASKED.format(question)} {either('y = GlobalMaxPool (r)', 'y = GlobalAveragePool (r)', out='p')} f = Flatten (p)"
    built = graphs.parse(f"{body} scores = MatMul (f, fc)", w=W, fc=(5, 4), two=np.array(2), sixteen=np.array(16))
    assert_taken(built)
    assert_reproduces(cut(built), built)


def test_a_shape_that_only_a_taken_branch_makes_known_answers_the_next_question():
    first = either("y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)", "y = Relu (r)", out="d")
    second = "t = Shape (d)  m = Gather <axis = 0> (t, two)  no = Equal (m, eight)"
    last = either("y = GlobalMaxPool (d)", "y = GlobalAveragePool (d)", "no", out="p")
    body = f"{CONV} {ASKED.format('Equal (n, sixteen)')} {first} {second} {last} scores = Flatten (p)"
    assert_taken(graphs.parse(body, w=W, two=np.array(2), sixteen=np.array(16), eight=np.array(8)))


def test_an_optional_squeeze_as_torch_writes_it_is_cut(cut):
    branches = either("y = Squeeze (p, both)", "y = Flatten (p)", out="f")
    body = f"{CONV} p = GlobalAveragePool (r)  s = Shape (p)  n = Gather <axis = 0> (s, two)  yes = Equal (n, one)  {branches}"
    built = graphs.parse(
        f"{body} scores = MatMul (f, fc)", w=W, fc=(5, 4), two=np.array(2), one=np.array(1), both=np.array([2, 3])
    )
    bundle = cut(built)
    assert bundle.manifest.layer.name == "r"
    assert bundle.manifest.gradient_missing is None
    assert_reproduces(bundle, built)
