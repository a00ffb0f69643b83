"""exporters.passes.batch: a model made for a fixed number of images takes any."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import ExportError
from tests import graphs
from tests.exporters.helpers import CONV, W, assert_reproduces, normal, shape_of, split

BAKED = {
    "flatten": ("p = Reshape (r, shape)  scores = MatMul (p, fc)", {"shape": [1, -1], "fc": (1280, 4)}),
    "flatten, all sizes": ("p = Reshape (r, shape)  scores = MatMul (p, fc)", {"shape": [1, 1280], "fc": (1280, 4)}),
    "allowzero": ("p = Reshape <allowzero = 1> (r, shape)  scores = MatMul (p, fc)", {"shape": [1, -1], "fc": (1280, 4)}),
    "pooled": (
        "p = GlobalAveragePool (r)  f = Reshape (p, shape)  scores = MatMul (f, fc)",
        {"shape": [1, 5], "fc": (5, 4)},
    ),
    "channel shuffle": (
        """
        g = Reshape (r, split)  t = Transpose <perm = [0, 2, 1, 3, 4]> (g)  h = Reshape (t, join)
        p = MaxPool <kernel_shape = [9, 9]> (h)  f = Flatten (p)  scores = MatMul (f, fc)
        """,
        {"split": [1, 5, 1, 16, 16], "join": [1, 5, 16, 16], "fc": (320, 4)},
    ),
    "shared": (
        """
        a = GlobalAveragePool (r)  b = GlobalMaxPool (r)  fa = Reshape (a, shape)  fb = Reshape (b, shape)
        s = Add (fa, fb)  scores = MatMul (s, fc)
        """,
        {"shape": [1, -1], "fc": (5, 4)},
    ),
    "resize by sizes": (
        """
        u = Resize <mode = "nearest"> (r, , , sizes)  p = GlobalAveragePool (u)  f = Flatten (p)
        scores = MatMul (f, fc)
        """,
        {"sizes": [1, 5, 32, 32], "fc": (5, 4)},
    ),
    "two resizes": (
        """
        u = Resize <mode = "nearest"> (r, , , sizes)  v = Resize <mode = "linear"> (u, , , smaller)
        p = GlobalAveragePool (v)  f = Flatten (p)  scores = MatMul (f, fc)
        """,
        {"sizes": [1, 5, 32, 32], "smaller": [1, 5, 24, 24], "fc": (5, 4)},
    ),
    "expand": (
        """
        p = GlobalAveragePool (r)  e = Expand (p, shape)  m = Mul (e, r)  q = GlobalMaxPool (m)  f = Flatten (q)
        scores = MatMul (f, fc)
        """,
        {"shape": [1, 5, 16, 16], "fc": (5, 4)},
    ),
}


@pytest.mark.parametrize("name", BAKED)
def test_a_batch_of_one_baked_in_becomes_any_batch(name, cut):
    end, given = BAKED[name]
    weights = {key: value if isinstance(value, tuple) else np.array(value) for key, value in given.items()}
    built = graphs.parse(f"{CONV} {end}", image="1,3,16,16", w=W, **weights)
    assert_reproduces(cut(built, layer="r"), built)


@pytest.mark.parametrize("batch", ["2", "N", "1"])
@pytest.mark.parametrize("declared", ["scores", "float[2,5] scores", "float[1,5] scores", "float[] scores"])
def test_any_first_dimension_becomes_n(batch, declared):
    body = f"{CONV} p = GlobalAveragePool (r)  scores = Flatten (p)"
    found = normal(graphs.parse(body, image=f"{batch},3,16,16", outputs=(declared,), w=W))
    assert shape_of(found, found.image)[0] == "N"
    assert shape_of(found, "scores") == ("N", 5)


@pytest.mark.parametrize(
    "end",
    [
        "p = GlobalAveragePool (r)  scores = Flatten (p)",
        "p = GlobalAveragePool (r)  scores = Reshape (p, two)",
        "s = Shape (r)  n = Slice (s, zero, one)  to = Concat <axis = 0> (n, rest)  f = Reshape (r, to)  scores = MatMul (f, fc)",
    ],
)
def test_a_model_for_two_images_at_once_is_cut(end, cut):
    numbers = {"two": [2, -1], "zero": [0], "one": [1], "rest": [-1]}
    weights = {name: np.array(value) for name, value in numbers.items()}
    built = graphs.parse(f"{CONV} {end}", image="2,3,16,16", w=W, fc=(1280, 4), **weights)
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32)
    np.testing.assert_allclose(split(cut(built), x), graphs.run(built, {"x": x})[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("end", "weights"),
    [
        ("v = Slice (r, begin, end)", {"begin": np.array([0, 1, 0, 0]), "end": np.array([1, 5, 16, 16])}),
        ("v = Concat <axis = 1> (r, grid)", {"grid": np.ones((1, 2, 16, 16), np.float32)}),
    ],
    ids=["slice", "concat"],
)
def test_a_batch_of_one_that_cannot_be_freed_is_refused(end, weights, cut, tmp_path):
    built = graphs.parse(f"{CONV} {end} p = GlobalAveragePool (v)  scores = Flatten (p)", image="1,3,16,16", w=W, **weights)
    with pytest.raises(ExportError, match="batch"):
        cut(built, layer="r")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_resize_to_the_size_of_another_map_takes_any_batch(cut):
    # torch's interpolate(x, size=other.shape[2:]) in an older export
    built = graphs.parse(
        f"""
        {CONV} d = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        s = Shape (d)  nc = Slice (s, zero, two)  t = Shape (r)  hw = Slice (t, two, four)  sizes = Concat <axis = 0> (nc, hw)
        u = Resize <mode = "nearest"> (d, , , sizes)  m = Add (u, r)  q = Relu (m)
        p = GlobalAveragePool (q)  f = Flatten (p)  scores = MatMul (f, fc)
        """,
        w=W, zero=np.array([0]), two=np.array([2]), four=np.array([4]), fc=(5, 4),
    )  # fmt: skip
    assert_reproduces(cut(built), built)


# --- windows, strided views, several images at once -------------------------------------------------------------------------
WINDOWS = """
    t = Reshape (r, cut)  u = Transpose <perm = [0, 2, 4, 3, 5, 1]> (t)  v = Reshape (u, tokens)  k = MatMul (v, m)
    a = Reshape (k, back)  y = Transpose <perm = [0, 5, 1, 3, 2, 4]> (a)  j = Reshape (y, join)
    p = GlobalMaxPool (j)  f = Flatten (p)  scores = MatMul (f, fc)
    """


@pytest.mark.parametrize("batch", [1, 2])
def test_windows_merged_with_the_batch_take_any(batch, cut):
    shapes = {
        "cut": [batch, 5, 2, 8, 4, 4], "tokens": [batch * 8, 32, 5], "back": [batch, 2, 4, 8, 4, 5], "join": [batch, 5, 16, 16],
    }  # fmt: skip
    weights = {name: np.array(shape) for name, shape in shapes.items()}
    built = graphs.parse(f"{CONV} {WINDOWS}", image=f"{batch},3,16,16", w=W, m=(5, 5), fc=(5, 4), **weights)
    bundle, x = cut(built, layer="r"), np.random.default_rng(0).standard_normal((3, 3, 16, 16), np.float32)
    expected = np.concatenate([graphs.run(built, {"x": np.repeat(one[None], batch, 0)})[0][:1] for one in x])
    np.testing.assert_allclose(split(bundle, x), expected, rtol=1e-4, atol=1e-4)


STRIDED = "n = Reshape (r, flat)  g = Gather (n, places)  f = Flatten (g)  scores = MatMul (f, fc)"
PLACES = np.random.default_rng(0).permutation(5 * 256)[:60].reshape(1, 5, 12)


def test_a_strided_view_of_one_image_takes_any_number(cut):
    built = graphs.parse(f"{CONV} {STRIDED}", image="1,3,16,16", w=W, fc=(60, 4), flat=np.array([-1]), places=PLACES)
    assert_reproduces(cut(built, layer="r"), built)


def test_two_strided_views_of_the_same_numbers_take_any_number(cut):
    body = "n = Reshape (r, flat)  g = Gather (n, places)  h = Gather (n, others)  s = Sub (g, h)  f = Flatten (s)  scores = MatMul (f, fc)"
    built = graphs.parse(
        f"{CONV} {body}",
        image="1,3,16,16",
        w=W,
        fc=(60, 4),
        flat=np.array([1280]),
        places=PLACES,
        others=PLACES[:, :, ::-1].copy(),
    )
    assert_reproduces(cut(built, layer="r"), built)


@pytest.mark.parametrize(
    "body",
    [
        "n = Reshape (r, flat)  g = Gather (n, places)  k = Relu (n)  a = ReduceMax <axes = [0]> (k)  s = Add (g, a)  f = Flatten (s)"
        "  scores = MatMul (f, fc)",
        "n = Reshape (r, flat)  g = Gather (n, several)  t = Reshape (g, two)  scores = MatMul (t, fc)",
    ],
    ids=["another reader", "places that are not one image's"],
)
def test_numbers_of_all_images_in_a_row_are_refused(body, cut):
    weights = {"flat": np.array([-1]), "places": PLACES, "several": PLACES[0], "two": np.array([1, 60])}
    built = graphs.parse(f"{CONV} {body}", image="1,3,16,16", w=W, fc=(60, 4), **weights)
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
    (one,) = graphs.run(normal(built).model, {"x": x})
    np.testing.assert_allclose(one, graphs.run(built, {"x": x})[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ExportError, match="batch"):
        cut(built, layer="r")


@pytest.mark.parametrize("batch", [2, 4])
@pytest.mark.parametrize(
    "end",
    [
        "p = GlobalAveragePool (r)  f = Reshape (p, shape)  scores = MatMul (f, fc)",
        'u = Resize <mode = "nearest"> (r, , , sizes)  p = GlobalMaxPool (u)  f = Flatten (p)  scores = MatMul (f, fc)',
        "p = GlobalAveragePool (r)  f = Squeeze (p)  scores = MatMul (f, fc)",
        "p = GlobalAveragePool (r)  f = Reshape (p, open)  g = Reshape (f, shape)  scores = MatMul (g, fc)",
    ],
    ids=["reshape", "resize", "squeeze", "open"],
)
def test_a_batch_above_one_that_is_baked_in_becomes_any(batch, end, cut):
    weights = {"shape": np.array([batch, 5]), "sizes": np.array([batch, 5, 24, 32]), "open": np.array([batch, -1, 1])}
    built = graphs.parse(f"{CONV} {end}", image=f"{batch},3,16,16", w=W, fc=(5, 4), **weights)
    assert normal(built).batch == batch
    bundle, x = cut(built, layer="r"), np.random.default_rng(0).standard_normal((3, 3, 16, 16), np.float32)
    expected = np.concatenate([graphs.run(built, {"x": np.repeat(one[None], batch, 0)})[0][:1] for one in x])
    np.testing.assert_allclose(split(bundle, x), expected, rtol=1e-4, atol=1e-4)


def test_a_resize_by_scales_stays_as_it_is(cut):
    body = (
        f'{CONV} u = Resize <mode = "nearest"> (r, , scales)  p = GlobalMaxPool (u)  f = Flatten (p)  scores = MatMul (f, fc)'
    )
    built = graphs.parse(body, image="1,3,16,16", w=W, fc=(5, 4), scales=np.array([1, 1, 2, 2], np.float32))
    assert_reproduces(cut(built), built)


def test_a_reshape_of_weights_keeps_its_shape():
    body = f"{CONV} p = GlobalAveragePool (r)  f = Flatten (p)  v = Reshape (kernel, shape)  k = Slice (v, zero, end)"
    built = graphs.parse(
        f"{body} scores = MatMul (f, k)", image="1,3,16,16", w=W, kernel=(5, 8, 20, 20), shape=np.array([40, 400]),
        zero=np.array([0, 0]), end=np.array([5, 20]),
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((3, 3, 16, 16), np.float32)
    expected = np.concatenate([graphs.run(built, {"x": one[None]})[0] for one in x])
    found = normal(built)
    assert {"shape"} <= {name for node in found.model.graph.node if node.op_type == "Reshape" for name in node.input}
    np.testing.assert_allclose(graphs.run(found.model, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)
