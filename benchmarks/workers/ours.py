"""This package as a worker of `benchmarks.compare`."""

import platform
import time
import warnings

import mlx.core as mx
import numpy as np

import mlx_qwen3tts
from mlx_qwen3tts.synthesis.speech import wired_limit

from .serve import serve


def speak_codes(tts, text, voice, frames, greedy, seed):
    """Codes [frames, 16] of a text, without sound: what `generate` does up to its codec.

    The public API has no such call. This function and the next one are the places that reach past it.
    """
    sampling = tts.sampling.override(greedy=greedy, max_tokens=frames + 1)
    prompt = tts.prompt(text, tts.voice(voice), text_mode="full", max_tokens=sampling.max_tokens)
    with wired_limit():
        codes = mx.concatenate([frame.codes for frame in tts.generation([prompt], [seed], sampling)])
        mx.eval(codes)
    return codes


def prefill_seconds(tts, text, voice):
    """From the prompt's embeddings to the logits of the first code."""
    prompt = tts.prompt(text, tts.voice(voice), text_mode="full").embeddings[None]
    mx.eval(prompt)
    start = time.perf_counter()
    mx.eval(tts.talker(prompt, tts.talker.make_cache()))
    return time.perf_counter() - start


class Ours:
    def load(self, folder, voice, threads, dtype):
        warnings.filterwarnings("ignore", message="the speech did not end")  # as intended
        self.tts = mlx_qwen3tts.Qwen3TTS.from_pretrained(folder, dtype)
        self.voice = mx.array(np.load(voice))
        # MLX takes its threads from the BLAS, which has them from the environment.
        versions = {"mlx_qwen3tts": mlx_qwen3tts.__version__, "mlx": mx.__version__}
        return {"versions": {**versions, "python": platform.python_version()}, "device": str(mx.default_device())}

    def frames(self, text, frames, greedy=False, seed=0, save=None):
        prefill = prefill_seconds(self.tts, text, self.voice)
        start = time.perf_counter()
        codes = speak_codes(self.tts, text, self.voice, frames, greedy, seed)
        seconds = time.perf_counter() - start
        if save:
            np.save(save, np.array(codes))
        return {"seconds": seconds, "frames": codes.shape[0], "prefill": prefill}

    def speech(self, text, frames, greedy=False, seed=0):
        start = time.perf_counter()
        speech = self.tts.generate(
            text, voice=self.voice, text_mode="full", greedy=greedy, seed=seed, max_tokens=frames + 1
        )
        mx.eval(speech.audio)
        return {"seconds": time.perf_counter() - start, "frames": speech.codes.shape[0]}

    def codec(self, codes, save=None):
        codes = mx.array(np.load(codes))
        start = time.perf_counter()
        audio = self.tts.codec.decode(codes)
        mx.eval(audio)
        seconds = time.perf_counter() - start
        if save:
            np.save(save, np.array(audio))
        return {"seconds": seconds, "frames": codes.shape[0]}


if __name__ == "__main__":
    serve(Ours())
