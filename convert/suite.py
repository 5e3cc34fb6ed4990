"""The parity suite: which random checkpoints, and which cases on each.

The same suite makes the committed goldens and, with other seeds, runs live. Checkpoints come from
`mlx_qwen3tts.random_checkpoint`, so a golden needs to hold what came out, not the weights.
"""

from convert.random_checkpoint import PRESETS

TEXTS = {
    "short": "Hello.",
    "long": "The weather is fine today, and in the afternoon we'll walk to the old harbour, buy two tickets for the "
    "ferry, and come back when the lights go on. It's 25 minutes each way; don't be late!",
    "chinese": "我叫通义千问，是阿里云的开源大模型。今天天气很好。",
    "mixed": "I said 你好 to Müller-Lüdenscheidt at 3:45pm – «ça va?» Да, ещё 12 км.",
    "emoji": "Great job 🎉👩‍👩‍👧 — see you 👍🏽!",
    "newlines": "\n\nFirst line.\r\n\r\n  Second   line\tend ",
}
TOKENIZER_TEXTS = [
    *TEXTS.values(),
    "iPhone don't DON'T we'LL 12345 3.14",
    "Cafe\u0301 \u1112\u1161\u11ab ﬁ Å",
    "a",
    " leading space",
    "trailing spaces   ",
    "x\n",
    "……?!?!  \n \n\t tabs",
    "नमस्ते दुनिया สวัสดี שלום",
    "\u200bzero\u200dwidth\ufeff",
]

END = 2150


def speak(name, text, max_tokens=24, language="auto", layout="streaming", **rest):
    return {
        "kind": "speak",
        "name": name,
        "text": TEXTS[text],
        "language": language,
        "layout": layout,
        "max_tokens": max_tokens,
        **rest,
    }


def _embed(name, **audio):
    return {"kind": "embed", "name": name, "audio": audio, "mel_frames": 20}


def _encode(name, **audio):
    return {"kind": "encode", "name": name, "audio": audio}


def _sampling(name, history=(), decimals=6, **settings):
    values = {"temperature": 0.9, "top_k": 50, "top_p": 1.0, "repetition_penalty": 1.05, "end": END, **settings}
    base = {"kind": "sampling", "name": name, "seed": len(name), "rows": 3, "vocabulary": 3072, "decimals": decimals}
    return {**base, "history": list(history), "settings": values}


TOKENIZE = {"kind": "tokenize", "name": "tokenize", "texts": TOKENIZER_TEXTS}
CLONE = [
    speak("vector-short", "short", vector=1),
    speak("vector-long-english", "long", 70, language="English", vector=2),
    speak("vector-chinese", "chinese", language="chinese", vector=3),
    speak("vector-mixed-full", "mixed", layout="full", vector=4),
    speak("vector-emoji", "emoji", vector=5),
    speak("vector-newlines", "newlines", vector=6),
    speak("vector-no-penalty", "short", 40, vector=7, repetition_penalty=1.0),
    speak("clone", "short", language="german", audio={"seed": 11, "seconds": 1.5}),
    speak("icl", "short", audio={"seed": 12, "seconds": 2.03}, ref_text="hello the world, this is the reference."),
    speak("icl-text-trails", "long", 60, audio={"seed": 13, "seconds": 0.9}, ref_text="the"),
    speak("icl-full", "mixed", layout="full", audio={"seed": 14, "seconds": 1.2, "rate": 16000}, ref_text="in an hour"),
    speak("icl-emoji", "emoji", language="French", audio={"seed": 15, "seconds": 1.0}, ref_text="嗯，好的。"),
    speak("morph", "long", 60, vector=8, morph={"to": 9, "frames": 30}),
    speak("morph-full-german", "mixed", language="German", layout="full", vector=8, morph={"to": 9, "frames": 12}),
]
RECORDINGS = [
    _embed("embed-24k", seed=21, seconds=0.7),
    _embed("embed-long", seed=22, seconds=6.3),
    _embed("embed-stereo", seed=23, seconds=1.1, channels=2),
    _embed("embed-8k", seed=24, seconds=1.3, rate=8000),
    _embed("embed-96k", seed=25, seconds=0.9, rate=96000),
    _embed("embed-44k1-stereo", seed=26, seconds=1.0, rate=44100, channels=2),
    _encode("encode-short", seed=31, seconds=0.5),
    _encode("encode-frame-and-sample", seed=32, seconds=1921 / 24000),
    _encode("encode-odd", seed=33, seconds=3.3333),
    _encode("encode-beyond-a-chunk", seed=34, seconds=12.01),
    _encode("encode-44k1", seed=35, seconds=1.7, rate=44100),
]
DECODE = [
    {"kind": "decode", "name": f"decode-{n}", "frames": n, "seed": n, "stride": max(1, n * 1920 // 1500) | 1}
    for n in (1, 2, 71, 72, 73, 299, 301, 700)
]
SAMPLING = [
    _sampling("defaults", history=(5, 9, 5)),
    _sampling("first-token"),
    _sampling("ties", history=(1, 2), decimals=1, top_k=10),
    _sampling("top-p", history=(3, 4), top_k=0, top_p=0.8),
    _sampling("top-k-top-p", history=(3, 4, 7, 7), top_k=40, top_p=0.9, temperature=1.3),
    _sampling("bare", history=(3, 4), top_k=0, temperature=1.0, repetition_penalty=1.0),
    _sampling("strong-penalty", history=tuple(range(0, 600, 3)), repetition_penalty=1.5, top_k=3),
    _sampling("tiny-top-p", history=(3, 4), top_k=0, top_p=0.01),
]
PRESET = [
    speak("preset", "short", layout="full", preset="Vivian"),
    speak("preset-streaming", "mixed", preset="ryan", language="Japanese"),
    speak("preset-dialect-auto", "chinese", layout="full", preset="eric"),
    speak("preset-dialect-chinese", "chinese", layout="full", preset="Dylan", language="Chinese"),
    speak("preset-dialect-english", "emoji", layout="full", preset="dylan", language="english"),
    speak("preset-long", "long", 70, layout="full", preset="serena", language="English"),
]
INSTRUCT = [
    speak("instruct", "short", layout="full", preset="Vivian", instruct="Very happy, and a little out of breath."),
    speak("instruct-streaming", "chinese", preset="uncle_fu", language="chinese", instruct="用特别愤怒的语气说"),
]
DESIGN = [
    speak("design", "short", layout="full", instruct="A warm, low voice of an old man."),
    speak("design-language", "long", 60, layout="full", language="English", instruct="young\nand bright"),
    speak("design-streaming", "mixed", instruct="体现撒娇稚嫩的萝莉女声"),
    speak("design-no-instruction", "emoji", layout="full", instruct=""),
]

LOSS = [
    {
        "kind": "loss",
        "name": "loss",
        "texts": [TEXTS["short"]],
        "frames": [9],
        "language": "auto",
        "layout": "streaming",
    },
    {
        "kind": "loss",
        "name": "loss-batch-english",
        "texts": [TEXTS["mixed"], TEXTS["short"], TEXTS["chinese"]],
        "frames": [7, 21, 14],
        "language": "English",
        "layout": "streaming",
    },
    {
        "kind": "loss",
        "name": "loss-batch-full",
        "texts": [TEXTS["short"], TEXTS["mixed"]],
        "frames": [12, 5],
        "language": "German",
        "layout": "full",
    },
]
LOSS = [{**case, "vector": 20 + i, "seed": 50 + 10 * i} for i, case in enumerate(LOSS)]
# As at 0.6B the predictor is as wide as the talker; as at 1.7B it is not, and the text is as wide as the talker.
AS_0B6 = {"talker_config": {"code_predictor_config": {"hidden_size": 64, "intermediate_size": 96}}}
AS_1B7 = {"talker_config": {"text_hidden_size": 64}}

OTHER_SHAPE = {
    "talker_config": {
        "hidden_size": 96,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 16,
        "rope_scaling": {"mrope_section": [4, 2, 2]},
        "text_hidden_size": 40,
        # no projection: the predictor is as wide as the talker, as at 0.6B
        "code_predictor_config": {
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "num_hidden_layers": 3,
            "layer_types": ["full_attention"] * 3,
        },
    },
    "speaker_encoder_config": {
        "enc_dim": 96,
        "enc_channels": [24, 24, 24, 24, 72],
        "enc_res2net_scale": 4,
        "enc_kernel_sizes": [7, 3, 5, 3, 1],
    },
}
OTHER_CODEC = {
    "decoder_config": {
        "latent_dim": 48,
        "codebook_dim": 24,
        "decoder_dim": 48,
        "hidden_size": 20,
        "head_dim": 12,
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        "sliding_window": 72,
    },
    "encoder_config": {"num_filters": 6, "num_hidden_layers": 3, "intermediate_size": 20},
}

# name: (arguments of write_checkpoint, cases). "1b7" is what tells the official package that instructions are taken.
SUITE = {
    "base": ({"kind": "base", "seed": 1}, [*CLONE, *RECORDINGS, *DECODE, *SAMPLING, TOKENIZE]),
    "base-other-shape": (
        {"kind": "base", "seed": 2, "eos_gain": 2.6, "changes": OTHER_SHAPE, "codec_changes": OTHER_CODEC},
        [*CLONE, RECORDINGS[0], *RECORDINGS[8:10], DECODE[4], DECODE[6], TOKENIZE],
    ),
    "base-ends": ({"kind": "base", "seed": 3, "eos_gain": 2.2}, [{**case, "max_tokens": 80} for case in CLONE[:8]]),
    "custom-voice": ({"kind": "custom_voice", "seed": 4, "eos_gain": 2.2}, PRESET),
    "custom-voice-1b7": ({"kind": "custom_voice", "seed": 5, "model_size": "1b7"}, [*PRESET[:3], *INSTRUCT]),
    "voice-design": ({"kind": "voice_design", "seed": 6, "model_size": "1b7", "eos_gain": 2.4}, DESIGN),
    "fine-tune": (
        {
            "kind": "custom_voice",
            "seed": 7,
            "changes": {
                "speaker_encoder_config": {"enc_dim": 64, "sample_rate": 24000},
                "talker_config": {
                    "spk_id": dict.fromkeys(PRESETS) | {"anna": 3000},
                    "spk_is_dialect": dict.fromkeys(PRESETS) | {"anna": False},
                },
            },
        },
        [speak("own-speaker", "long", layout="full", preset="anna", language="english")],
    ),
    "tune-0b6": ({"kind": "base", "seed": 8, "changes": AS_0B6}, LOSS),
    "tune-1b7": ({"kind": "base", "seed": 9, "model_size": "1b7", "changes": AS_1B7}, LOSS),
}
