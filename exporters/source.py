"""Read what a bundle is made from: an ONNX file, or a PyTorch module or program that is exported to ONNX once."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from camrt.errors import ExportError, one_line
from camrt.files import read_regular
from exporters.external import read_external
from exporters.foreign import describe_file, describe_folder
from exporters.limits import MAX_BYTES, check_source
from exporters.proof import Reference
from exporters.torchfile import PROGRAM, TORCHSCRIPT, WEIGHTS, kind_of


@dataclass(frozen=True)
class SourceModel:
    """A model as it was found.

    Attributes
    ----------
    model : ModelProto
        With its external data loaded.
    name : str
        How messages name it.
    file : str
        File name or factory, for the provenance.
    sha256 : str
        Of the file; of the state dict for a module in memory.
    reference : Reference or None
        The original's own forward pass, where there is one beside the ONNX model.
    """

    model: ModelProto
    name: str
    file: str
    sha256: str
    reference: Reference | None = None


def read_source(source: Any, weights: str | Path | None, size: tuple[int, int] | None) -> SourceModel:
    """Return the model behind a path to an .onnx or .pt2 file, "package.module:factory", or an nn.Module.

    Raises
    ------
    ExportError
        It is missing, damaged, or not a model.
    """
    if isinstance(source, Path) or (isinstance(source, str) and not _is_factory(source)):
        if weights is not None:
            raise ExportError("--weights goes with a PyTorch factory, package.module:factory; a file of a model has its own.")
        return _read_file(Path(source))
    from exporters.pytorch import read_module  # the one road that needs torch

    return read_module(source, weights, size)


def _is_factory(source: str) -> bool:
    module, _, factory = source.partition(":")
    return factory.isidentifier() and all(part.isidentifier() for part in module.split(".")) and not os.path.exists(source)


def _read_file(path: Path) -> SourceModel:
    kind = kind_of(path) if path.is_file() else None
    if kind == PROGRAM:
        from exporters.pytorch import read_program

        return read_program(path)
    if kind == TORCHSCRIPT:
        raise ExportError(
            f"{path} is TorchScript, which holds code and is not run. Give the nn.Module it was made from, by "
            "package.module:factory, or the .onnx file that torch.onnx.export makes of it."
        )
    if kind == WEIGHTS:
        raise ExportError(f"{path} holds weights, not a model. Give its factory: package.module:factory --weights {path}")
    return _read_onnx(path)


def _no_model(path: Path, data: bytes, found: str) -> str:
    known = describe_file(path, data)
    return f"{path} {known}." if known else f"{path} {found}. Download or export it again, and check its size."


def _read_onnx(path: Path) -> SourceModel:
    try:
        data = read_regular(path, MAX_BYTES)
    except IsADirectoryError:
        raise ExportError(f"{path} {describe_folder(path)}.") from None
    except FileNotFoundError:
        raise ExportError(f"{path}: there is no such file. Give an .onnx file or package.module:factory.") from None
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror}).") from None
    try:
        model = onnx.load_model_from_string(data)
        if not model.graph.node:
            raise ExportError(_no_model(path, data, f"has no operators ({len(data)} bytes)"))
        read_external(model, path)
    except ExportError:
        raise
    except Exception as error:  # protobuf and onnx raise several types of their own
        what = f"is no readable ONNX model, or cut short ({len(data)} bytes): {one_line(error)}"
        raise ExportError(_no_model(path, data, what)) from None
    check_source(model)
    return SourceModel(model, str(path), path.name, hashlib.sha256(data).hexdigest())
