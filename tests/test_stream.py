"""camrt.stream: the pipeline alone, with plain functions in the place of the network."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camrt.errors import BundleError, CamrtError, DeviceMemoryError, ExplanationError, ImageError
from camrt.stream import BREAK, OF_ONE_IMAGE, Failure, Stream

PATIENCE = 10.0  # seconds after which what should have happened did not


def same(value: Any) -> Any:
    return value


def stream(**changed: Any) -> Stream[Any, Any]:
    """Return a stream of plain functions that hands out what it takes, in groups of three."""
    plain: dict[str, Any] = {
        "take": same, "prepare": same, "answer": same, "finish": same, "leave": lambda: None,
        "weigh": lambda _: 0, "together": 3, "most": 1, "workers": 2, "hands": 2,
    }  # fmt: skip
    return Stream(**plain | changed)


def refusing(bad: Any, error: type[Exception] = ImageError):
    """Return a function that refuses some values."""

    def call(value: Any) -> Any:
        if value in bad:
            raise error(f"{value} is bad")
        return value

    return call


def told(results) -> list[Any]:
    """Return results as they are, and of a failure its image."""
    return [("failed", r.image) if isinstance(r, Failure) else r for r in results]


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("camrt-")]


@pytest.fixture(autouse=True)
def _no_threads_are_left():
    yield
    assert ours() == []


def until(condition) -> None:
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.002)


# --- order ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 100])
def test_every_image_gives_its_result_in_order(count):
    seen = stream(prepare=lambda i: i * 10, answer=lambda group: [v + 1 for v in group], finish=str)
    assert list(seen.run(iter(range(count)))) == [str(i * 10 + 1) for i in range(count)]


@pytest.mark.parametrize("together", [1, 2, 5, 1000])
@pytest.mark.parametrize("threads", [1, 4])
def test_groups_and_threads_of_any_number_change_nothing(together, threads):
    found = stream(together=together, workers=threads, hands=threads).run(iter(range(23)))
    assert list(found) == list(range(23))


def test_images_are_answered_together():
    groups = []
    list(stream(answer=lambda group: groups.append(list(group)) or group, workers=1).run(iter(range(8))))
    assert groups == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_no_group_is_answered_of_images_that_all_failed():
    groups = []
    run = stream(prepare=refusing({0, 1, 2}), answer=lambda group: groups.append(list(group)) or group).run(iter(range(4)))
    assert told(run) == [("failed", 0), ("failed", 1), ("failed", 2), 3]
    assert groups == [[3]]


def test_a_slow_image_holds_its_place():
    def prepare(i: int) -> int:
        time.sleep(0.03 if i in (0, 4) else 0)
        return i

    assert list(stream(prepare=prepare, hands=4).run(iter(range(9)))) == list(range(9))


def grouped(weights: list[int], **options: Any) -> list[list[int]]:
    """Return the groups in which images of these weights are answered, a group being full at 10."""
    groups: list[list[int]] = []
    run = stream(
        weigh=lambda i: weights[i], most=10, workers=1, answer=lambda group: groups.append(list(group)) or group, **options
    ).run(iter(range(len(weights))))  # fmt: skip
    assert list(run) == list(range(len(weights)))
    return groups


@pytest.mark.parametrize(("weights", "hands", "groups"), [
    ([5] * 7, 1, [[0, 1], [2, 3], [4, 5], [6]]),
    ([5] * 7, 2, [[0, 1, 2], [3, 4, 5], [6]]),  # the last is in hand when the two before it are known
    ([1] * 7, 2, [[0, 1, 2, 3], [4, 5, 6]]),
    ([99, 1, 1, 99, 1], 1, [[0], [1, 2, 3], [4]]),
    ([10, 10], 4, [[0, 1]]),
])  # fmt: skip
def test_heavy_images_fill_a_group_early(weights, hands, groups):
    assert grouped(weights, hands=hands, together=4) == groups


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=25), st.integers(1, 6), st.integers(1, 4))
def test_no_group_weighs_more_than_is_full_and_what_is_in_hand(weights, together, hands):
    for group in grouped(weights, hands=hands, together=together):
        assert len(group) <= together
        assert sum(weights[i] for i in group[:-hands]) < 10


def test_images_that_failed_weigh_nothing():
    groups = []
    run = stream(
        prepare=refusing({0, 1, 3}), weigh=lambda _: 10, most=10, hands=1, together=4,
        answer=lambda group: groups.append(list(group)) or group,
    ).run(iter(range(6)))  # fmt: skip
    assert told(run) == [("failed", 0), ("failed", 1), 2, ("failed", 3), 4, 5]
    assert groups == [[2], [4], [5]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["fine", "take", "prepare", "answer", "finish"]), max_size=25),
    st.integers(1, 5), st.integers(1, 3), st.integers(1, 3),
)  # fmt: skip
def test_wherever_images_fail_every_one_has_its_place(fates, together, workers, hands):
    images = list(enumerate(fates))

    def fails(stage: str):
        return refusing([image for image in images if image[1] == stage], ImageError)

    def answer(group: list[Any]) -> list[Any]:
        return [fails("answer")(image) for image in group]

    run = stream(
        take=fails("take"), prepare=fails("prepare"), answer=answer, finish=fails("finish"),
        together=together, workers=workers, hands=hands,
    ).run(iter(images))  # fmt: skip
    assert told(run) == [image if image[1] == "fine" else ("failed", image) for image in images]


# --- what is taken, and when ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("together", "workers"), [(1, 1), (3, 2), (8, 2), (4, 5)])
def test_of_an_endless_source_no_more_is_taken_than_is_on_the_way(together, workers):
    taken: list[int] = []
    source = (taken.append(i) or i for i in itertools.count())
    with closing(stream(together=together, workers=workers).run(source)) as results:
        for read in itertools.islice(results, 200):
            assert len(taken) - read <= together * (workers + 1)


def test_nothing_happens_before_the_first_result_is_asked_for():
    def source() -> Iterator[int]:
        raise AssertionError("asked for")
        yield 0

    results = stream().run(source())
    assert ours() == []
    results.close()


def test_a_reader_who_pauses_stops_the_source_and_the_work():
    taken, prepared = [], []
    source = (taken.append(i) or i for i in itertools.count())
    with closing(stream(prepare=lambda i: prepared.append(i) or i).run(source)) as results:
        next(results)
        until(lambda: len(prepared) == len(taken))
        held = len(taken)
        time.sleep(0.05)
        assert len(taken) == len(prepared) == held <= 9


def test_what_is_done_is_handed_out_before_more_is_taken():
    taken = []

    def source() -> Iterator[int]:
        for i in range(30):
            taken.append(i)
            if i and i % 3 == 0:
                time.sleep(0.02)  # the group before is done by now
            yield i

    reads = [len(taken) - read for read in stream().run(source())]
    assert max(reads) <= 6  # the group that is read, and the one that was taken meanwhile


def test_the_source_is_read_in_the_callers_thread_and_all_else_in_others():
    where: dict[str, set[str]] = {}

    def noted(name: str):
        return lambda value: where.setdefault(name, set()).add(threading.current_thread().name.rstrip("_0123456789")) or value

    source = (noted("source")(i) for i in range(10))
    names = {name: noted(name) for name in ("take", "prepare", "answer", "finish")}
    assert list(stream(**names).run(source)) == list(range(10))
    me = threading.current_thread().name.rstrip("_0123456789")
    assert where == {
        "source": {me}, "take": {me}, "prepare": {"camrt-photos"}, "answer": {"camrt-explain"}, "finish": {"camrt-photos"},
    }  # fmt: skip


def test_groups_are_answered_side_by_side_and_photos_prepared_meanwhile():
    groups, photos = threading.Barrier(2, timeout=PATIENCE), threading.Barrier(2, timeout=PATIENCE)

    def answer(group: list[int]) -> list[int]:
        groups.wait()  # breaks unless two are in here at a time
        return group

    def prepare(i: int) -> int:
        photos.wait()
        return i

    assert list(stream(prepare=prepare, answer=answer, together=2).run(iter(range(8)))) == list(range(8))


def test_what_was_read_is_let_go():
    class Image:
        pass

    alive: list[weakref.ref[Image]] = []

    def source() -> Iterator[Image]:
        for _ in range(60):
            alive.append(weakref.ref(image := Image()))
            yield image

    most = 0
    results = stream().run(source())
    for _ in results:
        most = max(most, sum(ref() is not None for ref in alive))
    assert most <= 10  # three groups of three, and the one that this loop holds
    del results, _
    until(lambda: not any(ref() for ref in alive))


# --- failures of one image ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stage", ["take", "prepare", "finish"])
@pytest.mark.parametrize("error", OF_ONE_IMAGE)
def test_an_image_that_fails_is_a_failure_in_its_place(stage, error):
    found = list(stream(**{stage: refusing({4}, error)}).run(iter(range(8))))
    assert told(found) == [0, 1, 2, 3, ("failed", 4), 5, 6, 7]
    assert (type(found[4].error), str(found[4].error)) == (error, "4 is bad")


def test_a_failure_names_the_image_as_it_was_given_whatever_became_of_it():
    found = list(stream(take=lambda _: "taken", prepare=lambda _: "ready", finish=refusing(["ready"])).run(iter([None, 0, ""])))
    assert [failure.image for failure in found] == [None, 0, ""]


def test_what_failed_before_is_not_finished():
    finished = []
    list(stream(prepare=refusing({1}), finish=finished.append).run(iter(range(3))))
    assert sorted(finished) == [0, 2]


@pytest.mark.parametrize("room", [0, 1, 2, 3, 4, 7])
def test_a_group_that_does_not_fit_into_memory_is_halved_until_it_does(room):
    tried = []

    def answer(group: list[int]) -> list[int]:
        tried.append(len(group))
        if len(group) > room:
            raise DeviceMemoryError("full")
        return group

    found = told(stream(answer=answer, together=8).run(iter(range(8))))
    assert found == ([("failed", i) for i in range(8)] if room == 0 else list(range(8)))
    assert tried[0] == 8
    assert max(size for size in tried if size <= room or size == 1) == max(1, {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 7: 4}[room])


@pytest.mark.parametrize("bad", [{0}, {7}, {3, 4}, {0, 2, 4, 6}, set(range(8))])
def test_of_a_group_only_the_images_that_fail_alone_are_failures(bad):
    def answer(group: list[int]) -> list[int]:
        return [refusing(bad, DeviceMemoryError)(i) for i in group]

    assert told(stream(answer=answer, together=8).run(iter(range(8)))) == [("failed", i) if i in bad else i for i in range(8)]


def test_thousands_of_failures_are_thousands_of_results():
    assert sum(isinstance(r, Failure) for r in stream(prepare=refusing(range(5000))).run(iter(range(5001)))) == 5000


def test_a_kept_failure_keeps_no_photo():
    class Photo:
        pass

    alive = []

    def decode(_: int) -> None:
        alive.append(weakref.ref(photo := Photo()))
        try:
            raise OSError(f"damaged, of {type(photo)}")
        except OSError:
            raise ImageError("cannot be read") from None

    def refuse(photos: Any) -> None:
        raise DeviceMemoryError(f"no room for {photos}")

    def made(_: int) -> Photo:
        alive.append(weakref.ref(photo := Photo()))
        return photo

    for run in (stream(prepare=decode), stream(prepare=made, answer=refuse), stream(prepare=made, finish=refuse)):
        kept = list(run.run(iter(range(4))))
        assert len(kept) == 4
        until(lambda: not any(ref() for ref in alive))


def test_failures_are_told_in_one_line_and_compare_by_identity():
    arrays = [Failure(np.zeros((2, 2)), ImageError("no")) for _ in range(2)]
    assert arrays.index(arrays[1]) == 1
    assert len(set(arrays)) == 2
    assert repr(Failure("a.png", ImageError("a.png: gone"))) == "Failure('a.png', ImageError: a.png: gone)"
    assert repr(Failure(b"12345", ImageError("no"))) == "Failure(bytes of 5, ImageError: no)"
    assert len(repr(Failure("x" * 10_000, ImageError("no")))) < 200


# --- errors of everything else ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stage", ["prepare", "finish"])
@pytest.mark.parametrize("error", [BundleError, ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_that_is_not_of_one_image_is_raised_in_its_place(stage, error):
    results = stream(**{stage: refusing({4}, error)}).run(iter(range(1000)))
    found: list[int] = []
    with pytest.raises(error, match="4 is bad"):
        found.extend(results)
    assert found == list(range({"prepare": 3, "finish": 4}[stage]))
    assert list(results) == []


def test_an_error_of_an_answer_is_raised_in_the_place_of_its_group():
    def answer(group: list[int]) -> list[int]:
        return [refusing({4}, BundleError)(i) for i in group]

    found = []
    with pytest.raises(BundleError, match="4 is bad"):
        found.extend(stream(answer=answer).run(iter(range(1000))))
    assert found == [0, 1, 2]


@pytest.mark.parametrize("count", range(10))
def test_a_source_that_breaks_is_told_after_the_results_of_what_it_gave(count):
    def source() -> Iterator[int]:
        yield from range(count)
        raise OSError("the camera is gone")

    found = []
    with pytest.raises(OSError, match="the camera is gone"):
        found.extend(stream().run(source()))
    assert found == list(range(count))


@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("end", [StopIteration, OSError])
def test_a_source_that_has_ended_is_not_asked_again(count, end):
    class Source:
        left = count

        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            self.left -= 1
            assert self.left >= -1
            if self.left == -1:
                raise end
            return self.left

    with pytest.raises(OSError) if end is OSError else nullcontext():
        assert len(list(stream().run(Source()))) == count


def test_an_interrupt_in_the_source_ends_all_at_once():
    def source() -> Iterator[int]:
        yield from range(7)
        raise KeyboardInterrupt

    found = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(stream().run(source()))
    assert found == list(range(len(found)))


# --- readers who leave ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("read", [0, 1, 3, 4, 11])
def test_a_reader_may_close(read):
    results = stream().run(itertools.count())
    assert list(itertools.islice(results, read)) == list(range(read))
    results.close()
    assert ours() == []


def test_a_reader_may_break_and_forget():
    for result in stream().run(itertools.count()):
        if result == 5:
            break
    until(lambda: ours() == [])


def test_a_reader_may_fail():
    with pytest.raises(ZeroDivisionError), closing(stream().run(itertools.count())) as results:
        list(map(lambda result: 1 / (result - 4), results))
    assert ours() == []


def test_a_reader_who_leaves_is_told_to_those_who_work():
    left = threading.Event()

    def answer(group: list[int]) -> list[int]:
        if 0 not in group:
            assert left.wait(PATIENCE)  # a group of a thousand masked images, say
            raise RuntimeError("stopped")
        return group

    started = time.monotonic()
    with closing(stream(answer=answer, leave=left.set).run(itertools.count())) as results:
        assert next(results) == 0
    assert time.monotonic() - started < PATIENCE / 2


def test_a_reader_who_leaves_waits_for_nothing_that_nobody_has_begun():
    finished = []

    def finish(i: int) -> int:
        time.sleep(0.02)
        finished.append(i)
        return i

    with closing(stream(finish=finish, together=50, hands=1).run(iter(range(50)))) as results:
        assert next(results) == 0
    assert len(finished) < 10


def test_those_who_work_are_told_at_the_end_too():
    left = []
    assert list(stream(leave=lambda: left.append(True)).run(iter(range(4)))) == [0, 1, 2, 3]
    assert left == [True]


@pytest.mark.parametrize("stage", ["prepare", "answer", "finish"])
def test_a_forgotten_stream_is_collected_even_from_one_of_its_own_threads(stage):
    def forget() -> None:
        results = running.run(itertools.count())
        next(results)
        cycle: list[Any] = [results]
        cycle.append(cycle)

    collected, forgotten = threading.Event(), threading.Event()

    def collect(value: Any) -> Any:
        if forgotten.wait(0.2):
            gc.collect()
            collected.set()
        return value

    running = stream(**{stage: collect})
    gc.disable()  # so that none but the threads collect
    try:
        forget()
        forgotten.set()
        until(collected.is_set)
        until(lambda: ours() == [])
    finally:
        gc.enable()


# --- streams in streams -----------------------------------------------------------------------------------------------------
def test_a_stream_may_run_within_a_stream():
    def inner(value: int) -> list[int]:
        return list(stream().run(iter(range(value))))

    outer = stream(take=same, prepare=inner, finish=lambda found: [*inner(len(found)), "end"])
    assert list(outer.run(iter(range(7)))) == [[*range(i), "end"] for i in range(7)]


def test_a_stream_may_be_the_source_of_another():
    inner = stream(prepare=lambda i: i + 1).run(iter(range(20)))
    assert list(stream(prepare=lambda i: i * 2).run(inner)) == [2 * (i + 1) for i in range(20)]


def test_many_streams_run_side_by_side():
    found: dict[int, list[int]] = {}

    def read(start: int) -> None:
        found[start] = list(stream(prepare=lambda i: i + start).run(iter(range(50))))

    readers = [threading.Thread(target=read, args=(100 * n,)) for n in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(PATIENCE)
    assert found == {100 * n: list(range(100 * n, 100 * n + 50)) for n in range(8)}


def test_what_may_befall_one_image_is_an_error_of_camrts():
    assert all(issubclass(error, CamrtError) for error in OF_ONE_IMAGE)
    assert ExplanationError in OF_ONE_IMAGE


@pytest.mark.parametrize(("images", "groups"), [
    ([1, 2, BREAK, 3, 4, 5, 6], [[1, 2], [3, 4, 5], [6]]),
    ([BREAK, BREAK, 1, BREAK, BREAK, 2, BREAK], [[1], [2]]),
    ([1, 2, 3, BREAK, 4], [[1, 2, 3], [4]]),
    ([BREAK], []),
])  # fmt: skip
def test_a_break_completes_a_group_and_is_no_image(images, groups):
    found = []

    def answer(group):
        found.append(group)
        return group

    results = list(stream(answer=answer, workers=1).run(iter(images)))
    assert found == groups
    assert results == [image for group in groups for image in group]
