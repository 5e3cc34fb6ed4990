"""Waiting that can be cancelled at any moment."""

import asyncio

import pytest

from mlx_qwen3tts.server.waiting import first_ended, within


@pytest.mark.parametrize("turns", range(4))
def test_who_is_cancelled_while_something_comes_does_not_wait_on(turns):
    """`asyncio.wait_for` before Python 3.12 gives what came, as if nobody had cancelled."""

    async def run():
        coming = asyncio.get_running_loop().create_future()

        async def receive():
            await coming
            for _ in range(turns):
                await asyncio.sleep(0)

        async def read():
            while True:
                await within(receive(), None)
                await asyncio.Event().wait()

        async def fail():
            await asyncio.sleep(0)
            coming.set_result(None)
            raise ValueError

        [done] = await first_ended(read(), fail())
        with pytest.raises(ValueError):
            done.result()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_what_does_not_come_in_time_is_cancelled():
    async def run(seconds):
        ended = []

        async def come():
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)

        coming = asyncio.ensure_future(come())
        await asyncio.sleep(0)
        with pytest.raises(asyncio.TimeoutError):
            await within(coming, seconds)
        await asyncio.sleep(0)
        assert ended

    for seconds in (0.01, 0, -1):
        asyncio.run(run(seconds))


def test_past_its_time_only_what_is_there_counts():
    async def at_once():
        return 1

    async def run():
        there = asyncio.ensure_future(at_once())
        await asyncio.sleep(0)
        assert await within(there, 0) == 1
        with pytest.raises(asyncio.TimeoutError):
            await within(at_once(), 0)

    asyncio.run(run())
