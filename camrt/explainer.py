"""Explain images: photo → x → features → maps → scores → heatmap on the photo."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from camrt.bundle import open_bundle
from camrt.case import Case, probabilities
from camrt.engine import Engine
from camrt.errors import ParameterError
from camrt.explanation import Category, Explanation, Run, Target
from camrt.heatmap import Outcome, outcomes
from camrt.image import Geometry, preprocess_photo
from camrt.manifest import Manifest
from camrt.methods import GRADIENTS, Method
from camrt.photo import MAX_PIXELS, ImageSource, Photo, hold_photo, load_photo
from camrt.providers import versions
from camrt.question import Question, read_question
from camrt.stream import Stream
from camrt.turns import Turns

DEFAULT_METHOD = "cluster-cam"
IMAGES_PER_GROUP = 8  # most images of a list or stream that go through the network together
# Groups of a stream at a time: on a GPU one is computed while the maps of the others are clustered on the host; on the CPU
# the network takes every core by itself, and two groups only get in each other's way.
WORKERS = {"cpu": 1, "cuda": 3}
HANDS = 2  # threads that decode a stream's photos and render its results


@dataclass(frozen=True)
class Prepared:
    """An image on its way: the photo, the network's input (3, H, W), where that lies on the photo, milliseconds so far."""

    photo: Photo
    x: np.ndarray
    where: Geometry
    timings: Mapping[str, float]


def load(
    bundle: str | os.PathLike[str],
    providers: Sequence[str] | str | None = None,
    *,
    max_masked_batch: int | None = None,
    threads: int = 0,
    max_pixels: int = MAX_PIXELS,
    gpu_mem_limit: int | None = None,
    cache: bool = True,
) -> Explainer:
    """Open a bundle.

    Parameters
    ----------
    bundle : path or name
        A folder that `camrt export` wrote, or the name of a built-in one ("shapes").
    providers : sequence of str, optional
        Execution providers to try in order: ["cuda", "cpu"], ["cpu"], ["tensorrt", "cuda"], …  By default CUDA where
        this ONNX Runtime has it, else the CPU; every result says which one ran.
    max_masked_batch : int, optional
        Most masked images, edited features or gradients in one call; more go in chunks.  By default 64 with CUDA and
        TensorRT, else 5: on a CPU larger batches are no faster.
    threads : int, default 0
        Threads of one operator on the CPU; 0 is one per core.
    max_pixels : int
        Height × width of a photo above which it is not decoded.
    gpu_mem_limit : int, optional
        Bytes of GPU memory that each of the bundle's graphs (at most four) may take for its arena, with "cuda" and
        "tensorrt"; the CUDA context and what libraries reserve come on top.  Without effect where the CPU runs.
    cache : bool, default True
        Keep the graphs as ONNX Runtime optimised them, and the hashes of unchanged files, in the folder BUNDLE.cache beside
        the bundle, where it can be written: the next start is faster, and processes share the weights in memory.

    Raises
    ------
    BundleError
        The folder is no bundle, or not what its bundle.json says.
    ProviderError
        A provider is not installed or did not start.
    ParameterError
        A number is outside what is allowed.
    """
    if not isinstance(bundle, str | os.PathLike):
        raise ParameterError(f"bundle must be a folder or the name of a built-in one, got {bundle!r}.")
    options: dict[str, Any] = {"max_masked_batch": max_masked_batch, "threads": threads, "gpu_mem_limit": gpu_mem_limit}
    engine = Engine(open_bundle(Path(bundle), cache=cache), providers, **options)
    return Explainer(engine, max_pixels=max_pixels)


class Explainer:
    """A loaded bundle that explains images; one serves all threads.

    Attributes
    ----------
    engine : Engine
    manifest : Manifest
        What bundle.json says.
    """

    def __init__(self, engine: Engine, *, max_pixels: int = MAX_PIXELS):
        self.engine = engine
        self.manifest: Manifest = engine.bundle.manifest
        self.max_pixels = max_pixels

    def __repr__(self) -> str:
        m = self.manifest
        size = f"{m.size[0]} x {m.size[1]}"
        return f"Explainer({m.name!r}, {m.classes} classes, {size}, cut at {m.layer.name!r}, {self.engine.provider})"

    @overload
    def explain(
        self, image: list[ImageSource] | tuple[ImageSource, ...], *, target: int | str | None = ...,
        targets: Iterable[int | str] | None = ..., top: int | None = ..., versus: int | str | None = ..., method: str = ...,
        **parameters: Any,
    ) -> list[Explanation]: ...  # fmt: skip
    @overload
    def explain(
        self, image: ImageSource, *, target: int | str | None = ..., targets: Iterable[int | str] | None = ...,
        top: int | None = ..., versus: int | str | None = ..., method: str = ..., **parameters: Any,
    ) -> Explanation: ...  # fmt: skip
    def explain(
        self,
        image: Any,
        *,
        target: int | str | None = None,
        targets: Iterable[int | str] | None = None,
        top: int | None = None,
        versus: int | str | None = None,
        method: str = DEFAULT_METHOD,
        **parameters: Any,
    ) -> Explanation | list[Explanation]:
        """Return where the network looked.

        Parameters
        ----------
        image : path, bytes, array, or a list of them
            As `camrt.photo.load_photo` takes it.  A list gives a list.
        target : int or str, optional
            The class to explain, by index or label.  One of `target`, `targets` and `top`; by default the top class.
        targets : sequence of int or str, optional
            Several classes; for methods whose masks do not depend on the class they cost what one costs.
        top : int, optional
            How many of the most probable classes.
        versus : int or str, optional
            Explain why the target and not this class: scores, logits and gradients are differences of the two.  Among the
            `top` classes it gets a map of zeros itself.
        method : str, default "cluster-cam"
            `camrt methods` lists them.
        **parameters
            The method's own.

        Raises
        ------
        ImageError
            An image cannot be read.
        UnknownTarget, UnknownMethod, ParameterError
            What was asked for is not there, or not allowed.
        MethodUnavailable
            The bundle or this installation lacks what the method needs.
        DeviceMemoryError
            The images of a group, or one masked copy of each, do not fit.
        BundleError
            The bundle was replaced since it was loaded, or a graph fails on this provider.
        """
        question = read_question(self.manifest, method, parameters, target=target, targets=targets, top=top, versus=versus)
        if not isinstance(image, list | tuple):
            return self._answer(question, [self._prepare(image)])[0]
        groups = (image[i : i + self._together] for i in range(0, len(image), self._together))
        return [answer for group in groups for answer in self._answer(question, [self._prepare(one) for one in group])]

    def explain_many(
        self,
        images: Iterable[ImageSource],
        *,
        target: int | str | None = None,
        targets: Iterable[int | str] | None = None,
        top: int | None = None,
        versus: int | str | None = None,
        method: str = DEFAULT_METHOD,
        then: Callable[[Explanation], Any] | None = None,
        **parameters: Any,
    ) -> Generator[Any, None, None]:
        """Explain a stream of images, faster than one by one.

        Photos are decoded in threads, and images go through the network in groups of eight, or of `max_masked_batch` where
        that is less: of five on the CPU by default.  On a GPU, while one group's masked images run, the feature maps of
        others are clustered; on the CPU, where the network takes every core, one group is explained after the other.

        At most two groups are on the way, on a GPU four, with their decoded photos, and no more images are taken from
        `images`: 10 photos of 12 megapixels are 0.4 GB, 32 are 1.2 GB, and with `max_masked_batch=1` they are two or four.
        A group waits until it is full: for images that come seldom, one at a time, `explain` answers sooner.

        A reader who leaves early waits for what just runs, one call of the network and two photos at most.  To leave
        by an exception, read within `contextlib.closing`.

        Parameters
        ----------
        images : iterable of path, bytes or array
            It may be endless.  Read in the caller's thread; a buffer may be used again when the next image is asked for.
        target, targets, top, versus, method, **parameters
            As in `explain`.
        then : callable, optional
            What to do with every explanation, in a thread: rendering and saving, for instance.  What it returns is yielded
            in the explanation's place.  It may raise an ExplanationError, which becomes a `Failure`; any other error ends
            the stream and is raised in that image's place.

        Yields
        ------
        Explanation or Failure
            One for every image, in order.  A `Failure` holds the image as it was given and the error: an ImageError, a
            DeviceMemoryError, or the ExplanationError that `then` raised.

        Raises
        ------
        UnknownTarget, UnknownMethod, ParameterError, MethodUnavailable
            At once, as in `explain`; what only shows on features, as the form of CAM's tail does, with the first group.
        BundleError
            The bundle was replaced since it was loaded, or a graph fails on this provider.
        """
        question = read_question(self.manifest, method, parameters, target=target, targets=targets, top=top, versus=versus)
        source = _each(images)
        if not (then is None or callable(then)):
            raise ParameterError(f"then must be a function of an explanation, got {then!r}.")
        turns = Turns()  # one group's masked images in memory at a time
        stream = Stream(
            take=lambda image: hold_photo(image, self.max_pixels), prepare=self._prepare,
            answer=lambda ready: self._answer(question, ready, turns), finish=then or (lambda explanation: explanation),
            leave=turns.end, together=self._together, workers=WORKERS[self.engine.device], hands=HANDS,
        )  # fmt: skip
        return stream.run(source)

    @property
    def _together(self) -> int:
        """Return how many images go through the network together."""
        return min(IMAGES_PER_GROUP, self.engine.max_masked_batch)

    def _prepare(self, image: Any) -> Prepared:
        started = time.perf_counter()
        photo = load_photo(image, self.max_pixels)
        decoded = time.perf_counter()
        x, where = preprocess_photo(photo.pixels, self.manifest.preprocess)
        timings = {"decode": (decoded - started) * 1e3, "preprocess": (time.perf_counter() - decoded) * 1e3}
        return Prepared(photo, x, where, timings)

    def _answer(self, question: Question, images: Sequence[Prepared], turns: Turns | None = None) -> list[Explanation]:
        """Explain a group of images together."""
        started = time.perf_counter()
        case = Case(self.engine, np.stack([image.x for image in images]), turns)
        case.targets, case.versus = question.targets(case.logits), question.versus
        signed, codes = self.maps(case, question.method, question.settings)
        before = {stage: sum(image.timings[stage] for image in images) for stage in images[0].timings}
        total = sum(before.values()) + (time.perf_counter() - started) * 1e3
        timings = before | case.timings | {"total": total}
        run = Run(
            method=question.method.name,
            parameters=question.settings,
            passes=case.passes,
            tail_passes=case.tail_passes,
            backward_passes=case.backward_passes,
            masked_batch=case.masked_batch,
            timings={stage: ms / len(images) for stage, ms in timings.items()},
            provider=self.engine.provider,
            versions=versions(),
            bundle=self.manifest.name,
            bundle_sha256=self.engine.bundle.sha256,
            placement=dict(self.engine.placements),
        )
        fallback = ("provider_fallback",) * self.engine.fell_back
        return [
            Explanation(image.photo, targets, maps, image.where, (*notes, *fallback), run)
            for image, targets, maps, notes in zip(images, self._describe(case, codes), signed, case.notes, strict=True)
        ]

    def maps(self, case: Case, method: Method, settings: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return the signed maps (N, T, h, w) and outcomes (N, T) of a case whose targets are set."""
        with case.rest("merge"), np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # that becomes an outcome
            asked = case.finite[:, None] & (case.targets != case.versus)  # a class differs from itself in nothing
            signed = np.where(asked[..., None, None], self._signed_maps(case, method, settings), np.float32(0))
            return signed, outcomes(signed, case.features, case.finite, case.size)

    def _signed_maps(self, case: Case, method: Method, settings: Mapping[str, Any]) -> np.ndarray:
        """Run a method; by gradients some targets at a time, as those of a thousand classes would fill the memory."""
        if GRADIENTS not in method.needs:
            return method.run(case, **settings)
        targets = case.targets
        together = max(1, self.engine.max_masked_batch // len(targets))
        parts = []
        for start in range(0, targets.shape[1], together):
            case.targets = targets[:, start : start + together]
            parts.append(method.run(case, **settings))
        case.targets = targets
        return np.concatenate(parts, axis=1)

    def _describe(self, case: Case, codes: np.ndarray) -> list[tuple[Target, ...]]:
        other = None if case.versus is None else Category(case.versus, self.manifest.label(case.versus))
        with np.errstate(invalid="ignore", over="ignore"):
            p = np.take_along_axis(probabilities(case.logits, self.manifest.kind), case.targets, axis=1)
        return [
            tuple(
                Target(int(index), self.manifest.label(int(index)), float(probability), Outcome(int(code)), other)
                for index, probability, code in zip(*rows, strict=True)
            )
            for rows in zip(case.targets, p, codes, strict=True)
        ]


def _each(images: Any) -> Iterator[Any]:
    """Return an iterator over images, and refuse what is one image."""
    kind = f"an array of shape {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
    one = isinstance(images, str | os.PathLike | bytes | bytearray | memoryview) or (
        isinstance(images, np.ndarray) and images.ndim in (2, 3)
    )
    try:
        if not one:
            return iter(images)
    except TypeError:
        pass
    raise ParameterError(f"images must be an iterable of images, got {kind}. Put one image into a list.")
