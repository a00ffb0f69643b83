"""The folder that a bundle is written to: what may be replaced, and how."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from camrt.errors import ExportError
from camrt.files import MAX_TEXT, read_regular
from camrt.manifest import FILES, FORMAT, MANIFEST


def check_target(target: Path, force: bool) -> None:
    """Refuse to replace what is no bundle, and a bundle that was not asked to be replaced."""
    try:
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return
        others = (
            sorted({path.name for path in target.iterdir()} - {MANIFEST, *FILES}) if target.is_dir() else ["a file's content"]
        )
    except OSError as error:
        raise ExportError(f"{target}: cannot be looked at ({error.strerror}). Choose another folder with -o.") from None
    if others or not _is_manifest(target / MANIFEST):
        what = f"it holds {others[0]!r}" if others else f"it holds no {MANIFEST} of camrt's"
        raise ExportError(f"{target} exists and is no bundle; it is not replaced, as {what}. Choose another folder with -o.")
    if not force:
        raise ExportError(f"{target} exists. Choose another folder with -o, or replace it with --force.")


def _is_manifest(path: Path) -> bool:
    try:
        values = json.loads(read_regular(path, MAX_TEXT))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("format") == FORMAT


def move_into_place(beside: Path, target: Path) -> None:
    """Rename the finished folder; an existing bundle is moved away first and removed last."""
    old = target.parent / f"{beside.name}.old"
    if (target / MANIFEST).exists():
        target.rename(old)
    try:
        beside.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
