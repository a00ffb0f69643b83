"""Cascading randomisation: a bundle whose last layers have lost what they learned.

A heatmap that stays the same then does not show what the network learned (Adebayo et al., Sanity Checks for Saliency Maps,
NeurIPS 2018, arXiv 1810.03292).  Every tensor keeps its values and loses their order, so that the network's numbers stay in
range and int8 weights and float16 alike can be randomised.  Only weights.bin is changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from camrt.bundle import Bundle
from camrt.errors import BundleError, ParameterError, one_line
from camrt.files import read_regular, write_together
from camrt.manifest import DTYPES, MANIFEST, WEIGHTS, Manifest, Weight


@dataclass(frozen=True)
class Span:
    """Bytes of weights.bin that are permuted as one.

    Attributes
    ----------
    name : str
        Of the first tensor that begins there.
    start, stop : int
    item : int
        Bytes of an element.
    depth : int
        That of the first layer that reads them, which decides: a layer that the cascade has not reached stays whole.
    """

    name: str
    start: int
    stop: int
    item: int
    depth: int

    def with_overlapping(self, weight: Weight) -> Span:
        """Return the span that holds another tensor's bytes too."""
        if DTYPES[weight.dtype] != self.item or (weight.offset - self.start) % self.item:
            raise BundleError(
                f"Weights {self.name!r} and {weight.name!r} share bytes of {WEIGHTS} but not the size of their elements, so "
                "they cannot be permuted. Export the model again."
            )
        stop = max(self.stop, weight.offset + weight.length)
        return replace(self, stop=stop, depth=min(self.depth, weight.depth))


def randomised(bundle: Bundle, folder: Path, depth: int, seed: int = 0) -> Path:
    """Write a copy of a bundle in which the weights from a depth on are permuted.

    Parameters
    ----------
    bundle : Bundle
    folder : Path
        Of the copy; new or empty.
    depth : int
        Tensors of this depth and deeper are permuted, each by itself; beyond the last, none is.  See `depths`.
    seed : int, default 0
        With a tensor's name it decides its permutation, so that a deeper cut's permutations are among those of an earlier
        one: the cascade goes on where it was.

    Returns
    -------
    Path
        The folder, which `camrt.load` takes; its bundle.json names depth and seed after the bundle's own name.

    Raises
    ------
    ParameterError
        The folder is not empty.
    BundleError
        The bundle was changed since it was opened, or the folder cannot be written to.
    """
    folder = Path(folder)
    manifest = bundle.manifest
    try:
        if folder.exists() and any(folder.iterdir()):
            raise ParameterError(f"{folder} is not empty, and nothing is overwritten. Give the copy a folder of its own.")
        contents = {name: _verified(bundle, name) for name in manifest.files}
        contents[WEIGHTS] = permuted(contents[WEIGHTS], manifest.weights, depth, seed)
        files = {**manifest.files, WEIGHTS: hashlib.sha256(contents[WEIGHTS]).hexdigest()}
        copy = replace(manifest, files=files, name=f"{manifest.name}, randomised from depth {depth} on, seed {seed}")
        contents[MANIFEST] = (json.dumps(copy.to_json(), indent=1, ensure_ascii=False) + "\n").encode()
        write_together(folder, contents)
    except OSError as error:
        raise BundleError(f"{folder}: the randomised copy cannot be made ({one_line(error)}).") from None
    return folder


def _verified(bundle: Bundle, name: str) -> bytes:
    """Return a file of the bundle as it was when the bundle was opened."""
    path = bundle.folder / name
    data = read_regular(path, path.stat().st_size)
    if hashlib.sha256(data).hexdigest() != bundle.manifest.files[name]:
        raise BundleError(f"{path} was changed since the bundle was opened. Open it again.")
    return data


def permuted(data: bytes, weights: Iterable[Weight], depth: int, seed: int) -> bytes:
    """Return the content of weights.bin with the tensors from a depth on permuted."""
    found = np.frombuffer(data, np.uint8).copy()
    for span in _spans(weights):
        if span.depth >= depth:
            _generator(span.name, seed).shuffle(found[span.start : span.stop].view(f"u{span.item}"))
    return found.tobytes()


def _generator(name: str, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])


def depths(manifest: Manifest, stages: int) -> list[int]:
    """Return at most so many depths at which to cut, from the last layer to the first, evenly spread over the layers.

    Parameters
    ----------
    manifest : Manifest
    stages : int
        At least 1; fewer layers than that give fewer depths.

    Raises
    ------
    ParameterError
        `stages` is below 1.
    """
    if stages < 1:
        raise ParameterError(f"stages must be 1 or more, got {stages}. Each one is a bundle to write and to measure.")
    every = sorted({span.depth for span in _spans(manifest.weights)}, reverse=True)
    chosen = np.rint(np.linspace(0, len(every) - 1, min(stages, len(every)))).astype(int)
    return [every[i] for i in chosen]


def _spans(weights: Iterable[Weight]) -> list[Span]:
    """Return what can be permuted: tensors of more than one element, those that share bytes as one."""
    spans: list[Span] = []
    for weight in sorted(weights, key=lambda w: (w.offset, -w.length, w.name)):
        if spans and weight.offset < spans[-1].stop and weight.length:
            spans[-1] = spans[-1].with_overlapping(weight)
        elif weight.length:
            stop = weight.offset + weight.length
            spans.append(Span(weight.name, weight.offset, stop, DTYPES[weight.dtype], weight.depth))
    return [span for span in spans if span.stop - span.start > span.item]
