"""Sample photos, for a page to start with."""

from __future__ import annotations

from pathlib import Path

from camrt.bundle import BUILT_IN

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
MOST = 12


def find_samples(folder: Path | None) -> dict[str, Path]:
    """Return at most a dozen photos of a folder by name; by default those of the built-in bundle."""
    folder = folder or next((f / "shapes" / "samples" for f in BUILT_IN if (f / "shapes" / "samples").is_dir()), None)
    found = sorted(f for f in folder.iterdir() if f.suffix.lower() in ENDINGS and f.is_file()) if folder else []
    return {f.stem: f for f in found[:MOST]}
