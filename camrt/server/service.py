"""The service behind both faces: photos in, explanations out, within the server's limits."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from camrt.answer import Prepared, prepare
from camrt.explainer import HANDS, WORKERS, Explainer
from camrt.explanation import Explanation
from camrt.header import read_header
from camrt.image import pixels_of
from camrt.methods import METHODS
from camrt.photo import Photo, check_size
from camrt.preprocess import Preprocess
from camrt.question import Question, read_question
from camrt.server.budget import Budget
from camrt.server.counters import Counters
from camrt.server.dispatcher import Dispatcher
from camrt.server.errors import Refusal
from camrt.server.kept import Kept
from camrt.server.model import Loaded, Model
from camrt.server.models import Models
from camrt.server.options import Options

GRACE = 30.0  # seconds beyond a request's time after which a group that still runs means that the engine is stuck
BOUNDED = {"clusters": "max_clusters", "tail_clusters": "max_clusters", "groups": "max_clusters", "masks": "max_masks"}

PLAIN, WITH_ALPHA = 6, 44  # bytes a pixel, at the most, while a photo is decoded, and laid on white

Result = TypeVar("Result")
Source = bytes | np.ndarray  # an encoded photo, pixels (H, W, 3) uint8, or the network's input (C, H, W) float32


class Service:
    """One set of sessions, one line and one set of budgets, for all requests.

    Parameters
    ----------
    opened : mapping of str to callable
        Models by name, each with what opens its Explainer; the first is that of requests which name none.
    options : Options
    """

    def __init__(self, opened: Mapping[str, Callable[[], Explainer]], options: Options):
        self._device = device = threading.Semaphore()
        self.options = options
        self.models = Models([Model(name, make, device) for name, make in opened.items()])
        self.counters = Counters()
        self.uploads, self.decoded = Budget(options.max_uploads), Budget(options.max_decoded)
        self.kept = Kept(options.kept_photos)
        self.hands = ThreadPoolExecutor(HANDS + 1, "camrt-photos")
        self._dispatcher: Dispatcher | None = None
        self._reviving: asyncio.Task[None] | None = None
        self.closing = False

    @property
    def dispatcher(self) -> Dispatcher:
        """The workers; from the start on."""
        assert self._dispatcher is not None, "a service is started before it is asked"
        return self._dispatcher

    def load(self) -> None:
        """Load every model.

        Raises
        ------
        CamrtError
            One cannot be opened.
        """
        for model in self.models:
            model.load()

    async def start(self) -> None:
        """Let the workers begin; models have been loaded."""
        device = self.models.answering(None).explainer.engine.device
        workers = self.options.workers or WORKERS[device]
        if device == "cpu" and workers > 1:  # whose threads the workers share; on a GPU they take turns
            self._device.release(workers - 1)
        self._dispatcher = Dispatcher(workers, self.options.delay, self.options.timeout + GRACE, self.counters.group.observe)
        self.dispatcher.start()
        self._reviving = asyncio.create_task(self.models.revive())
        self.counters.gauge("queue_images", "Images that wait for a worker.", lambda: self.dispatcher.waiting)
        self.counters.gauge("upload_bytes", "Bytes of bodies that are held.", lambda: self.uploads.used)
        self.counters.gauge("decoded_bytes", "Bytes of decoded photos that are held.", lambda: self.decoded.used)
        self.counters.gauge("ready", "1 where every model that is loaded can answer.", lambda: float(self.ready))

    async def stop(self) -> None:
        """End; requests have been answered by then."""
        self.closing = True
        if self._reviving:
            self._reviving.cancel()
        if self._dispatcher:
            await self._dispatcher.stop()
        self.hands.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether a request would be answered."""
        return not self.closing and self._dispatcher is not None and self.dispatcher.alive and self.models.ready

    @property
    def patience(self) -> float:
        """Seconds after which a client that was sent away may try again."""
        return self._dispatcher.patience if self._dispatcher else 1.0

    def question(self, loaded: Loaded, method: str, parameters: Mapping[str, Any], **classes: Any) -> Question:
        """Return a checked question that this server allows.

        Raises
        ------
        ParameterError, UnknownMethod, UnknownTarget, MethodUnavailable
            As `Explainer.explain`.
        Refusal
            422: it is more than the server allows.
        """
        question = read_question(loaded.manifest, method, self._lowered(method) | {**parameters}, **classes)
        name, options = question.method.name, self.options
        if name not in options.methods:
            raise Refusal(422, f"This server does not offer {name}. It offers: {', '.join(options.methods)}.")
        if question.count > options.max_targets:
            raise Refusal(422, f"At most {options.max_targets} classes can be asked for at once, got {question.count}.")
        for parameter, limit in BOUNDED.items():
            value, most = question.settings.get(parameter, 0), getattr(options, limit)
            if not isinstance(value, str) and value > most:
                raise Refusal(422, f"{parameter} may be at most {most} on this server, got {value}.")
        return question

    def _lowered(self, method: str) -> dict[str, int]:
        """Return the parameters of a method whose defaults are more than the server allows, as many as it does."""
        limits = {name: getattr(self.options, limit) for name, limit in BOUNDED.items()}
        defaults = {name: p.default for name, p in METHODS[method].parameters.items()} if method in METHODS else {}
        return {name: most for name, most in limits.items() if isinstance(d := defaults.get(name), int) and d > most}

    @asynccontextmanager
    async def prepared(
        self, loaded: Loaded, sources: Sequence[Source], answer: Callable[[int, int], int] = lambda height, width: 0
    ) -> AsyncIterator[list[Prepared]]:
        """Decode and preprocess images, and hold room in the budget for them, and for what is answered, meanwhile.

        Parameters
        ----------
        loaded : Loaded
        sources : sequence of bytes or ndarray
        answer : callable
            Height and width of an image → bytes of what is answered about it.

        Raises
        ------
        ImageError
            An image cannot be read.
        Refusal
            413: together the images are larger than the budget.
        """
        sizes = await asyncio.gather(*(self.in_hands(size_of, source, self.options.max_pixels) for source in sources))
        plain = sum(3 * size.height * size.width for size in sizes)
        if plain > self.decoded.total:
            raise Refusal(413, f"These images would take {plain:,} bytes decoded, of {self.decoded.total:,}. Send fewer.")
        async with self.decoded.taken(sum(size.decoding + answer(size.height, size.width) for size in sizes)):
            prepare_one = _prepare_with(loaded.manifest.preprocess, self.options.max_pixels)
            yield await asyncio.gather(*(self.in_hands(prepare_one, source) for source in sources))

    async def explain(self, loaded: Loaded, questions: Sequence[Question], images: Sequence[Prepared]) -> list[Explanation]:
        """Return the explanations of images, each by its question."""
        return await self._together([self.dispatcher.submit(loaded, q, i) for q, i in zip(questions, images, strict=True)])

    async def predict(self, loaded: Loaded, images: Sequence[Prepared]) -> np.ndarray:
        """Return the logits (N, L) of images."""
        return np.stack(await self._together([self.dispatcher.submit(loaded, None, image) for image in images]))

    @staticmethod
    async def _together(asked: Sequence[Any]) -> list[Any]:
        """Return all answers; where one fails the others are no longer wanted."""
        tasks = [asyncio.ensure_future(one) for one in asked]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def in_hands(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """Return what a function gives that runs in one of the threads for photos."""
        return await asyncio.get_running_loop().run_in_executor(self.hands, work, *arguments)


@dataclass(frozen=True)
class Size:
    """Height and width of an image, and the bytes that decoding it takes at its peak."""

    height: int
    width: int
    decoding: int


def size_of(source: Source, max_pixels: int) -> Size:
    """Return the size of an image that is not decoded yet; refuse one that is too large."""
    if isinstance(source, np.ndarray):
        height, width = source.shape[1:] if source.dtype == np.float32 else source.shape[:2]
        check_size(height, width, "the image", max_pixels)
        return Size(height, width, source.nbytes + 3 * height * width)
    header = read_header(source, "the image")
    check_size(header.height, header.width, "the image", max_pixels)
    return Size(header.height, header.width, (WITH_ALPHA if header.alpha else PLAIN) * header.height * header.width)


def _prepare_with(preprocess: Preprocess, max_pixels: int) -> Callable[[Source], Prepared]:
    def prepared(source: Source) -> Prepared:
        if isinstance(source, np.ndarray) and source.dtype == np.float32:
            started = time.perf_counter()
            pixels, where = pixels_of(source, preprocess)
            spent = (time.perf_counter() - started) * 1e3
            return Prepared(Photo(pixels), source, where, {"decode": 0.0, "preprocess": spent})
        return prepare(source, preprocess, max_pixels)

    return prepared
