"""What computing in float16 changed of a float32 network, as measured when its bundle was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from camrt.table import Table

FLOAT16 = "float16"


@dataclass(frozen=True)
class Difference:
    """How far the heatmaps of one method moved, on the image on which they moved most.

    Attributes
    ----------
    mean : float
        Mean |Δ| over the pixels of a heatmap in [0, 1].
    correlation : float
        Pearson's, over the pixels; 0 where one of both heatmaps came out empty.
    """

    mean: float
    correlation: float


@dataclass(frozen=True)
class Precision:
    """The difference between the bundle in float16 and the float32 network that it was made from.

    Attributes
    ----------
    computes : {"float16"}
    logits : float
        The largest |Δ| of a logit, over max(1, the largest logit on images of that kind).
    allowed : float
        What `logits` may be.
    images, same_top : int
        On how many images that was measured, and on how many of them the same class came first.
    heatmaps : mapping of str to Difference
        By method; only those that could be compared.  Those of "cluster-cam" are of the same clusters.
    """

    computes: str
    logits: float
    allowed: float
    images: int
    same_top: int
    heatmaps: Mapping[str, Difference]

    @property
    def verdict(self) -> str:
        """Say what changed, on one line."""
        maps = [f"{name} {d.mean:.2g} (correlation {d.correlation:.4f})" for name, d in self.heatmaps.items()]
        top = f"the same class first on {self.same_top} of {self.images} images"
        told = f"{self.computes}; from float32: logits {self.logits:.2g} of the largest, {top}"
        return f"{told}; heatmaps by {', '.join(maps)}" if maps else told

    def to_json(self) -> dict[str, Any]:
        """Return what bundle.json holds under "precision"."""
        return {**vars(self), "heatmaps": {name: {**vars(found)} for name, found in self.heatmaps.items()}}

    @classmethod
    def from_json(cls, table: Table) -> Precision:
        """Read it back.

        Raises
        ------
        BundleError
            It names the key, what it must be and what was found.
        """
        table.only("computes", "logits", "allowed", "images", "same_top", "heatmaps")
        images, same = table.integer("images", least=1), table.integer("same_top")
        if same > images:
            raise table.refuse("same_top", f"at most {images}, the number of images", same)
        maps = table.table("heatmaps")
        return cls(
            computes=table.choice("computes", (FLOAT16,)),
            logits=_share(table, "logits", 0),
            allowed=_share(table, "allowed", 0),
            images=images,
            same_top=same,
            heatmaps={name: _read_difference(maps.table(name)) for name in maps.values},
        )


def _read_difference(table: Table) -> Difference:
    table.only("mean", "correlation")
    return Difference(_share(table, "mean", 0), _share(table, "correlation", -1))


def _share(table: Table, key: str, least: int) -> float:
    value = table.number(key)
    if not least <= value <= 1:
        raise table.refuse(key, f"a number from {least} to 1", value)
    return value
