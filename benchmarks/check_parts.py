"""What `benchmarks.self_check` computes of a loaded model, once in the forms for a GPU and once in those for a CPU.

Each is a function of a model that gives arrays by name, or None where the model lacks the part. Inputs come from
NumPy, so that no part is given what another one has computed.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks import bench, ladder
from benchmarks.check_forms import Answers, arrays, noise, sampling
from benchmarks.gpu_proof import normal
from mlx_qwen3tts import Qwen3TTS, Voice
from mlx_qwen3tts.errors import QwenTTSError
from mlx_qwen3tts.networks.cache import KVCache
from mlx_qwen3tts.networks.codec.codec import ENCODE_CHUNK
from mlx_qwen3tts.networks.codec.decoder import State
from mlx_qwen3tts.networks.speaker.mel import log_mel
from mlx_qwen3tts.synthesis.decoding import SCHEDULE
from mlx_qwen3tts.voices.fit import KNOWN_NORMS

TEXTS = ("Hello, this is my voice.", "Good morning, today is monday.")
FRAMES = 12  # of a speech
CODES = 80  # frames of sound: more than the codec's attention looks back over
WIDE = 12  # positions that are read at once
GROWS = 40  # positions after which a cache grows


def speaker(tts: Qwen3TTS) -> dict[str, Any]:
    """What `generate` is to be told beside a text: a voice of the usual norm, or how to make one."""
    if tts.model_type == "voice_design":
        return {"voice": None, "instruct": bench.INSTRUCTION}
    if tts.speakers:
        return {"voice": tts.preset(tts.speakers[0])}
    vector = np.random.RandomState(1).standard_normal(tts.embedding_dim).astype(np.float32)
    vector *= KNOWN_NORMS[1024] * (tts.embedding_dim / 1024) ** 0.5 / np.linalg.norm(vector)
    return {"voice": Voice(mx.array(vector))}


def sound(seconds: float, rate: int = 24000) -> np.ndarray:
    """A wandering tone in noise."""
    time = np.arange(int(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * 140 * k * time + np.sin(5 * time)) / k for k in range(1, 9))
    return (0.1 * tone + 0.02 * np.random.RandomState(0).uniform(-1, 1, time.size)).astype(np.float32)


def speaker_encoder(tts: Qwen3TTS) -> Answers | None:
    if tts.config.speaker_encoder is None:
        return None
    audio = mx.array(sound(1.5))
    return arrays({"spectrogram": log_mel(audio), "vector": tts.speaker_encoder.embed(audio)})


def prefill(tts: Qwen3TTS) -> Answers:
    """The talker over a whole prompt, and over two of different lengths at once, as `synthesis/loop.py` lays them."""
    talker, prompt = tts.talker, tts.prompt(TEXTS[0], **speaker(tts)).embeddings
    caches = talker.make_cache()
    logits, hidden = talker(prompt[None], caches)
    length, pad = len(prompt), 3
    both = mx.stack([prompt, mx.pad(prompt[: length - pad], [(pad, 0), (0, 0)])])
    own = mx.arange(length)
    seen = (own >= mx.array([[0], [pad]]))[:, None, None]
    mask = (seen & (own <= own[:, None])) | (own == own[:, None])
    rows, _ = talker(both, talker.make_cache(), mask, [0, -pad])
    held = {"keys": caches[-1].keys[..., :length, :], "values": caches[-1].values[..., :length, :]}
    return arrays({"logits": logits, "hidden": hidden, **held, "two rows": rows})


def inputs(tts: Qwen3TTS, *shape: int, seed: int) -> mx.array:
    return normal(*shape, tts.config.talker.hidden_size, seed=seed, dtype=tts.talker.dtype)


def steps(tts: Qwen3TTS) -> Answers:
    """The talker step by step, into a cache that has to grow, with a part of it written anew in between."""
    talker, made = tts.talker, {}
    caches = [KVCache(GROWS) for _ in talker.model.layers]
    talker(inputs(tts, 1, GROWS - 3, seed=1), caches)
    for step in range(6):
        if step == 4:
            talker.revise(inputs(tts, 1, 3, seed=50), caches, 5)
        made[f"step {step}"], _ = talker(inputs(tts, 1, 1, seed=10 + step), caches)
        mx.async_eval(made[f"step {step}"])  # as the loop does: the next is built while this one is computed
    end = caches[0].offset
    return arrays({**made, "keys": caches[0].keys[..., :end, :], "values": caches[0].values[..., :end, :]})


def rows(tts: Qwen3TTS) -> Answers:
    """A step of four rows, each behind padding of its own."""
    talker, padding = tts.talker, mx.array([[0], [1], [5], [7]])
    caches, made = talker.make_cache(), {}
    talker(inputs(tts, 4, WIDE, seed=1), caches)
    for step in range(2):
        mask = (mx.arange(WIDE + step + 1)[None] >= padding)[:, None, None]
        positions = [WIDE + step - pad for pad in padding[:, 0].tolist()]
        made[f"step {step}"], _ = talker(inputs(tts, 4, 1, seed=2 + step), caches, mask, positions)
    return arrays(made)


def predictor(tts: Qwen3TTS) -> Answers:
    """The code predictor's steps as one compiled function, its cache inside, along given codes."""
    talker, books = tts.talker, tts.config.talker.num_code_groups
    forced = mx.array(
        np.random.RandomState(1).randint(0, tts.config.predictor.vocab_size, (books, 2)).astype(np.uint32)
    )

    def predict(hidden, forced):
        logits: list[mx.array] = []

        def given(step, row):
            logits.append(row)
            return forced[step + 1]

        codes = talker.predict(hidden, forced[0], given)
        return mx.stack(logits), talker.embed_frames(codes)

    logits, embedding = mx.compile(predict)(inputs(tts, 2, 1, seed=3), forced)
    return arrays({"logits": logits, "embeddings": embedding})


def frame(tts: Qwen3TTS) -> Answers:
    """The compiled frame that the loop runs, sampled: one row, and three filled up to four."""
    made = {}
    for count in (1, 3):
        step, settings = tts.steps.of([tts.sampling] * count)
        logits = normal(count, tts.config.talker.vocab_size, seed=5).astype(tts.talker.dtype)
        hidden, seen = inputs(tts, count, 1, seed=6), tts.steps.unseen(count)
        _, codes, embedding, seen = step(logits, hidden, seen, range(count), [4] * count, settings)
        made |= {f"codes, {count}": codes, f"next input, {count}": embedding, f"history, {count}": seen}
    return arrays(made)


def layers(tts: Qwen3TTS) -> Answers:
    """Every decoder layer of talker and predictor alone, from the same input: errors do not add up."""
    made = {}
    for name, model, width in (
        ("talker", tts.talker.model, tts.config.talker.hidden_size),
        ("predictor", tts.talker.code_predictor.model, tts.config.predictor.hidden_size),
    ):
        x = normal(1, WIDE, width, seed=7, dtype=tts.talker.dtype)
        rotate = model.rope(WIDE, 0, x.dtype)
        for number, layer in enumerate(model.layers):
            made[f"{name} {number}"] = layer(x, rotate, "causal", KVCache(WIDE)) - x
    return arrays(made)


def some_codes(tts: Qwen3TTS, frames: int, seed: int) -> mx.array:
    size = tts.codec.config.decoder.codebook_size
    drawn = np.random.RandomState(seed).randint(0, size, (frames, tts.codec.num_codebooks))
    return mx.array(drawn.astype(np.int32))


def decoder(tts: Qwen3TTS) -> Answers:
    """Codes to sound at once."""
    network = tts.codec.decoder
    return arrays({"sound": network.step(some_codes(tts, CODES, 1)[None], network.make_state())[0]})


def streaming(tts: Qwen3TTS) -> Answers:
    """The same in chunks as a stream has them, two streams of different ages in one step, and behind a reference."""
    network, state, codes, parts, first = tts.codec.decoder, None, some_codes(tts, CODES, 1), [], 0
    state = network.make_state()
    for size in (*SCHEDULE, CODES):
        part = codes[None, first : first + size]
        if part.shape[1]:
            parts.append(network.step(part, state)[0])
            mx.async_eval(parts[-1], *state.arrays)
        first += size
    young = network.make_state()
    network.skip(some_codes(tts, 5, 2)[None], young)
    together = State.stack([state, young])
    both = network.step(mx.stack([codes[:2], some_codes(tts, 2, 3)]), together)
    return arrays({"sound": mx.concatenate(parts), "old": both[0], "young": both[1]})


def encoder(tts: Qwen3TTS) -> Answers | None:
    """Sound to codes."""
    try:
        network = tts.codec.encoder
    except QwenTTSError:  # of a model that cannot clone in context
        return None
    audio, samples = mx.array(sound(1.5))[None], ENCODE_CHUNK * tts.codec.samples_per_frame
    return arrays(
        {"latents": network.latents(audio, samples), "codes": network(audio, tts.codec.num_codebooks, samples)}
    )


def gaps(tts: Qwen3TTS, text: str, codes: mx.array) -> np.ndarray:
    """How far the two best logits lie apart in every choice of a greedy speech, [frames, codebooks]."""
    sampler = tts.steps.of([tts.sampling.override(greedy=True)])[0].sampler
    first, rest = ladder.choices(tts.talker, tts.prompt(text, **speaker(tts)), codes, sampler)
    every = [first[:-1, None], rest]
    best = [mx.sort(logits, axis=-1)[..., -2:] for logits in every]
    return np.concatenate([np.array(two[..., 1] - two[..., 0]) for two in best], axis=1)


def speech(tts: Qwen3TTS) -> Answers:
    """The greedy codes of a short speech, and its sound."""
    said = tts.generate(TEXTS[0], **speaker(tts), greedy=True, max_tokens=FRAMES + 1, seed=1)
    codes = {"codes": np.array(said.codes), "codes gaps": gaps(tts, TEXTS[0], said.codes)}
    return codes | arrays({"sound": said.audio})


def speeches(tts: Qwen3TTS) -> Answers:
    """Two at once, of different lengths, of which one joins late and both are greedy."""
    how = speaker(tts)
    voice, instruct = how["voice"], how.get("instruct")
    said = tts.generate_batch(list(TEXTS), voice, instructs=instruct, greedy=True, max_tokens=FRAMES + 1, seeds=[1, 2])
    made = {}
    for number, (text, one) in enumerate(zip(TEXTS, said, strict=True)):
        made |= {f"codes {number}": np.array(one.codes), f"codes {number} gaps": gaps(tts, text, one.codes)}
    return made


def streamed(tts: Qwen3TTS) -> Answers:
    """A sampled speech as a stream, by its seed."""
    stream = tts.stream(TEXTS[1], **speaker(tts), max_tokens=FRAMES + 1, seed=3)
    chunks = list(stream)
    return arrays({name: mx.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("codes", "audio")})


# In float32; and in bfloat16 on the GPU's side against float32 on the CPU's.
PARTS: dict[str, Callable[[Qwen3TTS], Answers | None]] = {
    "speaker encoder": speaker_encoder,
    "talker, layers": layers,
    "talker, prefill": prefill,
    "talker, steps": steps,
    "talker, rows": rows,
    "code predictor": predictor,
    "sampling": lambda tts: sampling(tts.config),
    "noise": lambda tts: noise(tts.config),
    "frame": frame,
    "codec decoder": decoder,
    "codec streaming": streaming,
    "codec encoder": encoder,
    "greedy speech": speech,
    "greedy batch": speeches,
    "sampled stream": streamed,
}
HALF = {"layers": layers, "prefill": prefill, "code predictor": predictor}
# What fused kernels have a share in.
FUSED = {
    name: PARTS[name]
    for name in (
        "talker, prefill",
        "talker, steps",
        "talker, rows",
        "code predictor",
        "sampling",
        "frame",
        "greedy speech",
        "greedy batch",
        "sampled stream",
    )
}
