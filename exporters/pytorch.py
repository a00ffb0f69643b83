"""Export a PyTorch module or a program of torch.export.save to ONNX; the door to all that imports torch."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnx import ModelProto

from camrt.errors import ExportError, did_you_mean, one_line
from camrt.files import sha256_of
from exporters.graph import all_names, rename_tensors, unused
from exporters.source import SourceModel

try:
    import torch

    from exporters.checkpoint import load_weights
    from exporters.forward import evaluating, know_dataclasses, module_reference, program_reference, tensors
    from exporters.program import load_program
except ImportError as missing:
    raise ExportError("Exporting from PyTorch needs PyTorch: pip install torch onnxscript safetensors") from missing

OPSET = 18
DEFAULT_SIZE = (224, 224)
TRAINING = {  # where operators that differ in training have the word for it
    "aten.batch_norm.default": 5, "aten.dropout.default": 2, "aten.feature_dropout.default": 2, "aten.alpha_dropout.default": 2,
}  # fmt: skip


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
    if isinstance(module, torch.jit.ScriptModule):
        raise ExportError(
            f"{type(module).__name__} is TorchScript, which torch cannot export. Give the nn.Module it was made from."
        )
    other = next((part.dtype for part in module.parameters() if part.is_floating_point() and part.dtype != torch.float32), None)
    if other is not None:
        raise ExportError(f"{type(module).__name__} has weights of {other}; a bundle computes in float32. Give model.float().")
    if weights is not None:
        load_weights(module, Path(weights))
    if module.training and not isinstance(source, str):
        warnings.warn("The module is in training mode; it is exported in eval mode.", UserWarning, stacklevel=5)
    name = source if isinstance(source, str) else type(module).__name__
    example = _example(module, size or DEFAULT_SIZE)
    with evaluating(module), _explained(name, example):
        result = module(example)
        know_dataclasses(result)
        model = _export(module, (example,), result)
    reference = module_reference(module, tuple(example.shape)) if len(tensors(result)) == 1 else None
    return SourceModel(model, name, name, _digest(module), reference)


def read_program(path: Path) -> SourceModel:
    """Return the ONNX model of a program that torch.export.save wrote.

    Raises
    ------
    ExportError
        It cannot be read without running something, takes more than an image, or torch cannot export it.
    """
    program = load_program(path)
    _check_mode(program, path)
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(inputs) != 1 or len(inputs[0].meta["val"].shape) != 4:
        found = ", ".join(node.name for node in inputs) or "none"
        raise ExportError(f"{path} must have one input, an image (N, C, H, W); its inputs are: {found}.")
    example = torch.zeros([_size(d) for d in inputs[0].meta["val"].shape])
    with torch.no_grad(), _explained(str(path), example):
        run = program.module()
        result = run(example)
        model = _export(program, (), result)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], example.shape[2:], strict=True):
        dim.dim_value = size
    reference = program_reference(run, len(example)) if len(tensors(result)) == 1 else None
    return SourceModel(model, str(path), path.name, sha256_of(path), reference)


def _make(factory: str) -> Any:
    module_name, _, attribute = factory.partition(":")
    doing, advice = "importing it", f" Run from the folder that holds it, set PYTHONPATH, or install {module_name}."
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
        if not hasattr(module, attribute):
            known = [name for name, value in vars(module).items() if callable(value)]
            advice = f"{did_you_mean(attribute, known)} Name what makes the module."
            raise ExportError(f"{factory}: {module_name} has no {attribute!r}.{advice}")
        doing, advice = "calling it without arguments", ""
        return getattr(module, attribute)()
    except ExportError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        kind = type(error).__name__
        raise ExportError(f"{factory}: {doing} failed ({kind}: {one_line(error)}).{advice}") from error
    finally:
        sys.path.remove("")


def _export(source: Any, example: tuple[torch.Tensor, ...], result: Any) -> ModelProto:
    """Return a module or a program as an ONNX model whose outputs are named as in the result."""
    with _quiet():
        made = torch.onnx.export(source, example, dynamo=True, opset_version=OPSET, verbose=False)
    assert made is not None  # as it is where a file is asked for
    model: ModelProto = made.model_proto
    names, outputs = list(tensors(result)), [value.name for value in model.graph.output]
    if not isinstance(result, torch.Tensor) and len(names) == len(set(outputs)):
        taken = all_names(model.graph) - set(outputs)
        rename_tensors(model, {old: unused(new, taken) for old, new in zip(outputs, names, strict=True)})
    return model


@contextlib.contextmanager
def _explained(name: str, example: torch.Tensor) -> Iterator[None]:
    """Turn whatever the model's code and torch raise into an error of one line."""
    try:
        yield
    except Exception as error:  # torch.export raises whatever the module's own code does
        if isinstance(error, ImportError) and "onnxscript" in str(error):
            raise ExportError(f"Exporting from PyTorch needs onnxscript: pip install onnxscript ({error}).") from None
        cause: BaseException = error
        while cause.__cause__ is not None:  # torch wraps what went wrong in a report of its own steps
            cause = cause.__cause__
        raise ExportError(
            f"torch cannot export {name} for an image of {' x '.join(map(str, example.shape))} (--size): {one_line(cause)} "
            "Check that the module takes such an image."
        ) from error


def _size(dim: int | torch.SymInt) -> int:
    """Return a dimension of a program's image; an open one is as large as in the example that it was exported with."""
    return dim if isinstance(dim, int) else int(dim.node.hint)  # int(dim) would close it


def _check_mode(program: torch.export.ExportedProgram, path: Path) -> None:
    """Refuse a program whose Dropout and BatchNorm are those of training."""
    graphs = (part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule))
    for node in (node for graph in graphs for node in graph.nodes):
        position = TRAINING.get(str(node.target))
        if position is not None and len(node.args) > position and node.args[position] is True:
            raise ExportError(
                f"{path} was exported in training mode ({node.name} is {node.target} of training). Call model.eval() before "
                "torch.export.export; a BatchNorm also needs its running statistics."
            )


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


def _digest(module: torch.nn.Module) -> str:
    """Return the SHA-256 of the state dict: names and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
