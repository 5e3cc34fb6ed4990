"""Compare this port with the official package on any checkpoint folder, full-size ones included, and print a table.

    python -m convert.check_parity MODEL --reference-python ENV/bin/python [--max-tokens 16] [--json]

MODEL is an official-layout folder. Everything runs in float32. Exit status 1 where parity does not hold.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import mlx.core as mx

from mlx_qwen3tts import Qwen3TTS

from .parity import check, materialise, run_reference
from .suite import DECODE, RECORDINGS, TOKENIZE, speak


def cases_for(config, max_tokens):
    """What to ask of a checkpoint, by its kind."""
    if config.model_type == "base":
        cases = [
            speak("vector", "short", max_tokens, vector=1),
            speak("vector-chinese-full", "chinese", max_tokens, language="chinese", layout="full", vector=2),
            speak("clone", "mixed", max_tokens, audio={"seed": 11, "seconds": 1.5}),
            speak("icl", "short", max_tokens, audio={"seed": 12, "seconds": 2.0}, ref_text="hello the world"),
            RECORDINGS[1],
        ]
    elif config.model_type == "custom_voice":
        names = list(config.talker.spk_id)
        cases = [
            speak("preset", "short", max_tokens, layout="full", preset=names[0]),
            speak("preset-dialect", "chinese", max_tokens, layout="full", preset=names[-1], language="chinese"),
            speak("preset-streaming", "mixed", max_tokens, preset=names[0], language="english"),
        ]
    else:
        cases = [
            speak("design", "short", max_tokens, layout="full", instruct="A warm, low voice of an old man."),
            speak("design-streaming", "chinese", max_tokens, language="chinese", instruct="bright"),
        ]
    return [*cases, RECORDINGS[7], DECODE[1], DECODE[4], TOKENIZE]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--reference-python", required=True)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    start = time.perf_counter()
    tts = Qwen3TTS.from_pretrained(options.model, dtype="float32")
    mx.eval(tts.talker.parameters())
    print(f"loaded in {time.perf_counter() - start:.1f} s")
    results, failed = {}, False
    with tempfile.TemporaryDirectory() as work:
        codec = tts.codec.config
        cases = materialise(
            cases_for(tts.config, options.max_tokens),
            work,
            tts.embedding_dim,
            codec.num_codebooks,
            codec.decoder.codebook_size,
        )
        arrays = run_reference(options.model, cases, Path(work) / "out.npz", options.reference_python)
        for case in cases:
            start = time.perf_counter()
            try:
                figures = check(tts, case, arrays)
            except AssertionError as error:
                figures, failed = {"differs": str(error)}, True
            results[case["name"]] = figures
            shown = "  ".join(f"{k} {v:.1e}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
            print(f"{case['name']:24} {time.perf_counter() - start:6.1f} s  {shown}", flush=True)
    print(f"peak memory {mx.get_peak_memory() / 1e9:.2f} GB")
    if options.json:
        print(json.dumps(results))
    sys.exit(failed)


if __name__ == "__main__":
    main()
