from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

import exporters.compile
from camrt.compiled import ENTRIES
from camrt.errors import ExportError
from tests import graphs

from .conftest import SAMPLES
from .test_cli import one_line_error, run

QUICK = ("-m", "grad-cam")


def test_help_shows_an_example_and_the_defaults():
    result = run("compile", "--help")
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert "Example: camrt compile bundle -o model.explain.onnx --input uint8" in text
    assert "[float|uint8]" in text
    assert "[default: float]" in text
    assert "[default: cluster-cam]" in text
    assert "[default: 64; x>=1]" in text


def test_a_file_is_written_and_described(tiny_bundle, tmp_path):
    target = tmp_path / "x.onnx"
    result = run("compile", tiny_bundle, "-o", target, "-p", "clusters=3")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.startswith(f"{target}: 0.0")
    assert first.endswith("kB more than the network")
    assert second.startswith("heatmaps within")
    assert "cluster-cam (clusters=3" in onnx.load(target).graph.doc_string


def test_progress_goes_to_stderr_alone(tiny_bundle, tmp_path):
    result = run("compile", tiny_bundle, "-o", tmp_path / "x.onnx", *QUICK)
    assert result.stderr.splitlines()[:3] == ["read …", "fuse …", "check 1 of 8 …"]
    assert result.stderr.splitlines()[-1] == "write …"
    assert "…" not in result.stdout


def test_json_is_one_line_of_figures(tiny_bundle, tmp_path):
    target = tmp_path / "x.onnx"
    result = run("compile", tiny_bundle, "-o", target, "--input", "uint8", "--json", "-p", "clusters=3")
    found = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert found["file"] == str(target)
    assert found["bytes"] == target.stat().st_size > found["network_bytes"] > 0
    assert found["method"] == "cluster-cam"
    assert found["parameters"]["clusters"] == 3
    assert found["input"] == "uint8"
    assert found["agreement"]["images"] == found["agreement"]["clusters"] == 8


def test_options_reach_the_file(tiny_bundle, tmp_path):
    target = tmp_path / "x.onnx"
    result = run("compile", tiny_bundle, "-o", target, "--require-target", "--max-masked-batch", "3", "--sample",
                 SAMPLES / "star.png", "--json", *QUICK)  # fmt: skip
    model = onnx.load(target)
    assert {tensor.name for tensor in model.graph.initializer}.isdisjoint({"target"})
    assert json.loads(result.stdout)["agreement"]["images"] == 9
    assert {entry.key: entry.value for entry in model.metadata_props}["camrt.max_masked_batch"] == "3"


def test_pixels_go_in_where_they_were_asked_for(tiny_bundle, tmp_path):
    target = tmp_path / "x.onnx"
    run("compile", tiny_bundle, "-o", target, "--input", "uint8", *QUICK)
    image = np.full((1, 32, 32, 3), 200, np.uint8)
    (heatmap,) = graphs.run(target, {"image": image}, "heatmap")
    assert heatmap.shape == (1, 1, 32, 32)


# --- the page -----------------------------------------------------------------------------------------------------------------
def test_a_page_is_written_and_what_is_missing_told(tiny_bundle, tmp_path):
    folder = tmp_path / "site"
    result = run("compile", tiny_bundle, "--web", folder, *QUICK)
    assert result.exit_code == 0
    assert {path.name for path in folder.iterdir()} == {
        "index.html",
        "explain.css",
        "explain.js",
        "resize.js",
        "about.json",
        "model.explain.onnx",
    }
    assert json.loads((folder / "about.json").read_text())["method"] == "grad-cam"
    assert f"cd {folder}" in result.stdout
    assert "npm pack --silent onnxruntime-web@" in result.stdout
    assert "http.server" in result.stdout


def test_a_file_and_a_page_are_written_in_one_go(tiny_bundle, tmp_path):
    result = run("compile", tiny_bundle, "-o", tmp_path / "x.onnx", "--web", tmp_path / "site", "--json", *QUICK)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [one["input"] for one in found] == ["float", "uint8"]
    assert [one["file"] for one in found] == [str(tmp_path / "x.onnx"), str(tmp_path / "site" / "model.explain.onnx")]
    assert (tmp_path / "x.onnx").is_file()


# --- what exists ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("option", ["-o", "--web"])
def test_what_exists_is_replaced_by_force_alone(tiny_bundle, tmp_path, option):
    target = tmp_path / "x"
    assert run("compile", tiny_bundle, option, target, *QUICK).exit_code == 0
    file = target if option == "-o" else target / "model.explain.onnx"
    before = file.read_bytes()
    again = run("compile", tiny_bundle, option, target, "-p", "clusters=2")
    assert again.exit_code == 1
    assert "exists" in one_line_error(again)
    assert file.read_bytes() == before
    assert run("compile", tiny_bundle, option, target, "-p", "clusters=2", "--force").exit_code == 0
    assert file.read_bytes() != before


# --- what is refused --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("arguments", "code", "text"), [
    (["shapes"], 2, "Say what to write: -o FILE, --web DIR, or both"),
    ([], 2, "Missing argument 'BUNDLE'"),
    (["shapes", "-o", "{}", "--input", "int8"], 2, "'int8' is not one of 'float', 'uint8'"),
    (["shapes", "-o", "{}", "--max-masked-batch", "0"], 2, "0 is not in the range x>=1"),
    (["shapes", "-o", "{}", "-m", "gradcam"], 2, "Did you mean 'grad-cam'"),
    (["shapes", "-o", "{}", "-m", "rise"], 2, "rise cannot be compiled into one graph"),
    (["shapes", "-o", "{}", "-p", "clusters"], 2, "write NAME=VALUE"),
    (["shapes", "-o", "{}", "-p", "klusters=3"], 2, "Did you mean 'clusters'"),
    (["shapes", "-o", "{}", "-p", "clusters=auto"], 2, "Give a number"),
    (["shapes", "-o", "{}", "-p", "clustering=spectral"], 2, "clustering='spectral' cannot be compiled"),
    (["nowhere", "-o", "{}"], 1, "There is no bundle 'nowhere'"),
    (["shapes", "-o", "{}", "--sample", "missing.png"], 1, "missing.png: there is no such file"),
])  # fmt: skip
def test_mistakes_are_one_line_and_leave_nothing(tmp_path, arguments, code, text):
    result = run("compile", *(str(a).format(tmp_path / "x.onnx") for a in arguments))
    assert result.exit_code == code
    assert text in one_line_error(result)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for arguments in (["-o", tmp_path / "file" / "x.onnx"], ["--web", tmp_path / "file"]):
        result = run("compile", "shapes", *QUICK, *arguments)
        assert result.exit_code == 1
        one_line_error(result)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_graph_that_does_not_hold_is_told_in_one_line(tiny_bundle, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ExportError("The compiled graph does not reproduce grad-cam: by 0.5.")

    monkeypatch.setattr(exporters.compile, "prove", refuse)
    result = run("compile", tiny_bundle, "-o", tmp_path / "x.onnx", *QUICK)
    assert result.exit_code == 1
    assert "does not reproduce grad-cam: by 0.5" in one_line_error(result)
    assert not list(tmp_path.iterdir())


# --- info -----------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def compiled(tiny_bundle, tmp_path_factory):
    target = tmp_path_factory.mktemp("info") / "x.onnx"
    assert run("compile", tiny_bundle, "-o", target, "-p", "clusters=3").exit_code == 0
    return target


def test_info_tells_what_a_compiled_file_is(compiled):
    told = run("info", compiled).stdout
    assert "cluster-cam (clusters=3" in told
    assert "resize to 32 x 32" in told
    assert "ant, bee, crane, dog, crane" in told
    assert "heatmaps within" in told


def test_info_gives_every_entry_as_json(compiled):
    found = json.loads(run("info", compiled, "--json").stdout)
    assert found.keys() == ENTRIES.keys()
    assert (found["max_masked_batch"], found["require_target"], found["parameters"]["clusters"]) == (64, False, 3)


@pytest.mark.parametrize(
    ("entry", "value"), [("parameters", "{"), ("agreement", "[]"), ("max_masked_batch", "many"), ("verdict", None)]
)
def test_metadata_that_are_damaged_are_told_in_one_line(compiled, tmp_path, entry, value):
    model = onnx.load(compiled)
    kept = {e.key: e.value for e in model.metadata_props} | ({} if value is None else {f"camrt.{entry}": value})
    if value is None:
        del kept[f"camrt.{entry}"]
    onnx.helper.set_model_props(model, kept)
    onnx.save(model, tmp_path / "damaged.onnx")
    result = run("info", tmp_path / "damaged.onnx")
    assert result.exit_code == 1
    assert f"the entry camrt.{entry} of its metadata is damaged or missing" in result.stderr


def test_a_compiled_file_is_no_bundle_and_the_message_says_how_it_is_run(compiled):
    assert "needs only ONNX Runtime to run" in run("explain", compiled, SAMPLES / "heart.png").stderr
