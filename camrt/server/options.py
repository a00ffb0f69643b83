"""What a server allows: every limit in one place, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from camrt.errors import ParameterError
from camrt.methods import METHODS, SLOW, get_method

FAST, ALL = "fast", "all"  # words that stand for many methods
MIB = 1 << 20


@dataclass(frozen=True)
class Options:
    """What a server allows.

    Attributes
    ----------
    methods : tuple of str
        Those that may be asked for; by default all but Score-CAM and RISE, which take hundreds to thousands of passes.
    max_body : int
        Bytes of a request's body.
    max_uploads : int
        Bytes of all bodies that are held at once.
    max_pixels : int
        Height × width of a photo, and of all pictures of one answer.
    max_decoded : int
        Bytes of all decoded photos that are held at once; others wait their turn.
    max_images : int
        Images of one request.
    max_targets : int
        Classes of one request.
    max_clusters : int
        Clusters, groups or components that a method may be asked for.
    max_masks : int
        Random masks that RISE may be asked for.
    requests : int
        Under way at once, from the first byte to the last; more are answered 503.
    per_client : int
        Of one client: of one token, or where there are none of one address; more are answered 429.  0 is no limit.
    connections : int
        Open at once.
    timeout : float
        Seconds from the first byte of a request to the last of its answer; a request may ask for less.
    upload_timeout : float
        Seconds for a request's body.
    header_timeout : float
        Seconds for a request's head.
    delay : float
        Seconds that an idle worker waits for more images to share a batch.
    workers : int or None
        Groups of images that are explained at a time; by default 1 on the CPU and 3 on a GPU, whose computing takes turns.
    kept_photos : int
        Bytes of photos that are kept for further questions about them; the oldest are forgotten first.
    tokens : tuple of str
        Bearer tokens, one of which a request must bear; without any, everyone may ask.
    hosts : tuple of str
        Names by which the server may be addressed; empty where any will do.
    read_only : bool
        Nothing is written beside bundles, and bundles are neither loaded nor unloaded by request.
    samples : mapping of str to Path
        Photos for the page to start with.
    """

    methods: tuple[str, ...] = tuple(name for name in METHODS if name not in SLOW)
    max_body: int = 16 * MIB
    max_uploads: int = 512 * MIB
    max_pixels: int = 25_000_000
    max_decoded: int = 512 * MIB
    max_images: int = 16
    max_targets: int = 16
    max_clusters: int = 64
    max_masks: int = 4000
    requests: int = 128
    per_client: int = 32
    connections: int = 1024
    timeout: float = 60.0
    upload_timeout: float = 20.0
    header_timeout: float = 10.0
    delay: float = 0.002
    workers: int | None = None
    kept_photos: int = 64 * MIB
    tokens: tuple[str, ...] = field(default=(), repr=False)
    hosts: tuple[str, ...] = ()
    read_only: bool = False
    samples: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.methods:
            get_method(name)
        least = {
            "max_body": 1, "max_uploads": 1, "max_pixels": 1, "max_images": 1, "max_targets": 1, "max_clusters": 1,
            "max_masks": 1, "requests": 1, "per_client": 0, "connections": 1, "kept_photos": 0,
        }  # fmt: skip
        for name, bound in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < bound:
                raise ParameterError(f"{name} must be a whole number, at least {bound}, got {value!r}.")
        for name in ("timeout", "upload_timeout", "header_timeout"):
            if not 0 < getattr(self, name) <= 86_400:
                raise ParameterError(f"{name} must be a number of seconds, at most a day, got {getattr(self, name)!r}.")
        if not 0 <= self.delay <= 1:
            raise ParameterError(f"delay must be a number of seconds, at most one, got {self.delay!r}.")
        if self.workers is not None and not 1 <= self.workers <= 64:
            raise ParameterError(f"workers must be a whole number from 1 to 64, got {self.workers!r}.")
        if 3 * self.max_pixels > self.max_decoded:
            raise ParameterError(
                f"max_decoded must hold one photo of max_pixels, {3 * self.max_pixels:,} bytes, got {self.max_decoded:,}."
            )
        if self.max_body > self.max_uploads:
            raise ParameterError(f"max_uploads must hold one body of {self.max_body:,} bytes, got {self.max_uploads:,}.")


def read_methods(words: str) -> tuple[str, ...]:
    """Return the methods that "fast", "all" or names with commas between them stand for.

    Raises
    ------
    UnknownMethod
        A name is not known.
    """
    if words == FAST:
        return Options().methods
    if words == ALL:
        return tuple(METHODS)
    return tuple(get_method(name.strip()).name for name in words.split(","))
