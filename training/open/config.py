"""The open miniature's sizes: the closed one's published config with wider networks, and what they weigh."""

import json
from pathlib import Path

from .tokens import FIRST_SPECIAL, SPECIAL, VOCABULARY

PACKAGE = Path(__file__).parents[2] / "mlx_qwen3tts" / "miniature"
TALKER = {
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "text_hidden_size": 192,
    "text_vocab_size": VOCABULARY,
}
PREDICTOR = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
MROPE = (12, 10, 10)  # half of the talker's head_dim; its three rows are equal in speech
BITS, PREDICTOR_BITS, GROUP = 6, 8, 64
MOST = 24e6  # bytes of the converted model
TINY = {
    "talker": {**TALKER, "hidden_size": 192, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "predictor": {**PREDICTOR, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1},
}  # for tests and for a smoke run: the same code in seconds


def model_config(talker=TALKER, predictor=PREDICTOR):
    """config.json in the published layout."""
    values = json.loads((PACKAGE / "config.json").read_text("utf-8"))
    for key in ("quantization", "quantization_config", "conv_layout", "closed_vocabulary"):
        values.pop(key, None)
    special = {name: FIRST_SPECIAL + number for number, name in enumerate(SPECIAL)}
    own = values["talker_config"]
    own["code_predictor_config"] |= predictor | {"layer_types": ["full_attention"] * predictor["num_hidden_layers"]}
    own |= talker
    own["rope_scaling"] = own["rope_scaling"] | {"mrope_section": list(MROPE)}
    values["speaker_encoder_config"]["enc_dim"] = talker["hidden_size"]
    values |= {
        "assistant_token_id": VOCABULARY - 1,
        "im_start_token_id": special["<|im_start|>"],
        "im_end_token_id": special["<|im_end|>"],
        "tts_pad_token_id": special["<tts_pad>"],
        "tts_bos_token_id": special["<tts_text_bos>"],
        "tts_eos_token_id": special["<tts_text_eod>"],
    }
    return values


def _layer(size):
    """Weights of the products of one layer."""
    heads, kv = (size[name] * size["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    return size["hidden_size"] * (2 * heads + 2 * kv + 3 * size["intermediate_size"])


def weights(values):
    """{part: (weights in products that are quantised, other weights)} of a config."""
    talker = values["talker_config"]
    predictor = talker["code_predictor_config"]
    books = talker["num_code_groups"] - 1
    width, text = talker["hidden_size"], talker["text_hidden_size"]
    project = width * predictor["hidden_size"] if width != predictor["hidden_size"] else 0
    return {
        "talker": (
            talker["num_hidden_layers"] * _layer(talker) + text * (text + width) + width * talker["vocab_size"],
            width * talker["vocab_size"] + text * talker["text_vocab_size"],
        ),
        "predictor": (
            predictor["num_hidden_layers"] * _layer(predictor)
            + project
            + books * predictor["hidden_size"] * predictor["vocab_size"],
            books * width * predictor["vocab_size"],
        ),
    }


def converted_bytes(values):
    """{part: bytes} as converted: products in BITS or PREDICTOR_BITS with two bfloat16 a group, the rest bfloat16; the
    speaker encoder and the codec are those of the closed miniature, as they lie in its folder."""
    found = {}
    for part, (products, other) in weights(values).items():
        bits = PREDICTOR_BITS if part == "predictor" else BITS
        found[part] = round(products * (bits + 32 / GROUP) / 8) + 2 * other
    found["codec"] = (PACKAGE / "speech_tokenizer" / "model.safetensors").stat().st_size
    found["speaker encoder"] = 2 * 192 * 1000 + 2 * 385 * values["speaker_encoder_config"]["enc_dim"]
    return found
