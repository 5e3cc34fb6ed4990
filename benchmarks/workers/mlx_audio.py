"""mlx-audio as a worker of `benchmarks.compare`. It loads the official layout as it is."""

import platform
import time
from importlib import metadata

import mlx.core as mx
import numpy as np
from mlx_audio.tts.utils import load

from .serve import serve


class MlxAudio:
    def load(self, folder, voice, threads, dtype):
        self.model = load(folder)
        # The talker comes in the checkpoint's bfloat16; the codec is float32 already.
        self.model.talker.set_dtype(getattr(mx, dtype))
        mx.eval(self.model.talker.parameters())
        mx.clear_cache()
        # It takes recordings only, so the vector stands in for what its encoder would hear in one.
        vector = mx.array(np.load(voice))[None].astype(getattr(mx, dtype))
        self.model.extract_speaker_embedding = lambda *_, **__: vector
        self.codec_decode = self.model.speech_tokenizer.decode
        versions = {"mlx_audio": metadata.version("mlx-audio"), "mlx": mx.__version__}
        return {"versions": {**versions, "python": platform.python_version()}, "device": str(mx.default_device())}

    def speak(self, text, frames, greedy, seed, decode):
        """Seconds of the public call with `decode` in the codec's place."""
        options = {"ref_audio": mx.zeros(24000), "max_tokens": frames}
        if greedy:
            options["temperature"] = 0.0  # for both samplers; left out, generation_config.json says
        self.model.speech_tokenizer.decode = decode
        mx.random.seed(seed)
        start = time.perf_counter()
        mx.eval([result.audio for result in self.model.generate(text, **options)])
        seconds = time.perf_counter() - start
        self.model.speech_tokenizer.decode = self.codec_decode
        return seconds

    def frames(self, text, frames, greedy=False, seed=0, save=None):
        kept = []

        def keep(codes):
            mx.eval(codes)
            kept.append(codes[0])
            return mx.zeros((1, 1)), mx.array([1])

        prefill = self.prefill(text)
        seconds = self.speak(text, frames, greedy, seed, keep)
        if save:
            np.save(save, np.array(kept[0]))
        return {"seconds": seconds, "frames": kept[0].shape[0], "prefill": prefill}

    def prefill(self, text):
        talker = self.model.talker
        prompt, *_ = self.model._prepare_generation_inputs(text, ref_audio=mx.zeros(24000))
        mx.eval(prompt)
        start = time.perf_counter()
        mx.eval(talker(prompt, cache=talker.make_cache()))
        return time.perf_counter() - start

    def speech(self, text, frames, greedy=False, seed=0):
        made = []

        def count(codes):
            made.append(codes.shape[1])
            return self.codec_decode(codes)

        return {"seconds": self.speak(text, frames, greedy, seed, count), "frames": made[0]}

    def codec(self, codes, save=None):
        codes = mx.array(np.load(codes))
        start = time.perf_counter()
        audio, _ = self.codec_decode(codes[None])
        mx.eval(audio)
        seconds = time.perf_counter() - start
        if save:
            np.save(save, np.array(audio[0]))
        return {"seconds": seconds, "frames": codes.shape[0]}


if __name__ == "__main__":
    serve(MlxAudio())
