"""A voice from words over HTTP: a VoiceDesign model speaks beside the one that serves, a frame in turn.

Both models belong to the engine's thread. Each frame of the designing model is a function of its own for the engine, so
running speech goes on meanwhile, at the pace of both models together. One voice is designed at a time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import mlx.core as mx

from ..errors import UnsupportedValue
from ..networks.speaker.mel import SAMPLE_RATE
from ..synthesis.design import designing
from .jobs import Busy
from .speaking import called

if TYPE_CHECKING:
    from ..synthesis.tts import Qwen3TTS
    from ..voices.voice import Voice
    from .app import Server

FRAME = (1,)  # frames of a chunk: what the others wait for between two frames of theirs
RETRY = 10  # seconds


class Designer:
    """The VoiceDesign model of a server, and whether it is at work."""

    def __init__(self, tts: Qwen3TTS, speaker: Qwen3TTS) -> None:
        """tts: the VoiceDesign model; speaker: the model that serves, whose encoder listens. UnsupportedValue where
        they are not such models."""
        if tts.model_type != "voice_design":
            name = tts.folder.folder.name
            raise UnsupportedValue(f"--design {name}: a {tts.model_type} model; give a VoiceDesign one", param="design")
        self.tts, self.encoder = tts, speaker.speaker_encoder  # which refuses a model that has none
        self.turn = asyncio.Lock()

    def warm_up(self) -> None:
        """Compile what the first voice would otherwise wait for, and all others with it. In the engine's thread."""
        with self.tts.stream("Hello.", instruct="calm", seed=0, chunks=FRAME, max_tokens=3) as stream:
            next(stream)
        mx.eval(self.encoder.embed(mx.zeros((SAMPLE_RATE,))))


async def designed(server: Server, prompt: str, language: str, seed: int | None) -> Voice:
    """The Voice of a description. Busy while another one is being made."""
    designer = server.designer
    if designer is None:
        message = "this server makes no voices from words: start it with --design MODEL, a VoiceDesign checkpoint"
        raise UnsupportedValue(message, param="prompt")
    if designer.turn.locked():
        raise Busy("a voice is being designed; one is made at a time", RETRY)
    async with designer.turn:
        steps = designing(designer.tts, server.tts, prompt, language, seed=seed, chunks=FRAME)
        made: list[Voice] = []

        def step() -> None:
            try:
                next(steps)
            except StopIteration as stopped:
                made.append(stopped.value.voice)

        try:
            while not made:
                await called(server.engine, step)
        finally:
            server.engine.call(steps.close)  # where the client has left: what it computes on lives in that thread
        return made[0]
