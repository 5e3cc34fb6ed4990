"""Waiting for what may not come, in a way that can be cancelled at any moment.

`asyncio.wait_for` cannot: before Python 3.12 it forgets a cancellation where what it waits for is done just then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


async def within(coming: Awaitable[T], seconds: float | None) -> T:
    """What comes within so many seconds, None for any number; asyncio.TimeoutError, and it is cancelled, where nothing
    does. With 0 seconds or fewer only what is there already counts."""
    task = asyncio.ensure_future(coming)
    try:
        if seconds is None or seconds > 0:
            await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise asyncio.TimeoutError
    finally:
        task.cancel()
    return task.result()


async def unless(gone: Awaitable[object], work: Awaitable[T]) -> T | None:
    """What `work` gives; None, and the work is cancelled, where `gone` is done first."""
    doing = asyncio.ensure_future(work)
    return doing.result() if doing in await first_ended(doing, gone) else None


async def first_ended(*works: Awaitable[Any]) -> set[asyncio.Future[Any]]:
    """The tasks of these that end first; the others are cancelled, and have ended too."""
    tasks: list[asyncio.Future[Any]] = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return done
