"""Explain images: photo → x → features → maps → scores → heatmap on the photo."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from camrt.answer import Prepared, answer, prepare
from camrt.bundle import open_bundle
from camrt.engine import Engine
from camrt.errors import ParameterError
from camrt.explanation import Explanation
from camrt.manifest import Manifest
from camrt.photo import MAX_PIXELS, ImageSource, hold_photo
from camrt.question import Question, read_question
from camrt.stream import Stream
from camrt.turns import Turns

DEFAULT_METHOD = "cluster-cam"
IMAGES_PER_GROUP = 8  # most images of a list or stream that go through the network together
PIXELS_PER_GROUP = 16_000_000  # of a stream's decoded photos; with so many a group is full, and goes with those just decoded
# Groups of a stream at a time: on a GPU one is computed while the maps of the others are clustered on the host; on the CPU
# the network takes every core by itself, and two groups only get in each other's way.
WORKERS = {"cpu": 1, "cuda": 3}
HANDS = 2  # threads that decode a stream's photos and render its results


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
        TensorRT, else 5, of edited features up to 64: on a CPU larger batches are no faster but for a tail of wide layers.
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
            An image, or one masked copy of each of a group, does not fit.
        BundleError
            The bundle was replaced since it was loaded, or a graph fails on this provider.
        """
        question = read_question(self.manifest, method, parameters, target=target, targets=targets, top=top, versus=versus)
        if not isinstance(image, list | tuple):
            return self._answer(question, [image])[0]
        together = self.together  # of now: where the device's memory is full, it falls on the way
        groups = (image[i : i + together] for i in range(0, len(image), together))
        return [explanation for group in groups for explanation in self._answer(question, group)]

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
        `images`.  With photos of 16 megapixels in all a group is full too, and goes with the one that is decoded just then:
        of photos of 12 megapixels three make a group, 0.2 GB are on the way, on a GPU 0.4 GB.  A group waits until it is
        full: for images that come seldom, one at a time, `explain` answers sooner.

        A reader who leaves early waits for what just runs, one call of the network and two photos at most.  To leave
        by an exception, read within `contextlib.closing`.

        Parameters
        ----------
        images : iterable of path, bytes, array, or a function that returns one
            It may be endless.  Read in the caller's thread; a buffer may be used again when the next image is asked for.
            Functions are called in threads, as files are read.
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
            take=lambda image: hold_photo(image, self.max_pixels), prepare=self.prepare,
            answer=lambda ready: answer(self.engine, [question] * len(ready), ready, turns),
            finish=then or (lambda explanation: explanation),
            leave=turns.end, weigh=lambda ready: ready.photo.pixels.size // 3, together=self.together, most=PIXELS_PER_GROUP,
            workers=WORKERS[self.engine.device], hands=HANDS,
        )  # fmt: skip
        return stream.run(source)

    @property
    def together(self) -> int:
        """Return how many images go through the network together."""
        return min(IMAGES_PER_GROUP, self.engine.max_masked_batch)

    def prepare(self, image: ImageSource) -> Prepared:
        """Decode an image, and bring it into the form in which the network takes it."""
        return prepare(image, self.manifest.preprocess, self.max_pixels)

    def _answer(self, question: Question, images: Sequence[Any]) -> list[Explanation]:
        return answer(self.engine, [question] * len(images), [self.prepare(image) for image in images])


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
