"""Text to token ids: Qwen2's byte-level BPE, built from `vocab.json` and `merges.txt`, or from `tokenizer.json`.

The prompt templates are put together from ids, their control tokens as numbers, so that a control string in the
user's text (`<|im_end|>`) is read out as characters and never interpreted. A text without such strings gets the ids of
the official processor, which tokenises the filled-in template: control tokens split it before anything else is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..checkpoint.hub import lacking
from ..checkpoint.weights import read_json
from ..errors import CheckpointError
from ..networks.config import ModelConfig
from .text import one_newline

# Qwen2's pre-tokenizer pattern: contractions, words, single digits, punctuation, newlines, spaces.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The template's part before the text, and how many ids it has with the control token in front, merged newlines or not.
ASSISTANT, ROLE_IDS = "assistant\n", 3


Merges = list[tuple[str, str]]


def _read_files(folder: Path, size: int) -> tuple[dict[str, int], Merges]:
    """(vocabulary {token: id}, merges [(left, right)]), checked against each other; ids are below size.

    The official folders have them in two files. Where one is missing, `tokenizer.json` serves, the only file that
    transformers 5 saves; nothing else of it is read.
    """
    vocab_file, merges_file, both = (folder / name for name in ("vocab.json", "merges.txt", "tokenizer.json"))
    if both.is_file() and not (vocab_file.is_file() and merges_file.is_file()):
        model = read_json(both).get("model")
        vocab, merges = (model.get("vocab"), model.get("merges")) if isinstance(model, dict) else (None, None)
        if not isinstance(vocab, dict) or not isinstance(merges, list):
            raise CheckpointError(f"{both} does not hold a BPE model, a vocabulary and merges")
        vocab_file = merges_file = both
    else:
        vocab, merges = read_json(vocab_file), None
    if not all(type(i) is int and 0 <= i < size for i in vocab.values()):
        raise CheckpointError(f"{vocab_file}: ids must be integers from 0 to {size - 1}")
    missing = [symbol for symbol in pre_tokenizers.ByteLevel.alphabet() if symbol not in vocab]
    if missing:
        raise CheckpointError(f"{vocab_file} has no token for {len(missing)} of the 256 bytes")
    return vocab, _pairs(_read_lines(merges_file) if merges is None else merges, vocab, merges_file)


def _read_lines(path: Path) -> list[str]:
    """The merges of a merges.txt, each as it is written."""
    if not path.is_file():
        raise lacking(path.parent, path.name)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is not UTF-8") from None
    return [line for line in lines if line and not line.startswith("#version")]


def _pairs(merges: Iterable[object], vocab: dict[str, int], path: Path) -> Merges:
    """Merges, each "left right" or [left, right], as pairs; a merge joins two known tokens to a third."""
    pairs: Merges = []
    for merge in merges:
        match merge.split(" ", 1) if isinstance(merge, str) else merge:
            case [str(left), str(right)] if all(token in vocab for token in (left, right, left + right)):
                pairs.append((left, right))
            case _:
                raise CheckpointError(f"{path}: merge {merge!r} does not fit vocab.json")
    return pairs


class TextTokenizer:
    """Ids of the prompt templates, as lists of int."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        """folder: a model folder."""
        self.bpe = Tokenizer(models.BPE(*_read_files(folder, config.talker.text_vocab_size)))
        self.normaliser = normalizers.NFC()
        self.splitter = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        self.bpe.normalizer, self.bpe.pre_tokenizer = self.normaliser, self.splitter  # pyright: ignore[reportAttributeAccessIssue]  (its stubs have them without setters)
        self.bpe.decoder = decoders.ByteLevel()
        self.start, self.end = config.im_start_token_id, config.im_end_token_id

    def _turn(self, head: str, text: str) -> list[int]:
        """`<|im_start|>{head}{text}`, tokenised at once: leading newlines of the text merge with the template's."""
        return [self.start, *self.bpe.encode(head + one_newline(text), add_special_tokens=False).ids]

    def assistant(self, text: str) -> tuple[list[int], list[int]]:
        """(ids of the role, ids of the text) of `<|im_start|>assistant\\n{text}<|im_end|>\\n…`."""
        ids = self._turn(ASSISTANT, text)
        return ids[:ROLE_IDS], ids[ROLE_IDS:]

    def instruct(self, text: str) -> list[int]:
        """Ids of the whole user turn `<|im_start|>user\\n{text}<|im_end|>\\n`."""
        newline = self.bpe.encode("\n", add_special_tokens=False).ids
        return [*self._turn("user\n", text), self.end, *newline]
