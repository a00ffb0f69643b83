"""Export a PyTorch module to ONNX; the only module that imports torch."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from camrt.errors import ExportError, one_line
from exporters.proof import Reference
from exporters.source import SourceModel

try:
    import torch
except ImportError as missing:
    raise ExportError("Exporting from PyTorch needs PyTorch: pip install torch onnxscript safetensors") from missing

OPSET = 18
DEFAULT_SIZE = (224, 224)


def read_module(source: Any, weights: str | Path | None, size: tuple[int, int] | None) -> SourceModel:
    """Return the ONNX model of an nn.Module, or of the one that "package.module:factory" returns.

    Raises
    ------
    ExportError
        The factory or the weights cannot be read, or torch cannot export the module.
    """
    module = _make(source) if isinstance(source, str) else source
    if not isinstance(module, torch.nn.Module):
        raise ExportError(f"{source!r} gave {type(module).__name__}, not an nn.Module.")
    if weights is not None:
        _load_weights(module, Path(weights))
    if module.training and not isinstance(source, str):
        warnings.warn("The module is in training mode; it is exported in eval mode.", UserWarning, stacklevel=5)
    name = source if isinstance(source, str) else type(module).__name__
    with _evaluating(module):
        model = _export(module, name, size or DEFAULT_SIZE)
        one_output = isinstance(module(_example(module, size or DEFAULT_SIZE)), torch.Tensor)
    return SourceModel(model, name, name, _digest(module), _reference(module) if one_output else None)


def _make(factory: str) -> Any:
    module_name, _, attribute = factory.partition(":")
    doing, advice = "importing it", " Run from the folder that holds it, or set PYTHONPATH."
    sys.path.insert(0, "")
    try:
        make = getattr(importlib.import_module(module_name), attribute)
        doing, advice = "calling it without arguments", ""
        return make()
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        kind = type(error).__name__
        raise ExportError(f"{factory}: {doing} failed ({kind}: {one_line(error)}).{advice}") from error
    finally:
        sys.path.remove("")


def _load_weights(module: torch.nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise ExportError("Reading .safetensors needs its package: pip install safetensors") from None
    except Exception as error:  # torch, pickle and safetensors raise several types of their own
        raise ExportError(
            f"{path}: no readable state dict ({one_line(error)}). Save one with torch.save(model.state_dict(), …)."
        ) from None
    if not isinstance(state, Mapping):
        raise ExportError(f"{path} holds {type(state).__name__}, not a state dict. Save model.state_dict().")
    try:
        module.load_state_dict(dict(state))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ExportError(f"{path} does not fit {type(module).__name__}: {one_line(error)}") from None


def _export(module: torch.nn.Module, name: str, size: tuple[int, int]) -> Any:
    example = _example(module, size)
    try:
        with _quiet():
            program = torch.onnx.export(module, (example,), dynamo=True, opset_version=OPSET, verbose=False)
        return program.model_proto
    except ImportError as error:
        raise ExportError(f"Exporting from PyTorch needs onnxscript: pip install onnxscript ({error}).") from None
    except Exception as error:  # torch.export raises whatever the module's own code does
        cause: BaseException = error
        while cause.__cause__ is not None:  # torch wraps what went wrong in a report of its own steps
            cause = cause.__cause__
        raise ExportError(
            f"torch cannot export {name} for an image of {' x '.join(map(str, example.shape))} (--size): {one_line(cause)} "
            "Check that the module takes such an image."
        ) from error


def _example(module: torch.nn.Module, size: tuple[int, int]) -> torch.Tensor:
    """Return a black image with as many channels as the first convolution takes."""
    first = next((part for part in module.modules() if isinstance(part, torch.nn.Conv2d)), None)
    return torch.zeros(1, 3 if first is None else first.in_channels, *size)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's progress, warnings and log lines to itself; an error still carries its own text."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Keep a module in eval mode without gradients inside, and leave every part of it in the mode it was in."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training


def _reference(module: torch.nn.Module) -> Reference:
    def run(x: np.ndarray) -> np.ndarray:
        with _evaluating(module):
            return np.asarray(module(torch.from_numpy(x)).reshape(len(x), -1).numpy())

    return run


def _digest(module: torch.nn.Module) -> str:
    """Return the SHA-256 of the state dict: names and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
