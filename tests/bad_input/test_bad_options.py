"""Values out of range, unknown names."""

import pytest

KINDS = ("base", "custom-voice", "voice-design")
TAKES_INSTRUCT = ("custom-voice-1b7", "voice-design")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--language", "klingon", "language 'klingon' is not one of auto, chinese, english"),
        ("--language", "", "language '' is not one of auto"),
        ("--language", "sichuan_dialect", "language 'sichuan_dialect' is not one of"),
        ("--dtype", "float64", "dtype 'float64' is not one of float32, float16, bfloat16"),
        ("--dtype", "", "dtype '' is not one of"),
        ("--text-mode", "Full", "text_mode 'Full' is not one of streaming, full"),
    ],
)
def test_unknown_names(name, option, value, message, refused, speak):
    assert message in refused("generate", *speak(name), option, value, "Hello.")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--temperature", "-0.1", "temperature -0.1 is not between 0 and 100"),
        ("--temperature", "nan", "temperature nan is not between 0 and 100"),
        ("--temperature", "inf", "temperature inf is not between 0 and 100"),
        ("--temperature", "warm", "argument --temperature: invalid float value: 'warm'"),
        ("--top-k", "-1", "top_k -1 is not 0 or more"),
        ("--top-k", "2.5", "argument --top-k: invalid int value: '2.5'"),
        ("--top-p", "0", "top_p must be above 0"),
        ("--top-p", "1.01", "top_p 1.01 is not between 0 and 1"),
        ("--top-p", "nan", "top_p nan is not between 0 and 1"),
        ("--repetition-penalty", "0", "repetition_penalty must be above 0"),
        ("--repetition-penalty", "nan", "repetition_penalty nan is not between 0 and 100"),
        ("--subtalker-temperature", "-1", "subtalker_temperature -1.0 is not between 0 and 100"),
        ("--subtalker-top-k", "-3", "subtalker_top_k -3 is not 0 or more"),
        ("--subtalker-top-p", "inf", "subtalker_top_p inf is not between 0 and 1"),
        ("--max-tokens", "1", "max_tokens 1 is not 2 or more"),
        ("--max-tokens", "-5", "max_tokens -5 is not 2 or more"),
        ("--max-tokens", "99999999999999999999", "positions, the model has 32768; shorten either"),
        ("--seed", "-1", "seed -1 is not between 0 and 4294967295"),
        ("--seed", "4294967296", "seed 4294967296 is not between 0 and 4294967295"),
        ("--seed", "x", "argument --seed: invalid int value: 'x'"),
        ("--frobnicate", "1", "unrecognized arguments: --frobnicate"),
        ("--temp", "1", "unrecognized arguments: --temp"),  # no abbreviations
    ],
)
def test_values_out_of_range(option, value, message, refused, speak):
    assert message in refused("generate", *speak("base"), option, value, "Hello.")


def test_an_instruction_where_the_model_has_none(refused, command, speak):
    for name, kind in (("base", "base"), ("custom-voice", "custom_voice")):
        message = refused("generate", *speak(name), "--instruct", "Angry.", "Hello.")
        assert message == f"this {kind} model (0b6) takes no instruction; use VoiceDesign or 1.7B CustomVoice"
    for name in TAKES_INSTRUCT:
        assert command("generate", *speak(name), "--instruct", "Angry.", "Hello.").status == 0
