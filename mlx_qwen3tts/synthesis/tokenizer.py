"""Text to token ids: Qwen2's byte-level BPE, built from `vocab.json` and `merges.txt`.

The prompt templates are put together from ids, their control tokens as numbers, so that a control string in the
user's text (`<|im_end|>`) is read out as characters and never interpreted. A text without such strings gets the ids of
the official processor, which tokenises the filled-in template: control tokens split it before anything else is done.
"""

import unicodedata

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ..checkpoint.weights import read_json
from ..errors import CheckpointError, InvalidValue, WrongType

# Qwen2's pre-tokenizer pattern: contractions, words, single digits, punctuation, newlines, spaces.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The template's part before the text, and how many ids it has with the control token in front, merged newlines or not.
ASSISTANT, ROLE_IDS = "assistant\n", 3
# Categories refused in a text. Python has surrogates for bytes of a command line that are not UTF-8.
UNSPEAKABLE = {"Cc": "control character", "Cs": "undecodable byte or surrogate"}


def _read_files(folder, size):
    """(vocabulary {token: id}, merges [(left, right)]), checked against each other; ids are below size."""
    vocab, path = read_json(folder / "vocab.json"), folder / "merges.txt"
    if not all(type(i) is int and 0 <= i < size for i in vocab.values()):
        raise CheckpointError(f"{folder / 'vocab.json'}: ids must be integers from 0 to {size - 1}")
    missing = [symbol for symbol in pre_tokenizers.ByteLevel.alphabet() if symbol not in vocab]
    if missing:
        raise CheckpointError(f"{folder / 'vocab.json'} has no token for {len(missing)} of the 256 bytes")
    if not path.is_file():
        raise CheckpointError(f"{folder} has no merges.txt")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        raise CheckpointError(f"{path} is not UTF-8") from None
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    for merge in merges:
        if len(merge) != 2 or any(token not in vocab for token in (*merge, "".join(merge))):
            raise CheckpointError(f"{path}: merge {' '.join(merge)!r} does not fit vocab.json")
    return vocab, merges


class TextTokenizer:
    """Ids of the prompt templates, as lists of int."""

    def __init__(self, folder, config):
        """folder: a model folder (Path); config: a ModelConfig."""
        self.bpe = Tokenizer(models.BPE(*_read_files(folder, config.talker.text_vocab_size)))
        self.bpe.normalizer = normalizers.NFC()
        self.bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        self.bpe.decoder = decoders.ByteLevel()
        self.start, self.end = config.im_start_token_id, config.im_end_token_id

    def _turn(self, head, text):
        """`<|im_start|>{head}{text}`, tokenised at once: leading newlines of the text merge with the template's."""
        return [self.start, *self.bpe.encode(head + text, add_special_tokens=False).ids]

    def assistant(self, text):
        """(ids of the role, ids of the text) of `<|im_start|>assistant\\n{text}<|im_end|>\\n…`."""
        ids = self._turn(ASSISTANT, text)
        return ids[:ROLE_IDS], ids[ROLE_IDS:]

    def instruct(self, text):
        """Ids of the whole user turn `<|im_start|>user\\n{text}<|im_end|>\\n`."""
        newline = self.bpe.encode("\n", add_special_tokens=False).ids
        return [*self._turn("user\n", text), self.end, *newline]


def check_text(text, what="text"):
    """The text itself, or ValueError where there is nothing in it to speak or it holds what is no text."""
    if not isinstance(text, str):
        raise WrongType(f"{what} must be a string, not {type(text).__name__}")
    if not text.strip():
        raise InvalidValue(f"{what} is empty")
    return check_characters(text, what)


def check_characters(text, what="text", start=0):
    """The text itself, or ValueError where it holds what is no text; `start` is its place in a longer one."""
    for place, char in enumerate(text, start):
        kind = UNSPEAKABLE.get(unicodedata.category(char))
        if kind and char not in "\t\n\r":
            raise InvalidValue(f"{what} has the {kind} U+{ord(char):04X} at position {place}; remove it")
    return text
