"""Stage 5: talker and code predictor together, teacher-forced on the codes of the corpus.

    python -m training.talker WORK [--minutes 50]

Prompts are the official ones for an x-vector: streaming (one text token a frame) three times in four, else full.
Where an utterance is of a voice in between two others, its speaker vector is mostly the blend of theirs: that is what
makes blends of vectors come out as voices in between. Writes WORK/talker.pt. Gate: loss on held-out voices and
sentences.
"""

import random
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from . import checkpoint, codec
from .corpus import Corpus
from .language import WORDS, words
from .official import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration
from .recogniser import NUMBER
from .stage import Stage, arguments, parser

BATCH = 32
# of what `losses` gives
NAMES = ("first", "weighted", "content", "place", "rest", "right_first", "right_rest", "right_word")
PREDICTED = 500  # frames of a batch that the code predictor is trained on
BLENDED = 0.7  # how often an utterance in between gets the blend of its parents' vectors
WEIGHTS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.2, 0.2)  # of the codebooks after the first, of which the early ones say most
WORD_LAYER = 3  # of 4: after it the hidden states know which word is spoken
LONGEST = 16  # words of a sentence
GATE = 1.2  # of the first codebook, which is the pitch


class Prompts:
    """Teacher-forced batches in the official layouts."""

    def __init__(self, work, settings):
        from transformers import Qwen2TokenizerFast

        self.shared = torch.tensor(checkpoint.write_tokenizer(Path(work) / "tokenizer"))
        tokenizer = Qwen2TokenizerFast.from_pretrained(str(Path(work) / "tokenizer"))
        self.corpus, self.settings = Corpus(work), settings
        codes = np.load(Path(work) / "codes.npy").astype(np.int64)
        codes = np.split(codes, self.corpus.starts[1:-1])
        self.codes = [torch.from_numpy(row) for row in codes]
        said = np.load(Path(work) / "alignment.npy").astype(np.int64)
        self.said = [torch.from_numpy(row) for row in np.split(said, self.corpus.starts[1:-1])]
        self.embeddings = torch.from_numpy(np.load(Path(work) / "embeddings.npy"))
        self.of_speaker = self.corpus.by_speaker(range(len(self.codes)))
        self.role = tokenizer("<|im_start|>assistant\n").input_ids
        if len(self.role) != 3:
            raise AssertionError(f"the role is {len(self.role)} tokens, not 3")
        self.texts = []
        for _, text, *_ in self.corpus.utterances:
            ids = tokenizer(f"<|im_start|>assistant\n{text}<|im_end|>\n<|im_start|>assistant\n").input_ids
            self.texts.append(ids[3:-5])
        self.words = [torch.tensor([NUMBER[word] for word in words(text)]) for _, text, *_ in self.corpus.utterances]

    def vector(self, utterance, generator, training):
        """The speaker vector of another recording of the voice, or the blend that the voice stands for."""
        speaker = self.corpus.utterances[utterance][0]
        about = self.corpus.speakers[speaker]
        if "parents" in about and training and generator.random() < BLENDED:
            one, other = (self._any(parent, utterance, generator) for parent in about["parents"])
            return (1 - about["t"]) * one + about["t"] * other
        return self._any(speaker, utterance, generator)

    def _any(self, speaker, but, generator):
        """The mean of one to three crops of other utterances of a speaker."""
        others = [u for u in self.of_speaker[speaker] if u != but]
        chosen = generator.sample(others, generator.choice((1, 2, 3)))
        return torch.stack([self.embeddings[u, generator.randrange(self.embeddings.shape[1])] for u in chosen]).mean(0)

    def batch(self, utterances, generator, training):
        """A dict of tensors; positions N are padded on the right."""
        top = self.settings
        talker = top["talker_config"]
        tags = (
            [talker["codec_think_id"], talker["codec_think_bos_id"], talker["codec_language_id"]["english"]],
            [talker["codec_nothink_id"], talker["codec_think_bos_id"]],
        )
        pad, bos, eos = (top[f"tts_{name}_token_id"] for name in ("pad", "bos", "eos"))
        rows = []
        for utterance in utterances:
            tag = [*tags[int(training and generator.random() < 0.3)], talker["codec_think_eos_id"]]
            words = [*self.texts[utterance], eos]
            text = [*self.role, *[pad] * (len(tag) + 1), bos]
            spoken = [None] * 3 + [*tag, None, talker["codec_pad_id"]]
            if training and generator.random() < 0.25:  # full
                text += words
                spoken += [talker["codec_pad_id"]] * len(words)
                words = []
            text += words[:1] or [pad]
            spoken.append(talker["codec_bos_id"])
            rows.append((utterance, text, spoken, words[1:], 3 + len(tag)))
        frames = [len(self.codes[row[0]]) for row in rows]
        longest = max(len(row[1]) + n for row, n in zip(rows, frames, strict=True))
        shape = len(rows), longest
        text, spoken = torch.full(shape, pad), torch.full(shape, -1)
        codes, label = torch.zeros(*shape, codec.CODEBOOKS, dtype=torch.long), torch.full(shape, -100)
        known, seen, predicts = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
        following = torch.zeros(*shape, codec.CODEBOOKS, dtype=torch.long)
        word, place = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        for row, (utterance, prompt, sides, rest, _) in enumerate(rows):
            start, said = len(prompt), self.codes[utterance]
            end = start + len(said)
            text[row, :start] = torch.tensor(prompt)
            rest = rest[: len(said)]
            text[row, start : start + len(rest)] = torch.tensor(rest, dtype=torch.long)
            spoken[row, :start] = torch.tensor([-1 if side is None else side for side in sides])
            codes[row, start:end], known[row, start:end], seen[row, :end] = said, True, True
            label[row, start - 1 : end - 1], label[row, end - 1] = said[:, 0], talker["codec_eos_token_id"]
            following[row, start - 1 : end - 1], predicts[row, start - 1 : end - 1] = said, True
            place[row, start - 1 : end - 1] = self.said[utterance]
            word[row, start - 1 : end - 1] = self.words[utterance][self.said[utterance]]
        return {
            "text": self.shared[text],
            "spoken": spoken,
            "codes": codes,
            "known": known,
            "seen": seen,
            "label": label,
            "following": following,
            "predicts": predicts,
            "word": word,
            "word_place": place,
            "vector": torch.stack([self.vector(u, generator, training) for u in utterances]),
            "place": torch.tensor([row[-1] for row in rows]),
        }


class Content(nn.Module):
    """What the talker's hidden states should tell, read off them while it learns: no part of the model.

    The first codebook is the pitch, which says little of what is spoken: what tells the talker the rest comes to it
    through the code predictor alone. Taught by that it finds the first word of a text and loses its way. So its last
    hidden states have to give the second and third codebook, and those after layer WORD_LAYER the word that is spoken
    and its place in the text.
    """

    def __init__(self, width):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, codec.CODES) for _ in range(2))
        self.norm = nn.RMSNorm(width)
        self.word, self.place = nn.Linear(width, len(WORDS) + 1), nn.Linear(width, LONGEST)

    def forward(self, hidden, codes):
        """Cross entropy; hidden [N, width], codes [N, CODEBOOKS] of the frames they foresee."""
        return sum(F.cross_entropy(head(hidden), codes[:, b + 1]) for b, head in enumerate(self.heads)) / 2

    def where(self, hidden, word, place):
        """Cross entropy, and how often the word is right; hidden [N, width], word and place [N]."""
        hidden = self.norm(hidden)
        guess = self.word(hidden)
        lost = F.cross_entropy(guess, word) + F.cross_entropy(self.place(hidden), place.clamp(max=LONGEST - 1))
        return lost / 2, (guess.argmax(-1) == word).float().mean()


def losses(model, content, batch, training):
    """Cross entropies: of the first codebook, of the others by the code predictor (weighted), of the content, of the
    word and its place, and the codebooks' mean without weights; then how often the first, the others and the word are
    right."""
    talker, predictor = model.talker, model.talker.code_predictor
    vector, codes = batch["vector"], batch["codes"]
    if training:  # a voice a little off, and now and then a wrong frame, as there will be when it speaks by itself
        vector = vector + 0.05 * torch.randn_like(vector)
        wrong = (torch.rand(codes.shape[:2], device=codes.device) < 0.08)[..., None]
        wrong = wrong & (torch.rand(codes.shape, device=codes.device) < 0.5)
        codes = torch.where(wrong, torch.randint_like(codes, codec.CODES), codes)
    x = talker.text_projection(talker.model.text_embedding(batch["text"]))
    spoken = batch["spoken"]
    x = x + talker.model.codec_embedding(spoken.clamp(min=0)) * (spoken >= 0)[..., None]
    frame = talker.model.codec_embedding(codes[..., 0])
    for book, table in enumerate(predictor.model.codec_embedding):
        frame = frame + table(codes[..., book + 1])
    x = x + frame * batch["known"][..., None]
    x = x + F.one_hot(batch["place"], x.shape[1])[..., None] * vector[:, None]
    if training:
        x = F.dropout(x, 0.05)
    out = talker.model(inputs_embeds=x, attention_mask=batch["seen"].long(), use_cache=False, output_hidden_states=True)
    hidden, early = out.last_hidden_state, out.hidden_states[WORD_LAYER]
    logits, label = talker.codec_head(hidden).float(), batch["label"]
    first = F.cross_entropy(logits.flatten(0, 1), label.flatten(), ignore_index=-100)
    predicts = batch["predicts"]
    hidden, codes = hidden[predicts], batch["following"][predicts]
    said = content(hidden, codes)
    where, right_word = content.where(early[predicts], batch["word"][predicts], batch["word_place"][predicts])
    if training and len(hidden) > PREDICTED:
        chosen = torch.randperm(len(hidden), device=hidden.device)[:PREDICTED]
        hidden, codes = hidden[chosen], codes[chosen]
    steps = [hidden[:, None], talker.model.codec_embedding(codes[:, :1])]
    steps += [predictor.model.codec_embedding[b](codes[:, b + 1 : b + 2]) for b in range(codec.CODEBOOKS - 2)]
    x = predictor.small_to_mtp_projection(torch.cat(steps, 1))
    out = predictor.model(inputs_embeds=x, use_cache=False).last_hidden_state
    guess = torch.stack([head(out[:, b + 1]) for b, head in enumerate(predictor.lm_head)], 1).float()
    each = F.cross_entropy(guess.flatten(0, 1), codes[:, 1:].flatten(), reduction="none").view(len(codes), -1).mean(0)
    rest = (each * each.new_tensor(WEIGHTS)).sum()
    asked = label >= 0
    right = (logits.argmax(-1) == label)[asked].float().mean(), (guess.argmax(-1) == codes[:, 1:]).float().mean()
    return first, rest, said, where, each.mean(), *right, right_word


def build(settings):
    """The official model, initialised for its small width."""
    configuration = Qwen3TTSConfig(**{k: v for k, v in settings.items() if k not in ("architectures", "model_type")})
    model = Qwen3TTSForConditionalGeneration._from_config(configuration, attn_implementation="sdpa")
    with torch.no_grad():
        for name, value in model.talker.named_parameters():
            if "embedding" in name:
                value.normal_(0, 1.0 if "text" in name else 0.35)
            elif value.ndim == 2:
                value.normal_(0, value.shape[1] ** -0.5)
                if "o_proj" in name or "down_proj" in name:
                    value.mul_(0.5)
        for head in (model.talker.codec_head, *model.talker.code_predictor.lm_head):
            head.weight.mul_(0.3)
    return model


def batches(utterances, lengths, generator):
    """Shuffled for ever, each batch of utterances about as long as one another."""
    while True:
        order = generator.sample(utterances, len(utterances))
        packed = []
        for start in range(0, len(order), BATCH * 16):
            part = sorted(order[start : start + BATCH * 16], key=lengths.__getitem__)
            packed += [part[k : k + BATCH] for k in range(0, len(part), BATCH)]
        yield from generator.sample(packed, len(packed))


def main():
    options = arguments(parser(minutes=50))
    settings = checkpoint.config()
    prompts, generator = Prompts(options.work, settings), random.Random(1)
    model = build(settings).to(options.device).train()
    content = Content(settings["talker_config"]["hidden_size"]).to(options.device)
    trained = [*model.talker.parameters(), *content.parameters()]
    groups = [
        {"params": [v for v in trained if v.ndim > 1], "weight_decay": 0.03},
        {"params": [v for v in trained if v.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.98))
    stage = Stage(
        "talker",
        {"model": model.talker, "content": content},
        optimizer,
        options,
        rate=2e-3,
        warmup=150,
        flat=0.2,
        log_every=200,
    )
    lengths = [len(row) for row in prompts.codes]
    held = sorted(prompts.corpus.of("valid"), key=lengths.__getitem__)

    def put(batch):
        return {name: value.to(options.device) for name, value in batch.items()}

    def validate():
        model.eval()
        draw = random.Random(2)
        with torch.no_grad():
            rows = [
                [float(v) for v in losses(model, content, put(prompts.batch(held[k : k + BATCH], draw, False)), False)]
                for k in range(0, len(held), BATCH)
            ]
        model.train()
        return dict(zip([f"valid_{name}" for name in NAMES], np.mean(rows, 0), strict=True))

    feed = batches(prompts.corpus.of("train", "between"), lengths, generator)
    for _ in stage:
        first, rest, said, where, *_ = losses(model, content, put(prompts.batch(next(feed), generator, True)), True)
        (first + rest + said + where).backward()
        norm = nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        stage.record(validate, first=first, weighted=rest, content=said, place=where, norm=norm)
    result = validate()
    print(f"talker: {stage.step} steps,", {name: round(float(value), 3) for name, value in result.items()})
    if result["valid_first"] > GATE:
        sys.exit("talker: held-out sentences are not foreseen well; train it longer")


if __name__ == "__main__":
    main()
