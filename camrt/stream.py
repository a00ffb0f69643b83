"""Many images in order: photos are decoded in threads, groups of them explained in turns, one bad image is one failure.

With several workers, while one group's masked images run on the device, another's feature maps are clustered on the host:

    decode      │ 3 │ 4 │ 5 │
    explain A   │ clusters of 1 │ masked 1 │ forward 3 │ …
    explain B   │ forward 2 │ clusters of 2 │ masked 2 │ …

With one, a group is explained after the other, while the photos of the next are decoded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

from camrt.errors import CamrtError, DeviceMemoryError, ExplanationError, ImageError

Prepared = TypeVar("Prepared")
Result = TypeVar("Result")

Group: TypeAlias = "list[tuple[Any, Future[Any]]]"  # images as they were given, each with what prepares it

BREAK = object()  # among the images: the group so far is complete, and what follows goes into the next

OF_ONE_IMAGE = (ImageError, ExplanationError, DeviceMemoryError)  # what may befall one image and not the next


@dataclass(frozen=True, eq=False)  # images may be arrays, which compare in their own way
class Failure:
    """An image of a stream that could not be explained.

    Attributes
    ----------
    image : path, bytes or array
        As it was given.
    error : CamrtError
        Why not: an ImageError, DeviceMemoryError or ExplanationError.
    """

    image: Any
    error: CamrtError

    def __repr__(self) -> str:
        given = f"{type(self.image).__name__} of {len(self.image)}" if isinstance(self.image, bytes) else repr(self.image)
        return f"Failure({given[:100]}, {type(self.error).__name__}: {self.error})"


@dataclass(frozen=True)
class Stream(Generic[Prepared, Result]):
    """How images become results.

    Attributes
    ----------
    take : callable
        image → what stays as it is until `prepare` has it; runs in the caller's thread.
    prepare : callable
        What was taken → what `answer` takes; runs in threads, several at a time.
    answer : callable
        A list of prepared images → their results; runs in threads, in as many at a time as there are workers.
    finish : callable
        result → what is handed out; runs in threads.
    leave : callable
        Called once nothing more is wanted; `answer` may then stop, by any exception.
    weigh : callable
        A prepared image → what it weighs, in pixels for instance.
    together : int
        Most images of a group.
    most : int
        Weight at which a group is full with fewer images.  It is told once an image is prepared, and as many more are on
        their way by then as there are hands.
    workers : int
        Groups at a time.
    hands : int
        Threads that prepare and finish.
    """

    take: Callable[[Any], Any]
    prepare: Callable[[Any], Prepared]
    answer: Callable[[list[Prepared]], list[Result]]
    finish: Callable[[Result], Any]
    leave: Callable[[], None]
    weigh: Callable[[Prepared], int]
    together: int
    most: int
    workers: int
    hands: int

    def run(self, source: Iterator[Any]) -> Generator[Any, None, None]:
        """Yield a result, or a `Failure`, for every image, in order.

        A `BREAK` among the images completes a group, so that which images share one does not depend on what came before.
        Images are taken from the source in the caller's thread, and no more of them than are on the way: a group for each
        worker, and one more that waits or is read.  An error of the source is raised after the results of what it gave
        before.  An error that is not of one image is raised in the place of its group; one of `finish`, of its image.
        A reader who leaves leaves no threads behind.
        """
        from concurrent.futures import ThreadPoolExecutor  # takes milliseconds that a single image need not wait

        mine: set[int] = set()

        def threads(count: int, name: str) -> ThreadPoolExecutor:
            return ThreadPoolExecutor(count, name, initializer=lambda: mine.add(get_ident()))

        hands, workers = threads(self.hands, "camrt-photos"), threads(self.workers, "camrt-explain")
        on_the_way: deque[Future[list[Future[Any]]]] = deque()
        ended, broken = False, None
        try:
            while not ended:
                group, ended, broken = self._take(source, hands)
                if group:
                    on_the_way.append(workers.submit(self._group, group, hands))
                while on_the_way and (ended or len(on_the_way) > self.workers or on_the_way[0].done()):
                    for result in on_the_way.popleft().result():
                        yield result.result()
        finally:  # the reader may have left
            self.leave()
            for pool in (hands, workers):
                pool.shutdown(wait=False, cancel_futures=True)
            if get_ident() not in mine:  # the garbage collector may close this in any thread, and none can wait for itself
                workers.shutdown()
                hands.shutdown()
        if broken is not None:
            raise broken

    def _take(self, source: Iterator[Any], hands: ThreadPoolExecutor) -> tuple[Group, bool, Exception | None]:
        """Return the next group, on its way through `prepare`, whether the source has ended, and the error that ended it."""
        group: Group = []
        while len(group) < self.together and self._weight(group) < self.most:
            try:
                image = next(source)
                if image is BREAK:
                    if group:
                        break
                    continue
                taken = _caught(self.take, image, image)
            except StopIteration:
                return group, True, None
            except Exception as error:  # whatever the caller's source raises
                return group, True, error
            group.append((image, hands.submit(_caught, self.prepare, taken, image)))
        return group, False, None

    def _weight(self, group: Group) -> int:
        """Return what a group weighs without the last images, with which all hands but one are left to work."""
        known = [future for _, future in group[: max(0, len(group) + 1 - self.hands)]]
        found = [future.result() for future in known if future.exception() is None]
        return sum(self.weigh(one) for one in found if not isinstance(one, Failure))

    def _group(self, group: Group, hands: ThreadPoolExecutor) -> list[Future[Any]]:
        """Return the results of one group, on their way through `finish`."""
        ready = [(image, future.result()) for image, future in group]
        answers = iter(apart(self.answer, [found for _, found in ready if not isinstance(found, Failure)]))
        results = [(image, _result(found if isinstance(found, Failure) else next(answers), image)) for image, found in ready]
        return [hands.submit(_caught, self.finish, result, image) for image, result in results]


def apart(answer: Callable[[list[Prepared]], Sequence[Result]], ready: list[Prepared]) -> list[Result | CamrtError]:
    """Return the answers; where a whole group cannot be answered those of its halves, and for one image alone its error."""
    if not ready:
        return []
    try:
        return list(answer(ready))
    except OF_ONE_IMAGE as error:
        if len(ready) == 1:
            return [error]
    half = len(ready) // 2
    return apart(answer, ready[:half]) + apart(answer, ready[half:])


def _result(found: Any, image: Any) -> Any:
    """Return what was found, an error as the failure of its image."""
    return _failure(image, found) if isinstance(found, CamrtError) else found


def _caught(call: Callable[[Any], Any], value: Any, image: Any) -> Any:
    """Return what a call gives, or the failure of its image; one that failed before stays as it is."""
    if isinstance(value, Failure):
        return value
    try:
        return call(value)
    except OF_ONE_IMAGE as error:
        return _failure(image, error)


def _failure(image: Any, error: CamrtError) -> Failure:
    """Return a failure without the frames that its error passed: they hold the photo, and failures are kept."""
    cause: BaseException | None = error
    while cause is not None and cause.__traceback__ is not None:
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return Failure(image, error)
