"""The result of one explanation: heatmaps per target, what really ran, and how to look at it."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from camrt.errors import ExplanationError, ParameterError
from camrt.files import write_together
from camrt.heatmap import Outcome, heatmap
from camrt.image import Geometry, restore
from camrt.manifest import first_name
from camrt.photo import Photo
from camrt.placement import Placement
from camrt.render import encode_png, overlay

MAX_NAME = 80  # bytes of a part of a file name; file systems allow 255 for all of it


@dataclass(frozen=True)
class Category:
    """A class of the network.

    Attributes
    ----------
    index : int
    label : str
    """

    index: int
    label: str

    @property
    def name(self) -> str:
        """Return the first of the label's comma-separated names."""
        return first_name(self.label) or str(self.index)


@dataclass(frozen=True)
class Target(Category):
    """One class that was explained.

    Attributes
    ----------
    index : int
    label : str
    probability : float
        p of the class on the whole image; NaN where the network gave none.
    outcome : Outcome
    versus : Category or None
        The class against which it was explained.
    """

    probability: float
    outcome: Outcome
    versus: Category | None = None

    @property
    def title(self) -> str:
        """Return the name, and that of the class against which it was explained."""
        return self.name if self.versus is None else f"{self.name} versus {self.versus.name}"


@dataclass(frozen=True)
class Run:
    """What really ran.

    Attributes
    ----------
    method : str
    parameters : mapping
        All of the method's, with their values.
    passes : int
        Forward passes this image took.  The black baseline's own pass runs once per explainer and is not among them.
    tail_passes, backward_passes : int
        Passes of the tail on edited features, and gradients of the tail.
    masked_batch : int
        Most masked images that shared a call; 0 where there were none.
    timings : mapping of str to float
        Milliseconds per stage; a stage that several images shared counts in equal parts.
    provider : str
    versions : mapping of str to str
    bundle : str
        Its name, and
    bundle_sha256 : str
        the SHA-256 of its bundle.json.
    placement : mapping of str to Placement or None
        Where a provider other than the CPU runs: for each graph that was opened so far, how many nodes it took and which
        operators it left to the CPU; None where this ONNX Runtime does not tell.  Empty on the CPU.
    """

    method: str
    parameters: Mapping[str, Any]
    passes: int
    tail_passes: int
    backward_passes: int
    masked_batch: int
    timings: Mapping[str, float]
    provider: str
    versions: Mapping[str, str]
    bundle: str
    bundle_sha256: str
    placement: Mapping[str, Placement | None] = field(default_factory=dict)

    @property
    def cost(self) -> str:
        """Say what an image cost: "1 pass + 1 backward, 4.1 ms"."""
        ms = self.timings["total"]
        return f"{counted(self.passes, self.tail_passes, self.backward_passes)}, {ms:.{0 if ms >= 10 else 1}f} ms"


def counted(passes: int, tail_passes: int, backward_passes: int) -> str:
    """Say what ran for an image.

    >>> counted(1, 49, 0)
    '1 pass + 49 of the tail'
    """
    parts = [f"{passes} pass{'es' * (passes != 1)}"]
    parts += [f"{tail_passes} of the tail"] * bool(tail_passes) + [f"{backward_passes} backward"] * bool(backward_passes)
    return " + ".join(parts)


@dataclass(frozen=True)
class Explanation:
    """Where the network looked, for every target.

    Attributes
    ----------
    photo : Photo
    targets : tuple of Target, length T
    maps : ndarray of shape (T, h, w), float32
        Signed maps at feature resolution.
    geometry : Geometry
        Where the network's window lies on the photo.
    notes : tuple of str
        What happened on the way: "fewer_clusters", "empty_cluster_reseeded", "chunk_halved", "provider_fallback".
    run : Run
        What really ran.
    logits : ndarray of shape (L,), float32
        The network's output for the whole image; `camrt info` tells whether it is logits, probabilities or scores.
    """

    photo: Photo
    targets: tuple[Target, ...]
    maps: np.ndarray
    geometry: Geometry
    notes: tuple[str, ...]
    run: Run
    logits: np.ndarray

    def __repr__(self) -> str:
        named = ", ".join(f"{t.title} {t.probability:.2f}" for t in self.targets)
        return f"Explanation({self.photo.name!r}: {named}; {self.run.method}, maps {self.maps.shape})"

    @property
    def network_heatmap(self) -> np.ndarray:
        """The heatmaps over the network's input: (T, H, W), float32 in [0, 1]."""
        return heatmap(self.maps, self.geometry.network)

    @property
    def heatmap(self) -> np.ndarray:
        """The heatmaps on the photo: (T, H0, W0), float32 in [0, 1]; 0 where the network did not look.

        Computed on every access.
        """
        return np.stack([self._on_photo(i) for i in range(len(self.targets))])

    def _on_photo(self, i: int) -> np.ndarray:
        return restore(heatmap(self.maps[i], self.geometry.network), self.geometry)

    def overlay(self, target: int = 0, *, alpha: float = 0.5, colormap: str = "turbo") -> np.ndarray:
        """Return the photo with one target's heatmap over it, (H0, W0, 3) uint8 RGB.

        Parameters
        ----------
        target : int, default 0
            Position among `targets`.
        alpha : float in [0, 1], default 0.5
            Weight of the heatmap's colours.
        colormap : {"turbo", "inferno", "viridis", "jet"}
        """
        if not 0 <= target < len(self.targets):
            raise ParameterError(f"overlay: this explanation has targets 0…{len(self.targets) - 1}, got {target}.")
        seen = self.geometry.seen()
        return overlay(self.photo.pixels, self._on_photo(target), seen, alpha=alpha, colormap=colormap)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the pixels, as explanation.json has it."""
        where = self.geometry
        return {
            "image": self.photo.source or self.photo.name,
            "width": where.photo[1],
            "height": where.photo[0],
            "targets": [
                {
                    "index": t.index,
                    "label": t.label,
                    "probability": t.probability if math.isfinite(t.probability) else None,
                    "outcome": t.outcome.word,
                    "versus": t.versus and {"index": t.versus.index, "label": t.versus.label},
                }
                for t in self.targets
            ],
            "notes": list(self.notes),
            "method": self.run.method,
            "parameters": dict(self.run.parameters),
            "passes": self.run.passes,
            "tail_passes": self.run.tail_passes,
            "backward_passes": self.run.backward_passes,
            "masked_batch": self.run.masked_batch,
            "milliseconds": {stage: round(ms, 3) for stage, ms in self.run.timings.items()},
            "provider": self.run.provider,
            "placement": {graph: placement and placement.to_json() for graph, placement in self.run.placement.items()},
            "versions": dict(self.run.versions),
            "bundle": {"name": self.run.bundle, "sha256": self.run.bundle_sha256},
            "geometry": {
                "resized": list(where.resized), "top": where.top, "left": where.left, "network": list(where.network)
            },
        }  # fmt: skip

    def save(self, folder: str | Path, name: str | None = None, *, alpha: float = 0.5, colormap: str = "turbo") -> list[Path]:
        """Write the overlays, the heatmaps and explanation.json; nothing is replaced before all of them are written.

        Parameters
        ----------
        folder : path
            Made where it is missing; files of the same names are replaced.
        name : str, optional
            What the files' names start with; by default the photo's name.

        Returns
        -------
        list of Path
            NAME.TARGET.png for every target, NAME.npy (T, H0, W0) float32, NAME.explanation.json.

        Raises
        ------
        ExplanationError
            The folder cannot be written to.
        ParameterError
            `alpha` or `colormap` is not allowed.
        """
        stem = slug(name or self.photo.name)
        array = io.BytesIO()
        heatmaps, seen = self.heatmap, self.geometry.seen()
        np.save(array, heatmaps)
        overlays = [f"{stem}.{file_name}.png" for file_name in self._target_file_names()]
        contents = {
            file_name: encode_png(overlay(self.photo.pixels, one, seen, alpha=alpha, colormap=colormap))
            for file_name, one in zip(overlays, heatmaps, strict=True)
        }
        contents[f"{stem}.npy"] = array.getvalue()
        described = self.to_json() | {"files": {"overlays": overlays, "heatmap": f"{stem}.npy"}}
        text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
        contents[f"{stem}.explanation.json"] = text.encode(errors="replace")  # a file name may hold bytes that are no text
        try:
            return write_together(Path(folder), contents)
        except OSError as error:
            raise ExplanationError(
                f"{folder}: the explanation of {stem!r} cannot be written ({error.strerror or error}); nothing was changed."
            ) from None

    def _target_file_names(self) -> list[str]:
        """Return a file name for every target, all different."""
        names = [slug(t.title) for t in self.targets]
        taken: list[str] = []
        for name, target in zip(names, self.targets, strict=True):
            taken.append(unused(name if names.count(name) == 1 else f"{name}-{target.index}", taken))
        return taken


def unused(name: str, taken: Collection[str]) -> str:
    """Return the name, with a number behind it where it is taken.

    >>> unused("photo", ["photo", "photo.2"])
    'photo.3'
    """
    numbered = (f"{name}.{n}" for n in itertools.count(2))
    return next(candidate for candidate in itertools.chain([name], numbered) if candidate not in taken)


def slug(text: str) -> str:
    """Return text as a part of a file name: letters, digits, dots, dashes; everything else becomes an underscore.

    >>> slug("great white shark")
    'great_white_shark'
    """
    safe = re.sub(r"[^\w.-]+", "_", text).strip("._")
    return safe.encode()[:MAX_NAME].decode(errors="ignore") or "image"
