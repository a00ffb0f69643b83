"""What passes between those who hand out work and those who do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SHARD_SIZE = 1000  # photos
STALL = 3600.0  # seconds


@dataclass(frozen=True)
class Setup:
    """What a worker must know before its first job.

    Attributes
    ----------
    output : str
        Folder or URL of the dataset.
    bundle : str
    bundle_sha256 : str
        What the bundle must be.
    loading : mapping
        What `camrt.load` takes beside the bundle.
    question : mapping
        What `Explainer.explain` takes beside the image.
    overlays : bool
        Draw each heatmap over its photo.
    simulate : bool
        Explain nothing, and invent the results.
    stall : float
        Seconds without anything done after which a worker is taken for dead.
    """

    output: str
    bundle: str
    bundle_sha256: str
    loading: Mapping[str, Any] = field(default_factory=dict)
    question: Mapping[str, Any] = field(default_factory=dict)
    overlays: bool = False
    simulate: bool = False
    stall: float = STALL


@dataclass
class Job:
    """A part to explain.

    Attributes
    ----------
    number : int
        Of the part.
    offset, length : int
        Where in its file of the listing the part stands.
    skip : dict of int to str
        Photos that kill a worker, by their place in the part, and how.
    alone : bool
        Explain one photo at a time.
    deaths : int
        How often a worker died on it so far.
    survived : bool
        A worker is known to have survived a photo of it.
    """

    number: int
    offset: int
    length: int
    skip: dict[int, str] = field(default_factory=dict)
    alone: bool = False
    deaths: int = 0
    survived: bool = False


@dataclass(frozen=True)
class Trial:
    """Photos of a job of which one may have killed a worker: to be explained one by one, and forgotten.

    Attributes
    ----------
    job : Job
    start, stop : int
        Their places in the part.
    """

    job: Job
    start: int
    stop: int


@dataclass(frozen=True)
class Tried:
    """The photos of a trial were explained, and the worker lives.

    Attributes
    ----------
    photos : int
        How many there were.
    """

    photos: int


@dataclass(frozen=True)
class Broke:
    """The worker met an error that it does not know, and ends."""

    how: str


@dataclass(frozen=True)
class Shard:
    """A part that was explained, written beside its place.

    Attributes
    ----------
    part : int
    file : str
        Name beside its place; `batch` moves it.
    overlays : str or None
        Folder of its overlays, beside its place.
    sha256 : str
    size : int
        Bytes.
    photos, rows : int
    outcomes : dict of str to int
        Rows by outcome.
    seconds : float
        From its first photo to its last.
    """

    part: int
    file: str
    overlays: str | None
    sha256: str
    size: int
    photos: int
    rows: int
    outcomes: dict[str, int]
    seconds: float


def shard_name(part: int) -> str:
    """Return the name of a part's shard, without its ending."""
    return f"part-{part:06d}"
