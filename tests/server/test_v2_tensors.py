"""Tensors of the Open Inference Protocol: what goes out comes back, and nothing that does not fit comes in."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytest.importorskip("fastapi")

from camrt.server.errors import Refusal
from camrt.server.v2.tensors import DATATYPES, from_binary, from_json, read_shape, to_binary, to_json

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
ARRAYS = st.sampled_from(sorted(DATATYPES)).flatmap(lambda name: st.tuples(st.just(name), hnp.arrays(DATATYPES[name], SHAPES)))
FINITE = ARRAYS.filter(lambda drawn: bool(np.isfinite(drawn[1]).all()))


def same(found, expected):
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


# --- what goes out comes back ---------------------------------------------------------------------------------------------
@given(ARRAYS)
def test_arrays_come_back_from_bytes(drawn):
    datatype, array = drawn
    same(from_binary(to_binary(array), datatype, array.shape, "x"), array)


@given(FINITE)
def test_arrays_come_back_from_flat_and_from_nested_json(drawn):
    datatype, array = drawn
    flat = json.loads(json.dumps(to_json(array, "x")))
    same(from_json(flat, datatype, array.shape, "x"), array)
    if array.ndim:
        same(from_json(json.loads(json.dumps(array.tolist())), datatype, array.shape, "x"), array)


@given(st.lists(st.binary(max_size=40), max_size=12))
def test_bytes_come_back_from_bytes_and_from_base64(elements):
    shape = (len(elements), 1)
    assert from_binary(to_binary(elements), "BYTES", shape, "x") == elements
    assert from_json(to_json(elements, "x", in_base64=True), "BYTES", shape, "x", in_base64=True) == elements


def test_bytes_on_the_wire_are_little_endian():
    assert to_binary(np.array([1, -2], np.int32)) == struct.pack("<2i", 1, -2)
    assert to_binary(np.array([1.5], ">f4")) == struct.pack("<f", 1.5)
    assert to_binary([b"ab", b""]) == b"\2\0\0\0ab\0\0\0\0"
    assert to_binary(np.array([True, False])) == b"\1\0"


def test_what_is_read_at_an_odd_place_is_aligned():
    body = memoryview(b"x" + struct.pack("<3f", 1, 2, 3))
    array = from_binary(body[1:], "FP32", (3,), "x")
    assert array.flags.aligned
    assert array.flags.writeable


# --- what does not fit does not come in -----------------------------------------------------------------------------------
@given(st.sampled_from([*DATATYPES, "BYTES"]), SHAPES, st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(datatype, shape, data):
    try:
        found = from_binary(data, datatype, shape, "x")
    except Refusal as refusal:
        assert refusal.status == 400
    else:
        assert to_binary(found) == data


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), st.lists, max_leaves=20)


@given(st.sampled_from([*DATATYPES, "BYTES"]), SHAPES, JSON, st.booleans())
def test_any_json_is_read_or_refused(datatype, shape, data, in_base64):
    try:
        found = from_json(data, datatype, shape, "x", in_base64=in_base64)
    except Refusal as refusal:
        assert refusal.status == 400
    else:
        assert len(found) == np.prod(shape) if isinstance(found, list) else found.shape == shape


@pytest.mark.parametrize(
    "shape", [None, 3, "3", [-1, 3], [1.0], [True], ["1"], [1] * 9, [10**9, 10**9], [0, 1 << 62, 1 << 62], [10**400], [[1]]]
)
def test_what_is_no_shape_or_too_large_is_refused(shape):
    with pytest.raises(Refusal, match="shape") as caught:
        read_shape(shape, "x")
    assert len(caught.value.text) < 300


def test_a_shape_that_claims_much_costs_nothing():
    for datatype in (*DATATYPES, "BYTES"):
        with pytest.raises(Refusal):
            from_binary(b"1234", datatype, (1 << 20, 1 << 20), "x")
        with pytest.raises(Refusal):
            from_json([1, 2], datatype, (1 << 20, 1 << 20), "x")


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("UINT8", [256]), ("UINT8", [-1]), ("UINT8", [1.0]), ("UINT8", [True]), ("UINT8", ["1"]), ("UINT8", [None]),
        ("INT64", [1 << 63]), ("UINT64", [1 << 64]), ("INT8", [10**400]),
        ("BOOL", [1]), ("FP32", [True]), ("FP32", ["1"]), ("FP32", [1e39]), ("FP16", [70_000]), ("FP64", [10**400]),
        ("FP64", [float("inf")]), ("FP32", [float("nan")]), ("FP32", [[1.0]]), ("FP32", [[[1.0]]]), ("FP32", {"0": 1}), ("FP32", 1.0),
        ("BYTES", ["AAAA"]), ("BYTES", [1]),
    ],
)  # fmt: skip
def test_elements_of_another_kind_or_size_are_refused(datatype, data):
    with pytest.raises(Refusal) as caught:
        from_json(data, datatype, (1,), "x") if data != [[1.0]] else from_json(data, datatype, (1, 2), "x")
    assert caught.value.status == 400


@pytest.mark.parametrize("data", [["%"], ["AAA"], [1], ["é"]])
def test_what_is_no_base64_is_refused_with_advice(data):
    with pytest.raises(Refusal, match="binary data"):
        from_json(data, "BYTES", (1,), "x", in_base64=True)
    assert from_json([base64.b64encode(b"ok").decode()], "BYTES", (1,), "x", in_base64=True) == [b"ok"]


@pytest.mark.parametrize("data", [b"", b"\1", b"\1\0\0\0", b"\xff\xff\xff\xffab", b"\1\0\0\0a\0", b"\0\0\0\0\0\0\0\0"])
def test_bytes_whose_lengths_do_not_fit_are_refused(data):
    with pytest.raises(Refusal):
        from_binary(data, "BYTES", (1,), "x")


def test_a_byte_of_bool_is_0_or_1():
    with pytest.raises(Refusal, match="0 or 1"):
        from_binary(b"\0\2", "BOOL", (2,), "x")


def test_what_json_cannot_tell_is_refused_on_the_way_out():
    with pytest.raises(Refusal, match="binary data"):
        to_json(np.array([np.nan], np.float32), "x")
    with pytest.raises(Refusal, match="binary data"):
        to_json(np.zeros(1_000_001, np.float32), "x")
