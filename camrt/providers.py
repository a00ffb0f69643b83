"""Execution providers: resolve their names, open a session on them, and say which one really runs.

The only module that sets ONNX Runtime's options.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any, TypeAlias

from camrt import ONNXRUNTIME_CAME_FIRST, __version__
from camrt.errors import BundleError, DeviceMemoryError, ParameterError, ProviderError, did_you_mean, one_line
from camrt.libraries import ADVICE, TENSORRT, installed, lack_of, preload
from camrt.provider_options import engine_folder, options_of

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
RUNNING, ALWAYS, NEVER = SPINNING = ("running", "always", "never")  # when waiting threads spin
DEFAULT = ("cuda", "cpu")  # tried in this order, as far as installed
CUDA_FAMILY = ("cuda", "tensorrt")  # features, masks and logits stay in the GPU's memory
MIN_GPU_MEMORY = 1 << 20  # bytes; less is meant in another unit


PACKAGES = {
    "cuda": "'onnxruntime-gpu[cuda,cudnn]'",
    "tensorrt": f"'onnxruntime-gpu[cuda,cudnn]' {TENSORRT}",
    "migraphx": "onnxruntime-migraphx",
    "openvino": "onnxruntime-openvino",
}
FULL = ("failed to allocate memory", "smaller than requested bytes", "out of memory", "bad allocation", "bad_alloc")
MAX_WORDS = 280  # characters of ONNX Runtime's own explanation
_QUIET, _DEFAULT_SEVERITY = 4, 2  # of ONNX Runtime's log: nothing but the end of the process; warnings
_LOG = threading.Lock()


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


def open_session(
    model: Path | bytes,
    choice: Choice,
    threads: int = 0,
    name: str = "",
    *,
    optimise: bool = True,
    keep: Path | None = None,
    spinning: str = RUNNING,
    prepack: bool = True,
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
    keep : Path, optional
        Where to write the prepared graph; its weights go beside it, under a name that no other writing gives them.
    spinning : {"running", "always", "never"}
        When threads that wait for work spin instead of sleeping: while the session runs, for a while after it too, or never.
    prepack : bool, default True
        Copy the weights of linear layers in the order in which the CPU multiplies them.

    Raises
    ------
    ProviderError
        No provider that was asked for by name started.
    DeviceMemoryError
        The device has no memory left for the graph's weights.
    BundleError
        ONNX Runtime refused the graph.
    """
    options = _session_options(choice, threads, optimise, keep, spinning, prepack)
    told, why = name or str(model)[:200], ""
    for names in (choice.names[start:] for start in range(len(choice.names))):
        try:
            session = _open(model, names, choice, options)
        except Exception as error:  # ONNX Runtime's exceptions have no common public base
            if names == ("cpu",):
                raise _refusal(model, told, error) from error
            failure, why = error, why or _why(names[0], told, error)
            continue
        running = SHORT.get(session.get_providers()[0], session.get_providers()[0])
        if running == choice.names[0]:
            return session, running
        why = why or _why(choice.names[0], told)
        if choice.explicit and running not in choice.names:
            raise _not_running(choice, why)
        warnings.warn(f"Provider {choice.names[0]!r} {why}; {running!r} runs instead.", RuntimeWarning, stacklevel=6)
        return session, running
    # Where the graph is at fault, this says so.
    open_session(model, Choice(("cpu",), explicit=True), threads, name, optimise=False)
    if is_out_of_memory(failure):
        raise DeviceMemoryError(
            f"Provider {choice.names[-1]!r} has no memory for {told}: {one_line(failure)} Free device memory, raise "
            "gpu_mem_limit, or take the CPU: providers=['cpu'], --provider cpu."
        ) from failure
    raise _not_running(choice, why) from failure


def _session_options(choice: Choice, threads: int, optimise: bool, keep: Path | None, spinning: str, prepack: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if keep is not None:
        options.optimized_model_filepath = str(keep)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{secrets.token_hex(8)}.bin"
        )
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    # Between operators threads that spin are at once at work again.  But each session has its own, and those that went on
    # spinning after a run would take the cores from the next session and from the K-means.
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning != NEVER)))
    options.add_session_config_entry("session.force_spinning_stop", str(int(spinning == RUNNING)))
    options.add_session_config_entry("session.disable_prepacking", str(int(not prepack)))
    if choice.names != ("cpu",):
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _open(model: Path | bytes, names: Sequence[str], choice: Choice, options: Any) -> Session:
    """Open a session; without a fallback of its own, since ONNX Runtime prints those to stdout."""
    source = str(model) if isinstance(model, Path) else model
    threads = options.intra_op_num_threads
    wanted = [(NAMES[name], options_of(name, threads, choice.gpu_mem_limit, choice.engines)) for name in names]
    if names == ("cpu",):
        return ort.InferenceSession(source, options, providers=wanted, enable_fallback=0)
    if not set(CUDA_FAMILY).isdisjoint(names):
        preload("tensorrt" in names)
    with _quiet():
        return ort.InferenceSession(source, options, providers=wanted, enable_fallback=0)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime from writing to stderr why a provider does not start; that log is the process's, not the session's."""
    with _LOG:
        ort.set_default_logger_severity(_QUIET)
        try:
            yield
        finally:
            ort.set_default_logger_severity(_DEFAULT_SEVERITY)


def _why(provider: str, name: str, error: Exception | None = None) -> str:
    """Say why a provider does not run: what it lacks, or else ONNX Runtime's words, whose end is what matters."""
    if lack := lack_of(provider):
        return f"did not start: {lack}"
    if error is None:
        return "did not start, and ONNX Runtime does not say why"
    words = one_line(error, 1 << 20)
    return f"did not take {name}: {words if len(words) <= MAX_WORDS else '…' + words[-MAX_WORDS:]}"


def _refusal(model: Path | bytes, name: str, error: Exception) -> BundleError:
    # The message is written with the model's name, and may be kept where a passing folder means nothing.
    told = str(error).replace(f"{model.parent}/", "") if isinstance(model, Path) else str(error)
    return BundleError(
        f"{runtime()} cannot open {name}: {one_line(RuntimeError(told))} Update ONNX Runtime, or export the model again."
    )


def _not_running(choice: Choice, why: str) -> ProviderError:
    wanted, *others = choice.names
    neither = f" (nor did {', '.join(others)})" if others else ""
    advice = f"To have it, {ADVICE[wanted]}; or allow" if wanted in ADVICE else "Allow"
    allowed = (*choice.names, "cpu")
    return ProviderError(
        f"Provider {wanted!r} is in this onnxruntime {ort.__version__} but {why}{neither}. {advice} the CPU: "
        f"providers={list(allowed)}, {' '.join(f'--provider {name}' for name in allowed)}."
    )


def metadata(path: Path) -> dict[str, str]:
    """Return the entries of a model's metadata, without preparing it to run.

    Raises
    ------
    BundleError
        ONNX Runtime cannot open the file.
    """
    session, _ = open_session(path, Choice(("cpu",), explicit=True), optimise=False)
    return dict(session.get_modelmeta().custom_metadata_map)


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether ONNX Runtime failed because the device's memory is full, or an arena's limit is reached."""
    text = str(error).lower()
    return any(sign in text for sign in FULL)


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


def build() -> str:
    """Return what tells apart builds of the same version."""
    return str(ort.get_build_info())


def versions() -> dict[str, str]:
    """Return the versions that a result reports."""
    return {"camrt": __version__, "onnxruntime": ort.__version__}
