"""The official PyTorch package as a worker of `benchmarks.compare`."""

import convert.torchaudio_stand_in  # noqa: F401

# isort: split
import platform
import time
from importlib import metadata

import numpy as np
import torch
from qwen_tts import Qwen3TTSModel
from qwen_tts.inference.qwen3_tts_model import VoiceClonePromptItem

from .serve import serve


class Official:
    def load(self, folder, voice, threads, dtype, device="cpu"):
        torch.set_num_threads(threads)
        self.tts = Qwen3TTSModel.from_pretrained(folder, dtype=getattr(torch, dtype), device_map=device)
        self.voice = VoiceClonePromptItem(None, torch.tensor(np.load(voice)), x_vector_only_mode=True, icl_mode=False)
        self.codec_decode = self.tts.model.speech_tokenizer.decode
        # A GPU goes on when the call has returned.
        self.wait = torch.cuda.synchronize if self.tts.device.type == "cuda" else lambda: None
        self.times = []
        self.tts.model.talker.register_forward_pre_hook(self.note_time)
        self.tts.model.talker.register_forward_hook(self.note_time)
        versions = {name: metadata.version(name) for name in ("qwen-tts", "torch", "transformers")}
        return {"versions": {**versions, "python": platform.python_version()}, "device": str(self.tts.device)}

    def note_time(self, *_):
        self.wait()
        self.times.append(time.perf_counter())

    def speak(self, text, frames, greedy, seed, decode):
        """Seconds of the public call with `decode` in the codec's place."""
        options = {"do_sample": False, "subtalker_dosample": False} if greedy else {}
        self.tts.model.speech_tokenizer.decode = decode
        self.times.clear()
        torch.manual_seed(seed)
        start = time.perf_counter()
        self.tts.generate_voice_clone(
            text, voice_clone_prompt=[self.voice], non_streaming_mode=True, max_new_tokens=frames + 1, **options
        )
        self.wait()
        seconds = time.perf_counter() - start
        self.tts.model.speech_tokenizer.decode = self.codec_decode
        return seconds

    def frames(self, text, frames, greedy=False, seed=0, save=None):
        kept = []

        def keep(encoded):
            kept.append(encoded[0]["audio_codes"])
            return [np.zeros(1, np.float32)], 24000

        seconds = self.speak(text, frames, greedy, seed, keep)
        if save:
            np.save(save, kept[0].cpu().numpy())
        # The talker's first call is the prefill.
        return {"seconds": seconds, "frames": len(kept[0]), "prefill": self.times[1] - self.times[0]}

    def speech(self, text, frames, greedy=False, seed=0):
        made = []

        def count(encoded):
            made.append(len(encoded[0]["audio_codes"]))
            return self.codec_decode(encoded)

        return {"seconds": self.speak(text, frames, greedy, seed, count), "frames": made[0]}

    def codec(self, codes, save=None):
        codes = torch.tensor(np.load(codes), dtype=torch.long, device=self.tts.device)
        start = time.perf_counter()
        [audio], _ = self.codec_decode([{"audio_codes": codes}])
        self.wait()
        seconds = time.perf_counter() - start
        if save:
            np.save(save, audio)
        return {"seconds": seconds, "frames": len(codes)}


if __name__ == "__main__":
    serve(Official())
