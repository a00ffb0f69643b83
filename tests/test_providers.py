"""Providers on a machine that has only the CPU: what is installed, what falls back, and what that says."""

from __future__ import annotations

import warnings

import pytest

import camrt
from camrt import providers
from camrt.errors import BundleError, ProviderError
from camrt.providers import Choice, available, choose, open_session
from tests import graphs

CUDA_BUILD = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def cuda_build(monkeypatch):
    """Pretend that this onnxruntime was built with CUDA; its sessions still start on the CPU, as without a driver."""
    real = providers.ort.InferenceSession
    monkeypatch.setattr(providers.ort, "get_available_providers", lambda: CUDA_BUILD)
    monkeypatch.setattr(
        providers.ort,
        "InferenceSession",
        lambda path, options, providers, **_: real(path, options, providers=["CPUExecutionProvider"]),
    )


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


def test_a_silent_fallback_is_an_error_when_cuda_was_asked_for(cuda_build, tiny_bundle):
    with pytest.raises(
        ProviderError, match=r"'cuda' is installed but did not start; .* fell back to 'cpu'.*providers=\['cuda', 'cpu'\]"
    ):
        camrt.load(tiny_bundle, providers=["cuda"])


@pytest.mark.parametrize("asked", [None, ["cuda", "cpu"]])
def test_an_allowed_fallback_is_warned_of_once_and_noted(cuda_build, tiny_bundle, pixels, asked):
    with pytest.warns(RuntimeWarning, match="fell back to 'cpu'") as caught:
        explainer = camrt.load(tiny_bundle, providers=asked)
        explanation = explainer.explain(pixels)
    assert len(caught) == 1
    assert explanation.run.provider == "cpu"
    assert "provider_fallback" in explanation.notes


def test_the_cpu_asked_for_is_no_fallback(tiny, pixels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "provider_fallback" not in tiny.explain(pixels).notes


def test_a_graph_that_onnx_runtime_refuses_is_a_bundle_error(tmp_path):
    path = tmp_path / "head.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"cannot open .*head\.onnx"):
        open_session(path, Choice(("cpu",), explicit=True))


def test_a_provider_whose_share_in_the_work_cannot_be_told_is_not_taken():
    with pytest.raises(ProviderError, match="There is no provider 'AzureExecutionProvider'"):
        choose(["AzureExecutionProvider"])
    assert set(available()) <= set(providers.NAMES)


def test_a_refusal_that_is_no_utf8_prints_nothing(capfd):
    damaged = graphs.classifier().SerializeToString().replace(b"Relu", b"\xff\xfe\xfd\xfc")
    with pytest.raises(BundleError, match="cannot open it"):
        open_session(damaged, Choice(("cpu",), explicit=True), name="it")
    assert capfd.readouterr().out == ""
