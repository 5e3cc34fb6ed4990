"""Talker and code predictor together, teacher-forced on the gathered codes.

    python -m training.open talker WORK [--minutes 12 --device cuda --precision bfloat16 --compile]
    nice -n 19 python -m training.open talker WORK --precision bfloat16 --threads 2
    python -m training.open talker WORK --steps 30000

The last one makes a run that was begun longer, which it may until its rate begins to fall. The stage reads WORK/data
alone and needs torch, NumPy and safetensors. Everything random comes from the number of the step, so a
run that was stopped ends in the same weights as one that was not (on one kind of machine, with the same options). It
writes WORK/talker.csv (means of the losses), WORK/talker.notes.csv (held-out voices and sentences) and, at its end,
WORK/talker.safetensors. Gates: after 2 % of the steps the losses beside those of curve.csv; at the end the held-out
ones.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from . import curve
from .inventory import INVENTORY
from .loop import Loop
from .model import NAMES, Talker, Teacher, losses, total
from .prompts import Order, Prompts

STEPS, FRAMES, RATE = 20_000, 4_096, 1e-3
TIMES = {"muon": 2.5, "adamw": 1.0}  # of the rate, for each optimizer
SIZE = "match_rms_adamw"  # at one rate Muon's steps are as large as AdamW's (Liu et al. 2025)
PREDICTED = 4  # one frame in so many is learnt by the code predictor in a step
FLAT = 0.7  # of all steps at the highest rate, in which a run may still be made longer or shorter
DECAY, BETAS, CLIP = 0.03, (0.9, 0.98), 1.0
CHECKED = 1000  # steps between two looks at the held-out voices
TIMED = 40  # steps that are timed for --minutes, after as many that are not
GATE = {"pointer": 0.5, "phones": 1.2, "first": 1.3}

torch.set_flush_denormal(True)  # decaying moments of an optimizer would slow a CPU down many times over


class Batches(torch.utils.data.Dataset):
    """The batch of a step, as tensors; steps from `first` on, so that workers can make them ahead."""

    def __init__(self, prompts, order, first, last, predicted):
        self.prompts, self.order, self.first, self.last, self.predicted = prompts, order, first, last, predicted

    def __len__(self):
        return self.last - self.first

    def __getitem__(self, index):
        step = self.first + index
        return tensors(self.prompts.batch(self.order[step], step, True, self.predicted))


def tensors(batch):
    return {name: torch.from_numpy(np.asarray(value)) for name, value in batch.items()}


def compiled(talker, device):
    """`losses` with a step that is compiled: as a whole, or on a CPU layer by layer.

    The whole has a graph for every length of a batch's rows, and a CPU's compiler takes minutes for each. A layer's is
    shared by all of its kind.
    """
    if device != "cpu":
        return torch.compile(losses, dynamic=True)
    for stack in (talker.model, talker.code_predictor.model):
        for layer in stack.layers:
            layer.compile(dynamic=True)
    return losses


def optimizers(talker, teacher, device):
    """{name: optimizer}: Muon (Jordan et al. 2024) for the products of the layers, AdamW for everything else. The rate
    is given at each step.

    A product's step is made orthogonal first, so that directions that the gradient seldom shows are learnt as well.
    """
    stacks = (talker.model, talker.code_predictor.model)
    products = [v for stack in stacks for v in stack.layers.parameters() if v.ndim == 2]
    taken = {id(v) for v in products}
    rest = [v for v in (*talker.parameters(), *teacher.parameters()) if id(v) not in taken]
    groups = [
        {"params": [v for v in rest if v.ndim > 1], "weight_decay": DECAY},
        {"params": [v for v in rest if v.ndim < 2], "weight_decay": 0.0},
    ]
    return {
        "muon": torch.optim.Muon(products, weight_decay=DECAY, adjust_lr_fn=SIZE),
        "adamw": torch.optim.AdamW(groups, betas=BETAS, fused=device != "cpu"),
    }


class Learner:
    """Model and optimizers, and a step of learning."""

    def __init__(self, settings, options):
        self.options, self.settings = options, settings
        torch.manual_seed(0)
        self.talker = Talker(settings).to(options.device)
        self.teacher = Teacher(settings, len(INVENTORY) + 1).to(options.device)
        self.trained = [*self.talker.parameters(), *self.teacher.parameters()]
        self.optimizers = optimizers(self.talker, self.teacher, options.device)
        self.losses = compiled(self.talker, options.device) if options.compile else losses

    def told(self, batch, noise):
        batch = {name: value.to(self.options.device, non_blocking=True) for name, value in batch.items()}
        kind, low = self.options.device.partition(":")[0], self.options.precision == "bfloat16"
        with torch.autocast(kind, torch.bfloat16, enabled=low):
            return (self.losses if noise else losses)(self.talker, self.teacher, batch, noise)

    def step(self, number, batch, rate, mark=lambda: None):
        """One step of learning; {name: scalar}. mark: called between forward, backward and optimizers."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = rate * TIMES[name]
        torch.manual_seed(number)
        told = self.told(batch, True)
        mark()
        total(told).backward()
        mark()
        norm = nn.utils.clip_grad_norm_(self.trained, CLIP)
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return {name: value.detach() for name, value in told.items()} | {"norm": norm.detach()}


class Training(Learner):
    """A learner with its data."""

    def __init__(self, options, settings=None):
        self.prompts = Prompts(Path(options.work) / "data", settings)
        super().__init__(self.prompts.settings, options)
        self.order = Order(self.prompts.of("train"), self.prompts.lengths, options.frames)
        self.held = Order(self.prompts.of("valid"), self.prompts.lengths, options.frames)

    def batches(self, first, last):
        """The batches of steps first to last, made ahead by --workers processes."""
        data = Batches(self.prompts, self.order, first, last, self.options.frames // PREDICTED)
        ahead = {"num_workers": self.options.workers, "prefetch_factor": 4} if self.options.workers else {}
        return iter(torch.utils.data.DataLoader(data, batch_size=None, shuffle=False, **ahead))

    @torch.no_grad()
    def valid(self, most=12):
        """{name: mean} on held-out voices and sentences."""
        rows = []
        for number in range(min(most, self.held.each)):
            batch = tensors(self.prompts.batch(self.held[number], number, False))
            rows.append([float(value) for value in self.told(batch, False).values()])
        return dict(zip(NAMES, np.mean(rows, 0).tolist(), strict=True))

    def steps_in(self, minutes):
        """How many steps take so many minutes here, by timing some and undoing them."""
        state = {k: v.clone() for k, v in self.talker.state_dict().items()}
        teacher = {k: v.clone() for k, v in self.teacher.state_dict().items()}
        feed, took = self.batches(0, 2 * TIMED), []
        for number in range(2 * TIMED):
            before = time.perf_counter()
            float(self.step(number, next(feed), 1e-5)["norm"])
            took.append(time.perf_counter() - before)
        self.talker.load_state_dict(state)
        self.teacher.load_state_dict(teacher)
        self.optimizers = optimizers(self.talker, self.teacher, self.options.device)
        return max(100, int(60 * minutes / np.mean(took[TIMED:])))

    def keep(self):
        return {"talker": self.talker, "teacher": self.teacher, **self.optimizers}


def add_options(options):
    options.add_argument("--steps", type=int, help=f"of the whole run (default: as begun, or {STEPS})")
    options.add_argument("--minutes", type=float, help="as many steps as take so long here, instead of --steps")
    options.add_argument("--frames", type=int, default=FRAMES, help=f"of a batch, about (default: {FRAMES})")
    options.add_argument("--rate", type=float, default=RATE, help=f"highest learning rate (default: {RATE})")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    options.add_argument("--compile", action="store_true", help="compile the step")
    options.add_argument("--threads", type=int, default=1, help="of a CPU (default: 1)")
    options.add_argument("--workers", type=int, default=0, help="processes that make batches ahead (default: 0)")


def planned(work, frames):
    """The steps of a run that was begun, or None; it ends where its batches were of another size."""
    path = Path(work) / "talker.plan.json"
    if not path.is_file():
        return None
    plan = json.loads(path.read_text())
    if plan["frames"] != frames:
        sys.exit(f"talker: this run was begun with --frames {plan['frames']}; go on with that, or move {path} away")
    return plan["steps"]


def main(options):
    torch.set_num_threads(options.threads)
    torch.set_float32_matmul_precision("high")
    work = Path(options.work)
    training = Training(options)
    begun = planned(work, options.frames)
    steps = options.steps or begun or (training.steps_in(options.minutes) if options.minutes else STEPS)
    loop = Loop("talker", work, training.keep(), steps, options.rate, torch, flat=FLAT)
    (work / "talker.plan.json").write_text(json.dumps({"steps": steps, "frames": options.frames}) + "\n")
    known = curve.read()
    asked = max(1, round(steps * curve.EARLY / loop.every)) * loop.every
    feed = training.batches(loop.step, steps)
    seen = int(training.prompts.lengths[training.prompts.of("train")].sum()) / training.order.each  # frames of a step
    for step in loop.run(options.seconds):
        loop.record(frames=seen, **training.step(step, next(feed), loop.rate()))
        if (step + 1) % CHECKED == 0:
            loop.note(frames=(step + 1) * seen, **training.valid())
        if step + 1 == asked and (wrong := curve.misses(known, step + 1, loop.means)):
            loop.save()
            sys.exit(f"talker: after {step + 1} of {steps} steps {'; '.join(wrong)}")
    if not loop.done:
        return
    valid = training.valid()
    print("talker:", {name: round(value, 3) for name, value in valid.items()})
    write(training.talker, work / "talker.safetensors")
    if bad := [name for name, bound in GATE.items() if not valid[name] <= bound]:
        sys.exit(f"talker: {', '.join(f'{name} {valid[name]:.2f} > {GATE[name]}' for name in bad)} on held-out voices")


def write(talker, path):
    """The weights under the published names."""
    save_file({f"talker.{k}": v.detach().float().cpu().contiguous() for k, v in talker.state_dict().items()}, path)
