"""The open miniature's text tokens: a byte-level BPE in the published files, of tokens of at most four letters.

One token is read a frame, and a second of speech has 12.5 frames and some 14 letters: single letters would lag behind
it, and whole words would be too many to learn. With tokens of two to four letters the text is ahead of the speech two
or three times over.
"""

import json
from pathlib import Path

MERGES = 1500
LETTERS = 4  # of a token at most, beside the blank before it
ROLE = "assistant"  # one token, as the templates are read: <|im_start|>, this, a line's end
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>")
VOCABULARY = 2048
FIRST_SPECIAL = VOCABULARY - 64
FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


def learn(texts, merges=MERGES):
    """(alphabet, merges [(left, right)]) of texts, an iterable of str, those of ROLE after the learnt ones."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    from mlx_qwen3tts.synthesis.tokenizer import PATTERN

    def splitter():
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + merges,
        initial_alphabet=alphabet,
        max_token_length=LETTERS + 1,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    learnt = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    learnt = [merge for merge in learnt if len("".join(merge).removeprefix("Ġ")) <= LETTERS]
    vocabulary = {token: n for n, token in enumerate(dict.fromkeys([*alphabet, *map("".join, learnt)]))}
    whole = Tokenizer(models.BPE(vocabulary, learnt))
    whole.pre_tokenizer = splitter()
    pieces = whole.encode(ROLE).tokens
    while len(pieces) > 1:
        learnt.append((pieces[0], pieces[1]))
        pieces[:2] = ["".join(pieces[:2])]
    return alphabet, learnt


def write_files(folder, vocabulary, merges, first_special):
    """The files of a tokenizer in the published layout, with SPECIAL from an id on; vocabulary: {token: id}.

    ValueError where `first_special` is not its length: the official tokenizer counts on from there, whatever the
    files say.
    """
    if first_special != len(vocabulary):
        raise ValueError(f"{len(vocabulary)} tokens, and the special ones begin at {first_special}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(first_special + number): {"content": token, **flags} for number, token in enumerate(SPECIAL)}
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "processor_class": "Qwen3TTSProcessor",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1, ensure_ascii=False) + "\n")


def write(folder, alphabet, merges):
    """The published files; {token: id}. ValueError where there are more tokens than there is room for."""
    tokens = list(dict.fromkeys([*alphabet, *map("".join, merges)]))
    if len(tokens) > FIRST_SPECIAL:
        raise ValueError(f"{len(tokens)} tokens; the text vocabulary has room for {FIRST_SPECIAL}")
    tokens += [f"<unused{number}>" for number in range(FIRST_SPECIAL - len(tokens))]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    write_files(folder, vocabulary, merges, FIRST_SPECIAL)
    return vocabulary


class Tokens:
    """Ids and the characters they stand for, by the package's own tokenizer."""

    def __init__(self, folder):
        from mlx_qwen3tts.networks.config import ModelConfig
        from mlx_qwen3tts.synthesis.tokenizer import TextTokenizer

        from .config import model_config

        self.tokenizer = TextTokenizer(Path(folder), ModelConfig.from_dict(model_config(), "config.json"))

    def __call__(self, text):
        """(ids of the text, the first character of each): two lists, as they stand in the prompt."""
        _, ids = self.tokenizer.assistant(text)
        found = self.tokenizer.bpe.encode(text, add_special_tokens=False)
        if found.ids != ids:
            raise ValueError(f"{text!r} has other tokens at the start of a turn")
        return ids, [start for start, _ in found.offsets]

    def role(self):
        return self.tokenizer.assistant("a")[0]
