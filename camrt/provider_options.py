"""ONNX Runtime's options for each provider, and why they are what they are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from camrt.errors import ProviderError

_CUDA: dict[str, Any] = {
    # TF32 rounds products to 10 bits: off, so that results equal the CPU's to 1e-4.
    "use_tf32": 0,
    # EXHAUSTIVE, the default, times every algorithm for every new shape of a batch and keeps the winner of the day: a slow
    # first call, and results that differ in their last bits from one start to the next.
    "cudnn_conv_algo_search": "HEURISTIC",
    # The default doubles the arena whenever it is full; batches here come in few sizes, so what they need is enough.
    "arena_extend_strategy": "kSameAsRequested",
    # A captured graph belongs to one thread, one shape and fixed addresses; a session here serves all threads.
    "enable_cuda_graph": 0,
    # Copies stay in order with what computes; on a stream of their own they may overtake it.
    "do_copy_in_default_stream": 1,
}
_TENSORRT: dict[str, Any] = {  # of its switches ONNX Runtime wants True and False, of CUDA's 1 and 0
    # Half precision is faster and leaves the CPU's results by up to a few per cent of a heatmap: never unasked.
    "trt_fp16_enable": False,
    "trt_cuda_graph_enable": False,
}


def options_of(
    provider: str, threads: int = 0, gpu_mem_limit: int | None = None, engines: Path | None = None
) -> dict[str, Any]:
    """Return the options of a provider.

    Parameters
    ----------
    provider : str
    threads : int
        Of one operator, for providers that have threads of their own; 0 is theirs to choose.
    gpu_mem_limit : int, optional
        Bytes of a session's arena.
    engines : Path, optional
        Where TensorRT keeps the engines that it builds.
    """
    if provider == "cuda":
        # Where memory is short, convolutions take at most 32 MB to work in, and may be slower for it.
        limited = {} if gpu_mem_limit is None else {"gpu_mem_limit": gpu_mem_limit, "cudnn_conv_use_max_workspace": 0}
        return _CUDA | limited
    if provider == "tensorrt":
        limited = {} if gpu_mem_limit is None else {"trt_max_workspace_size": gpu_mem_limit}
        return _TENSORRT | limited | (_engine_cache(engines) if engines else {})
    if provider == "openvino":
        return {"precision": "FP32"} | ({"num_of_threads": str(threads)} if threads else {})
    return {}


def engine_folder(bundle: str, runtime: str) -> Path:
    """Return where the engines of a bundle are kept.

    TensorRT names an engine by file name and nodes, which every bundle may share, and not by weights: hence a folder a
    bundle, by the SHA-256 of its bundle.json, and a version of ONNX Runtime.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        root = given if given.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        raise ProviderError(
            "Provider 'tensorrt' builds engines for minutes and keeps them in the user's cache, and this user has no home. "
            "Let XDG_CACHE_HOME name a folder that can be written to."
        ) from None
    return root / "camrt" / "tensorrt" / f"{bundle[:16]}-onnxruntime-{runtime}"


def _engine_cache(folder: Path) -> dict[str, Any]:
    """Make the folder, for its owner alone, since engines are code that is loaded from there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ProviderError(
            f"Provider 'tensorrt' builds engines for minutes and keeps them in {folder}, which cannot be made "
            f"({error.strerror}). Let XDG_CACHE_HOME name a folder that can be written to."
        ) from None
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
    }
