"""Weights beside an ONNX file: read into the model, and only from regular files in the model's own folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from onnx import ModelProto, TensorProto

from camrt.errors import ExportError, one_line
from camrt.files import open_regular
from exporters.limits import MAX_BYTES, all_tensors, bytes_of

NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)


def read_external(model: ModelProto, path: Path) -> None:
    """Put the external data of a model into it.

    Raises
    ------
    ExportError
        An entry names no regular file inside the model's folder, more than that holds, or other than the weight's own size.
    """
    total = 0
    for tensor in all_tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        try:
            size = bytes_of(tensor)
        except (KeyError, TypeError, ValueError):
            raise _refusal(path, tensor, f"has the unknown type {tensor.data_type}") from None
        total += max(0, size)
        if min(tensor.dims, default=0) < 0 or total > MAX_BYTES:
            raise _refusal(path, tensor, f"has the shape {list(tensor.dims)}; up to {MAX_BYTES:,} bytes in all are allowed")
        data = _read(path, tensor, size)
        tensor.raw_data = data
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def _read(path: Path, tensor: TensorProto, size: int) -> bytes:
    entries = {str(entry.key): str(entry.value) for entry in tensor.external_data}  # broken UTF-8 is left as bytes
    location = entries.get("location", "")
    where = _inside(path, tensor, location)
    offset = _number(path, tensor, "offset", entries.get("offset", "0"))
    length = _number(path, tensor, "length", entries.get("length", str(size)))
    if length != size:
        raise _refusal(path, tensor, f"has {length:,} bytes beside the file, where its type and shape say {size:,}")
    try:
        with open_regular(where) as file:
            status = os.fstat(file.fileno())
            if status.st_nlink > 1:  # a second name may be that of a file elsewhere
                raise _refusal(path, tensor, f"lies in {location!r}, a file with a second name; copy it")
            if offset + size > status.st_size:
                raise _refusal(path, tensor, f"ends at byte {offset + size:,} of {location!r}, which has {status.st_size:,}")
            file.seek(offset)
            return file.read(size)
    except (OSError, ValueError) as error:
        raise _unreadable(path, tensor, location, error) from None


def _inside(path: Path, tensor: TensorProto, location: str) -> Path:
    """Return the file that a location means, which must lie in the model's folder, links followed."""
    folder = path.parent.resolve()
    try:
        file = (folder / location).resolve()
    except (OSError, ValueError) as error:
        raise _unreadable(path, tensor, location, error) from None
    if not location or location.startswith("/") or not file.is_relative_to(folder):
        raise _refusal(path, tensor, f"lies in {location[:200]!r}, outside of the model's folder")
    return file


def _number(path: Path, tensor: TensorProto, key: str, text: str) -> int:
    if not NUMBER.fullmatch(text):
        raise _refusal(path, tensor, f"has the {key} {text[:40]!r}")
    return int(text)


def _unreadable(path: Path, tensor: TensorProto, location: str, error: Exception) -> ExportError:
    why = getattr(error, "strerror", None) or one_line(error)
    return _refusal(path, tensor, f"lies in {location[:200]!r}, which cannot be read ({why})")


def _refusal(path: Path, tensor: TensorProto, what: str) -> ExportError:
    return ExportError(
        f"{path}: its weight {tensor.name[:200]!r} {what}. Put the files of weights that belong to the model beside it, "
        "as they were made."
    )
