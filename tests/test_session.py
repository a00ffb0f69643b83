"""One session, on a machine that has only the CPU: what starts, what falls back, and what that says."""

from __future__ import annotations

import warnings

import pytest

import camrt
from camrt import libraries, session
from camrt.errors import BundleError, DeviceMemoryError, ProviderError
from camrt.nvidia import Driver
from camrt.providers import NAMES, Choice, choose
from camrt.runtime import ort
from camrt.session import is_out_of_memory, open_session
from tests import graphs

from .conftest import SAMPLES
from .test_imports import fresh

CUDA_BUILD = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
CPU = Choice(("cpu",), explicit=True)


@pytest.fixture
def cuda_build(monkeypatch):
    """Pretend that this onnxruntime was built with CUDA, and do what that build does on a machine without a driver.

    CUDA is left out without a word, TensorRT raises, or, with a fallback of its own, is told on stdout and left out.
    """
    real = ort.InferenceSession

    def session(source, options, providers, enable_fallback=1):
        if providers[0][0] == CUDA_BUILD[0]:
            if not enable_fallback:
                raise RuntimeError("register.cc:729 void Register() Please install TensorRT libraries")
            print("EP Error")
        return real(source, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: CUDA_BUILD)
    monkeypatch.setattr(ort, "InferenceSession", session)
    monkeypatch.setattr(libraries, "find_driver", lambda: Driver("", "", (), "libcuda.so.1 is not found"))


def test_a_silent_fallback_is_an_error_when_cuda_was_asked_for(cuda_build, tiny_bundle):
    with pytest.raises(
        ProviderError,
        match=r"'cuda' is in this onnxruntime .* but did not start: libcuda.so.1 is not found. To have it, install NVIDIA's "
        r"driver .*providers=\['cuda', 'cpu'\], --provider cuda --provider cpu",
    ):
        camrt.load(tiny_bundle, providers=["cuda"])


@pytest.mark.parametrize("asked", [["tensorrt"], ["tensorrt", "cuda"]])
def test_where_no_provider_starts_that_was_asked_for_all_are_named(cuda_build, tiny_bundle, asked, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ProviderError, match="'tensorrt' is in this onnxruntime") as caught:
        camrt.load(tiny_bundle, providers=asked)
    assert ("(nor did cuda)" in str(caught.value)) == (len(asked) == 2)
    assert f"providers={[*asked, 'cpu']}" in str(caught.value)


@pytest.mark.parametrize("asked", [None, ["cuda", "cpu"], ["tensorrt", "cuda", "cpu"]])
def test_an_allowed_fallback_is_warned_of_once_and_noted(cuda_build, tiny_bundle, pixels, asked, capfd, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = (asked or ["cuda"])[0]
    with pytest.warns(RuntimeWarning, match=f"'{first}' did not start: .*'cpu' runs instead") as caught:
        explainer = camrt.load(tiny_bundle, providers=asked)
        explanation = explainer.explain(pixels)
    assert len(caught) == 1
    assert explanation.run.provider == "cpu"
    assert explanation.run.placement == {}
    assert "provider_fallback" in explanation.notes
    assert capfd.readouterr() == ("", "")


def test_the_cpu_asked_for_is_no_fallback(tiny, pixels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "provider_fallback" not in tiny.explain(pixels).notes


def test_a_graph_that_onnx_runtime_refuses_is_a_bundle_error(tmp_path):
    path = tmp_path / "head.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"cannot open .*head\.onnx"):
        open_session(path, CPU)


def test_a_refusal_that_is_no_utf8_prints_nothing(capfd):
    damaged = graphs.classifier().SerializeToString().replace(b"Relu", b"\xff\xfe\xfd\xfc")
    with pytest.raises(BundleError, match="cannot open it"):
        open_session(damaged, CPU, name="it")
    assert capfd.readouterr().out == ""


# --- a provider that starts, and does not take the graph ----------------------------------------------------------------
@pytest.fixture
def choosy(monkeypatch):
    """Pretend that OpenVINO is in this build, raises what is put into the list for the graph named, and runs on the CPU."""
    refused: dict[str, str] = {}
    real = ort.InferenceSession

    class Borrowed(real):
        def __init__(self, source, options, providers, **_):
            self.names = [name for name, _ in providers]
            if self.names[0] == NAMES["openvino"]:
                for graph, words in refused.items():
                    if graph in str(source):
                        raise RuntimeError(words)
            super().__init__(source, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return self.names

        def get_provider_graph_assignment_info(self):
            return []

    monkeypatch.setattr(ort, "get_available_providers", lambda: [NAMES["openvino"], NAMES["cpu"]])
    monkeypatch.setattr(ort, "InferenceSession", Borrowed)
    return refused


def test_a_graph_that_a_provider_does_not_take_is_the_providers_fault(choosy, tiny_bundle):
    choosy[".onnx"] = "a long story " * 40 + "no kernel for Gemm"
    with pytest.raises(ProviderError, match=r"'openvino' is in .* but did not take .*\.onnx: ….*no kernel for Gemm\. Allow"):
        camrt.load(tiny_bundle, providers=["openvino"])


def test_a_later_graph_that_falls_back_is_warned_of_and_noted(choosy, tiny_bundle, pixels):
    choosy["gradient.onnx"] = "no kernel for Gemm"
    explainer = camrt.load(tiny_bundle, providers=["openvino", "cpu"])
    assert "provider_fallback" not in explainer.explain(pixels).notes
    with pytest.warns(
        RuntimeWarning, match=r"'openvino' did not take .*gradient\.onnx: no kernel for Gemm; 'cpu' runs instead"
    ):
        assert "provider_fallback" in explainer.explain(pixels, method="hires-cam").notes


def test_a_fallback_is_told_of_the_line_that_loads(choosy, tiny_bundle):
    choosy[".onnx"] = "no kernel for Gemm"
    with pytest.warns(RuntimeWarning, match="'cpu' runs instead") as caught:
        camrt.load(tiny_bundle, providers=["openvino", "cpu"])
    assert [warning.filename for warning in caught] == [__file__]


def test_a_graph_that_nobody_takes_is_the_bundles_fault(choosy, tmp_path):
    (tmp_path / "head.onnx").write_bytes(b"no graph")
    choosy["head.onnx"] = "failed to load"
    with pytest.raises(BundleError, match=r"cannot open .*head\.onnx"):
        open_session(tmp_path / "head.onnx", Choice(("openvino",), explicit=True))


def test_memory_that_is_full_when_a_session_opens_is_told_as_such(choosy, tiny_bundle):
    choosy[".onnx"] = "BFCArena: Failed to allocate memory for requested buffer of size 1024"
    with pytest.raises(DeviceMemoryError, match=r"'openvino' has no memory for .*\.onnx.*raise gpu_mem_limit"):
        camrt.load(tiny_bundle, providers=["openvino"])


# --- GPU memory ---------------------------------------------------------------------------------------------------------
def test_a_limit_reaches_every_session_on_the_gpu(cuda_build, monkeypatch):
    told = []
    real = ort.InferenceSession
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda *a, providers, **k: told.append(dict(providers)) or real(*a, providers=providers, **k),
    )
    with pytest.warns(RuntimeWarning, match="'cuda' did not start"):
        open_session(graphs.classifier().SerializeToString(), choose(["cuda", "cpu"], gpu_mem_limit=1 << 30))
    assert told[0]["CUDAExecutionProvider"]["gpu_mem_limit"] == 1 << 30
    assert told[0]["CPUExecutionProvider"] == {}


def test_a_limit_that_is_reached_halves_the_batch_and_changes_no_result():
    """An arena of 8 MB on the CPU fails in the words of one on the GPU; it stays with the process, hence one of its own."""
    code = f"""
import onnxruntime as ort, camrt
from camrt import session

def explain():
    return camrt.load("shapes", providers=["cpu"], max_masked_batch=64).explain({str(SAMPLES / "star.png")!r}, method="score-cam")

def limited(*arguments):
    options = real(*arguments)
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False
    return options

free = explain()
memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
ort.create_and_register_allocator(memory, ort.OrtArenaCfg({{"max_mem": 8 << 20, "arena_extend_strategy": 1}}))
real, session._session_options = session._session_options, limited
short = explain()
print(short.notes, short.run.masked_batch < free.run.masked_batch, (short.maps == free.maps).all())
"""
    assert fresh(code).split("\n")[0] == "('chunk_halved',) True True"


@pytest.mark.parametrize(
    "text",
    [
        "Failed to allocate memory for requested buffer of size 1234",
        "BFCArena::AllocateRawInternal(size_t) Available memory of 8388608 is smaller than requested bytes of 18874368",
        "CUDA error: out of memory",
        "std::bad_alloc",
    ],
)
def test_onnx_runtimes_words_for_a_full_device_are_understood(text):
    assert is_out_of_memory(RuntimeError(f"Non-zero status code: {text}"))
    assert not is_out_of_memory(RuntimeError("Non-zero status code: shape mismatch"))


# --- noise --------------------------------------------------------------------------------------------------------------
def test_the_log_of_the_process_is_quiet_while_a_provider_starts_and_not_longer(monkeypatch):
    severities = []
    monkeypatch.setattr(ort, "set_default_logger_severity", severities.append)
    with pytest.raises(ZeroDivisionError), session._quiet():
        severities.append(1 / 0)
    assert severities == [4, 2]
