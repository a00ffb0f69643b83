"""One session: open a graph on the first provider that starts, and say which one really runs it.

The only module that sets ONNX Runtime's options.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from camrt.errors import BundleError, DeviceMemoryError, ProviderError, one_line
from camrt.libraries import ADVICE, lack_of, preload
from camrt.provider_options import options_of
from camrt.providers import CUDA_FAMILY, NAMES, SHORT, Choice
from camrt.runtime import Session, ort, runtime

RUNNING, ALWAYS, NEVER = SPINNING = ("running", "always", "never")  # when waiting threads spin
FULL = ("failed to allocate memory", "smaller than requested bytes", "out of memory", "bad allocation", "bad_alloc")
MAX_WORDS = 280  # characters of ONNX Runtime's own explanation
_QUIET, _DEFAULT_SEVERITY = 4, 2  # of ONNX Runtime's log: nothing but the end of the process; warnings
_LOG = threading.Lock()


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
        warnings.warn(f"Provider {choice.names[0]!r} {why}; {running!r} runs instead.", RuntimeWarning, stacklevel=7)
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
