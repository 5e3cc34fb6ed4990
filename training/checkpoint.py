"""The miniature's config and tokenizer, and the official folder they and the trained tensors make."""

import json
from pathlib import Path

from . import codec
from .language import PUNCTUATION, WORDS
from .open.tokens import SPECIAL, write_files

CHANNELS = 64
SPEAKER = {
    "enc_dim": 192,
    "sample_rate": 24000,
    "enc_channels": [CHANNELS] * 4 + [3 * CHANNELS],
    "enc_attention_channels": 32,
    "enc_se_channels": 32,
}
TEXT_VOCABULARY = 1024
FIRST_SPECIAL = TEXT_VOCABULARY - 64
# The official code never lets the last 1,024 ids be said, save the end of speech: they are codec control tokens.
CONTROLS = ("pad", "bos", "eos", "think", "nothink", "think_bos", "think_eos")
GENERATION = {
    "do_sample": True,
    "repetition_penalty": 1.0,
    "temperature": 0.6,
    "top_p": 1.0,
    "top_k": 20,
    "subtalker_dosample": True,
    "subtalker_temperature": 0.6,
    "subtalker_top_p": 1.0,
    "subtalker_top_k": 20,
    "max_new_tokens": 256,
}


def config():
    """config.json of a Base checkpoint with every width made small."""
    control = {name: codec.CODES + 100 + number for number, name in enumerate(CONTROLS)}
    special = {name: FIRST_SPECIAL + number for number, name in enumerate(SPECIAL)}
    common = {
        "attention_bias": False,
        "attention_dropout": 0,
        "head_dim": 32,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "sliding_window": None,
        "use_cache": True,
        "use_sliding_window": False,
        "num_code_groups": codec.CODEBOOKS,
    }
    predictor = {
        **common,
        "model_type": "qwen3_tts_talker_code_predictor",
        "hidden_size": 128,
        "intermediate_size": 320,
        "layer_types": ["full_attention"] * 2,
        "max_position_embeddings": 65536,
        "max_window_layers": 28,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "rope_scaling": None,
        "vocab_size": codec.CODES,
    }
    talker = {
        **common,
        "model_type": "qwen3_tts_talker",
        "code_predictor_config": predictor,
        "codec_bos_id": control["bos"],
        "codec_eos_token_id": control["eos"],
        "codec_pad_id": control["pad"],
        "codec_think_id": control["think"],
        "codec_nothink_id": control["nothink"],
        "codec_think_bos_id": control["think_bos"],
        "codec_think_eos_id": control["think_eos"],
        "codec_language_id": {"english": codec.CODES + 1},
        "pad_token_id": control["pad"],
        "spk_id": {},
        "spk_is_dialect": {},
        "hidden_size": SPEAKER["enc_dim"],
        "intermediate_size": 512,
        "max_position_embeddings": 32768,
        "num_attention_heads": 6,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "position_id_per_seconds": 13,
        "rope_scaling": {"interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default", "type": "default"},
        "text_hidden_size": 96,
        "text_vocab_size": TEXT_VOCABULARY,
        "vocab_size": codec.CODES + 1024,
    }
    return {
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_size": "0b6",
        "tts_model_type": "base",
        "assistant_token_id": TEXT_VOCABULARY - 1,
        "im_start_token_id": special["<|im_start|>"],
        "im_end_token_id": special["<|im_end|>"],
        "tts_pad_token_id": special["<tts_pad>"],
        "tts_bos_token_id": special["<tts_text_bos>"],
        "tts_eos_token_id": special["<tts_text_eod>"],
        "speaker_encoder_config": SPEAKER,
        "talker_config": talker,
        "transformers_version": "4.57.2",
    }


def spellings(word):
    """A word as it may stand in a text: at its start or after a blank, with a capital or without."""
    return word, word.capitalize(), "Ġ" + word, "Ġ" + word.capitalize()


def write_tokenizer(folder):
    """A byte-level BPE in the published files, in which each word of the vocabulary is one token in all its spellings.

    Letters as tokens would not do: the talker reads one token a frame, so speech would run ahead of the text. Returns
    the row of each token id that its spellings share.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    text = [form.replace("Ġ", " ") for word in (*WORDS, "assistant") for form in spellings(word)] * 3
    trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(text, trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    tokens = list(dict.fromkeys([*alphabet, *("".join(merge) for merge in merges)]))
    if len(tokens) > FIRST_SPECIAL:
        raise ValueError(f"{len(tokens)} tokens; the text vocabulary has room for {FIRST_SPECIAL}")
    tokens += [f"ƀ{number}" for number in range(len(tokens), FIRST_SPECIAL)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    write_files(folder, vocabulary, merges, FIRST_SPECIAL)
    shared = list(range(TEXT_VOCABULARY))
    for word in WORDS:
        for form in spellings(word):
            shared[vocabulary[form]] = vocabulary["Ġ" + word]
    return shared


def write(folder, tensors, codec_settings, codec_tensors):
    """The official folder: config.json, tokenizer, model.safetensors (bfloat16) and speech_tokenizer/ (float16)."""
    import torch
    from safetensors.torch import save_file

    folder = Path(folder)
    shared = write_tokenizer(folder)
    (folder / "speech_tokenizer").mkdir(exist_ok=True)
    taught = {"words": sorted(WORDS), "punctuation": PUNCTUATION}
    _json(folder / "config.json", {**config(), "closed_vocabulary": taught, "untrained": ["in_context"]})
    _json(folder / "generation_config.json", GENERATION)
    _json(
        folder / "preprocessor_config.json",
        {
            "padding_side": "left",
            "padding_value": 0.0,
            "processor_class": "Qwen3TTSProcessor",
            "return_attention_mask": True,
        },
    )
    name = "talker.model.text_embedding.weight"
    tensors = {**tensors, name: tensors[name][torch.tensor(shared)]}
    metadata = {"format": "pt"}
    save_file(_as(tensors, torch.bfloat16), folder / "model.safetensors", metadata=metadata)
    _json(folder / "speech_tokenizer" / "config.json", codec_settings)
    _json(
        folder / "speech_tokenizer" / "preprocessor_config.json",
        {
            "chunk_length_s": None,
            "feature_extractor_type": "EncodecFeatureExtractor",
            "feature_size": 1,
            "overlap": None,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
            "sampling_rate": codec.RATE,
        },
    )
    save_file(_as(codec_tensors, torch.float16), folder / "speech_tokenizer" / "model.safetensors", metadata=metadata)


def _as(tensors, dtype):
    return {
        name: (value.to(dtype) if value.is_floating_point() else value).detach().contiguous().clone()
        for name, value in sorted(tensors.items())
    }


def _json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
