"""Hostile and damaged ONNX files: each is exported rightly or refused in one sentence, in bounded time and memory."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from camrt.errors import ExportError
from exporters import export, graph, limits, memory
from exporters.layers import SCOPES, list_layers, separators
from exporters.source import read_source
from tests import graphs
from tests.exporters.helpers import assert_reproduces, normal
from tests.fuzz.case import EXPORTED, FAILED, REFUSED
from tests.fuzz.models import CONV, FC, IMAGE, MEAN, MODELS, W
from tests.fuzz.workers import run_cases

CASES = 300


def test_damaged_models_are_exported_rightly_or_refused_in_one_sentence(tmp_path):
    outcomes = list(run_cases(range(CASES), 1, tmp_path, seconds=60))
    failures = [f"--seed {o.seed}: {o.kind}\n{o.text}" for o in outcomes if o.word == FAILED]
    assert not failures, "\n\n".join(failures)
    assert len(outcomes) == CASES
    assert {o.word for o in outcomes} == {EXPORTED, REFUSED}  # neither too gentle nor too rough


@pytest.mark.parametrize("name", MODELS)
def test_the_models_that_are_damaged_are_whole(name):
    assert graphs.session(MODELS[name]()).get_outputs()


def classifier_of(body: str, **weights: object) -> ModelProto:
    """Return a classifier with `k` between its features `r` and their mean."""
    return graphs.parse(
        f"{CONV} {body} {MEAN.replace('(r)', '(k)')} scores = MatMul (f, fc)", image=IMAGE, w=W, fc=FC, **weights
    )


def assert_refused(built: ModelProto, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        export(graphs.save(built, tmp_path / "model.onnx"), tmp_path / "bundle", overrides={"scale": 1 / 255})
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


# --- what cannot be true --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.dims.append(2),
        lambda tensor: tensor.dims.append(-1),
        lambda tensor: tensor.dims.extend([0, 1 << 62, 1 << 62]),
        lambda tensor: setattr(tensor, "raw_data", tensor.raw_data[:-1]),
        lambda tensor: setattr(tensor, "raw_data", b""),
        lambda tensor: setattr(tensor, "data_type", 99),
        lambda tensor: setattr(tensor, "data_type", TensorProto.UNDEFINED),
        lambda tensor: setattr(tensor, "data_type", TensorProto.DOUBLE),
        lambda tensor: (tensor.ClearField("raw_data"), tensor.float_data.append(1.0)),
    ],
)
def test_a_weight_that_does_not_hold_what_it_says_is_refused(change, tmp_path):
    built = graphs.classifier()
    change(built.graph.initializer[0])
    assert_refused(built, "constant 'w1' does not hold what its type and its shape", tmp_path)


def test_a_constant_in_a_branch_is_looked_at_too(tmp_path):
    built = MODELS["branching"]()
    branch = built.graph.node[-1].attribute[0].g
    branch.initializer.add(name="inner", data_type=TensorProto.FLOAT, dims=[5])
    assert_refused(built, "constant 'inner' does not hold", tmp_path)


@pytest.mark.parametrize(
    ("data_type", "dims", "size"), [(TensorProto.INT4, [3], 2), (TensorProto.UINT4, [2, 2], 2), (TensorProto.BFLOAT16, [3], 6)]
)
def test_weights_of_odd_widths_hold_what_they_say(data_type, dims, size):
    built = graphs.classifier()
    built.graph.initializer.add(name="narrow", data_type=data_type, dims=dims, raw_data=bytes(size))
    limits.check_tensors(built)
    built.graph.initializer[-1].raw_data += b"\0"
    with pytest.raises(ExportError, match="'narrow'"):
        limits.check_tensors(built)


def test_sparse_weights_are_refused(tmp_path):
    built = graphs.classifier()
    built.graph.sparse_initializer.add(dims=[4]).values.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0]))
    assert_refused(built, r"sparse weights\. Export it with dense ones", tmp_path)


@pytest.mark.parametrize("name", ["n" * 70_000, "a\nb", "\x1b[31mred", "\0"], ids=["long", "line", "colour", "null"])
def test_a_name_that_cannot_stand_in_a_message_is_refused(name, tmp_path):
    for change in ("name", "op_type", "domain"):
        built = graphs.classifier()
        setattr(built.graph.node[0], change, name)
        assert_refused(built, "The model has a name of", tmp_path)


def test_a_dimension_with_such_a_name_is_refused(tmp_path):
    assert_refused(graphs.classifier(image=("N", 3, "a\nb", 32)), "The model has a name of", tmp_path)


def test_a_name_that_is_no_utf8_is_refused(tmp_path):
    path = Path(graphs.save(graphs.classifier(), tmp_path / "model.onnx"))
    path.write_bytes(path.read_bytes().replace(b"features", b"f\xff\xfeatures"[:8]))
    with pytest.raises(ExportError, match="in UTF-8"):
        export(path, tmp_path / "bundle", overrides={"scale": 1 / 255})


# --- sizes ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("image", [(1, 3, 1 << 16, 8), (1, 3, 1 << 31, 1 << 31), (1 << 20, 3, 32, 32), (1, 3, 1 << 62, 1)])
def test_images_beyond_every_memory_are_refused(image, tmp_path):
    assert_refused(graphs.classifier(image=image), r"up to 134,217,728 elements|within 1…16384", tmp_path)


def test_a_negative_batch_is_an_open_one(cut):
    assert_reproduces(cut(graphs.classifier(image=(-1, 3, 32, 32))), graphs.classifier())


def test_a_recorded_shape_that_cannot_be_is_forgotten(cut):
    built = classifier_of("e = ConstantOfShape (s)  k = Add (r, e)", s=np.array([1, 1, 1, 1]))
    expected = ModelProto.FromString(built.SerializeToString())
    built.graph.value_info.append(helper.make_tensor_value_info("never", TensorProto.INT64, [1 << 40]))
    assert_reproduces(cut(built), expected)


LARGE = {
    "Range": ("q = Range (zero, many, one)", {"zero": np.array(0), "many": np.array(10**9), "one": np.array(1)}),
    "Expand": ("q = Expand (one, many)", {"one": np.array([1]), "many": np.array([10**5, 10**5])}),
    "ConstantOfShape": ("q = ConstantOfShape (many)", {"many": np.array([10**12])}),
    "Tile": ("q = Tile (one, many)", {"one": np.array([1]), "many": np.array([1 << 40])}),
    "by arithmetic": ("e = Exp (a)  many = Cast <to = 7> (e)  q = ConstantOfShape (many)", {"a": np.array([21], np.float32)}),
}


@pytest.mark.parametrize("name", LARGE)
def test_constants_beyond_every_memory_are_not_worked_out(name, tmp_path):
    body, weights = LARGE[name]
    built = classifier_of(f"{body}  s = ReduceSum <keepdims = 0> (q)  g = Cast <to = 1> (s)  k = Add (r, g)", **weights)
    before = peak()
    assert_refused(built, r"would have the shape .*; up to 134,217,728 elements", tmp_path)
    assert peak() - before < 200 << 20


def test_a_size_that_the_image_decides_is_refused(tmp_path):
    body = "m = ReduceMax <keepdims = 0> (r)  i = Cast <to = 7> (m)  u = Unsqueeze (i, axes)  [zeros] e = ConstantOfShape (u)"
    built = classifier_of(f"{body}  s = ReduceSum <keepdims = 0> (e)  k = Add (r, s)", axes=np.array([0]))
    assert_refused(built, "size of what ConstantOfShape 'zeros' makes depends on the image's content", tmp_path)


def test_a_long_tensor_taken_for_a_shape_does_not_fill_the_memory(tmp_path):
    doubled = "".join(f" t{i + 1} = Concat <axis = 0> (t{i}, t{i})" for i in range(27))
    built = classifier_of(f"t0 = Shape (x) {doubled}  e = ConstantOfShape (t27)  k = Add (r, e)")
    bound = resource.getrlimit(resource.RLIMIT_AS)
    before = peak()
    assert_refused(built, "takes a tensor of very many numbers for a shape", tmp_path)
    assert peak() - before < memory.ROOM + (200 << 20)
    assert resource.getrlimit(resource.RLIMIT_AS) == bound


def peak() -> int:
    """Return the most memory that this process ever took, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


# --- work without end -----------------------------------------------------------------------------------------------------
def with_functions(*calls: tuple[str, list[str]]) -> ModelProto:
    """Return a classifier that calls the first of the functions, each given by its name and those that it calls in turn."""
    built = classifier_of(f"k = local.{calls[0][0]} (r)")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    built.opset_import.append(imports[1])
    for name, called in calls:
        tensors = ["a", *(f"t{i}" for i in range(len(called) - 1)), "b"]
        body = [
            helper.make_node(operator, [x], [y], domain="" if operator == "Relu" else "local")
            for operator, x, y in zip(called, tensors, tensors[1:], strict=False)
        ]
        built.functions.append(helper.make_function("local", name, ["a"], ["b"], body, imports))
    return built


@pytest.mark.parametrize("calls", [[("A", ["A"])], [("A", ["B"]), ("B", ["Relu", "A"])]], ids=["itself", "one another"])
def test_functions_that_call_themselves_are_refused(calls, tmp_path):
    assert_refused(with_functions(*calls), "The function 'A' calls itself", tmp_path)


def test_functions_that_double_again_and_again_are_refused(tmp_path):
    calls = [(f"F{i}", [f"F{i + 1}"] * 2) for i in range(20)]
    assert_refused(with_functions(*calls, ("F20", ["Relu"])), "more than 20,000 operators when its functions", tmp_path)


def test_functions_that_call_others_are_written_out(cut):
    assert_reproduces(cut(built := with_functions(("A", ["B", "B"]), ("B", ["Relu"]))), built)


LOOP = """k = Loop (turns, yes, r) <
    body = l (int64 i, bool go, float[N,5,8,8] s) => (bool on, float[N,5,8,8] n) {{ on = Identity (go)  n = {inner} (s) }}>"""


@pytest.mark.parametrize("turns", [10_001, 10**12, (1 << 63) - 1])
def test_loops_of_many_turns_are_refused(turns, tmp_path):
    built = classifier_of(LOOP.format(inner="Neg"), turns=np.array(turns), yes=np.array(True))
    assert_refused(built, "Loop 'k' may make more than 10,000 turns", tmp_path)


def test_loops_that_the_image_ends_are_refused(tmp_path):
    built = classifier_of(LOOP.format(inner="Neg"), turns=np.array(3), yes=np.array(True))
    built.graph.node[2].input[0] = ""
    assert_refused(built, "or does not say how many", tmp_path)


def test_a_weight_on_a_way_that_doubles_again_and_again_is_found_once(cut):
    doubled = "".join(f" t{i + 1} = Add (t{i}, t{i})" for i in range(60))
    end = "m = ReduceMean <axes = [2, 3]> (t60)  k = Add (r, m)"
    built = classifier_of(f"t0 = Exp (small) {doubled} {end}", small=np.full((1, 5, 40, 40), -50, np.float32))
    assert "small" in {weight.name for weight in cut(built).manifest.weights}


def test_a_tensor_with_very_many_readers_is_no_endless_work():
    built = graphs.classifier()
    names = [f"y{i}" for i in range(6000)]
    wide = [helper.make_node("Relu", ["c1"], [name]) for name in names]
    nodes = [*built.graph.node]
    found = graph.Graph(classifier_like(built, [nodes[0], *wide, helper.make_node("Sum", names, ["r1"]), *nodes[2:]]))
    started = time.process_time()
    assert separators(found, "x", "scores")[:3] == ["c1", "r1", "c2"]
    assert time.process_time() - started < 2  # with a pass over all names for each node it takes ten times that


def classifier_like(built: ModelProto, nodes: list[NodeProto]) -> ModelProto:
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del built.graph.node[:]
    built.graph.node.extend(kept)
    return built


@pytest.mark.parametrize("path", ["-" * 3000 + "1", "(" * 5000, "a" + ".b" * 4000, "{[]: 1}", "[" + "1," * 10**6 + "]"])
def test_a_module_path_that_python_cannot_read_is_none(path, cut):
    built = graphs.classifier()
    for node in built.graph.node:
        node.metadata_props.add(key=SCOPES, value=path)
    assert cut(built).manifest.layer.module is None


SLICES = {
    "negative": "m = MaxPool <kernel_shape = [100, 100]> (x)  k = Slice (m, zero, one, axes)",
    "empty": "m = Slice (x, zero, zero, axes)  k = Slice (m, one, zero, axes, back)",
    "chained": "m = Slice (x, zero, one, axes)  n = Slice (m, zero, zero, axes)  o = Slice (n, zero, one, axes)  k = Slice (o, one, zero, axes, back)",
}


@pytest.mark.parametrize("opset", [10, 12, 13, 21])
@pytest.mark.parametrize("name", SLICES)
def test_a_slice_of_what_cannot_be_does_not_end_the_process(name, opset, tmp_path):
    values = {"zero": np.array([0]), "one": np.array([1]), "axes": np.array([2]), "back": np.array([-1])}
    end = "p = GlobalAveragePool (k)  scores = Flatten (p)"
    built = graphs.parse(f"{SLICES[name]} {end}", image="1,3,16,16", opset=opset, **values)
    assert_refused(built, "impossible|shape|No feature map", tmp_path)


@pytest.mark.parametrize("opset", [10, 13])
def test_an_image_that_is_turned_round_is_exported(opset, cut):
    body = f"y = Slice (x, last, first, channel, back)  z = Slice (y, last, first, channel, back)  {CONV.replace('(x,', '(z,')}"
    built = graphs.parse(
        f"{body} {MEAN} scores = MatMul (f, fc)", image="1,3,16,16", opset=opset, w=W, fc=FC, last=np.array([-1]),
        first=np.array([-4]), channel=np.array([1]), back=np.array([-1]),
    )  # fmt: skip
    assert_reproduces(cut(built), built)


def test_a_slice_in_a_branch_is_left_alone(cut):
    body = """yes = Greater (m, zero)  k = If (yes) <
        then_branch = a () => (float[N,5,8,8] t) { t = Slice (r, starts, ends, axes) },
        else_branch = b () => (float[N,5,8,8] e) { e = Neg (r) }>"""
    numbers = {"starts": np.array([0]), "ends": np.array([8]), "axes": np.array([2]), "zero": np.float32(0)}
    built = classifier_of(f"m = ReduceMax <keepdims = 0> (r)  {body}", **numbers)
    assert_reproduces(cut(built, layer="r"), built)
    assert "Slice" in graph.operators(normal(built).model.graph)


def test_very_many_class_maps_in_a_row_are_no_endless_work():
    names = ["features", *(f"y{i}" for i in range(3000)), "z"]
    built = graphs.classifier(classes=12)
    nodes = [*built.graph.node]
    chain = [helper.make_node("Identity", [a], [b]) for a, b in zip(names, names[1:], strict=False)]
    end = [helper.make_node("GlobalAveragePool", ["z"], ["pooled"]), helper.make_node("Flatten", ["pooled"], ["scores"])]
    found = graph.Graph(classifier_like(built, [*nodes[:4], *chain, *end]))
    assert found.shapes["z"]
    started = time.process_time()
    assert list_layers(found, "x", "scores")[0].tensor == "r1"
    assert time.process_time() - started < 4


def test_a_graph_that_onnx_runtime_takes_for_another_batch_is_refused(tmp_path):
    body = f"{CONV} p = GlobalAveragePool (r)  e = Expand (p, index)  f = Flatten (e)  g = Gather <axis = 1> (f, index)"
    built = graphs.parse(f"{body} scores = Mul (g, four)", image=IMAGE, w=W, four=np.arange(4, dtype=np.float32),
                         index=np.array([0, 1, 1, 0]))  # fmt: skip
    assert_refused(built, r"takes tail\.onnx for a graph of 0 image", tmp_path)


def test_scores_from_a_branch_behind_a_stop_have_no_gradient(cut):
    body = """yes = Greater (m, zero)  scores = If (yes) <
        then_branch = a () => (float[N,4] t) { t = Neg (g) }, else_branch = b () => (float[N,4] e) { e = Abs (g) }>"""
    built = graphs.parse(f"{CONV} {MEAN} h = Sign (f)  g = MatMul (h, fc)  m = ReduceMax <keepdims = 0> (f)  {body}",
                         image=IMAGE, w=W, fc=FC, zero=np.float32(0))  # fmt: skip
    assert "If" in (cut(built, layer="r").manifest.gradient_missing or "")


# --- what else once went wrong --------------------------------------------------------------------------------------------
def test_a_node_with_more_inputs_than_its_rule_knows_has_no_gradient(tmp_path):
    built = graphs.classifier()
    built.graph.node[3].op_type = "LRN"
    built.graph.node[3].input.append("b2")
    assert_refused(built, "ONNX Runtime", tmp_path)


def test_reading_a_file_takes_no_more_memory_than_it_has_bytes(tmp_path):
    path = Path(graphs.save(graphs.classifier(), tmp_path / "model.onnx"))
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), hard))
    try:
        assert read_source(path, None, None).model.graph.node
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
