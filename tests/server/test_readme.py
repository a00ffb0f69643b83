"""What README says to ask a server, asked of one."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess

import pytest

pytest.importorskip("fastapi")

from tests.conftest import ROOT, SAMPLES

TEXT = (ROOT / "README.md").read_text()
ADDRESS = "127.0.0.1:8080"


@pytest.fixture
def folder(tmp_path):
    shutil.copy(SAMPLES / "heart.png", tmp_path / "photo.png")
    with contextlib.chdir(tmp_path):
        yield tmp_path


def blocks(language: str, served) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return [block.replace(ADDRESS, served.url.removeprefix("http://")) for block in found]


def test_every_request_of_the_page_is_answered(served, folder):
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    for block in blocks("bash", served):
        command = "set -e\n" + block.replace("curl ", "curl -sS --fail-with-body ")
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    assert (folder / "overlay.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "heatmaps.npy").read_bytes().startswith(b"\x93NUMPY")


def test_every_piece_of_python_for_a_server_runs(served, folder, capsys):
    pytest.importorskip("tritonclient.http")
    for block in blocks("py", served):
        exec(block, {})
    assert "(1, 2, 96, 96)" in capsys.readouterr().out
