"""The bundle: a folder with bundle.json, the graphs and their weights, verified before a session is opened."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from camrt.cache import Cache
from camrt.errors import BundleError, did_you_mean
from camrt.files import MAX_TEXT, read_regular
from camrt.manifest import MANIFEST, WEIGHTS, Manifest

BUILT_IN = (Path(__file__).parent / "models", Path(__file__).parent.parent / "models")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle folder."""

    folder: Path
    manifest: Manifest
    sha256: str = field(repr=False)
    cache: Cache = field(repr=False, compare=False)

    def path(self, graph: str) -> Path:
        """Return the path of a graph, "head", "tail", "gradient" or "score"."""
        return self.folder / f"{graph}.onnx"

    def check_unchanged(self, graph: str) -> None:
        """Verify a graph again before it is opened later than the others.

        Raises
        ------
        BundleError
            The bundle was replaced or damaged since it was opened.
        """
        if hashlib.sha256(_read_manifest(self.folder)).hexdigest() != self.sha256:
            raise BundleError(f"{self.folder} was replaced since it was loaded. Load it again.")
        for name in (f"{graph}.onnx", WEIGHTS):
            _verify_file(self.folder, name, self.manifest.files[name], self.cache)
        self.cache.save()

    @property
    def weights_size(self) -> int:
        """Return the bytes of all weights."""
        return sum(weight.length for weight in self.manifest.weights)


def open_bundle(location: str | Path, *, cache: bool = False) -> Bundle:
    """Return the bundle at a folder, or the built-in one of that name, verified.

    Parameters
    ----------
    location : path or name
    cache : bool
        Keep what was worked out about the bundle beside it; see `camrt.cache`.

    Raises
    ------
    BundleError
        There is none, or anything in it is not what bundle.json says.
    """
    folder = find_bundle(location)
    data = _read_manifest(folder)
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{folder / MANIFEST} is not JSON ({error}). Export the model again.") from None
    manifest = Manifest.from_json(values, str(folder / MANIFEST))
    kept = Cache(folder, enabled=cache)
    for name, expected in manifest.files.items():
        _verify_file(folder, name, expected, kept)
    _verify_weights(folder, manifest)
    kept.save()
    return Bundle(folder, manifest, hashlib.sha256(data).hexdigest(), kept)


def find_bundle(location: str | Path) -> Path:
    """Return the folder of a bundle given by path or by the name of a built-in one."""
    try:
        return _find(Path(location))
    except OSError as error:
        raise BundleError(f"{str(location)[:200]}: cannot be read ({error.strerror}).") from None


def _find(path: Path) -> Path:
    if (path / MANIFEST).is_file():
        return path
    for models in BUILT_IN:
        if len(path.parts) == 1 and (models / path / MANIFEST).is_file():
            return models / path
    if path.is_file():
        advice = "Name its folder."
        if path.suffix == ".onnx":
            advice = f"Export it first: camrt export {path} -o bundle; a file of camrt compile needs only ONNX Runtime to run."
        raise BundleError(f"{path} is a file, a bundle is a folder with {MANIFEST}. {advice}")
    if path.is_dir():
        raise BundleError(f"{path} has no {MANIFEST}, so it is no bundle. Make one with camrt export MODEL -o {path}.")
    names = sorted({p.parent.name for models in BUILT_IN for p in models.glob(f"*/{MANIFEST}")})
    raise BundleError(
        f"There is no bundle {str(path)!r}.{did_you_mean(str(path), names)} "
        f"Give a folder that camrt export wrote, or a built-in bundle: {', '.join(names) or 'none is installed'}."
    )


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    try:
        return read_regular(path, MAX_TEXT)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}).") from None


def _verify_file(folder: Path, name: str, expected: str, cache: Cache) -> None:
    path = folder / name
    try:
        found = cache.sha256(path, expected)
    except FileNotFoundError:
        raise BundleError(f"{folder} lacks {name}, which {MANIFEST} lists. Copy the whole folder again.") from None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}).") from None
    if found != expected:
        raise BundleError(
            f"{path} is not the file that {MANIFEST} describes: SHA-256 {found[:12]}…, expected {expected[:12]}…. "
            "It was changed or cut short; copy or export the bundle again."
        )


def _verify_weights(folder: Path, manifest: Manifest) -> None:
    size = (folder / WEIGHTS).stat().st_size
    for weight in manifest.weights:
        if weight.offset + weight.length > size:
            raise BundleError(f"{folder / MANIFEST}: weight {weight.name!r} ends beyond {WEIGHTS} ({size} bytes).")
