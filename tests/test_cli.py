from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from camrt.cli import COMMANDS, camrt
from camrt.methods import METHODS
from tests import graphs

from .conftest import ROOT, SAMPLES


def run(*arguments: object):
    return CliRunner().invoke(camrt, [str(a) for a in arguments])


def one_line_error(result) -> str:
    """Return the error, after seeing that it is one line and no traceback."""
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    return lines[0]


# --- every command --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_and_stands_in_the_readme(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example:  camrt {command}" in " ".join(result.output.split()).replace("Example: camrt", "Example:  camrt")
    assert f"camrt {command}" in (ROOT / "README.md").read_text()


def test_every_method_stands_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert all(name in text for name in METHODS)


@pytest.mark.parametrize(("arguments", "code", "text"), [
    (["explain"], 2, "Missing argument 'BUNDLE'"),
    (["explain", "shapes"], 2, "Missing argument 'IMAGE...'"),
    (["expalin"], 2, "No such command 'expalin'"),
    (["explain", "nowhere", "x.png"], 1, "There is no bundle 'nowhere'"),
    (["explain", "shapes", "missing.png"], 1, "missing.png: there is no such file"),
    (["explain", "shapes", SAMPLES / "star.png", "-t", "strar"], 1, "Did you mean 'star'"),
    (["explain", "shapes", SAMPLES / "star.png", "-t", "8"], 1, "classes 0…7"),
    (["explain", "shapes", SAMPLES / "star.png", "-t", "star", "-n", "2"], 2, "--target or --top, not both"),
    (["explain", "shapes", SAMPLES / "star.png", "-n", "9"], 2, "top must be a whole number from 1 to 8"),
    (["explain", "shapes", SAMPLES / "star.png", "-m", "gradcam"], 2, "There is no method 'gradcam'"),
    (["explain", "shapes", SAMPLES / "star.png", "-p", "clusters"], 2, "write NAME=VALUE"),
    (["explain", "shapes", SAMPLES / "star.png", "-p", "clusters=0"], 2, "clusters must be a whole number from 1 to 4096"),
    (["explain", "shapes", SAMPLES / "star.png", "-p", "klusters=3"], 2, "Did you mean 'clusters'"),
    (["explain", "shapes", SAMPLES / "star.png", "-m", "hires-cam", "-p", "raw=maybe"], 2, "raw must be true or false"),
    (["explain", "shapes", SAMPLES / "star.png", "-m", "grad-cam", "-p", "raw=true"], 2, "grad-cam has no parameter 'raw'"),
    (["explain", "shapes", SAMPLES / "star.png", "-m", "cam"], 1, "cam needs a tail of global average pooling"),
    (["explain", "shapes", SAMPLES / "star.png", "-m", "all", "-p", "raw=true"], 2, "--param is for one method"),
    (["explain", "shapes", SAMPLES / "star.png", "-t", "star", "--versus", "star"], 2, "versus must be another class"),
    (["explain", "shapes", SAMPLES / "star.png", "--versus", "rign"], 1, "Did you mean 'ring'"),
    (["explain", "shapes", SAMPLES / "star.png", "--provider", "cuda"], 1, "'cuda' is not in this onnxruntime"),
    (["explain", "shapes", SAMPLES / "star.png", "--max-pixels", "10"], 1, "more than the limit of 10"),
    (["info", "nowhere"], 1, "There is no bundle"),
    (["info", "shapes", "--providers"], 2, "--providers is about this machine"),
    (["explain", "shapes", SAMPLES / "star.png", "--gpu-mem-limit", "0"], 2, "'--gpu-mem-limit': 0 is not in the range"),
    (["bench", "shapes", "--provider", "cpu", "--gpu-mem-limit", "64"], 2, "gpu_mem_limit is for cuda and tensorrt"),
    (["bench", "shapes", "--source", "missing.onnx"], 2, "missing.onnx: there is no such file"),
    (["layers", "missing.onnx"], 1, "missing.onnx: there is no such file"),
    (["export", "missing.onnx"], 2, "Missing option '-o'"),
    (["export", "missing.onnx", "-o", "x", "--mean", "a,b"], 2, "write numbers with commas"),
    (["export", "missing.onnx", "-o", "x", "--size", "0"], 2, "write N, or HxW"),
])  # fmt: skip
def test_misuse_and_failures_give_one_line_and_an_exit_code(arguments, code, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == code
    assert text in one_line_error(result)
    assert os.listdir() == []


# --- explain --------------------------------------------------------------------------------------------------------------
def test_explain_writes_what_it_says(tmp_path):
    result = run("explain", "shapes", SAMPLES / "heart.png", "--top", 2, "-o", tmp_path)
    assert result.exit_code == 0
    assert "heart  0." in result.stdout
    assert str(tmp_path / "heart.heart.png") in result.stdout
    assert cv2.imread(str(tmp_path / "heart.heart.png")).shape == (384, 384, 3)
    assert len(list(tmp_path.iterdir())) == 4


def test_json_is_one_object_a_line_and_progress_goes_to_stderr(tmp_path):
    result = run("explain", "shapes", SAMPLES / "heart.png", SAMPLES / "star.png", "-o", tmp_path, "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["targets"][0]["label"] for line in lines] == ["heart", "star"]
    assert all((tmp_path / name).exists() for name in ("heart.heart.png", "star.star.png"))
    assert "Explaining" in result.stderr


def test_a_failed_image_exits_1_after_the_rest_is_done(tmp_path):
    (tmp_path / "empty.png").touch()
    result = run("explain", "shapes", tmp_path / "empty.png", SAMPLES / "star.png", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "empty.png: the file is empty" in result.stderr
    assert "1 of 2 images could not be explained" in result.stderr
    assert (tmp_path / "out" / "star.star.png").exists()


def test_a_second_photo_of_a_name_gets_a_number(tmp_path):
    other = tmp_path / "elsewhere" / "star.png"
    other.parent.mkdir()
    other.write_bytes((SAMPLES / "star.png").read_bytes())
    run("explain", "shapes", SAMPLES / "star.png", other, "-o", tmp_path / "out")
    assert {f.name for f in (tmp_path / "out").glob("*.png")} == {"star.star.png", "star.2.star.png"}


def test_photos_whose_numbered_names_meet_are_kept_apart(tmp_path):
    folders = [tmp_path / n for n in "ab"]
    for folder in folders:
        folder.mkdir()
        (folder / "photo.png").write_bytes((SAMPLES / "star.png").read_bytes())
    (tmp_path / "photo.2.png").write_bytes((SAMPLES / "heart.png").read_bytes())
    run(
        "explain",
        "shapes",
        folders[0] / "photo.png",
        folders[1] / "photo.png",
        tmp_path / "photo.2.png",
        "-o",
        tmp_path / "out",
    )
    assert {f.name for f in (tmp_path / "out").glob("*.png")} == {"photo.star.png", "photo.2.star.png", "photo.2.2.heart.png"}


def test_a_result_that_cannot_be_written_is_told_and_the_rest_is_done(tmp_path):
    (tmp_path / "out" / "star.npy").mkdir(parents=True)
    result = run("explain", "shapes", SAMPLES / "star.png", SAMPLES / "heart.png", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "star.npy is a folder" in result.stderr
    assert (tmp_path / "out" / "heart.heart.png").exists()


def test_what_a_file_name_holds_cannot_fake_a_line(tmp_path):
    result = run("explain", "shapes", tmp_path / "x\nError: all is lost.png")
    assert "Error: all is lost" not in result.stderr.splitlines()
    assert "x\\nError" in one_line_error(result)


def test_force_replaces_a_bundle_and_nothing_else(tmp_path):
    source = graphs.save(graphs.classifier(), tmp_path / "m.onnx")
    assert run("export", source, "-o", tmp_path / "bundle").exit_code == 0
    (tmp_path / "bundle" / "notes.txt").write_text("mine")
    assert "it holds 'notes.txt'" in one_line_error(run("export", source, "-o", tmp_path / "bundle", "--force"))
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "bundle.json").write_text('{"my": "app"}')
    assert "no bundle.json of camrt's" in one_line_error(run("export", source, "-o", tmp_path / "app", "--force"))
    assert (tmp_path / "bundle" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "app" / "bundle.json").read_text() == '{"my": "app"}'


def test_a_degenerate_outcome_is_told_and_exits_0(tmp_path):
    model = graphs.classifier()
    for tensor in model.graph.initializer:
        if tensor.name == "w2":
            tensor.raw_data = bytes(len(tensor.raw_data))
    assert run("export", graphs.save(model, tmp_path / "m.onnx"), "-o", tmp_path / "flat").exit_code == 0
    result = run("explain", tmp_path / "flat", SAMPLES / "star.png", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert "[flat_map]" in result.stdout


def test_versus_explains_why_this_class_and_not_that(tmp_path):
    for target, other in (("star", "ring"), ("ring", "star")):
        arguments = ["-t", target, "--versus", other, "-m", "hires-cam", "-p", "raw=true", "-o", tmp_path / target]
        result = run("explain", "shapes", SAMPLES / "star_ring.png", *arguments)
        assert f"{target} versus {other}" in result.stdout
        assert (tmp_path / target / f"star_ring.{target}_versus_{other}.png").exists()
    star, ring = (np.load(tmp_path / target / "star_ring.npy")[0] for target in ("star", "ring"))
    assert ring.flat[star.argmax()] == star.flat[ring.argmax()] == 0  # what speaks most for the one speaks against the other


def test_all_writes_one_contact_sheet_a_photo_and_tells_each_cost(tmp_path, tiny_bundle):
    result = run("explain", tiny_bundle, SAMPLES / "star.png", SAMPLES / "heart.png", "--method", "all", "-o", tmp_path)
    assert result.exit_code == 0
    assert {f.name for f in tmp_path.iterdir()} == {"star.methods.png", "heart.methods.png"}
    for name in METHODS:
        assert result.stdout.count(f"\n  {name} ") == 2
    assert "rise         " in result.stdout
    assert "4001 passes" in result.stdout
    line = run("explain", "shapes", SAMPLES / "star.png", "--method", "all", "-o", tmp_path, "--json").stdout
    methods = {m["method"]: m for m in json.loads(line)["methods"]}
    assert "global average pooling" in methods["cam"]["unavailable"]
    assert methods["hires-cam"]["backward_passes"] == 1


def test_a_contact_sheet_that_cannot_be_written_is_told(tmp_path, tiny_bundle):
    (tmp_path / "out").write_text("a file")
    result = run("explain", tiny_bundle, SAMPLES / "star.png", "--method", "all", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "the contact sheet cannot be written" in one_line_error(result)


# --- many photos, interrupted -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def fifty(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("fifty")
    for i in range(50):
        pixels = np.random.default_rng(i).integers(0, 256, (30, 40, 3), np.uint8)
        cv2.imwrite(str(folder / f"p{i:02}.png"), cv2.resize(pixels, (800, 600)))
    return [str(path) for path in sorted(folder.iterdir())]


def started(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "camrt", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def appeared(folder, count: int) -> None:
    ends = time.monotonic() + 30
    while not folder.is_dir() or len([f for f in os.listdir(folder) if not f.startswith(".")]) < count:
        assert time.monotonic() < ends
        time.sleep(0.01)


def assert_whole(folder) -> None:
    """See that every file is readable to its end."""
    for file in folder.iterdir():
        if file.name.startswith("."):
            continue
        if file.suffix == ".npy":
            assert np.load(file).shape == (1, 600, 800)
        elif file.suffix == ".json":
            assert json.loads(file.read_text())["targets"]
        else:
            assert cv2.imread(str(file)).shape == (600, 800, 3)


def test_an_interrupted_stream_ends_at_once_tells_what_is_done_and_leaves_whole_files(tmp_path, fifty):
    process = started("explain", "shapes", *fifty, "-o", tmp_path / "out")
    appeared(tmp_path / "out", 6)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Interrupted." in err
    assert "Traceback" not in err
    assert 1 <= out.count("(cluster-cam, ") <= len(list((tmp_path / "out").glob("*.json"))) < 50
    assert not list((tmp_path / "out").glob(".*"))
    assert_whole(tmp_path / "out")


def test_an_interrupt_waits_for_no_group_of_thousands_of_masks(tmp_path, fifty):
    process = started("explain", "shapes", *fifty, "-m", "rise", "-p", "masks=100000", "-o", tmp_path / "out")
    assert process.stderr.read(len("Explaining")) == "Explaining"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130


def test_a_killed_stream_leaves_whole_files_under_their_names(tmp_path, fifty):
    process = started("explain", "shapes", *fifty, "-o", tmp_path / "out")
    appeared(tmp_path / "out", 4)
    process.kill()
    process.communicate(timeout=10)
    assert_whole(tmp_path / "out")


def test_whoever_stops_reading_ends_a_stream_without_a_traceback(tmp_path, fifty):
    arguments = ["-m", "rise", "-p", "masks=100", "-o", tmp_path / "out", "--json"]
    process = started("explain", "shapes", *fifty, *arguments)
    assert json.loads(process.stdout.readline())["targets"]
    process.stdout.close()
    assert process.wait(timeout=30) != 0
    err = process.stderr.read()
    process.stderr.close()
    assert "Traceback" not in err
    assert len(list((tmp_path / "out").glob("*.json"))) < 50


# --- where the time goes ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("photos", [["star"], ["star", "heart", "circle"]])
def test_timings_tell_where_the_time_goes_on_stderr(tmp_path, photos):
    result = run("explain", "shapes", *(SAMPLES / f"{name}.png" for name in photos), "--timings", "-o", tmp_path)
    assert result.exit_code == 0
    rows = dict(re.findall(r"^( *[a-zA-Z][^:\n]*?)  +([0-9.]+) ms$", result.stderr, re.MULTILINE))
    laps = ["start Python, import", "open the bundle", "explain", "render and write", "together"]
    assert [name for name in rows if not name.startswith(" ")] == laps
    assert {"  decode", "  forward", "  cluster", "  masked"} <= set(rows)
    assert ("  wait" in rows) == (len(photos) > 1)
    assert sum(float(rows[name]) for name in laps[:-1]) == pytest.approx(float(rows["together"]), abs=0.3)
    assert " ms" not in result.stdout.replace(" ms on", "")


def test_without_timings_none_are_told(tmp_path):
    assert "together" not in run("explain", "shapes", SAMPLES / "star.png", "-o", tmp_path).stderr


# --- the others -----------------------------------------------------------------------------------------------------------
def test_info_describes_the_bundle_and_the_installation():
    assert "relu_9" in run("info", "shapes").stdout
    assert json.loads(run("info", "shapes", "--json").stdout)["labels"][:2] == ["circle", "square"]
    facts = json.loads(run("info", "--json").stdout)
    assert "cpu" in facts["providers"]
    assert facts["onnxruntime"]


def test_info_tries_every_provider_and_says_what_the_others_lack():
    text = run("info", "--providers").stdout
    assert re.search(r"^cpu +runs$", text, re.MULTILINE)
    assert re.search(
        r"^migraphx +(not in this onnxruntime: .*pip install onnxruntime-migraphx|runs|does not run: .*)", text, re.MULTILINE
    )
    assert re.search(r"^cores +\d+", text, re.MULTILINE)
    facts = json.loads(run("info", "--providers", "--json").stdout)
    assert facts["providers"]["cpu"] == {"built_in": True, "runs": True, "reason": "", "install": ""}
    assert set(facts["nvidia"]) == {"version", "cuda", "gpus", "trouble"}


def test_info_describes_cores_gpus_and_packages_that_clash(monkeypatch):
    facts = json.loads(run("info", "--providers", "--json").stdout)
    gpu = {"name": "GPU 0", "memory": 24 << 30, "capability": "8.9"}
    facts |= {
        "packages": ["onnxruntime 1.31.1", "onnxruntime-gpu 1.31.1"],
        "cores": {"machine": 64, "allowed": 8, "quota": 2.5},
        "nvidia": {"version": "580.1", "cuda": "13.0", "gpus": [gpu], "trouble": ""},
        "providers": {"cuda": {"built_in": True, "runs": False, "reason": "no driver", "install": "install it"}},
    }
    monkeypatch.setattr("camrt.cli.inspect.machine_facts", lambda: facts)
    text = run("info", "--providers").stdout
    assert "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1: they overwrite each other" in text
    assert "64, 8 of them for this process, a container's quota of 2.5; --threads 2 keeps to it" in text
    assert "GPU 0 (24 GB, compute capability 8.9); driver 580.1, up to CUDA 13.0" in text
    assert re.search(r"^cuda +does not run: no driver\n +install it$", text, re.MULTILINE)


def test_methods_lists_each_with_its_paper():
    text = run("methods").stdout
    assert all(name in text and method.citation in text for name, method in METHODS.items())
    assert {m["name"] for m in json.loads(run("methods", "--json").stdout)} == set(METHODS)


def test_bench_prints_floor_costs_stream_effects_and_memory():
    result = run("bench", "shapes", "--runs", 1, "--images", 2, "--json")
    values = json.loads(result.stdout)
    assert list(values["floor"]) == ["1", "4", "5", "8", "16", "32"]
    (cost,) = values["costs"]
    assert (cost["method"], cost["passes"]) == ("cluster-cam", 11)
    best = min(values["floor"][size]["median"] for size in "1458")
    assert cost["floor"]["median"] == pytest.approx(values["floor"]["1"]["median"] + 10 * best, rel=1e-3)
    assert cost["ratio"]["median"] == pytest.approx(cost["explain"]["median"] / cost["floor"]["median"], rel=1e-3)
    least = min(values["floor"][size]["median"] for size in ("1", "4", "5", "8", "16"))  # two images have 22 passes
    stream = values["stream"]
    assert stream["ratio"]["median"] == pytest.approx(1e3 / stream["per_second"]["median"] / (11 * least), rel=1e-2)
    assert min(values[name]["resident"] for name in ("floor_memory", "memory")) > 20


def test_bench_of_several_methods_prints_each(monkeypatch):
    monkeypatch.setattr("camrt.bench.footprint", lambda *_, **__: None)
    table = run("bench", "shapes", "--runs", 1, "--images", 2, "-m", "hires-cam", "-m", "ablation-cam").stdout
    assert "hires-cam (1 pass + 1 backward)" in table
    assert "ablation-cam (1 pass + 80 of the tail)" in table
    assert "stream of 2 (hires-cam)" in table
    assert "peak memory: bare network not measured, explanation not measured" in table
    assert "in turns" in run("bench", "--help").stdout
    assert "--param is for one method" in one_line_error(
        run("bench", "shapes", "-m", "hires-cam", "-m", "cam", "-p", "raw=true")
    )


def test_bench_takes_the_uncut_model_as_the_floor(tmp_path, tiny_bundle, monkeypatch):
    monkeypatch.setattr("camrt.bench.footprint", lambda *_, **__: None)
    source = graphs.save(graphs.classifier(), tmp_path / "m.onnx")
    result = run("bench", tiny_bundle, "--source", source, "--runs", 1, "--images", 1, "--json")
    assert json.loads(result.stdout)["floor_of"] == "m.onnx"
    baked = graphs.save(graphs.classifier(image=(1, 3, 32, 32)), tmp_path / "baked.onnx")
    assert "Leave out --source" in one_line_error(run("bench", tiny_bundle, "--source", baked))


def test_layers_lists_the_automatic_choice_first_with_its_reason(tmp_path):
    source = graphs.save(graphs.residual(), tmp_path / "m.onnx")
    text = run("layers", source).stdout
    assert text.startswith("t is the last map, 8 x 8, that alone separates")
    assert [v["tensor"] for v in json.loads(run("layers", source, "--json").stdout)] == ["t", "s", "r", "c"]


def test_export_then_explain(tmp_path):
    source = graphs.save(graphs.classifier(), tmp_path / "m.onnx")
    (tmp_path / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    arguments = [
        "export",
        source,
        "-o",
        tmp_path / "bundle",
        "--labels",
        tmp_path / "labels.txt",
        "--preset",
        "imagenet",
        "--layer",
        "r1",
    ]
    result = run(*arguments)
    assert result.exit_code == 0
    assert "reproduce the model " in result.stdout
    assert json.loads((tmp_path / "bundle/bundle.json").read_text())["layer"]["name"] == "r1"
    assert run("explain", tmp_path / "bundle", SAMPLES / "star.png", "-t", "c", "-o", tmp_path / "out").exit_code == 0
    assert "replace it with --force" in one_line_error(run(*arguments))
    assert run(*arguments, "--force").exit_code == 0


def test_export_in_float16_says_what_that_changed(tmp_path):
    source = graphs.save(graphs.classifier(), tmp_path / "m.onnx")
    result = run("export", source, "-o", tmp_path / "half", "--scale", "0.004", "--precision", "fp16")
    assert result.exit_code == 0, result.output
    assert "reproduce the model in float16 " in result.stdout
    assert "precision: float16; from float32: logits 0.00" in result.stdout
    with_json = run("export", source, "-o", tmp_path / "half", "--scale", "0.004", "--precision", "fp16", "--force", "--json")
    assert json.loads(with_json.stdout)["precision"]["computes"] == "float16"
    assert "is not one of 'fp32', 'fp16'" in run("export", source, "-o", tmp_path / "other", "--precision", "int8").stderr


def test_export_without_preprocessing_warns_in_one_line(tmp_path):
    result = run("export", graphs.save(graphs.classifier(), tmp_path / "m.onnx"), "-o", tmp_path / "bundle")
    assert result.exit_code == 0
    assert result.stderr.count("Warning: No preprocessing was given") == 1


# --- as a process -----------------------------------------------------------------------------------------------------------
def test_the_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "camrt", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("camrt, version ")


def test_a_terminal_without_the_arrow_gets_its_line():
    done = subprocess.run(
        [sys.executable, "-m", "camrt", "info", "shapes"], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0
    assert b"relu_9" in done.stdout


def test_a_full_disk_behind_stdout_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "camrt", "methods"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_without_onnx_runtime_the_command_says_what_to_install(tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('No module named onnxruntime')")
    done = subprocess.run(
        [sys.executable, "-m", "camrt", "info"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert done.returncode == 1
    assert "pip install onnxruntime" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_while_modules_load_is_no_missing_module(tmp_path):
    code = "try:\n    raise KeyboardInterrupt\nexcept KeyboardInterrupt as e:\n    raise ImportError('initialization failed') from e"
    (tmp_path / "onnxruntime.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([sys.executable, "-m", "camrt", "info"], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (130, "")


def test_without_onnx_the_exporting_commands_say_what_to_install(tmp_path):
    (tmp_path / "onnx.py").write_text("raise ImportError('No module named onnx')")
    done = subprocess.run(
        [sys.executable, "-m", "camrt", "layers", "x.onnx"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install onnx" in done.stderr
    assert "Traceback" not in done.stderr
