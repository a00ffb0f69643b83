from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

import exporters.compile
from camrt.errors import ExportError
from tests import graphs

from .conftest import SAMPLES
from .test_cli import one_line_error, run

QUICK = ("-m", "grad-cam")


def test_help_shows_an_example_and_the_defaults():
    result = run("triton", "--help")
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert "Example: camrt triton bundle -o repository" in text
    for default in ("uint8", "auto", "cluster-cam", "64; x>=1", "8; none for networks that take one at a time", "the bundle's"):
        assert f"[default: {default}]" in text


def test_a_model_is_written_described_and_told_how_to_serve(tiny_bundle, tmp_path):
    result = run("triton", tiny_bundle, "-o", tmp_path / "repo sitory", "-p", "clusters=3")
    assert result.exit_code == 0
    folder = tmp_path / "repo sitory" / "bundle"
    first, second, empty, last = result.stdout.splitlines()
    assert first.startswith(f"{folder / '1' / 'model.onnx'}: 0.0")
    assert first.endswith("kB more than the network")
    assert second.startswith("heatmaps within")
    assert (empty, last) == ("", f"Serve it:  tritonserver --model-repository '{tmp_path / 'repo sitory'}'")
    assert 'name: "bundle"' in (folder / "config.pbtxt").read_text().splitlines()


def test_progress_goes_to_stderr_alone(tiny_bundle, tmp_path):
    result = run("triton", tiny_bundle, "-o", tmp_path, *QUICK)
    assert result.stderr.splitlines()[:3] == ["read …", "fuse …", "check 1 of 8 …"]
    assert "…" not in result.stdout


def test_json_is_one_line_of_figures(tiny_bundle, tmp_path):
    result = run("triton", tiny_bundle, "-o", tmp_path, "--name", "m", "--json", "-p", "clusters=3")
    found = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert found["file"] == str(tmp_path / "m" / "1" / "model.onnx")
    assert found["input"] == "uint8"
    assert found["parameters"]["clusters"] == 3
    assert found["agreement"]["images"] == 8


def test_options_reach_the_model(tiny_bundle, tmp_path):
    result = run("triton", tiny_bundle, "-o", tmp_path, "--name", "m", "--input", "float", "--kind", "gpu", "--max-batch-size", "3",
                 "--dynamic-batching", "--max-masked-batch", "5", "--sample", SAMPLES / "star.png", "--json", *QUICK)  # fmt: skip
    assert json.loads(result.stdout)["agreement"]["images"] == 9
    lines = (tmp_path / "m" / "config.pbtxt").read_text().splitlines()
    assert {"max_batch_size: 3", "dynamic_batching { }", "instance_group [ { kind: KIND_GPU, count: 1 } ]"} <= set(lines)
    model = tmp_path / "m" / "1" / "model.onnx"
    assert {entry.key: entry.value for entry in onnx.load(model).metadata_props}["camrt.max_masked_batch"] == "5"
    feeds = {"image": np.zeros((2, 3, 32, 32), np.float32), "target": np.array([[0], [4]])}
    (heatmap,) = graphs.run(model, feeds, "heatmap")
    assert heatmap.shape == (2, 1, 32, 32)


def test_what_exists_is_replaced_by_force_alone(tiny_bundle, tmp_path):
    assert run("triton", tiny_bundle, "-o", tmp_path, *QUICK).exit_code == 0
    model = tmp_path / "bundle" / "1" / "model.onnx"
    before = model.read_bytes()
    again = run("triton", tiny_bundle, "-o", tmp_path, "-p", "clusters=2")
    assert again.exit_code == 1
    assert "bundle exists" in one_line_error(again)
    assert model.read_bytes() == before
    assert run("triton", tiny_bundle, "-o", tmp_path, "-p", "clusters=2", "--force").exit_code == 0
    assert model.read_bytes() != before


@pytest.mark.parametrize(("arguments", "code", "text"), [
    (["shapes"], 2, "Missing option '-o'"),
    (["-o", "{}"], 2, "Missing argument 'BUNDLE'"),
    (["shapes", "-o", "{}", "--input", "int8"], 2, "'int8' is not one of 'uint8', 'float'"),
    (["shapes", "-o", "{}", "--kind", "cuda"], 2, "'cuda' is not one of 'auto', 'gpu', 'cpu'"),
    (["shapes", "-o", "{}", "--max-batch-size", "0"], 2, "0 is not in the range x>=1"),
    (["shapes", "-o", "{}", "--name", "../m"], 2, "'../m' cannot be the name of a model in Triton"),
    (["shapes", "-o", "{}", "--name", "a\nb"], 2, "cannot be the name of a model in Triton"),
    (["shapes", "-o", "{}", "-m", "rise"], 2, "rise cannot be compiled into one graph"),
    (["shapes", "-o", "{}", "-p", "klusters=3"], 2, "Did you mean 'clusters'"),
    (["nowhere", "-o", "{}"], 1, "There is no bundle 'nowhere'"),
    (["shapes", "-o", "{}", "--sample", "missing.png"], 1, "missing.png: there is no such file"),
])  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, arguments, code, text):
    result = run("triton", *(str(a).format(tmp_path / "repository") for a in arguments))
    assert result.exit_code == code
    assert text in one_line_error(result)
    assert not list(tmp_path.iterdir())


def test_a_graph_that_does_not_hold_is_told_in_one_line_and_leaves_nothing(tiny_bundle, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ExportError("The compiled graph does not reproduce grad-cam: by 0.5.")

    monkeypatch.setattr(exporters.compile, "prove", refuse)
    result = run("triton", tiny_bundle, "-o", tmp_path / "repository", *QUICK)
    assert result.exit_code == 1
    assert "does not reproduce grad-cam: by 0.5" in one_line_error(result)
    assert not list(tmp_path.iterdir())
