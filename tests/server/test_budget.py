"""A budget: never more than there is, in the order of asking, given back whatever happens."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("fastapi")

from camrt.server.budget import Budget

from .test_line import run


@run
async def test_what_fits_is_taken_and_given_back():
    budget = Budget(10)
    async with budget.taken(6), budget.taken(4):
        assert budget.used == 10
    assert budget.used == 0


@run
async def test_what_does_not_fit_waits_until_it_does():
    budget, told = Budget(10), []

    async def user(size: int, name: str) -> None:
        async with budget.taken(size):
            told.append(name)
            await asyncio.sleep(0.01)

    await asyncio.gather(user(8, "first"), user(8, "second"), user(2, "third"))
    assert told == ["first", "second", "third"], "the small one must not pass the large one that waits"
    assert budget.used == 0


@run
async def test_more_than_there_is_takes_all_of_it():
    budget = Budget(10)
    async with budget.taken(25):
        assert budget.used == 10
    assert budget.used == 0


@run
async def test_who_stops_waiting_leaves_no_trace_and_lets_others_in():
    budget, entered = Budget(10), asyncio.Event()

    async def small() -> None:
        async with budget.taken(3):
            entered.set()

    async with budget.taken(5):
        large = asyncio.create_task(budget.taken(9).__aenter__())
        await asyncio.sleep(0)
        waiting = asyncio.create_task(small())
        await asyncio.sleep(0)
        large.cancel()
        async with asyncio.timeout(1):
            await entered.wait()
        await waiting
    assert budget.used == 0


@run
async def test_who_is_let_in_and_leaves_at_once_gives_back():
    budget = Budget(10)
    async with budget.taken(10):
        waiting = asyncio.create_task(budget.taken(10).__aenter__())
        await asyncio.sleep(0)
    waiting.cancel()  # its place is granted by now, but it has not run yet
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert budget.used == 0


@run
async def test_taking_now_never_waits_nor_passes_who_does():
    budget = Budget(10)
    async with budget.taken(5):
        assert not budget.take_now(6)
        large = asyncio.create_task(budget.taken(9).__aenter__())
        await asyncio.sleep(0)
        assert not budget.take_now(1)
        large.cancel()
        await asyncio.gather(large, return_exceptions=True)
        assert budget.take_now(1)
        budget.give_back(1)
    assert budget.used == 0
