"""The judge of what is understood: a recogniser of phones that hears espeak-ng alone, with blur and noise.

    python -m training.open judge WORK

espeak-ng makes five seconds of speech in 3 ms and tells its phones, so every step hears speech that was never heard
before and nothing is stored. Connectionist temporal classification (Graves et al. 2006), and beside it, as the events
of espeak-ng say when each phone is, plain classification of every step, which teaches the same network sooner. Writes
WORK/judge.safetensors. Gate: phone errors on clean speech of unheard voices.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from ..ctc import read
from ..espeak import Speaker
from ..language import errors
from .inventory import INVENTORY, NUMBER
from .listener import BINS, DILATIONS, HOP, RATE, STRIDE, TAPS, log_mel, steps
from .loop import Loop
from .phones import Talking, data_folder
from .texts import Decks

WIDTH, BATCH, VOICE = 160, 16, 4  # VOICE: utterances of a voice, one after another
REUSED = 2  # steps that hear the same speech, spoilt in another way
GATE = 0.03
STEPS, LEARNING = 3000, 2e-3
SEEDS = 100_000  # numbers of voices between two seeds
HELD = 10_000_000  # texts and voices from this number on are for the gates alone


class Block(nn.Module):
    def __init__(self, dilation):
        super().__init__()
        reach = dilation * (TAPS // 2)
        self.time = nn.Conv1d(WIDTH, WIDTH, TAPS, padding=reach, dilation=dilation, groups=WIDTH)
        self.norm = nn.RMSNorm(WIDTH, eps=1e-6)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        y = self.norm(self.time(x.transpose(1, 2)).transpose(1, 2))
        return x + self.down(F.relu(self.up(y)))


class Judge(nn.Module):
    """Logits [B, steps, phones + 1] of log mel spectra [B, T, BINS]; `listener.Listener` does the same in NumPy."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(BINS, WIDTH, 5, STRIDE, 2)
        self.blocks = nn.ModuleList(Block(dilation) for dilation in DILATIONS)
        self.out = nn.Linear(WIDTH, len(INVENTORY) + 1)
        self.timed = nn.Linear(WIDTH, len(INVENTORY) + 1)  # the phone of every step; while it learns

    def forward(self, mels):
        hidden = F.relu(self.first(mels.transpose(1, 2))).transpose(1, 2)
        for block in self.blocks:
            hidden = block(hidden)
        return self.out(hidden), self.timed(hidden)


def speech(talking, decks, number, held=False):
    """(Said, spectra) of VOICE utterances of one voice; a voice of its own for every number."""
    draw = random.Random(number + held * HELD)
    talking.use(Speaker.draw(draw))
    rows, tries = [], 0
    while len(rows) < VOICE:
        said = talking.say(decks.text(draw.randrange(HELD), held))
        tries += 1
        if tries > 20 * VOICE:
            raise AssertionError("espeak-ng says nothing of what it is given")
        if said is not None and said.spoken():
            rows.append((said, log_mel(said.sound)))
    return rows


def spoilt(mels, draw):
    """Spectra [B, T, BINS] with noise, blur in time and frequency, roughness, and a band and some time missing: what
    any lossy way of passing speech on may do to it. No speech of the miniature or its codec is heard."""
    noise = np.random.default_rng(draw.randrange(1 << 32))
    floor = np.exp(noise.uniform(-10, -4, (len(mels), 1, 1))) * noise.random(mels.shape)
    mels = torch.from_numpy(np.log(np.exp(mels) + floor).astype(np.float32))
    if draw.random() < 0.6:
        window = draw.choice((1, 3, 5)), draw.choice((1, 3, 5))
        half = window[0] // 2, window[1] // 2
        mels = F.avg_pool2d(mels[:, None], window, 1, half, count_include_pad=False)[:, 0]
    if draw.random() < 0.6:
        mels = mels + torch.from_numpy(noise.normal(0, draw.uniform(0, 0.8), mels.shape).astype(np.float32))
    start = draw.randrange(BINS - 10)
    mels[:, :, start : start + draw.randrange(10)] = mels.mean()
    start = draw.randrange(max(1, mels.shape[1] - 6))
    mels[:, start : start + draw.randrange(6)] = mels.mean()
    return mels


def losses(model, rows, draw):
    """CTC and the plain classification of every step."""
    spectra = [mels for _, mels in rows]
    lengths = [steps(len(mels)) for mels in spectra]
    longest = max(map(len, spectra))
    batch = np.stack([np.pad(mels, ((0, longest - len(mels)), (0, 0)), constant_values=-11) for mels in spectra])
    batch = spoilt(batch, draw)
    levels = torch.stack([row[: len(mels)].mean() for row, mels in zip(batch, spectra, strict=True)])
    out, timed = model((batch - levels[:, None, None]) / 2)
    wanted = [[NUMBER[phone] for phone in said.spoken()] for said, _ in rows]
    ctc = F.ctc_loss(
        out.float().log_softmax(-1).transpose(0, 1),
        torch.tensor([n for row in wanted for n in row]),
        torch.tensor(lengths),
        torch.tensor([len(row) for row in wanted]),
        zero_infinity=True,
    )
    label = torch.full(timed.shape[:2], -100)
    for row, ((said, _), length) in enumerate(zip(rows, lengths, strict=True)):
        names, _ = said.at(np.arange(length) * STRIDE * HOP / RATE)
        label[row, :length] = torch.tensor([NUMBER[name] for name in names])
    return ctc, F.cross_entropy(timed.flatten(0, 1), label.flatten(), ignore_index=-100)


@torch.no_grad()
def error_rate(model, rows):
    """Phone errors on clean speech."""
    wrong = total = 0
    for said, mels in rows:
        out, _ = model(torch.from_numpy((mels - mels.mean()) / 2)[None])
        wrong += errors(said.spoken(), read(out[0].argmax(-1).tolist(), INVENTORY))
        total += len(said.spoken())
    return wrong / total


def save(model, work, rate):
    """WORK/judge.safetensors in float16, as `listener.Listener` reads it."""
    tensors = {k: v.contiguous().half() for k, v in model.state_dict().items() if not k.startswith("timed")}
    save_file(tensors, work / "judge.safetensors", metadata={"phones": json.dumps(INVENTORY), "errors": f"{rate:.4f}"})


def add_options(options):
    options.add_argument("--steps", type=int, default=STEPS)
    options.add_argument("--texts", default="/", help="root below which the texts' packages lie")
    options.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    options.add_argument(
        "--seed", type=int, default=0, help="another makes another judge, of other speech (default: 0)"
    )


def main(options):
    work = Path(options.work)
    decks, talking = Decks.kept(work, options.texts), Talking(data_folder(work))
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    model = Judge()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING, weight_decay=0.01)
    loop = Loop("judge", work, {"model": model, "optimizer": optimizer}, options.steps, LEARNING, torch)
    rows, held = [], [row for number in range(10) for row in speech(talking, decks, number, held=True)]
    for step in loop.run(options.seconds):
        for group in optimizer.param_groups:
            group["lr"] = loop.rate()
        if step % REUSED == 0 or not rows:
            first = SEEDS * options.seed + step // REUSED * BATCH // VOICE
            rows = [row for k in range(BATCH // VOICE) for row in speech(talking, decks, first + k)]
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bfloat16"):
            ctc, timed = losses(model, rows, random.Random(SEEDS * options.seed + step))
        (ctc + timed).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loop.record(ctc=ctc.detach(), timed=timed.detach())
        if (step + 1) % 500 == 0:
            loop.note(valid=error_rate(model, held))
    if not loop.done:
        return
    rows = [row for number in range(10, 50) for row in speech(talking, decks, number, held=True)]
    rate = error_rate(model, rows)
    print(f"judge: phone errors {rate:.4f} on {len(rows)} clean utterances of 40 unheard voices")
    save(model, work, rate)
    if rate > GATE:
        sys.exit(f"judge: phone errors {rate:.3f} are above {GATE}; give it more --steps")
