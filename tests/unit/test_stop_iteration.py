"""A task may raise what iteration means by its end; nobody's loop ends for it, and nobody waits for ever."""

import asyncio
import time

import pytest

import headrace as hr


def stop(number):
    raise StopIteration(number)


def double(number):
    return 2 * number


@pytest.mark.parametrize("mode", ["sync", "threads", "processes"])
def test_as_completed_goes_on(mode):
    with hr.Client(workers=1, mode=mode) as client:
        graph = hr.Graph()
        graph.add(stop, 1)
        graph.add(double, 2)
        values, errors = [], []
        completions = client.submit(graph).as_completed()
        while True:
            try:
                values.append(next(completions)[1])
            except StopIteration:
                break
            except RuntimeError as error:
                errors.append(error.__cause__)
        assert values == [4]
        assert [error.args for error in errors] == [(1,)]


@pytest.mark.parametrize("mode", ["sync", "threads", "processes"])
def test_await_ends(mode):
    async def wait(client):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.wait_for(asyncio.ensure_future(await_(client.call(stop, 1))), timeout=20)
        return await client.call(double, 4)

    with hr.Client(workers=1, mode=mode) as client:
        assert asyncio.run(wait(client)) == 8


def test_a_cancelled_waiter_cancels_its_call():
    async def wait(client):
        future = client.call(time.sleep, 30)
        waiting = asyncio.ensure_future(await_(future))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert future.cancelled()

    with hr.Client(workers=1) as client:
        asyncio.run(wait(client))


async def await_(future):
    return await future
