"""What a compiled file says of itself: entries of its ONNX metadata, text or JSON, under names that start with "camrt."."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from camrt.errors import BundleError
from camrt.session import metadata

MASKED_BATCH = 64  # masked images in one turn of a compiled file's loop

PREFIX = "camrt."
ENTRIES: dict[str, type] = {
    "version": str,
    "bundle": str,
    "bundle_sha256": str,
    "source": str,
    "source_sha256": str,
    "layer": str,
    "method": str,
    "citation": str,
    "parameters": dict,
    "input": str,
    "require_target": bool,
    "max_masked_batch": int,
    "output_kind": str,
    "outcomes": list,
    "labels": str,  # one a line, for hosts that read no JSON
    "preprocess": dict,
    "agreement": dict,
    "verdict": str,
}


def write_entries(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata of a file; there must be a fact for every entry."""
    assert facts.keys() == ENTRIES.keys(), facts.keys() ^ ENTRIES.keys()
    return {
        PREFIX + name: facts[name] if kind is str else json.dumps(facts[name], ensure_ascii=False)
        for name, kind in ENTRIES.items()
    }


def read_entries(path: Path) -> dict[str, Any] | None:
    """Return what a file says of itself; None for a model that camrt did not compile.

    Raises
    ------
    BundleError
        ONNX Runtime cannot open the file, or an entry is missing or not what it must be.
    """
    found = metadata(path)
    if not any(name.startswith(PREFIX) for name in found):
        return None
    return {name: _read(path, name, kind, found.get(PREFIX + name)) for name, kind in ENTRIES.items()}


def _read(path: Path, name: str, kind: type, text: str | None) -> Any:
    try:
        value = text if kind is str else json.loads(text or "")
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise BundleError(f"{path}: the entry {PREFIX}{name} of its metadata is damaged or missing. Compile it again.")
    return value
