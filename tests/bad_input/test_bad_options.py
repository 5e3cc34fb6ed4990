"""Values out of range, unknown names."""

import pytest

KINDS = ("base", "custom-voice", "voice-design")
TAKES_INSTRUCT = ("custom-voice-1b7", "voice-design")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--language", "klingon", "language 'klingon' is not one of auto, chinese, english"),
        ("--language", "nl", "language 'nl' is not one of auto, chinese, english"),
        ("--language", "en glish", "language 'en glish' is not one of auto"),
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
        ("--frobnicate", "1", "unknown option --frobnicate: a value that begins with - is written --OPTION=VALUE"),
        ("--temp", "1", "unknown option --temp: did you mean --temperature?"),  # no abbreviations
        ("--langauge", "en", "unknown option --langauge: did you mean --language?"),
        ("-output", "o.wav", "unknown option -output: did you mean --output?"),
        ("--keep", "radius", "--keep belongs to a blend, as --voice or --morph-to"),
        ("--keep", "size", "--keep 'size' is not one of none, norm, radius"),
        ("--ref-silence", "0.5", "--ref-silence belongs to --ref-text, which is not given"),
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


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        (
            "embed",
            ("a.wav", "--outptu", "v.npy"),
            "unknown option --outptu: did you mean --output?; see mlx_qwen3tts.embed",
        ),
        ("voices", ("blend", "a", "--outptu", "v.npy"), "did you mean --output?; see mlx_qwen3tts.voices blend --help"),
        ("codec", ("encode", "--modle", "x", "a.wav"), "unknown option --modle: did you mean --model?"),
        ("convert", ("--hf-pth", "x"), "unknown option --hf-pth: did you mean --hf-path?"),
    ],
)
def test_an_unknown_option_is_named_before_all_else(name, words, message, refused):
    """Not the option that is missing, nor the word behind it that is then taken for something else."""
    assert message in refused(name, *words)


def test_home_is_found_behind_an_equals_sign(refused, command, speak, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert (
        refused("generate", "--ref-audio=~/x.wav", *speak("base")[:2], "Hi.")
        == f"audio {tmp_path}/home/x.wav: no such file"
    )
    (tmp_path / "home").mkdir()
    ran = command("generate", *speak("voice-design"), "--output=~/o.wav", "--instruct=~/x", "--text=~/is home")
    assert ran.status == 0 and (tmp_path / "home" / "o.wav").is_file()


def test_values_that_look_like_options_are_none(command, refused, speak):
    run = ("generate", *speak("voice-design"))
    for words in (("--text=-hello",), ("--", "--hello"), ("- a list",), ("-5",), ("--text", "-1.5")):
        assert command(*run, *words).status == 0, words
    assert "unknown option --hello" in refused(*run, "--hello")
