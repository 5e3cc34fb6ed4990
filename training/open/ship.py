"""Put the open miniature where the package has it, when every gate of `evaluate` holds.

    python -m training.open ship WORK [--package FOLDER] --texts ROOT

writes the converted checkpoint, two recordings, ten labelled voices and the model card. `training.directions FOLDER`
and `training.golden WORK --package FOLDER` make the rest.
"""

import json
import sys
from pathlib import Path

from mlx_qwen3tts import Qwen3TTS

from ..ship import LABELLED, filled, labelled, laid_out, report
from .config import PACKAGE
from .corpus import SPLITS
from .evaluate import PARTS, Spoken
from .phones import FRAME


def add_options(options):
    options.add_argument("--texts", default="/", help="root below which the texts' packages lie")
    options.add_argument("--package", type=Path, default=PACKAGE, help="the folder (default: the package's)")


def missed(work):
    """What stands between a model and its name: gates that do not hold, and parts that were not measured."""
    path = work / "evaluation.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    rows = [row for part in known.values() for row in part["rows"]]
    return [part for part in PARTS if part not in known] + [row["name"] for row in rows if not row.get("met", True)]


def main(options):
    work, package = Path(options.work), options.package
    if wrong := missed(work):
        sys.exit(f"ship: nothing was written, as these do not hold: {'; '.join(wrong)}")
    spoken = Spoken(work, options.texts)
    laid_out(work, package)
    model = Qwen3TTS.from_pretrained(package)
    own = spoken.by_speaker(spoken.novel("valid"))
    sounds = {voice: [spoken.samples(u) for u in of] for voice, of in list(own.items())[:LABELLED]}
    labelled(model, sounds, spoken.speakers, package)
    index = json.loads((work / "corpus" / "index.json").read_text())
    taught = [about for name, about in index.items() if name not in SPLITS]
    card = filled(
        Path(__file__).with_name("card.md"),
        work,
        utterances=f"{sum(about['utterances'] for about in taught):,}",
        hours=f"{sum(about['frames'] for about in taught) * FRAME / 3600:.0f}",
        steps=f"{json.loads((work / 'talker.plan.json').read_text())['steps']:,}",
    )
    (package / "README.md").write_text(card)
    report(package)
