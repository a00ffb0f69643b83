"""Files that ONNX Runtime saved after it had optimised them: taken apart and cut, unless they are for one kind of machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto

from camrt.errors import ExportError
from exporters import export
from tests import graphs
from tests.exporters.helpers import assert_reproduces, operators

LEVEL = onnxruntime.GraphOptimizationLevel
SCALED = {"overrides": {"scale": 1 / 255}}
CONVS = """
    c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)
    d = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (r, v)
    """
END = "p = GlobalAveragePool (last)  f = Flatten (p)  scores = MatMul (f, fc)"
WEIGHTS = {"w": (6, 3, 3, 3), "v": (8, 6, 3, 3), "fc": (8, 5)}
ERF = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}


def parse(body: str, opset: int = 17, **weights: object) -> ModelProto:
    return graphs.parse(body, image="N,3,32,32", opset=opset, **{**WEIGHTS, **weights})


NETWORKS = {  # how it is made, and into what ONNX Runtime fuses it
    "plain": (lambda: graphs.classifier(), "FusedConv"),
    "residual": (lambda: graphs.residual(), "FusedConv"),
    "batch normalisation": (
        lambda: parse(f"{CONVS}  n = BatchNormalization (d, g, b, b, g)  last = Relu (n)  {END}",
                      g=np.linspace(0.5, 1.5, 8, dtype=np.float32), b=np.linspace(-0.2, 0.2, 8, dtype=np.float32)),
        "FusedConv",
    ),
    "leaky": (lambda: parse(f"{CONVS}  last = LeakyRelu <alpha = 0.1> (d)  {END}"), "FusedConv"),
    "relu6": (
        lambda: parse(f"{CONVS}  last = Clip (d, low, high)  {END}", low=np.float32(0), high=np.float32(6)), "FusedConv",
    ),
    "squeeze and excitation": (
        lambda: parse(
            f"""
            {CONVS}  e = Relu (d)  g = GlobalAveragePool (e)  h = Flatten (g)  a = Gemm <transB = 1> (h, down)  b = Relu (a)
            u = Gemm <transB = 1> (b, up)  s = Sigmoid (u)  t = Unsqueeze (s, axes)  last = Mul (e, t)  {END}
            """,
            down=(2, 8), up=(8, 2), axes=np.array([2, 3]),
        ),
        "FusedGemm",
    ),
    "EfficientNet's SiLU": (lambda: parse(f"{CONVS}  s = Sigmoid (d)  last = Mul (d, s)  {END}"), "QuickGelu"),
    "QuickGelu": (
        lambda: parse(f"{CONVS}  e = Mul (d, k)  s = Sigmoid (e)  last = Mul (d, s)  {END}", k=np.float32(1.702)), "QuickGelu",
    ),
    "Gelu in parts": (
        lambda: parse(
            f"{CONVS}  h = Div (d, root)  i = Erf (h)  j = Add (i, one)  q = Mul (d, j)  last = Mul (q, half)  {END}", **ERF
        ),
        "Gelu",
    ),
    "Gelu of a sum": (
        lambda: parse(
            """
            stem = Conv <strides = [4, 4]> (x, k)  t = Transpose <perm = [0, 2, 3, 1]> (stem)  e = MatMul (t, wide)
            b = Add (e, bias)  h = Div (b, root)  i = Erf (h)  j = Add (i, one)  q = Mul (b, j)  g = Mul (q, half)
            n = MatMul (g, narrow)  u = Transpose <perm = [0, 3, 1, 2]> (n)  last = Add (stem, u)
            """ + END,
            k=(8, 3, 4, 4), wide=(8, 32), narrow=(32, 8), bias=np.linspace(-1, 1, 32, dtype=np.float32), **ERF,
        ),
        "BiasGelu",
    ),
    "a scaled product": (
        lambda: parse(f"{CONVS}  last = Relu (d)  p = GlobalAveragePool (last)  f = Flatten (p)  z = MatMul (f, fc)  scores = Mul (z, k)",
                      k=np.float32(0.25)),
        "FusedMatMul",
    ),
}  # fmt: skip


def optimised(name: str, level: LEVEL, path: Path) -> tuple[ModelProto, ModelProto]:
    """Return a network as it was, and as ONNX Runtime saves it."""
    built = NETWORKS[name][0]()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4  # it warns that the file is for machines like this one
    onnxruntime.InferenceSession(built.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return built, onnx.load(path)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_basic_file_is_cut_and_reproduced(name, cut, tmp_path):
    built, saved = optimised(name, LEVEL.ORT_ENABLE_BASIC, tmp_path / "saved.onnx")
    assert {node.domain for node in saved.graph.node} <= {"", "ai.onnx"}
    bundle = cut(saved)
    assert bundle.manifest.gradient_missing is None
    assert_reproduces(bundle, built)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_extended_file_is_taken_apart_and_reproduced(name, cut, tmp_path):
    built, saved = optimised(name, LEVEL.ORT_ENABLE_EXTENDED, tmp_path / "saved.onnx")
    assert NETWORKS[name][1] in {node.op_type for node in saved.graph.node if node.domain == "com.microsoft"}
    bundle = cut(saved)
    assert bundle.manifest.gradient_missing is None
    assert bundle.manifest.features.shape[1] == cut(built, force=True).manifest.features.shape[1]
    assert_reproduces(bundle, built)


def test_no_fused_operator_is_left(cut, tmp_path):
    _, saved = optimised("squeeze and excitation", LEVEL.ORT_ENABLE_EXTENDED, tmp_path / "saved.onnx")
    bundle = cut(saved)
    for part in ("head", "tail", "score", "gradient"):
        model = onnx.load(bundle.path(part), load_external_data=False)
        assert {node.domain for node in model.graph.node} == {""}
    assert "Relu" in operators(onnx.load(bundle.path("head"), load_external_data=False))


@pytest.mark.parametrize("level", [LEVEL.ORT_ENABLE_LAYOUT, LEVEL.ORT_ENABLE_ALL], ids=str)
@pytest.mark.parametrize("name", ["plain", "residual"])
def test_a_file_for_one_kind_of_machine_is_refused_by_name(name, level, tmp_path):
    _, saved = optimised(name, level, tmp_path / "saved.onnx")
    if not any(node.domain == "com.microsoft.nchwc" for node in saved.graph.node):
        pytest.skip("ONNX Runtime has no layout of its own for this machine")
    message = (
        r"Conv '.*_nchwc' is of domain 'com\.microsoft\.nchwc': this file was optimised .* for one kind of machine.*basic\."
    )
    with pytest.raises(ExportError, match=message):
        export(tmp_path / "saved.onnx", tmp_path / "bundle", **SCALED)
    assert not (tmp_path / "bundle").exists()
