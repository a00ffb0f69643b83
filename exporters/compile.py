"""Compile a bundle: the whole explanation becomes one ONNX file, proved against the Python runtime before it appears."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from camrt.bundle import Bundle, open_bundle
from camrt.compiled import MASKED_BATCH
from camrt.engine import Engine, check_count
from camrt.errors import ExportError, ParameterError, did_you_mean
from camrt.explainer import DEFAULT_METHOD, Explainer
from camrt.files import write_together
from camrt.manifest import WEIGHTS, Manifest
from camrt.methods import get_method
from camrt.photo import ImageSource, load_photo
from camrt.question import check_gradients
from exporters.fusion.graph import INPUTS, drop_labels, fuse, write_metadata
from exporters.fusion.methods import fused_passes
from exporters.fusion.proof import QUANTISED, TOLERANCE, Agreement, open_graph, prove
from exporters.graph import operators
from exporters.passes.quantisation import DYNAMIC

LARGEST = (1 << 31) - (1 << 20)  # bytes; a protobuf message holds 2 GiB
ROUNDING = {"QuantizeLinear", *DYNAMIC}  # where the last bit of a float may move a value by a step


@dataclass(frozen=True)
class Built:
    """A compiled file before it has a place.

    Attributes
    ----------
    data : bytes
        The file.
    manifest : Manifest
        Of the bundle it was made from.
    network_size : int
        Bytes of the network alone: its weights, head and tail.
    method : str
    parameters : dict
        All of the method's.
    pixels : {"float", "uint8"}
        What the input is.
    agreement : Agreement
        How well the file reproduces the Python runtime.
    """

    data: bytes = field(repr=False)
    manifest: Manifest = field(repr=False)
    network_size: int
    method: str
    parameters: dict[str, Any]
    pixels: str
    agreement: Agreement


@dataclass(frozen=True)
class Compiled:
    """What a compilation wrote, and where."""

    path: Path
    built: Built

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.built.data)

    @property
    def growth(self) -> str:
        """Say how much larger than the network the file is: "0.34 %, 47 kB"."""
        more = self.size - self.built.network_size
        return f"{100 * more / self.built.network_size:.2f} %, {more / 1000:.0f} kB"

    def to_json(self) -> dict[str, Any]:
        """Return what was written as JSON has it."""
        return {
            "file": str(self.path),
            "bytes": self.size,
            "network_bytes": self.built.network_size,
            "method": self.built.method,
            "parameters": self.built.parameters,
            "input": self.built.pixels,
            "agreement": self.built.agreement.to_json(),
        }


def compile_bundle(bundle: str | Path, target: str | Path, *, force: bool = False, **options: Any) -> Compiled:
    """Write a bundle's network and its explanation as one ONNX file of standard operators.

    Parameters
    ----------
    bundle : path or name
        A folder that `camrt export` wrote, or the name of a built-in one.
    target : path
        The file to write.  It appears whole or not at all.
    force : bool
        Replace an existing file.
    **options
        As `build` takes them: method and its parameters, pixels, max_masked_batch, require_target, photos, progress.

    Raises
    ------
    ExportError
        The file exists, cannot be written, would be too large, or does not reproduce the Python runtime.
    ParameterError
        The method, or one of its parameters, cannot be one graph.
    MethodUnavailable
        The bundle has no gradients, and the method needs them.
    """
    target = resolve(target)
    check_target(target, force)
    built = build(bundle, **options)
    check_target(target, force)  # again, as that took a while
    write(target.parent, {target.name: built.data})
    return Compiled(target, built)


def build(
    bundle: str | Path,
    *,
    method: str = DEFAULT_METHOD,
    pixels: str = "float",
    max_masked_batch: int = MASKED_BATCH,
    require_target: bool = False,
    photos: Sequence[ImageSource] = (),
    progress: Callable[[str], None] = lambda step: None,
    **parameters: Any,
) -> Built:
    """Compile a bundle, in memory.

    Parameters
    ----------
    bundle : path or name
    method : str, default "cluster-cam"
        One of `exporters.fusion.methods.FUSED`.
    pixels : {"float", "uint8"}
        What the input `image` is: preprocessed, (N, 3, H, W) float32; or RGB pixels at the network's size, (N, H, W, 3)
        uint8, with colour order, scale, mean and std inside.  Resizing stays outside.
    max_masked_batch : int, default 64
        Most masked images at once, more go in chunks; with masking="both" half as many, and beside each the edited features
        that fall to it.  The N images themselves, and their N · T gradients, are one batch.
    require_target : bool
        The input `target` has no default: ONNX Runtime for JavaScript takes no optional inputs.
    photos : sequence of image sources
        To be proved on, besides the fixed set.
    progress : callable, optional
        Called with the name of each step.
    **parameters
        The method's own.

    Raises
    ------
    ExportError, ParameterError, MethodUnavailable
        As `compile_bundle`.
    """
    if pixels not in INPUTS:
        raise ParameterError(f"pixels must be {' or '.join(INPUTS)}, got {pixels!r}.{did_you_mean(str(pixels), INPUTS)}")
    check_count("max_masked_batch", max_masked_batch, 1, 1 << 20)
    chosen = get_method(method)
    settings = chosen.settings(parameters)
    decoded = [load_photo(photo) for photo in photos]
    progress("read")
    opened = open_bundle(bundle)
    _check_size(opened)
    explainer = Explainer(Engine(opened, ["cpu"], max_masked_batch=max_masked_batch))
    max_masked_batch = explainer.engine.max_masked_batch  # 1 where images cannot share a batch
    check_gradients(opened.manifest, chosen)
    progress("fuse")
    black = explainer.engine.black_logits()
    how = {"max_masked_batch": max_masked_batch, "require_target": require_target}
    model = fuse(opened, black, chosen, settings, pixels=pixels, **how)
    passes = fused_passes(chosen.name, settings, opened.manifest.features.shape[1])
    agreement = prove(
        model.SerializeToString(), explainer, chosen, settings, pixels=pixels, photos=decoded, passes=passes,
        tolerance=QUANTISED if operators(model.graph) & ROUNDING else TOLERANCE, progress=progress,
    )  # fmt: skip
    drop_labels(model)
    told = {"agreement": agreement.to_json(), "verdict": agreement.verdict}
    write_metadata(model, opened, chosen, settings, input=pixels, **how, **told)
    progress("write")
    data = model.SerializeToString(deterministic=True)
    open_graph(data)
    return Built(data, opened.manifest, _size_of_network(opened), chosen.name, settings, pixels, agreement)


def _check_size(bundle: Bundle) -> None:
    size = sum(weight.length for weight in bundle.manifest.weights)
    if size > LARGEST:
        raise ExportError(
            f"{bundle.folder}: its weights are {size / 1e9:.2f} GB, larger than the 2 GB that one ONNX file holds. "
            "Explain with the bundle itself."
        )


def write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files, each whole or none.

    Raises
    ------
    ExportError
        The folder cannot be written to.
    """
    try:
        write_together(folder, contents)
    except OSError as error:
        raise ExportError(f"{folder}: cannot be written to ({error.strerror or error}); nothing was changed.") from None


def resolve(target: str | Path) -> Path:
    """Return where a path leads: a link is followed, so that what it names is what is replaced."""
    try:
        return Path(target).resolve()
    except (OSError, RuntimeError) as error:  # links that lead in a circle
        raise ExportError(f"{target}: cannot be looked at ({error}). Choose another place.") from None


def check_target(target: Path, force: bool) -> None:
    """Refuse a file that exists and was not asked to be replaced, or that can be none.

    Raises
    ------
    ExportError
    """
    try:
        parent = next(path for path in target.parents if path.exists())
        exists, folder, regular = target.exists(), target.is_dir(), target.is_file()
    except OSError as error:
        raise ExportError(f"{target}: cannot be looked at ({error.strerror}). Choose another place.") from None
    if folder:
        raise ExportError(f"{target} is a folder. Name the file to write, for instance {target / 'model.explain.onnx'}.")
    if exists and not regular:
        raise ExportError(f"{target} is a pipe or a device, not a file. Choose another name.")
    if exists and not force:
        raise ExportError(f"{target} exists. Choose another name, or replace it with --force.")
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ExportError(f"{target} cannot be written: {parent} is no folder that may be written to. Choose another place.")


def _size_of_network(bundle: Bundle) -> int:
    files = (bundle.path("head"), bundle.path("tail"), bundle.folder / WEIGHTS)
    return sum(path.stat().st_size for path in files)
