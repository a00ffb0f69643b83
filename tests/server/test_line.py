"""The line: oldest first, alike work together, nothing that nobody wants."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("fastapi")

from camrt.server.line import Line
from camrt.server.work import Work


def model(together: int = 3) -> SimpleNamespace:
    return SimpleNamespace(together=together)


def work(of: SimpleNamespace, alike: str = "a") -> Work:
    return Work(SimpleNamespace(explainer=of), SimpleNamespace(alike=alike), None, asyncio.get_running_loop().create_future())


async def taken(line: Line, within: float = 1.0) -> list[Work]:
    async with asyncio.timeout(within):
        return await line.take()


def run(test):
    """Run an asynchronous test."""

    def wrapped():
        asyncio.run(test())

    wrapped.__name__ = test.__name__
    return wrapped


@run
async def test_alike_work_leaves_together_in_the_order_in_which_it_came():
    line, of = Line(0), model()
    first, other, second = work(of), work(of, "b"), work(of)
    for one in (first, other, second):
        line.put(one)
    assert await taken(line) == [first, second]
    assert await taken(line) == [other]


@run
async def test_a_group_holds_as_many_as_the_model_takes_together():
    line, of = Line(0), model(together=2)
    works = [work(of) for _ in range(5)]
    for one in works:
        line.put(one)
    assert [await taken(line) for _ in range(3)] == [works[:2], works[2:4], works[4:]]


@run
async def test_the_oldest_leads_however_many_others_are_alike():
    line, of = Line(0), model(together=8)
    rare = work(of, "rare")
    line.put(rare)
    for _ in range(20):
        line.put(work(of, "common"))
    assert await taken(line) == [rare]


@run
async def test_work_of_two_models_is_never_alike():
    line = Line(0)
    a, b = work(model()), work(model())
    line.put(a)
    line.put(b)
    assert await taken(line) == [a]
    assert await taken(line) == [b]


@run
async def test_work_that_nobody_wants_is_forgotten():
    line, of = Line(0), model()
    gone, kept = work(of), work(of)
    line.put(gone)
    line.put(kept)
    gone.answer.cancel()
    assert len(line) == 1
    assert await taken(line) == [kept]
    with pytest.raises(TimeoutError):
        await taken(line, 0.05)


@run
async def test_the_oldest_waits_no_longer_than_the_delay_for_company():
    line, of = Line(0.2), model()
    first = work(of)
    line.put(first)
    waiting = asyncio.create_task(taken(line))
    await asyncio.sleep(0.05)
    second = work(of)
    line.put(second)
    assert not waiting.done()
    assert await waiting == [first, second]


@run
async def test_a_full_group_does_not_wait_for_the_delay():
    line, of = Line(60), model(together=2)
    works = [work(of), work(of)]
    for one in works:
        line.put(one)
    assert await taken(line) == works


@run
async def test_each_of_several_takers_gets_other_work():
    line, of = Line(0), model(together=1)
    takers = [asyncio.create_task(taken(line)) for _ in range(4)]
    await asyncio.sleep(0)
    works = [work(of) for _ in range(4)]
    for one in works:
        line.put(one)
        await asyncio.sleep(0)
    got = [one for group in await asyncio.gather(*takers) for one in group]
    assert sorted(map(id, got)) == sorted(map(id, works))
