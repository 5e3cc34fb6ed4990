"""Random checkpoints in the published layout, written without torch: for the tests and the benchmarks.

They make noise, but every input matters: the weights are scaled so that greedy codes depend on the text, the voice and
the history. Values come from MT19937's uniform stream, which is the same on every machine, so that a (size, kind, seed)
names the same bytes everywhere.
"""

import copy
import json
import zlib
from pathlib import Path

import mlx.core as mx
import numpy as np

from mlx_qwen3tts.checkpoint.weights import expected_shapes, official_shape
from mlx_qwen3tts.checkpoint.writer import write_json
from mlx_qwen3tts.networks.codec.codec import CodecNetworks
from mlx_qwen3tts.networks.config import CodecConfig, ModelConfig
from mlx_qwen3tts.networks.speaker.encoder import SpeakerEncoder
from mlx_qwen3tts.networks.talker import Talker

SIZES = ("tiny", "narrow", "0.6b", "1.7b")
LANGUAGES = {
    "chinese": 2055,
    "english": 2050,
    "german": 2053,
    "italian": 2070,
    "portuguese": 2071,
    "spanish": 2054,
    "japanese": 2058,
    "korean": 2064,
    "french": 2061,
    "russian": 2069,
    "beijing_dialect": 2074,
    "sichuan_dialect": 2062,
}
PRESETS = {"serena": 3066, "vivian": 3065, "uncle_fu": 3010, "ryan": 3061, "eric": 2875, "dylan": 2878}
DIALECTS = {"eric": "sichuan_dialect", "dylan": "beijing_dialect"}
SMALL_VOCABULARY = 1024
MERGES = ("Ġ t", "h e", "Ġt he", "i n", "e r", "a n", "l l", "o u", "a s", "as s", "i s", "is t", "ass ist", "an t")
MERGES += ("assist ant", "u s", "us er", "Ġ a", "Ġ w", "e ll", "h ell", "hell o", "Ċ Ċ", "Ġ Ġ")


def configs(size, kind, model_size=None):
    """(config.json, speech_tokenizer/config.json) of a published shape, or of the same architecture made small."""
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    predictor = {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 5,
        "vocab_size": 2048,
        "num_code_groups": 16,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "attention_bias": False,
        "hidden_act": "silu",
        "max_position_embeddings": 65536,
        "model_type": "qwen3_tts_talker_code_predictor",
        "layer_types": ["full_attention"] * 5,
        **heads,
    }
    talker = {
        **predictor,
        "num_hidden_layers": 28,
        "vocab_size": 3072,
        "max_position_embeddings": 32768,
        "model_type": "qwen3_tts_talker",
        "text_hidden_size": 2048,
        "text_vocab_size": 151936,
        "codec_bos_id": 2149,
        "codec_eos_token_id": 2150,
        "codec_think_id": 2154,
        "codec_nothink_id": 2155,
        "codec_pad_id": 2148,
        "pad_token_id": 2148,
        "codec_think_bos_id": 2156,
        "codec_think_eos_id": 2157,
        "codec_language_id": LANGUAGES,
        "spk_id": PRESETS if kind == "custom_voice" else {},
        "spk_is_dialect": {name: DIALECTS.get(name, False) for name in PRESETS} if kind == "custom_voice" else {},
        "position_id_per_seconds": 13,
        "rope_scaling": {"interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default", "type": "default"},
    }
    del talker["layer_types"]
    if size == "1.7b":
        talker |= {"hidden_size": 2048, "intermediate_size": 6144}
    speaker = {"enc_dim": talker["hidden_size"], "sample_rate": 24000}
    decoder = {
        "latent_dim": 1024,
        "codebook_dim": 512,
        "codebook_size": 2048,
        "decoder_dim": 1536,
        "hidden_size": 512,
        "intermediate_size": 1024,
        "head_dim": 64,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "num_hidden_layers": 8,
        "num_quantizers": 16,
        "num_semantic_quantizers": 1,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000,
        "sliding_window": 72,
        "max_position_embeddings": 8000,
        "layer_scale_initial_scale": 0.01,
        "attention_bias": False,
        "hidden_act": "silu",
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
        "vector_quantization_hidden_dimension": 512,
    }
    encoder = {
        "_frame_rate": 12.5,
        "audio_channels": 1,
        "codebook_dim": 256,
        "codebook_size": 2048,
        "compress": 2,
        "dilation_growth_rate": 2,
        "head_dim": 64,
        "hidden_act": "gelu",
        "hidden_size": 512,
        "intermediate_size": 2048,
        "kernel_size": 7,
        "last_kernel_size": 3,
        "max_position_embeddings": 8000,
        "norm_eps": 1e-5,
        "num_attention_heads": 8,
        "num_filters": 64,
        "num_hidden_layers": 8,
        "num_key_value_heads": 8,
        "num_quantizers": 32,
        "num_residual_layers": 1,
        "num_semantic_quantizers": 1,
        "pad_mode": "constant",
        "residual_kernel_size": 3,
        "rope_theta": 10000.0,
        "sampling_rate": 24000,
        "sliding_window": 250,
        "upsample_groups": 512,
        "upsampling_ratios": [8, 6, 5, 4],
        "use_causal_conv": True,
        "use_conv_shortcut": False,
        "vector_quantization_hidden_dimension": 256,
    }
    if size in ("tiny", "narrow"):
        width = 64 if size == "tiny" else 128
        small = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
        text = {"text_hidden_size": 48 if size == "tiny" else 128, "text_vocab_size": SMALL_VOCABULARY}
        talker |= {"hidden_size": width, "intermediate_size": width * 3 // 2, **small, **text}
        talker["rope_scaling"] = {**talker["rope_scaling"], "mrope_section": [6, 5, 5]}
        predictor |= {"hidden_size": width, "intermediate_size": width * 2, **small}
        speaker["enc_dim"] = width
    if size == "tiny":
        talker |= {"num_hidden_layers": 3}
        predictor |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16}
        predictor |= {"num_attention_heads": 2, "num_key_value_heads": 1, "layer_types": ["full_attention"] * 2}
        speaker |= {"enc_channels": [32, 32, 32, 32, 96], "enc_attention_channels": 16, "enc_se_channels": 16}
        few = {"hidden_size": 16, "intermediate_size": 24, "head_dim": 8, "num_attention_heads": 2}
        few |= {"num_key_value_heads": 2, "num_hidden_layers": 2}
        decoder |= {"latent_dim": 32, "codebook_dim": 16, "decoder_dim": 32, **few}
        decoder["vector_quantization_hidden_dimension"] = 16
        encoder |= {"num_filters": 4, "codebook_dim": 8, **few, "vector_quantization_hidden_dimension": 8}
        encoder["upsample_groups"] = 16
    vocabulary = talker["text_vocab_size"]
    special = 151643 if vocabulary > SMALL_VOCABULARY else vocabulary - 61
    model = {
        "architectures": ["Qwen3TTSForConditionalGeneration"],
        "model_type": "qwen3_tts",
        "tokenizer_type": "qwen3_tts_tokenizer_12hz",
        "tts_model_type": kind,
        "tts_model_size": model_size or ("1b7" if size == "1.7b" else "0b6"),
        "assistant_token_id": 77091 if vocabulary > SMALL_VOCABULARY else 300,
        "im_start_token_id": special + 1,
        "im_end_token_id": special + 2,
        "tts_pad_token_id": special + 3 if vocabulary == SMALL_VOCABULARY else 151671,
        "tts_bos_token_id": special + 4 if vocabulary == SMALL_VOCABULARY else 151672,
        "tts_eos_token_id": special + 5 if vocabulary == SMALL_VOCABULARY else 151673,
        "talker_config": {**talker, "code_predictor_config": predictor},
        "transformers_version": "4.57.2",  # 4.57.3 makes the official processor swap its pattern for local folders
    }
    if kind == "base":
        model["speaker_encoder_config"] = speaker
    codec = {
        "architectures": ["Qwen3TTSTokenizerV2Model"],
        "model_type": "qwen3_tts_tokenizer_12hz",
        "encoder_valid_num_quantizers": 16,
        "input_sample_rate": 24000,
        "output_sample_rate": 24000,
        "decode_upsample_rate": 1920,
        "encode_downsample_rate": 1920,
        "decoder_config": decoder,
        "encoder_config": encoder,
    }
    return copy.deepcopy(model), copy.deepcopy(codec)


def _update(values, changes):
    for key, value in (changes or {}).items():
        if value is None:
            del values[key]
        elif isinstance(value, dict) and isinstance(values.get(key), dict):
            _update(values[key], value)
        else:
            values[key] = value


def _fan_in(shape, transposed):
    shape = shape if transposed is None else official_shape(shape, transposed)
    return int(np.prod(shape[1:]))


def _model_values(name, shape, transposed, draw):
    """Values of a tensor of talker, predictor or speaker encoder; draw gives unit variance in the tensor's shape."""
    if "q_norm" in name or "k_norm" in name:
        return 1.7 + 0.2 * draw()
    if "norm" in name:
        return 1 + 0.1 * draw()
    if len(shape) < 2:
        return 0.1 * draw()
    if "embedding" in name:
        return draw()
    gain = 3 if "codec_head" in name or "lm_head" in name else 4 if "o_proj" in name else 1
    return gain * _fan_in(shape, transposed) ** -0.5 * draw()


def _codec_values(name, shape, transposed, draw):
    if name.endswith("initialized"):
        return np.ones(shape)
    if name.endswith("cluster_usage"):
        return 1 + 0.25 * draw()
    if name.endswith(("embedding_sum", "embed_sum")):
        return draw()
    if name.endswith(("gamma", "scale")):
        return 0.2 + 0.08 * draw()
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * draw()
    # The last convolution keeps the waveform well within ±1, so that clipping hides nothing from a test.
    last = name.startswith("decoder.decoder.") and shape[0] == 1
    if len(shape) < 2:
        return (0.01 if last else 0.1) * draw()
    return (0.004 if last else 1) * _fan_in(shape, transposed) ** -0.5 * draw()


def _tensors(expected, values, seed, dtype):
    """Name to array in the official layout."""
    tensors = {}
    for name, (shape, transposed) in expected.items():
        random = np.random.RandomState(zlib.crc32(f"{seed}/{name}".encode()))

        def draw(random=random, shape=shape):
            return (random.random_sample(shape) * 2 - 1) * 3**0.5

        array = np.asarray(values(name, shape, transposed, draw), np.float32)
        if transposed is not None:
            array = np.ascontiguousarray(array.transpose((2, 0, 1) if transposed else (0, 2, 1)))
        tensors[name] = mx.array(array).astype(dtype)
    return tensors


def write_checkpoint(
    folder, kind="base", seed=0, size="tiny", eos_gain=1.0, model_size=None, changes=None, codec_changes=None
):
    """Write a random checkpoint and return its folder.

    kind: "base", "custom_voice" or "voice_design"; size: one of SIZES ("narrow" has the published depth at width 128);
    eos_gain: above 1 end of speech comes early (2.6 gives some 2 to 40 frames); model_size: "0b6" or "1b7", what
    config.json says; changes, codec_changes: nested values that replace those of the two configurations, None to remove
    one.
    """
    folder = Path(folder)
    model, codec = configs(size, kind, model_size)
    _update(model, changes)
    _update(codec, codec_changes)
    config = ModelConfig.from_dict(model)
    modules = {"talker": Talker(config)}
    if config.speaker_encoder:
        modules["speaker_encoder"] = SpeakerEncoder(config.speaker_encoder)
    tensors = _tensors(expected_shapes(modules), _model_values, seed, mx.bfloat16)
    gain = mx.ones((config.talker.vocab_size, 1))
    gain[config.talker.codec_eos_token_id] = eos_gain
    tensors["talker.codec_head.weight"] = (tensors["talker.codec_head.weight"] * gain).astype(mx.bfloat16)
    codec_tensors = _tensors(
        expected_shapes({"": CodecNetworks(CodecConfig.from_dict(codec))}), _codec_values, seed, mx.float32
    )

    inside = folder / "speech_tokenizer"
    inside.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "pt"})
    mx.save_safetensors(str(inside / "model.safetensors"), codec_tensors, metadata={"format": "pt"})
    write_json(folder / "config.json", model)
    write_json(inside / "config.json", codec)
    write_json(
        inside / "preprocessor_config.json",
        {
            "feature_extractor_type": "EncodecFeatureExtractor",
            "feature_size": 1,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
            "sampling_rate": 24000,
        },
    )
    sampling = {"do_sample": True, "temperature": 0.9, "top_p": 1.0, "top_k": 50}
    write_json(
        folder / "generation_config.json",
        {
            **sampling,
            **{f"subtalker_{name.replace('do_sample', 'dosample')}": value for name, value in sampling.items()},
            "repetition_penalty": 1.05,
            "max_new_tokens": 8192,
        },
    )
    _write_tokenizer(folder, config)
    return folder


def _write_tokenizer(folder, config):
    """Byte-level BPE files: the 256 byte symbols, a few merges, filler, then the control tokens at the config's ids."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    vocabulary = {token: i for i, token in enumerate([*symbols, *(merge.replace(" ", "") for merge in MERGES)])}
    first = config.im_start_token_id - 1
    while len(vocabulary) < first:
        vocabulary[f"ƀ{len(vocabulary)}"] = len(vocabulary)
    special = {
        first: "<|endoftext|>",
        config.im_start_token_id: "<|im_start|>",
        config.im_end_token_id: "<|im_end|>",
        config.tts_pad_token_id: "<tts_pad>",
        config.tts_bos_token_id: "<tts_text_bos>",
        config.tts_eos_token_id: "<tts_text_eod>",
    }
    for token in range(first, max(special)):
        special.setdefault(token, f"<|reserved_{token}|>")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    merges = "\n".join(["#version: 0.2", *MERGES, ""])
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "added_tokens_decoder": {str(token): {"content": special[token], **flags} for token in sorted(special)},
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "errors": "replace",
            "model_max_length": 131072,
            "clean_up_tokenization_spaces": False,
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "processor_class": "Qwen3TTSProcessor",
        },
    )
    processor = {"padding_side": "left", "padding_value": 0.0, "return_attention_mask": True}
    write_json(folder / "preprocessor_config.json", {**processor, "processor_class": "Qwen3TTSProcessor"})
