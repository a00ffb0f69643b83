"""Providers on a machine that has only the CPU: which there are, which are chosen, and what is refused."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

import camrt
from camrt.errors import ParameterError, ProviderError
from camrt.providers import NAMES, Choice, available, choose
from camrt.runtime import ort

CUDA_BUILD = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def cuda_build(monkeypatch):
    """Pretend that this onnxruntime was built with CUDA."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: CUDA_BUILD)


def test_the_cpu_is_always_there():
    assert "cpu" in available()


def test_by_default_cuda_comes_first_where_it_is_built_in(cuda_build):
    assert choose(None) == Choice(("cuda", "cpu"), explicit=False)


def test_onnx_runtimes_own_names_are_taken():
    assert choose(["CPUExecutionProvider"]) == choose("cpu") == Choice(("cpu",), explicit=True)


def test_a_provider_that_is_not_built_in_is_refused_with_what_to_install():
    with pytest.raises(
        ProviderError,
        match=r"'cuda' is not in this onnxruntime .*it has: .*cpu.*onnxruntime-gpu\[cuda,cudnn\].*providers=\['cpu'\]",
    ):
        choose(["cuda", "cpu"])


def test_an_unknown_provider_is_refused_with_the_nearest():
    with pytest.raises(ProviderError, match="Did you mean 'cuda'"):
        choose(["cuad"])


def test_an_empty_list_is_refused():
    with pytest.raises(ProviderError, match="empty"):
        choose([])


def test_what_stands_behind_the_cpu_is_never_tried(cuda_build):
    assert choose(["cpu", "cuda"]).names == ("cpu",)
    assert choose(["cuda", "CUDAExecutionProvider", "cpu"]).names == ("cuda", "cpu")


def test_who_has_no_home_needs_none_but_for_tensorrts_engines(cuda_build, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", Mock(side_effect=RuntimeError("Could not determine home directory.")))
    assert choose(["cuda", "cpu"], bundle="a" * 64).engines is None
    with pytest.raises(ProviderError, match="'tensorrt' .* this user has no home.* XDG_CACHE_HOME"):
        choose(["tensorrt", "cuda"], bundle="a" * 64)


def test_a_provider_whose_share_in_the_work_cannot_be_told_is_not_taken():
    with pytest.raises(ProviderError, match="There is no provider 'AzureExecutionProvider'"):
        choose(["AzureExecutionProvider"])
    assert set(available()) <= set(NAMES)


# --- GPU memory ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("limit", [0, -1, 512, 1.5e9, True, "512MB"])
def test_a_limit_that_is_no_number_of_bytes_is_refused(tiny_bundle, limit):
    with pytest.raises(ParameterError, match="gpu_mem_limit must be a whole number of bytes, at least 1048576"):
        camrt.load(tiny_bundle, gpu_mem_limit=limit)


def test_a_limit_that_nobody_could_heed_is_refused(tiny_bundle):
    with pytest.raises(ParameterError, match="gpu_mem_limit is for cuda and tensorrt, and the providers asked for are cpu"):
        camrt.load(tiny_bundle, providers=["cpu"], gpu_mem_limit=1 << 30)


def test_a_limit_holds_by_itself_where_the_default_is_the_cpu(monkeypatch, tiny_bundle):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert camrt.load(tiny_bundle, gpu_mem_limit=1 << 30).engine.provider == "cpu"
