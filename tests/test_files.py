from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from camrt.files import read_regular, write_together

from .conftest import ROOT


def test_all_files_appear(tmp_path):
    paths = write_together(tmp_path / "a" / "b", {"one": b"1", "two": b"22"})
    assert {p.name: p.read_bytes() for p in paths} == {"one": b"1", "two": b"22"}


def test_writers_at_the_same_time_leave_whole_files(tmp_path):
    contents = [{"one": bytes([i]) * 100_000, "two": bytes([i]) * 1000} for i in range(16)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda c: write_together(tmp_path, c), contents))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]
    for path, size in ((tmp_path / "one", 100_000), (tmp_path / "two", 1000)):
        data = path.read_bytes()
        assert data == data[:1] * size


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05])
def test_a_killed_writer_leaves_no_half_written_file_under_a_final_name(tmp_path, after):
    code = (
        "from pathlib import Path; from camrt.files import write_together\n"
        "print('ready', flush=True)\n"
        f"while True: write_together(Path({str(tmp_path)!r}), {{'one': b'x' * 5_000_000}})"
    )
    writer = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert writer.stdout.readline() == b"ready\n"
    time.sleep(after)
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    finished = [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert all(p.stat().st_size == 5_000_000 for p in finished)


def test_a_name_that_no_file_can_have_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="null"):
        read_regular(tmp_path / "a\0b", 1)
