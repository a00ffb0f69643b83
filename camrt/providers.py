"""Execution providers: their names, which of them this build of ONNX Runtime has, and which are to be tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

from camrt.errors import ParameterError, ProviderError, did_you_mean
from camrt.libraries import TENSORRT, installed
from camrt.provider_options import engine_folder
from camrt.runtime import ort

NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
SHORT = {long: short for short, long in NAMES.items()}
DEFAULT = ("cuda", "cpu")  # tried in this order, as far as installed
CUDA_FAMILY = ("cuda", "tensorrt")  # features, masks and logits stay in the GPU's memory
MIN_GPU_MEMORY = 1 << 20  # bytes; less is meant in another unit
PACKAGES = {
    "cuda": "'onnxruntime-gpu[cuda,cudnn]'",
    "tensorrt": f"'onnxruntime-gpu[cuda,cudnn]' {TENSORRT}",
    "migraphx": "onnxruntime-migraphx",
    "openvino": "onnxruntime-openvino",
}


@dataclass(frozen=True)
class Choice:
    """The providers to try, in order, whether they were asked for by name, and what they are told.

    Attributes
    ----------
    names : tuple of str
    explicit : bool
    gpu_mem_limit : int, optional
        Bytes of GPU memory for the arena of each session.
    engines : Path, optional
        TensorRT's folder.
    """

    names: tuple[str, ...]
    explicit: bool
    gpu_mem_limit: int | None = None
    engines: Path | None = None

    def settled(self, running: str) -> Choice:
        """Return what further sessions take once it is known which provider runs the first: that one and those behind it.

        On a GPU not the CPU: values that lie in the GPU's memory cannot be handed to a session there.
        """
        rest = self.names[self.names.index(running) :]
        if running not in CUDA_FAMILY:
            limit = None if set(CUDA_FAMILY).isdisjoint(rest) else self.gpu_mem_limit  # without effect on the others
            return replace(self, names=rest, gpu_mem_limit=limit)
        return replace(self, names=tuple(name for name in rest if name in CUDA_FAMILY), explicit=True)


def available() -> tuple[str, ...]:
    """Return the short names of the providers in this build of ONNX Runtime."""
    return tuple(SHORT[name] for name in ort.get_available_providers() if name in SHORT)


def install_line(provider: str) -> str:
    """Return what installs a provider in the place of the ONNX Runtime that is here; empty where pip has none."""
    if provider not in PACKAGES:
        return ""
    here = " ".join(package.split()[0] for package in installed())
    return f"pip uninstall {here}; pip install {PACKAGES[provider]}" if here else f"pip install {PACKAGES[provider]}"


def choose(providers: Sequence[str] | str | None, *, gpu_mem_limit: int | None = None, bundle: str = "") -> Choice:
    """Return the providers to use.

    Parameters
    ----------
    providers : sequence of str, optional
        Short names ("cuda") or ONNX Runtime's own.  By default CUDA where this build has it, else the CPU.
    gpu_mem_limit : int, optional
        Bytes of GPU memory for the arena of each session.
    bundle : str, optional
        The SHA-256 of the bundle's manifest, by which TensorRT's engines are kept.

    Raises
    ------
    ProviderError
        A name is unknown or not in this build.
    ParameterError
        The limit is no number of bytes, or none of the providers named could heed it.
    """
    have = available()
    _check_limit(gpu_mem_limit)
    if providers is None:
        return Choice(tuple(name for name in DEFAULT if name in have), False, gpu_mem_limit)
    given = [providers] if isinstance(providers, str) else list(providers)
    names = tuple(dict.fromkeys(SHORT.get(name, name) if isinstance(name, str) else repr(name) for name in given))
    if not names:
        raise ProviderError(f"The list of providers is empty. Name some of: {', '.join(have)}.")
    for name in names:
        _check_name(name, have)
    if gpu_mem_limit is not None and not set(names) & set(CUDA_FAMILY):
        raise ParameterError(
            f"gpu_mem_limit is for cuda and tensorrt, and the providers asked for are {', '.join(names)}. Leave it out, or "
            "name one of them."
        )
    names = names[: names.index("cpu") + 1] if "cpu" in names else names  # the CPU leaves nothing to those behind it
    engines = engine_folder(bundle, ort.__version__) if bundle and "tensorrt" in names else None  # not everybody has a home
    return Choice(names, True, gpu_mem_limit, engines)


def _check_name(name: str, have: Sequence[str]) -> None:
    if name not in NAMES:
        raise ProviderError(f"There is no provider {name!r}.{did_you_mean(name, NAMES)} Known: {', '.join(NAMES)}.")
    if name not in have:
        line = install_line(name)
        advice = f"Install it: {line}" if line else f"Install a build of ONNX Runtime with {NAMES[name]}"
        raise ProviderError(
            f"Provider {name!r} is not in this onnxruntime {ort.__version__} (it has: {', '.join(have)}). {advice}, or take "
            "the CPU: providers=['cpu'], --provider cpu."
        )


def _check_limit(limit: Any) -> None:
    if limit is not None and (not isinstance(limit, Integral) or isinstance(limit, bool) or limit < MIN_GPU_MEMORY):
        raise ParameterError(
            f"gpu_mem_limit must be a whole number of bytes, at least {MIN_GPU_MEMORY} (1 MB), got {limit!r}. For 512 MB "
            "write 512 << 20, on the command line --gpu-mem-limit 512."
        )
