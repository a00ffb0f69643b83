"""The memory in use, and what becomes of what the system or nvidia-smi says oddly or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from camrt import memory as module
from camrt.memory import device_memory, own_memory, peak_resident


@pytest.fixture
def smi(monkeypatch, tmp_path):
    """Put a script in the place of nvidia-smi."""

    def put(script: str) -> None:
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return put


def test_what_is_resident_is_no_more_than_its_peak():
    assert 10 < own_memory("VmRSS") <= peak_resident() + 1
    assert own_memory("Vm") is own_memory("Nothing") is None


@pytest.mark.parametrize(("script", "memory"), [
    ("echo 100; echo 250", 350.0), ("echo '[N/A]'", None), ("echo 100; echo '[Insufficient Permissions]'", None), ("true", None),
    ("echo 5; exit 9", None), ("printf '\\377'", None), ("sleep 5", None), ("echo nan", None),
])  # fmt: skip
def test_nvidia_smi_is_believed_where_it_tells_a_number_for_each_gpu(smi, script, memory, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    smi(script)
    assert device_memory() == memory


def test_without_nvidia_smi_there_is_no_device(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device_memory() is None


@pytest.mark.parametrize("text", [None, "", "VmHWM:", "VmHWM: much kB"])
def test_where_the_system_does_not_tell_the_peak_getrusage_does(monkeypatch, text):
    def read(*_, **__):
        if text is None:
            raise FileNotFoundError
        return text

    monkeypatch.setattr(Path, "read_text", read)
    assert own_memory("VmHWM") is None
    assert peak_resident() > 10
