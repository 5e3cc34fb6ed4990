"""The published configurations as dataclasses. Every size in the networks comes from here, none from a constant.

Unknown keys are ignored (the published files carry training leftovers); a missing size is an error that names it.
Defaults are those of the official configuration classes.
"""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, get_origin

from ..errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

# The largest numbers that are taken, by the end of a field's name. What is built piece by piece must be few, or a wrong
# number builds for minutes before the files can contradict it; a size made of several must fit MLX's 32 bits.
LIMITS = {
    "_layers": 256,
    "_quantizers": 256,
    "_groups": 256,
    "_heads": 1024,
    "head_dim": 4096,
    "vocab_size": 1 << 24,
    "codebook_size": 1 << 24,
    "max_position_embeddings": 1 << 24,
}
WIDEST = 1 << 17  # all other sizes
MOST = 12  # entries of a list of sizes
FLOATS = 1e-30, 1e30  # what the networks can compute with in float32


@dataclass(frozen=True)
class TransformerConfig:
    """What one decoder stack needs; shared by talker and code predictor."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1_000_000.0
    attention_bias: bool = False
    hidden_act: str = "silu"
    num_code_groups: int = 16
    use_sliding_window: bool = False


@dataclass(frozen=True)
class TalkerConfig(TransformerConfig):
    """The talker, with the ids of its control tokens. `spk_id` maps preset names to rows of the codec embedding."""

    text_hidden_size: int = 2048
    text_vocab_size: int = 151936
    codec_eos_token_id: int = 2150
    codec_think_id: int = 2154
    codec_nothink_id: int = 2155
    codec_think_bos_id: int = 2156
    codec_think_eos_id: int = 2157
    codec_pad_id: int = 2148
    codec_bos_id: int = 2149
    max_position_embeddings: int = 32768
    codec_language_id: dict[str, int] = field(default_factory=dict)
    spk_id: dict[str, int] = field(default_factory=dict)
    spk_is_dialect: dict[str, str | bool] = field(default_factory=dict)


@dataclass(frozen=True)
class SpeakerEncoderConfig:
    """ECAPA-TDNN; the published files state only `enc_dim` and `sample_rate`."""

    mel_dim: int = 128
    enc_dim: int = 1024
    enc_channels: tuple[int, ...] = (512, 512, 512, 512, 1536)
    enc_kernel_sizes: tuple[int, ...] = (5, 3, 3, 3, 1)
    enc_dilations: tuple[int, ...] = (1, 2, 3, 4, 1)
    enc_attention_channels: int = 128
    enc_res2net_scale: int = 8
    enc_se_channels: int = 128
    sample_rate: int = 24000

    def __post_init__(self) -> None:
        channels = self.enc_channels
        if not 3 <= len(channels) == len(self.enc_kernel_sizes) == len(self.enc_dilations):
            raise ConfigError("enc_channels, enc_kernel_sizes and enc_dilations do not match")
        if len(set(channels[:-1])) > 1 or sum(channels[1:-1]) != channels[-1]:
            raise ConfigError(f"enc_channels {list(channels)}: the last is not the others' sum")
        if self.enc_res2net_scale < 2 or channels[0] % self.enc_res2net_scale:
            raise ConfigError(f"enc_res2net_scale {self.enc_res2net_scale} does not divide enc_channels {channels[0]}")
        spans = zip(self.enc_kernel_sizes, self.enc_dilations, strict=True)
        if any((kernel - 1) * dilation % 2 for kernel, dilation in spans):
            raise ConfigError(f"enc_kernel_sizes {list(self.enc_kernel_sizes)} are not all odd")
        if self.sample_rate != 24000:
            raise ConfigError(f"the speaker encoder's sample_rate {self.sample_rate} is not 24000, its spectrogram's")


@dataclass(frozen=True)
class CodecDecoderConfig:
    """Codec decoder: split RVQ, causal transformer with a sliding window, ConvNeXt and SnakeBeta upsampling."""

    latent_dim: int
    codebook_dim: int
    codebook_size: int
    decoder_dim: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    num_quantizers: int
    head_dim: int = 64
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    sliding_window: int = 72
    attention_bias: bool = False
    hidden_act: str = "silu"
    upsample_rates: tuple[int, ...] = (8, 5, 4, 3)
    upsampling_ratios: tuple[int, ...] = (2, 2)


@dataclass(frozen=True)
class CodecEncoderConfig:
    """Mimi encoder: SEANet, causal transformer, ×2 downsampling, split RVQ."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    num_filters: int
    codebook_size: int
    codebook_dim: int
    vector_quantization_hidden_dimension: int
    num_quantizers: int = 32
    num_semantic_quantizers: int = 1
    num_residual_layers: int = 1
    audio_channels: int = 1
    kernel_size: int = 7
    last_kernel_size: int = 3
    residual_kernel_size: int = 3
    dilation_growth_rate: int = 2
    compress: int = 2
    upsampling_ratios: tuple[int, ...] = (8, 6, 5, 4)
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    attention_bias: bool = False
    hidden_act: str = "gelu"
    use_conv_shortcut: bool = False
    use_causal_conv: bool = True
    pad_mode: str = "constant"


@dataclass(frozen=True)
class CodecConfig:
    """`speech_tokenizer/config.json`, or the config of the standalone codec checkpoint."""

    decoder: CodecDecoderConfig
    encoder: CodecEncoderConfig
    num_codebooks: int = 16
    sample_rate: int = 24000
    samples_per_frame: int = 1920

    MODEL_TYPE: ClassVar[str] = "qwen3_tts_tokenizer_12hz"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> "CodecConfig":
        """Check and read the values of a config.json; `where` names the file in messages."""
        model_type = values.get("model_type")
        if model_type != cls.MODEL_TYPE:
            raise ConfigError(f"{where}: model type {_shown(model_type)} is not {cls.MODEL_TYPE!r}")
        if values.get("input_sample_rate", 24000) != values.get("output_sample_rate", 24000):
            raise ConfigError(f"{where}: input and output sample rates differ")
        decoder = from_dict(CodecDecoderConfig, values.get("decoder_config"), f"{where}: decoder_config")
        encoder = from_dict(CodecEncoderConfig, values.get("encoder_config"), f"{where}: encoder_config")
        check_attention(decoder, f"{where}: decoder_config")
        check_attention(encoder, f"{where}: encoder_config")
        if decoder.codebook_dim % 2 or decoder.decoder_dim % 2 ** len(decoder.upsample_rates):
            raise ConfigError(
                f"{where}: decoder_config: codebook_dim or decoder_dim cannot be halved as often as needed"
            )
        if not encoder.use_causal_conv or encoder.pad_mode != "constant" or encoder.use_conv_shortcut:
            raise ConfigError(f"{where}: encoder_config describes a Mimi variant that is not supported")
        numbers = {
            "encoder_valid_num_quantizers": cls.num_codebooks,
            "output_sample_rate": cls.sample_rate,
            "decode_upsample_rate": cls.samples_per_frame,
        }
        numbers = {name: values.get(name, default) for name, default in numbers.items()}
        for name, number in numbers.items():
            if not _fits(name, int, number):
                raise ConfigError(f"{where}: {name} {_shown(number)} is not a valid value for it")
        upsampling = math.prod(decoder.upsample_rates) * math.prod(decoder.upsampling_ratios)
        if numbers["decode_upsample_rate"] != upsampling:
            raise ConfigError(f"{where}: decode_upsample_rate is not {upsampling}, the product of the decoder's")
        return cls(decoder, encoder, *numbers.values())


@dataclass(frozen=True)
class ClosedVocabulary:
    """What a model that was taught only some words knows: words in lower case, punctuation that may follow one."""

    words: tuple[str, ...]
    punctuation: str


@dataclass(frozen=True)
class ModelConfig:
    """`config.json` of a Base, CustomVoice or VoiceDesign checkpoint."""

    talker: TalkerConfig
    predictor: TransformerConfig
    speaker_encoder: SpeakerEncoderConfig | None
    model_type: str  # base | custom_voice | voice_design
    model_size: str  # 0b6 | 1b7
    im_start_token_id: int
    im_end_token_id: int
    tts_pad_token_id: int
    tts_bos_token_id: int
    tts_eos_token_id: int
    # Of a model that was taught only some words and layouts, as the shipped miniature: None and () for all others.
    vocabulary: ClosedVocabulary | None = None
    untrained: tuple[str, ...] = ()

    MODEL_TYPE: ClassVar[str] = "qwen3_tts"
    KINDS: ClassVar[tuple[str, ...]] = ("base", "custom_voice", "voice_design")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json") -> "ModelConfig":
        """Check and read the values of a config.json; `where` names the file in messages."""
        model_type = values.get("model_type")
        if model_type != cls.MODEL_TYPE:
            raise ConfigError(f"{where}: model type {_shown(model_type)} is not {cls.MODEL_TYPE!r}")
        tokenizer_type = values.get("tokenizer_type", CodecConfig.MODEL_TYPE)
        if tokenizer_type != CodecConfig.MODEL_TYPE:
            raise ConfigError(f"{where}: tokenizer type {_shown(tokenizer_type)}: only the 12 Hz codec is supported")
        kind = values.get("tts_model_type")
        if kind not in cls.KINDS:
            raise ConfigError(f"{where}: tts_model_type {_shown(kind)} is not one of {', '.join(cls.KINDS)}")
        talker = from_dict(TalkerConfig, values.get("talker_config"), f"{where}: talker_config")
        talker_values = values["talker_config"]
        predictor_where = f"{where}: talker_config.code_predictor_config"
        predictor = from_dict(TransformerConfig, talker_values.get("code_predictor_config"), predictor_where)
        for where_part, part in ((f"{where}: talker_config", talker), (predictor_where, predictor)):
            check_attention(part, where_part)
            if part.use_sliding_window:
                raise ConfigError(f"{where_part}: use_sliding_window: attention within a window is not supported")
            if part.hidden_act != "silu":
                raise ConfigError(f"{where_part}: hidden_act {part.hidden_act!r} is not 'silu'")
        kinds = talker_values["code_predictor_config"].get("layer_types") or []
        if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
            raise ConfigError(f"{predictor_where}: layer_types other than full_attention are not supported")
        if predictor.num_code_groups != talker.num_code_groups:
            raise ConfigError(f"{predictor_where}: num_code_groups differs from the talker's")
        names = [f"{name}_token_id" for name in ("im_start", "im_end", "tts_pad", "tts_bos", "tts_eos")]
        ids: dict[str, Any] = {name: values.get(name) for name in names}
        check_ids(ids, talker.text_vocab_size, where)
        codec_ids = {f.name: getattr(talker, f.name) for f in fields(talker) if f.name.endswith("_id")}
        for named in (codec_ids.pop("codec_language_id"), codec_ids.pop("spk_id"), codec_ids):
            check_ids(named, talker.vocab_size, f"{where}: talker_config")
        for name, dialect in talker.spk_is_dialect.items():
            if dialect and not (isinstance(dialect, str) and dialect in talker.codec_language_id):
                raise ConfigError(f"{where}: spk_is_dialect of {name}, {_shown(dialect)}, is not in codec_language_id")
        # A fine-tune, of the kind custom_voice, keeps the encoder's configuration, but most have no encoder weights.
        encoder = read_speaker_encoder(values, talker, where) if kind == "base" else None
        return cls(
            talker=talker,
            predictor=predictor,
            speaker_encoder=encoder,
            model_type=kind,
            model_size=str(values.get("tts_model_size") or ""),
            vocabulary=_vocabulary(values.get("closed_vocabulary"), where),
            untrained=_strings(values.get("untrained", []), f"{where}: untrained"),
            **ids,
        )

    @property
    def takes_instruct(self) -> bool:
        """Whether it follows instructions: VoiceDesign and 1.7B CustomVoice do."""
        # The official test is `size in "0b6"`, true for an empty size too.
        return self.model_type == "voice_design" or (self.model_type == "custom_voice" and self.model_size not in "0b6")

    @property
    def languages(self) -> list[str]:
        """Names a user may ask for: `auto` and every language that is not a preset's dialect."""
        return ["auto", *(name for name in self.talker.codec_language_id if "dialect" not in name)]


def read_speaker_encoder(values: Mapping[str, Any], talker: TalkerConfig, where: str) -> SpeakerEncoderConfig:
    """The speaker encoder that the values of a config.json describe, checked against the talker."""
    block = values.get("speaker_encoder_config") or {}
    encoder = from_dict(SpeakerEncoderConfig, block, f"{where}: speaker_encoder_config")
    if encoder.enc_dim != talker.hidden_size:
        raise ConfigError(
            f"{where}: speaker encoder dimension {encoder.enc_dim} is not the talker's {talker.hidden_size}"
        )
    return encoder


def check_attention(part: TransformerConfig | CodecDecoderConfig | CodecEncoderConfig, where: str) -> None:
    """ConfigError unless the numbers of heads and their width fit each other."""
    if part.num_attention_heads % part.num_key_value_heads:
        heads = f"num_attention_heads {part.num_attention_heads}"
        raise ConfigError(f"{where}: {heads} is not a multiple of num_key_value_heads {part.num_key_value_heads}")
    if part.head_dim % 2:
        raise ConfigError(f"{where}: head_dim {part.head_dim} is odd, and rotary embeddings need pairs")


def _vocabulary(values: object, where: str) -> ClosedVocabulary | None:
    if values is None:
        return None
    where = f"{where}: closed_vocabulary"
    if not isinstance(values, dict) or not isinstance(values.get("punctuation"), str):
        raise ConfigError(f"{where} is not an object of words and punctuation")
    return ClosedVocabulary(_strings(values.get("words"), f"{where}.words"), values["punctuation"])


def _strings(values: object, where: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigError(f"{where} is not a list of strings")
    return tuple(values)


def check_ids(ids: Mapping[str, object], size: int, where: str) -> None:
    """ConfigError unless all values of a dictionary are row numbers of an embedding with `size` rows."""
    for name, row in ids.items():
        if type(row) is not int or not 0 <= row < size:
            raise ConfigError(f"{where}: {name} {_shown(row)} is not an integer from 0 to {size - 1}")


def _fits(name: str, kind: object, value: Any) -> bool:
    """Whether a JSON value can be a field: of its type, and positive and not absurd where it is a number."""
    if kind is tuple:
        return type(value) is list and 0 < len(value) <= MOST and all(_fits(name, int, size) for size in value)
    if kind is int:
        most = next((most for end, most in LIMITS.items() if name.endswith(end)), WIDEST)
        return type(value) is int and (0 <= value < 1 << 24 if name.endswith("_id") else 0 < value <= most)
    if kind is float:
        return type(value) in (int, float) and FLOATS[0] <= value <= FLOATS[1]
    return type(value) is kind


def _shown(value: object) -> str:
    """A value of a configuration, which may be of any length, for a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]} …"


def from_dict(cls: type[Config], values: object, where: str) -> Config:
    """A dataclass from the keys that it knows; lists become tuples, JSON null counts as absent."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected an object, found {type(values).__name__}")
    known = {}
    for f in fields(cls):
        value = values.get(f.name)
        if value is not None:
            if not _fits(f.name, get_origin(f.type) or f.type, value):
                raise ConfigError(f"{where}: {f.name} {_shown(value)} is not a valid value for it")
            known[f.name] = tuple(value) if isinstance(value, list) else value
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ConfigError(f"{where}: missing {f.name}")
    try:
        return cls(**known)
    except ConfigError as error:  # of values that do not fit each other
        raise ConfigError(f"{where}: {error}") from None
