"""What a machine offers: every provider is tried, and what does not run says what it lacks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from camrt import libraries, machine, providers
from camrt.machine import Cores, Offer, cores, machine_facts, offers
from camrt.nvidia import Driver
from camrt.providers import NAMES
from camrt.runtime import Session, ort


def test_every_provider_has_an_answer_and_the_cpu_really_ran():
    found = offers()
    assert set(found) == set(NAMES)
    assert found["cpu"] == Offer(built_in=True, runs=True)
    assert all(offer.runs or offer.reason or offer.install for offer in found.values())


def test_a_provider_that_does_not_start_says_what_it_lacks(monkeypatch):
    real = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda source, options, providers, **_: real(source, options, providers=["CPUExecutionProvider"]),
    )
    monkeypatch.setattr(libraries, "find_driver", lambda: Driver("", "", (), "no driver"))
    cuda = offers()["cuda"]
    assert (cuda.built_in, cuda.runs) == (True, False)
    assert "no driver" in cuda.reason
    assert cuda.install.startswith("install NVIDIA's driver")


def test_a_provider_that_starts_and_cannot_run_is_told(monkeypatch):
    def run(self, *_):
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(Session, "run", run)
    assert offers()["cpu"].reason == "it starts, but runs nothing: no kernel image is available for execution on the device"


def test_what_is_not_built_in_says_how_to_replace_this_runtime(monkeypatch):
    monkeypatch.setattr(providers, "installed", lambda: ["onnxruntime 1.31.1"])
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    found = offers()
    assert found["cuda"].install == "pip uninstall onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]'"
    assert found["coreml"] == Offer(False, False, "for macOS alone")


@pytest.mark.parametrize(("text", "quota"), [("150000 100000\n", 1.5), ("max 100000\n", None), ("", None), (None, None)])
def test_a_containers_quota_of_cores_is_read(monkeypatch, tmp_path, text, quota):
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    found = cores()
    assert found.quota == quota
    assert 1 <= found.allowed <= found.machine
    assert isinstance(found, Cores)


def test_the_default_is_a_provider_that_runs():
    facts = machine_facts()
    assert facts["providers"][facts["default"]]["runs"]


def test_what_an_older_runtime_leaves_to_the_cpu_is_said_to_be_unknown():
    assert "older than 1.24, does not tell" in machine._left("openvino", SimpleNamespace())
