"""How much each quantisation recipe changes a model: codes and distributions on the same speech, beside the bytes.

    python -m benchmarks.ladder --model M [--ref-audio WAV | --voice NAME|FILE] [--recipes 8 6 4 4+p8 8+e8 4g32]
                                [--texts N] [--text-file F] [--frames 100] [--dtype float32] [--json]
    python -m benchmarks.ladder --size narrow      a random checkpoint, whose figures say little about real ones

The unquantised model speaks a few texts. Then every model, itself included, is fed these very codes (teacher forcing)
and asked at each step which code it would choose now: the prompt is its own, the frames behind it and the codes before
it in the frame are the reference's. So an error does not add up along the utterance, as it does in free speech.

A recipe is BITS[gGROUP][+pBITS][+e8]: bits of the talker, group size where it is not --group-size, bits of the
predictor where they differ, and whether the text embedding is quantised. `bf16` and `fp32` are not quantised but cast
and computed in that dtype. Everything else is computed in --dtype (default: the checkpoint's own). The folders are
written by `mlx_qwen3tts.convert` and removed again.

    codebook 0, 1-15   how often the choice is that of the unquantised model; codebook 0 after the repetition penalty
                       and the suppression of control tokens, end of speech included
    KL                 divergence from the unquantised model's distributions at temperature 1, mean nats a code
    disk, no codec     size of the folder, which has the codec in float32; size without it
    a frame            bytes of weights that one frame reads
    left               linear layers, or the text embedding, that stay as they are: the group size does not divide their
                       width

Give float32 on a CPU device: there MLX adds up quantised products in the dtype of their input, and in bfloat16 that
costs more than 8 bits do. A GPU adds them up in float32.
"""

import platform
import re
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn

from benchmarks.shared import frame_bytes
from convert.random_checkpoint import SIZES, write_checkpoint
from mlx_qwen3tts import Qwen3TTS, cli
from mlx_qwen3tts.checkpoint import hub
from mlx_qwen3tts.checkpoint.folder import ModelFolder
from mlx_qwen3tts.checkpoint.part import check_dtype
from mlx_qwen3tts.checkpoint.plan import TEXT_EMBEDDING
from mlx_qwen3tts.checkpoint.weights import read_folder, read_json
from mlx_qwen3tts.convert import Q_BITS, Q_GROUP_SIZES, convert
from mlx_qwen3tts.errors import InvalidValue
from mlx_qwen3tts.networks.cache import KVCache
from mlx_qwen3tts.networks.device import on_gpu
from mlx_qwen3tts.synthesis.request import LAYOUTS, check_seed
from mlx_qwen3tts.synthesis.sampling import unseen

RECIPES = ("bf16", "8", "6", "4", "4+p8", "6+p8", "8+e8", "4g32")
UNQUANTISED = {"bf16": "bfloat16", "fp32": "float32"}
TEXTS = (
    "The weather is fine today, and in the afternoon we'll walk to the old harbour.",
    "Did you remember to call her back before seven, or has it slipped your mind again?",
    "Chapter twelve: in which nothing goes as planned, and everybody is the better for it.",
    "Please note that the train on platform three will leave about twenty minutes late.",
    "Oh, that's wonderful news! I honestly didn't think they would ever agree.",
    "He counted the coins twice, sighed, and put them back one by one.",
    "The museum opens at nine, closes at five, and costs four euros fifty.",
    "Nobody spoke. Somewhere below them a door fell shut.",
)


@dataclass(frozen=True)
class Recipe:
    """What to make of a checkpoint. `dtype` is set where it is not quantised, `bits` where it is."""

    name: str
    dtype: str | None = None
    bits: int | None = None
    group_size: int | None = None
    predictor_bits: int | None = None
    embedding_bits: int | None = None

    @classmethod
    def parse(cls, name, group_size):
        """group_size: where the name has none."""
        if name in UNQUANTISED:
            return cls(name, dtype=UNQUANTISED[name])
        bits, groups = "|".join(map(str, Q_BITS)), "|".join(map(str, Q_GROUP_SIZES))
        parts = re.fullmatch(rf"({bits})(?:g({groups}))?(?:\+p({bits}))?(?:\+e(8))?", name)
        if parts is None:
            raise InvalidValue(
                f"recipe {name!r} is not {' or '.join(UNQUANTISED)} or BITS[gGROUP][+pBITS][+e8], such as 4g32+p8; "
                f"BITS are {bits.replace('|', ', ')}, GROUP is {groups.replace('|', ', ')}"
            )
        bits, group, predictor, embedding = (int(part) if part else None for part in parts.groups())
        return cls(name, None, bits, group or group_size, predictor, embedding)

    def write(self, source, folder):
        """Convert a checkpoint with the package's own convert; returns what that does."""
        if self.dtype:
            return convert(source, folder, dtype=self.dtype)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="left unquantised")  # the table has them
            return convert(
                source,
                folder,
                quantize=True,
                q_bits=self.bits,
                q_group_size=self.group_size,
                q_predictor_bits=self.predictor_bits,
                q_embedding_bits=self.embedding_bits,
            )


@dataclass(frozen=True)
class Utterance:
    """What the unquantised model spoke and, on its own codes, would have chosen.

    codes [F, C] of F frames and C codebooks; first [F + 1, V] and rest [F, C - 1, v]: logits, as `choices` gives them.
    """

    text: str
    codes: mx.array
    first: mx.array
    rest: mx.array


def replay(talker, prompt, codes):
    """Logits of every choice along an utterance, given all that came before it in the utterance.

    talker: Talker; prompt: Prompt, in which no text is still being written; codes: [F, C]. Returns codebook 0's logits
    [F + 1, V], whose last row is what comes after the last frame, and those of the other codebooks [F, C - 1, v].

    One causal pass of the talker over the utterance, and one of the predictor over C positions of all frames.
    """
    frames, books = codes.shape
    # The talker reads the prompt, then each frame with the text of its step; what it says to one is the next frame.
    text = mx.stack([prompt.text.at(step) for step in range(frames)])
    inputs = mx.concatenate([prompt.embeddings, talker.embed_frames(codes) + text])
    hidden = talker.model(inputs[None], talker.make_cache())[0, -frames - 1 :]
    # The predictor reads the hidden state and codes 0 to C - 2; what it says to code c is code c + 1.
    predictor = talker.code_predictor
    spoken = talker.codes[codes[:, :-1] + mx.array(talker.starts[:-1])]  # [F, C - 1, E]
    inputs = predictor.project(mx.concatenate([hidden[:-1, None], spoken], axis=1))
    states = predictor.model(inputs, [KVCache(books) for _ in predictor.model.layers])  # [F, C, P]
    rest = [head(states[:, place]) for place, head in enumerate(predictor.lm_head, 1)]
    return talker.codec_head(hidden), mx.stack(rest, axis=1)


def choices(talker, prompt, codes, sampler):
    """`replay` in float32 with codebook 0 as the sampler sees it: after penalty, minimum length and suppression."""
    first, rest = replay(talker, prompt, codes)
    spoke = (sampler.ids == codes[:, :1]).astype(mx.int32)
    seen = mx.concatenate([unseen(1, sampler.size), mx.cumsum(spoke, axis=0) > 0])  # before each frame
    mask = mx.stack([sampler.mask([frame]) for frame in range(len(seen))])
    first, rest = sampler.processed(first, seen, mask), rest.astype(mx.float32)
    mx.eval(first, rest)
    return first, rest


def divergence(p, q):
    """KL divergence of softmax(q) from softmax(p) along the last axis, in nats; -inf in p counts nothing."""
    p, q = (x - mx.logsumexp(x, axis=-1, keepdims=True) for x in (p, q))
    return mx.where(p == float("-inf"), 0.0, mx.exp(p) * (p - q)).sum(axis=-1)


def compare(utterances, answers):
    """How another model's answers, a list of (first, rest), agree with the utterances', over all choices."""
    result = {}
    for name, mine, others in (
        ("0", [utterance.first for utterance in utterances], [first for first, _ in answers]),
        ("rest", [utterance.rest for utterance in utterances], [rest for _, rest in answers]),
    ):
        mine, others = mx.concatenate(mine), mx.concatenate(others)
        equal = (mine.argmax(axis=-1) == others.argmax(axis=-1)).astype(mx.float32)
        result[f"agreement_{name}"], result[f"kl_{name}"] = equal.mean().item(), divergence(mine, others).mean().item()
        result["agreement"] = [*result.get("agreement", []), *equal.mean(axis=0, keepdims=name == "0").tolist()]
    return result


def certainty(utterances):
    """Mean probability of the unquantised model's own choices: (of codebook 0, of the others)."""
    return [
        mx.softmax(mx.concatenate(logits), axis=-1).max(axis=-1).mean().item()
        for logits in zip(*((utterance.first, utterance.rest) for utterance in utterances), strict=True)
    ]


def linear_widths(source):
    """Name to input width of a checkpoint's linear layers."""
    talker = ModelFolder(source).part.modules["talker"]
    return {
        f"talker.{path}": layer.weight.shape[1]
        for path, layer in talker.named_modules()
        if isinstance(layer, nn.Linear)
    }


def check_source(source):
    """Refuse what is quantised already."""
    values = read_json(source / "config.json")
    block = values.get("quantization") or values.get("quantization_config")
    if block or any(name.endswith(".scales") for name in read_folder(source)):
        raise InvalidValue(f"{source} is quantised already; ladder needs the unquantised checkpoint")


def read_texts(options):
    """The texts to speak, as many as were asked for."""
    texts = list(TEXTS)
    if options.text_file:
        lines = Path(options.text_file).read_text(encoding="utf-8").splitlines()
        texts = [line.strip() for line in lines if line.strip()]
    count = len(texts) if options.texts is None else options.texts
    if not 1 <= count <= len(texts):
        raise InvalidValue(f"texts {count} is not between 1 and {len(texts)}; give more with --text-file")
    return texts[:count]


def choose_voice(tts, options):
    """What is spoken with: as asked for, or a preset of a model that has some, or any vector for random weights."""
    if options.ref_audio:
        return tts.clone(options.ref_audio)
    if options.size and not options.voice:
        return tts.voice(mx.random.normal((tts.embedding_dim,), key=mx.random.key(0)))
    return tts.voice(options.voice or next(iter(tts.speakers), None))


def speak(tts, texts, options):
    """What the unquantised model says: (Utterances, the Sampler, a function from model and text to the Prompt)."""
    voice, limit = choose_voice(tts, options), options.frames + 1
    sampling, utterances = tts.sampling.override(greedy=options.greedy, max_tokens=limit), []

    def make_prompt(model, text):
        return model.prompt(text, voice, options.language, options.instruct, options.text_mode, limit)

    prompts = [make_prompt(tts, text) for text in texts]  # all are checked before the first is spoken
    for number, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        cli.note(f"speaking text {number + 1} of {len(texts)}")
        generation = tts.generation([prompt], [options.seed + number], sampling)
        sampler = tts.steps.of([sampling])[0].sampler
        codes = mx.concatenate([frame.codes for frame in generation]).astype(mx.int32)
        utterances.append(Utterance(text, codes, *choices(tts.talker, prompt, codes, sampler)))
    return utterances, sampler, make_prompt


def ladder(options, scratch):
    """The whole run; returns what --json prints."""
    recipes = [Recipe.parse(name, options.group_size) for name in dict.fromkeys(options.recipes)]
    texts, dtype = read_texts(options), options.dtype
    check_dtype(dtype)
    source = write_checkpoint(scratch / "random", size=options.size) if options.size else hub.resolve(options.model)
    check_source(source)
    widths = linear_widths(source)
    for recipe in recipes:
        if recipe.bits and all(width % recipe.group_size for width in widths.values()):
            raise InvalidValue(f"recipe {recipe.name!r}: group size {recipe.group_size} divides no layer's width")

    tts = Qwen3TTS.from_pretrained(source, dtype)
    dtype = dtype or str(tts.talker.dtype).removeprefix("mlx.core.")
    if any(recipe.bits for recipe in recipes) and dtype != "float32" and not on_gpu():
        cli.note(f"warning: on a CPU, quantised products in {dtype} lose more than 8 bits do; give --dtype float32")
    utterances, sampler, make_prompt = speak(tts, texts, options)
    del tts

    rows = []
    for recipe in recipes:
        cli.note(f"recipe {recipe.name}")
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            made = recipe.write(source, Path(folder) / recipe.name)
            model = Qwen3TTS.from_pretrained(made.folder, recipe.dtype or dtype)
            answers = [
                choices(model.talker, make_prompt(model, utterance.text), utterance.codes, sampler)
                for utterance in utterances
            ]
        tensors, wanted = model.folder.part.tensors, []
        if recipe.bits:
            wanted = [*widths, TEXT_EMBEDDING] if recipe.embedding_bits else list(widths)
        rows.append(
            {
                "recipe": recipe.name,
                **compare(utterances, answers),
                "bytes": made.bytes,
                "bytes_without_codec": model.folder.part.bytes,
                "bytes_a_frame": frame_bytes({name: tensor.bytes for name, tensor in tensors.items()})["frame"],
                "layers": len(wanted),
                "left": [name for name in wanted if f"{name}.scales" not in tensors],
            }
        )
        del model, answers
        mx.clear_cache()
    return {
        "model": options.size or str(options.model),
        "random": bool(options.size),
        "dtype": dtype,
        "group_size": options.group_size,
        "device": f"{platform.machine()} {mx.default_device()}",
        "mlx": mx.__version__,
        "seed": None if options.greedy else options.seed,
        "speech": [{"text": utterance.text, "frames": len(utterance.codes)} for utterance in utterances],
        "frames": sum(len(utterance.codes) for utterance in utterances),
        "certainty": certainty(utterances),
        "recipes": rows,
    }


def megabytes(size):
    return f"{size / 1e6:.{0 if size >= 1e8 else 1}f} MB"


def print_tables(result):
    rows = result["recipes"]
    last = len(rows[0]["agreement"]) - 1
    how = "greedy" if result["seed"] is None else f"sampled from seed {result['seed']}"
    print(f"{result['model']}, {result['dtype']}, {result['device']}, MLX {result['mlx']}")
    print(f"{result['frames']} frames of {len(result['speech'])} texts, {how}")
    sure = " and ".join(f"{share:.0%}" for share in result["certainty"])
    print(f"the unquantised model gives its own choices {sure} on the mean (codebook 0 and 1-{last})\n")
    print(f"{'recipe':10} {'codebook 0':>10} {f'1-{last}':>7} {'KL 0':>8} {f'KL 1-{last}':>8}", end="")
    print(f" {'disk':>9} {'no codec':>9} {'a frame':>9}  left")
    for row in rows:
        print(f"{row['recipe']:10} {row['agreement_0']:10.1%} {row['agreement_rest']:7.1%}", end="")
        print(f" {row['kl_0']:8.4f} {row['kl_rest']:8.4f} {megabytes(row['bytes']):>9}", end="")
        print(f" {megabytes(row['bytes_without_codec']):>9} {megabytes(row['bytes_a_frame']):>9}", end="")
        print(f"  {len(row['left'])} of {row['layers']}" if row["layers"] else "")
    print(f"\n{'% by codebook':13}", *(f"{book:3}" for book in range(last + 1)))
    for row in rows:
        print(f"{row['recipe']:13}", *(f"{100 * share:3.0f}" for share in row["agreement"]))
    if result["random"]:
        print("\nrandom weights: these figures say little about real ones")


def build_parser():
    parser = cli.Parser(prog="benchmarks.ladder", description=__doc__)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", metavar="M", help="folder or hub id of an unquantised checkpoint")
    source.add_argument("--size", choices=SIZES, help="a random Base checkpoint of this size instead")
    add("--recipes", nargs="+", metavar="R", default=list(RECIPES), help=f"default: {' '.join(RECIPES)}")
    add("--group-size", type=int, choices=Q_GROUP_SIZES, default=64, help="where a recipe names none (default: 64)")
    add("--texts", type=int, metavar="N", help="how many texts to speak (default: all)")
    add("--text-file", metavar="F", help="speak the non-empty lines of a file (default: texts of our own)")
    add("--frames", type=int, default=100, metavar="N", help="at most so many a text (default: 100)")
    voice = parser.add_mutually_exclusive_group()
    voice.add_argument("--voice", metavar="NAME|FILE", help="a preset or a voice file (default: the first preset)")
    voice.add_argument("--ref-audio", metavar="WAV", help="a recording to clone by x-vector")
    add("--language", default="auto", help="default: auto")
    add("--instruct", metavar="T", help="how to speak, where the model takes instructions")
    add("--text-mode", choices=LAYOUTS, help="default: as in generate")
    add("--greedy", action="store_true", help="speak greedily (default: as the checkpoint samples)")
    add("--seed", type=int, default=0, help="of the first text, counting up (default: 0)")
    add("--dtype", metavar="D", help="bfloat16, float16 or float32, to compute in (default: the checkpoint's own)")
    cli.add_json(parser)
    return parser


def main(arguments=None):
    cli.run(_main, build_parser().parse_args(arguments))


def _main(options):
    check_seed(options.seed)
    if options.frames < 1:
        raise InvalidValue(f"frames {options.frames} is not 1 or more")
    with tempfile.TemporaryDirectory() as scratch:
        result = ladder(options, Path(scratch))
    print_tables(result)
    if options.json:
        cli.print_json(result)


if __name__ == "__main__":
    main()
