from __future__ import annotations

import builtins
import json

import pytest
from click.testing import CliRunner

from camrt.cli import camrt

from .conftest import SAMPLES

pytest.importorskip("pyarrow")


def invoke(*arguments):
    return CliRunner().invoke(camrt, ["batch", *map(str, arguments)])


def test_photos_become_a_dataset_and_a_summary(tmp_path):
    result = invoke("shapes", SAMPLES, "-o", tmp_path / "out", "--top", "2")
    assert result.exit_code == 0, result.output
    assert "6 photos, 12 rows in 1 shard: 12 ok" in result.stdout
    assert f"→ {tmp_path}/out/data/*.parquet" in result.stdout
    assert "of 6 photos" in result.stderr


def test_machines_get_a_line_of_json_for_every_event(tmp_path):
    result = invoke("shapes", SAMPLES, "-o", tmp_path / "out", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert {e["event"] for e in events[:-1]} == {"listing", "progress"}
    assert events[-1]["event"] == "summary"
    assert events[-1]["outcomes"] == {"ok": 6}


@pytest.mark.parametrize(("arguments", "code", "told"), [
    (["shapes", "nowhere", "-o", "OUT"], 1, "nowhere: there is no such file or folder"),
    (["nothing", SAMPLES, "-o", "OUT"], 1, "There is no bundle 'nothing'"),
    (["shapes", SAMPLES], 2, "Missing option '-o'"),
    (["shapes", "-o", "OUT"], 2, "Missing argument 'INPUT...'"),
    (["shapes", SAMPLES, "-o", "OUT", "-m", "grad-cm"], 2, "Did you mean 'grad-cam'"),
    (["shapes", SAMPLES, "-o", "OUT", "-p", "clusters=none"], 2, "clusters"),
    (["shapes", SAMPLES, "-o", "OUT", "-t", "zebra"], 1, "has no class 'zebra'"),
    (["shapes", SAMPLES, "-o", "OUT", "-t", "star", "-n", "2"], 2, "Give --target or --top, not both"),
    (["shapes", SAMPLES, "-o", "OUT", "--workers", "2:3"], 2, "--address are for --engine ray; local has one worker"),
    (["shapes", SAMPLES, "-o", "OUT", "--engine", "ray", "--workers", "3:2"], 2, "workers must be MIN:MAX"),
    (["shapes", SAMPLES, "-o", "nosuch://bucket"], 1, "nosuch://bucket cannot be opened"),
    (["shapes", SAMPLES, "-o", "/proc/nothing"], 1, "/proc/nothing cannot be written"),
    (["shapes", SAMPLES, "-o", "OUT", "--provider", "tpu"], 1, "tpu"),
])  # fmt: skip
def test_what_cannot_be_done_is_told_in_one_line(tmp_path, arguments, code, told):
    result = invoke(*(tmp_path / "out" if a == "OUT" else a for a in arguments))
    assert result.exit_code == code, result.output
    assert told in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out" / "data").exists()


def test_a_missing_extra_is_told_with_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def lacking(name, *rest):
        if name.startswith("camrt.scale.progress"):
            raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    result = invoke("shapes", SAMPLES, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "pip install 'camrt[batch]'" in result.stderr
