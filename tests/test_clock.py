from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from camrt.cli import clock as module
from camrt.cli.clock import START, Clock


@pytest.fixture
def ticking(monkeypatch) -> list[float]:
    """The time, in seconds, which a test sets."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(module, "_since_the_process_began", lambda: 0.25)
    return now


def test_laps_of_one_name_add_up_in_the_order_of_the_first(ticking):
    clock = Clock()
    for name, seconds in (("open", 1.0), ("explain", 2.0), ("write", 4.0), ("explain", 8.0)):
        ticking[0] += seconds
        clock.lap(name)
    assert clock.seconds == {START: 0.25, "open": 1.0, "explain": 10.0, "write": 4.0}


def test_the_table_shows_stages_under_their_lap_and_counts_them_once(ticking):
    clock = Clock()
    ticking[0] = 0.5
    clock.lap("explain")
    rows = clock.table({"forward": 100.0, "masked": 333.33}, of="explain").splitlines()
    assert rows == [
        "start Python, import     250.0 ms",
        "explain                  500.0 ms",
        "  forward                100.0 ms",
        "  masked                 333.3 ms",
        "together                 750.0 ms",
    ]


def test_a_process_knows_how_long_it_has_run():
    code = "import time; time.sleep(0.3); from camrt.cli.clock import Clock, START; print(Clock().seconds[START])"
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.3 <= float(done.stdout) <= time.perf_counter() - started + 0.02


@pytest.mark.parametrize("content", ["", "1 (python) S", "1 (a) b) R" + " 1" * 18 + " x"])
def test_a_system_that_does_not_tell_is_no_failure(monkeypatch, tmp_path, content):
    (tmp_path / "stat").write_text(content)
    monkeypatch.setattr(module, "Path", lambda _: tmp_path / "stat")
    assert module._since_the_process_began() == 0
    (tmp_path / "stat").unlink()
    assert module._since_the_process_began() == 0


def test_a_process_may_have_any_name(monkeypatch, tmp_path):
    real = re.sub(r"\(.*\)", "(a ) R 1 2 (b)", Path("/proc/self/stat").read_text())
    expected = module._since_the_process_began()
    (tmp_path / "stat").write_text(real)
    monkeypatch.setattr(module, "Path", lambda _: tmp_path / "stat")
    assert module._since_the_process_began() == pytest.approx(expected, abs=1)
