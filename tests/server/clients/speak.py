"""What Python's clients make of a server: python speak.py livekit|pipecat|litellm URL. Prints one JSON object."""

import asyncio
import json
import os
import sys

TEXT = "Hello."


async def livekit(url):
    """{format: samples} through its plugin, which asks for server-sent events, and for raw sound of tts-1."""
    from livekit.plugins import openai

    found = {}
    for model, kind in (("gpt-4o-mini-tts", "mp3"), ("gpt-4o-mini-tts", "pcm"), ("gpt-4o-mini-tts", "wav"),
                        ("gpt-4o-mini-tts", "opus"), ("tts-1", "mp3")):  # fmt: skip
        speaker = openai.TTS(base_url=f"{url}/v1", api_key="x", model=model, voice="anna", response_format=kind)
        found[f"{model} {kind}"] = sum([event.frame.samples_per_channel async for event in speaker.synthesize(TEXT)])
        await speaker.aclose()
    return found


async def pipecat(url):
    """Bytes of sound, and the kinds of all frames."""
    from pipecat.services.openai.tts import OpenAITTSService

    speaker = OpenAITTSService(api_key="x", base_url=f"{url}/v1", settings=OpenAITTSService.Settings(voice="alloy"))
    speaker._sample_rate = 24000  # which its pipeline would tell it
    frames = [frame async for frame in speaker.run_tts(TEXT, "context")]
    sound = sum(len(frame.audio) for frame in frames if hasattr(frame, "audio"))
    return {"bytes": sound, "kinds": sorted({type(frame).__name__ for frame in frames})}


async def litellm(url):
    """Bytes of an mp3."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it looks for prices in the network
    import litellm as client

    made = client.speech(model="openai/tts-1", voice="anna", input=TEXT, api_base=f"{url}/v1", api_key="x")
    return {"bytes": len(made.content)}


if __name__ == "__main__":
    _, name, url = sys.argv
    print(json.dumps(asyncio.run({"livekit": livekit, "pipecat": pipecat, "litellm": litellm}[name](url))))
