"""A client of MCP's tools that gives its call up."""

import asyncio
import contextlib


async def given_up(client, server, text):
    """Have a text spoken, and give up as soon as it is being spoken."""
    asking = asyncio.ensure_future(client.call_tool("speak", {"text": text, "voice": "anna"}))
    while not server.engine.running:
        await asyncio.sleep(0.01)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
