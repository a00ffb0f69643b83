"""Execution providers: resolve their names, open a session on them, and say which one really runs.

The only module that mentions ONNX Runtime's options.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from camrt import ONNXRUNTIME_CAME_FIRST, __version__
from camrt.errors import BundleError, ProviderError, did_you_mean, one_line

try:
    import onnxruntime as ort
except ImportError as error:
    raise ImportError(
        "camrt needs ONNX Runtime: pip install onnxruntime, or onnxruntime-gpu[cuda,cudnn] on a machine with CUDA. "
        "The two packages exclude each other, so camrt installs neither by itself."
    ) from error

Session: TypeAlias = ort.InferenceSession
OrtValue: TypeAlias = ort.OrtValue

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
INSTALL = {
    "cuda": "Install the CUDA build: pip uninstall onnxruntime; pip install onnxruntime-gpu[cuda,cudnn]",
    "tensorrt": "Install both: pip uninstall onnxruntime; pip install onnxruntime-gpu[cuda,cudnn] tensorrt",
}
_PROVIDER_OPTIONS: dict[str, dict[str, Any]] = {
    # TF32 rounds products to 10 bits: off, so that results equal the CPU's to 1e-4.
    "cuda": {"use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"},
}


@dataclass(frozen=True)
class Choice:
    """The providers to try, in order, and whether they were asked for by name."""

    names: tuple[str, ...]
    explicit: bool


def available() -> tuple[str, ...]:
    """Return the short names of the providers in this build of ONNX Runtime."""
    return tuple(SHORT[name] for name in ort.get_available_providers() if name in SHORT)


def choose(providers: Sequence[str] | str | None) -> Choice:
    """Return the providers to use.

    Parameters
    ----------
    providers : sequence of str, optional
        Short names ("cuda") or ONNX Runtime's own.  By default CUDA where this build has it, else the CPU.

    Raises
    ------
    ProviderError
        A name is unknown or not in this build.
    """
    have = available()
    if providers is None:
        return Choice(tuple(name for name in DEFAULT if name in have), explicit=False)
    given = [providers] if isinstance(providers, str) else list(providers)
    names = tuple(SHORT.get(name, name) if isinstance(name, str) else repr(name) for name in given)
    if not names:
        raise ProviderError(f"The list of providers is empty. Name some of: {', '.join(have)}.")
    for name in names:
        if name not in NAMES:
            raise ProviderError(f"There is no provider {name!r}.{did_you_mean(name, NAMES)} Known: {', '.join(NAMES)}.")
        if name not in have:
            raise ProviderError(
                f"Provider {name!r} is not in this onnxruntime {ort.__version__} (it has: {', '.join(have)}). "
                f"{INSTALL.get(name, f'Install a build of ONNX Runtime with {NAMES[name]}')}, "
                "or take the CPU: providers=['cpu'], --provider cpu."
            )
    return Choice(names, explicit=True)


def open_session(
    model: Path | bytes, choice: Choice, threads: int = 0, name: str = "", *, optimise: bool = True
) -> tuple[Session, str]:
    """Return a session on the first provider that starts, and that provider's name.

    Parameters
    ----------
    model : Path or bytes
        Opened by path, ONNX Runtime maps the external weights instead of copying them.
    choice : Choice
    threads : int, default 0
        Threads of one operator on the CPU; 0 is one per core.
    name : str, optional
        How messages name the model; by default its path.
    optimise : bool, default True
        Prepare the graph to run fast, which takes a while.

    Raises
    ------
    ProviderError
        The first provider did not start, and no other was allowed by name.
    BundleError
        ONNX Runtime refused the graph.
    """
    if set(CUDA_FAMILY) & set(choice.names) and hasattr(ort, "preload_dlls"):  # NVIDIA's wheels for Jetson lack it
        ort.preload_dlls()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Each session has its own pool; spinning threads of idle sessions would take the cores from the one at work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = [(NAMES[name], _PROVIDER_OPTIONS.get(name, {})) for name in choice.names]
    # With a provider to fall back to, ONNX Runtime prints some failures to stdout and tries again.
    quiet = {"enable_fallback": 0} if choice.names == ("cpu",) else {}
    try:
        source = str(model) if isinstance(model, Path) else model
        session = ort.InferenceSession(source, options, providers=wanted, **quiet)
    except Exception as error:  # ONNX Runtime's exceptions have no common public base
        # The message is written with the model's name, and may be kept where a passing folder means nothing.
        told = str(error).replace(f"{model.parent}/", "") if isinstance(model, Path) else str(error)
        raise _refusal(name or str(model), choice, RuntimeError(told)) from error
    running = SHORT.get(session.get_providers()[0], session.get_providers()[0])
    if running != choice.names[0]:
        _report_fallback(choice, running)
    return session, running


def metadata(path: Path) -> dict[str, str]:
    """Return the entries of a model's metadata, without preparing it to run.

    Raises
    ------
    BundleError
        ONNX Runtime cannot open the file.
    """
    session, _ = open_session(path, Choice(("cpu",), explicit=True), optimise=False)
    return dict(session.get_modelmeta().custom_metadata_map)


def _refusal(name: str, choice: Choice, error: Exception) -> Exception:
    text = one_line(error)
    if choice.names[0] != "cpu" and "ExecutionProvider" in text:
        return ProviderError(f"Provider {choice.names[0]!r} did not start: {text}. {INSTALL.get(choice.names[0], '')}")
    return BundleError(f"{runtime()} cannot open {name}: {text} Update ONNX Runtime, or export the model again.")


def _report_fallback(choice: Choice, running: str) -> None:
    """Refuse a fallback that was not asked for; warn of one that was allowed."""
    wanted = choice.names[0]
    message = f"Provider {wanted!r} is installed but did not start; ONNX Runtime fell back to {running!r}."
    if choice.explicit and running not in choice.names:
        advice = f"Check the driver and the CUDA libraries, or allow the fallback: providers=['{wanted}', '{running}']."
        raise ProviderError(f"{message} {advice}")
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether ONNX Runtime failed because the device's memory is full."""
    text = str(error).lower()
    return any(sign in text for sign in ("failed to allocate memory", "out of memory", "bad allocation", "bad_alloc"))


def telemetry() -> str:
    """Say whether ONNX Runtime may report usage: it reads the variable once, when it is imported."""
    if os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
        return "on, as ORT_DISABLE_TELEMETRY is not 1"
    if ONNXRUNTIME_CAME_FIRST:
        return "unknown, as onnxruntime was imported before camrt; import camrt first"
    return "off"


def runtime() -> str:
    """Return the runtime's name and version, for messages."""
    return f"ONNX Runtime {ort.__version__}"


def versions() -> dict[str, str]:
    """Return the versions that a result reports."""
    return {"camrt": __version__, "onnxruntime": ort.__version__}
