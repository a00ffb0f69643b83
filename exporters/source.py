"""Read what a bundle is made from: an ONNX file, or a PyTorch module that is exported to ONNX once."""

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
from exporters.proof import Reference

MAX_ONNX = (2 << 30) - 1  # bytes; protobuf's own limit, larger models keep their weights beside the file


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
    """Return the model behind a path to an .onnx file, "package.module:factory", or an nn.Module.

    Raises
    ------
    ExportError
        It is missing, damaged, or not a model.
    """
    if isinstance(source, Path) or (isinstance(source, str) and not _is_factory(source)):
        if weights is not None:
            raise ExportError("--weights goes with a PyTorch factory, package.module:factory; an .onnx file has its own.")
        return _read_onnx(Path(source))
    from exporters.pytorch import read_module  # the one road that needs torch

    return read_module(source, weights, size)


def _is_factory(source: str) -> bool:
    module, _, factory = source.partition(":")
    return factory.isidentifier() and all(part.isidentifier() for part in module.split(".")) and not os.path.exists(source)


def _read_onnx(path: Path) -> SourceModel:
    try:
        data = read_regular(path, MAX_ONNX)
    except IsADirectoryError:
        raise ExportError(f"{path} is a folder. Name the .onnx file in it.") from None
    except FileNotFoundError:
        raise ExportError(f"{path}: there is no such file. Give an .onnx file or package.module:factory.") from None
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror}).") from None
    if path.suffix in (".pt", ".pth", ".safetensors"):
        raise ExportError(f"{path} holds weights, not a model. Give its factory: package.module:factory --weights {path}")
    try:
        model = onnx.load_model_from_string(data)
        if not model.graph.node:
            raise ExportError(f"{path} is no ONNX model: it has no operators ({len(data)} bytes).")
        onnx.load_external_data_for_model(model, str(path.parent))
    except ExportError:
        raise
    except Exception as error:  # protobuf and onnx raise several types of their own
        raise ExportError(f"{path} is no readable ONNX model, or cut short ({len(data)} bytes): {one_line(error)}.") from None
    return SourceModel(model, str(path), path.name, hashlib.sha256(data).hexdigest())
