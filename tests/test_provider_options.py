"""Options of the providers: what they are told, and where TensorRT's engines lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from camrt.errors import ProviderError
from camrt.provider_options import engine_folder, options_of


def test_cuda_computes_in_full_float32_and_captures_no_graphs():
    options = options_of("cuda")
    assert options["use_tf32"] == options["enable_cuda_graph"] == 0
    assert "gpu_mem_limit" not in options


def test_a_memory_limit_reaches_cuda_and_tensorrt_and_nobody_else():
    assert options_of("cuda", gpu_mem_limit=1 << 30)["gpu_mem_limit"] == 1 << 30
    assert options_of("cuda", gpu_mem_limit=1 << 30)["cudnn_conv_use_max_workspace"] == 0
    assert options_of("tensorrt", gpu_mem_limit=1 << 30)["trt_max_workspace_size"] == 1 << 30
    assert options_of("cpu", gpu_mem_limit=1 << 30) == {}


def test_threads_reach_a_provider_that_has_its_own():
    assert options_of("openvino", threads=3)["num_of_threads"] == "3"
    assert "num_of_threads" not in options_of("openvino")


def test_engines_are_kept_by_bundle_and_runtime_under_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, other = engine_folder("a" * 64, "1.31.1"), engine_folder("b" * 64, "1.31.1")
    assert one.parent == tmp_path / "camrt" / "tensorrt"
    assert len({one, other, engine_folder("a" * 64, "1.32.0")}) == 3
    assert not one.exists()


@pytest.mark.parametrize("cache", ["", "relative/folder"])
def test_without_a_cache_of_the_users_engines_are_kept_at_home(monkeypatch, tmp_path, cache):
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert engine_folder("a" * 64, "1.31.1").is_relative_to(tmp_path / ".cache" / "camrt")


def test_tensorrt_makes_its_folder_for_its_owner_alone(tmp_path):
    folder = tmp_path / "camrt" / "tensorrt" / "x"
    options = options_of("tensorrt", engines=folder)
    assert options["trt_engine_cache_path"] == str(folder)
    assert options["trt_engine_cache_enable"] is True  # as text "True"; 1 is refused
    assert options["trt_fp16_enable"] is False
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("provider", ["cuda", "cpu", "openvino"])
def test_no_other_provider_makes_it(tmp_path, provider):
    options_of(provider, engines=tmp_path / "engines")
    assert not (tmp_path / "engines").exists()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ProviderError, match=r"keeps them in .*file/engines, which cannot be made .*XDG_CACHE_HOME"):
        options_of("tensorrt", engines=Path(tmp_path / "file" / "engines"))
