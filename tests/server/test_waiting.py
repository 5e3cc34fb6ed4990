"""Waiting that can be cancelled at any moment."""

import asyncio

import pytest

from mlx_qwen3tts.server.waiting import first_ended, within


async def forever(ended):
    """Wait for what never comes; `ended` gets an element when that is given up."""
    try:
        await asyncio.Event().wait()
    finally:
        ended.append(True)


@pytest.mark.parametrize("seconds", [60, None])
def test_who_is_cancelled_in_the_moment_in_which_something_comes_hears_of_it(seconds):
    """`asyncio.wait_for` before Python 3.12 gives what came, as if nobody had cancelled."""

    async def run():
        coming = asyncio.get_running_loop().create_future()
        reading = asyncio.ensure_future(within(coming, seconds))
        await asyncio.sleep(0)
        coming.set_result(None)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(run())


def test_the_first_to_end_ends_the_others():
    async def run():
        ended = []

        async def fail():
            raise ValueError

        [done] = await first_ended(forever(ended), fail(), forever(ended))
        assert len(ended) == 2
        with pytest.raises(ValueError):
            done.result()

    asyncio.run(run())


def test_what_does_not_come_in_time_is_cancelled():
    async def run(seconds):
        ended = []
        coming = asyncio.ensure_future(forever(ended))
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
