"""Write files whole or not at all: beside their place under another name, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path


def write_together(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write several files into a folder; a failure leaves none of them, and what stood there before.

    Raises
    ------
    OSError
        The folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = f".{secrets.token_hex(4)}.part"
    beside = {name: folder / f".{name}{mark}" for name in contents}
    try:
        for name, data in contents.items():
            with beside[name].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for name, path in beside.items():
            path.replace(folder / name)
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)
    return [folder / name for name in contents]
