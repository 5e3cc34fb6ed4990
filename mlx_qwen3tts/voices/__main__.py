"""`mlx_qwen3tts.voices`: keep, blend, move, compare and search voices as vectors."""

import argparse

from .. import cli
from . import FOLDER

# Of every command: what it does, and examples.
COMMANDS = {
    "add": (
        "keep a voice in the library",
        "add dora dora.wav --consent given --license CC-BY-4.0 --tag gender=female",
        'add duo "anna*0.5 + ben*0.5"',
    ),
    "list": ("list the library", "list", "list --where gender=female --json"),
    "show": ("tell all about a voice", "show anna"),
    "tag": ("enter attributes of a voice", "tag anna gender=female warm", "tag anna --remove warm --license CC0-1.0"),
    "remove": ("delete voices from the library", "remove ben"),
    "blend": (
        "write the voice of an expression",
        'blend "anna*0.7 + ben*0.3" --output blend.npy',
        'blend "(anna + ben)*0.5 + carl*0.5 + 1.5*@gender" --keep radius --add mix',
    ),
    "interp": (
        "write the voices on the way from one to another",
        "interp anna ben --steps 5 --output steps",
        "interp anna ben --steps 5 --slerp --output arc",
    ),
    "apply": (
        "move a voice along a direction",
        "apply anna gender --strength -1 --keep norm --output moved.safetensors",
    ),
    "measure": (
        "enter pitch, rate, level and brightness of recordings into a CSV file",
        "measure anna.wav ben.wav --output labels.csv",
    ),
    "space": (
        "fit the space that voices are compared in",
        "space",
        "space --csv labels.csv --group speaker --nuisance emotion --output space.safetensors",
    ),
    "direction": (
        "learn directions from labelled voices",
        "direction fit --csv labels.csv --column gender --group speaker -o gender.safetensors",
        "direction fit --csv labels.csv --column f0_median --method ridge --name pitch",
        "direction fit --csv labels.csv --column emotion --positive anger --group speaker --name anger",
        "direction show gender anger",
        "direction orthogonal gender anger -o calm-gender.safetensors",
    ),
    "search": (
        "find voices by sound, vector, expression or direction",
        "search clip.wav -k 3",
        'search "anna*0.5 + ben*0.5" --where gender=female',
        "search @pitch --lowest -k 3",
    ),
    "map": (
        "draw the library in two dimensions",
        "map --output map.html --color-by gender",
        "map --output map.png --x @gender --y @pitch",
    ),
    "export": ("write the library as one zip", "export library.zip", "export two.zip anna ben"),
    "import": ("take in such a zip", "import other.zip"),
}


def _examples(name):
    return "".join(f"  mlx_qwen3tts.voices {example}\n" for example in COMMANDS[name][1:])


def build_parser():
    options = cli.parser("voices", __doc__.split(": ", 1)[1], "".join(map(_examples, COMMANDS)))
    commands = options.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    made = {}
    for name, (told, *_) in COMMANDS.items():
        made[name] = commands.add_parser(
            name, help=told, description=told[0].upper() + told[1:], epilog=f"examples:\n{_examples(name)}"
        )
    for name in made:
        if name not in ("measure", "direction"):
            _common(made[name])
    _sources(made)
    _makers(made)
    _learners(made)
    _viewers(made)
    return options


def _common(command):
    command.add_argument("--library", default=FOLDER, metavar="DIR", help=f"the library's folder (default: {FOLDER})")
    cli.add_json(command)


def _model(command, why):
    command.add_argument("--model", metavar="M", help=why)


def _rights(command):
    command.add_argument("--consent", metavar="C", help="not-needed, given, unknown or refused; as you say, unverified")
    command.add_argument("--license", metavar="L", help="an SPDX name, such as CC-BY-4.0")
    command.add_argument("--language", metavar="L", help="what the voice speaks")


def _where(command):
    command.add_argument("--where", action="append", default=[], metavar="KEY=VALUE", help="only those that have it")


def _output(command, adds=True):
    command.add_argument("--output", "-o", metavar="F", help=".safetensors, .npy or .json")
    if adds:
        command.add_argument("--add", metavar="NAME", help="keep it in the library")
        command.add_argument("--overwrite", action="store_true", help="put it in the place of another of that name")


def _keep(command):
    command.add_argument("--keep", default="none", metavar="K", help="none, norm or radius (default: none)")
    command.add_argument("--space", metavar="F", help="a voice space (default: the library's)")


def _sources(made):
    add = made["add"]
    add.add_argument("name", metavar="NAME")
    add.add_argument("source", metavar="SOURCE", help="a recording, a voice file or a blend expression")
    _model(add, "Base model or speaker encoder for a recording (default: mlx_model), or one whose presets are meant")
    add.add_argument("--prepare", action="store_true", help="trim silence off the recording and level it")
    add.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE", help="an attribute to find it by")
    add.add_argument("--overwrite", action="store_true", help="put it in the place of another of that name")
    _rights(add)
    made["show"].add_argument("name", metavar="NAME")
    made["remove"].add_argument("names", nargs="+", metavar="NAME")
    made["tag"].add_argument("name", metavar="NAME")
    made["tag"].add_argument("tags", nargs="*", metavar="KEY=VALUE", help="or a word alone")
    made["tag"].add_argument("--remove", action="append", default=[], metavar="KEY")
    _rights(made["tag"])
    _where(made["list"])


def _makers(made):
    blend, interp, apply = made["blend"], made["interp"], made["apply"]
    blend.add_argument("expression", metavar="EXPRESSION", help="'anna*0.7 + ben*0.3 + 1.5*@gender'")
    interp.add_argument("start", metavar="FROM")
    interp.add_argument("end", metavar="TO")
    interp.add_argument("--steps", type=int, default=5, metavar="N", help="both ends included (default: 5)")
    interp.add_argument(
        "--slerp", action="store_true", help="along the arc, around the space's mean where there is one"
    )
    interp.add_argument("--output", "-o", required=True, metavar="DIR", help="a folder for the voices, made if need be")
    apply.add_argument("voice", metavar="VOICE")
    apply.add_argument("direction", metavar="DIRECTION")
    apply.add_argument("--strength", type=float, required=True, metavar="X", help="in radii; below 0 the other way")
    for command in (blend, interp, apply):
        _keep(command)
        _model(command, "a model whose presets are meant")
    _output(blend)
    _output(apply)


def _labels(command, required):
    command.add_argument("--csv", required=required, metavar="F", help="a row a voice: name or file, and its labels")
    command.add_argument("--group", metavar="COLUMN", help="whose voices are left out together, such as the speaker")


def _learners(made):
    measure = made["measure"]
    measure.add_argument("audio", nargs="+", metavar="AUDIO")
    measure.add_argument("--output", "-o", required=True, metavar="CSV", help="made, or added to")
    cli.add_json(measure)
    space = made["space"]
    _labels(space, required=False)
    space.add_argument("--nuisance", metavar="COLUMN", help="what to ignore in comparing, such as the emotion")
    space.add_argument("--output", "-o", metavar="F", help="(default: space.safetensors of the library, which uses it)")
    inner = made["direction"].add_subparsers(dest="action", metavar="ACTION", required=True)
    add = {name: inner.add_parser(name, help=told, description=told, formatter_class=argparse.HelpFormatter)
           for name, told in (("fit", "Learn a direction and report how far to trust it"),
                              ("show", "Report on directions and the angles between them"),
                              ("orthogonal", "Take one direction's part out of another"))}  # fmt: skip
    for command in add.values():
        _common(command)
    fit = add["fit"]
    _labels(fit, required=True)
    fit.add_argument("--column", required=True, metavar="COLUMN", help="the label to learn: two values, or numbers")
    fit.add_argument("--positive", metavar="LABEL", help="the side to move to; all other labels are the other side")
    fit.add_argument("--method", metavar="M", help="mean, correlation, ridge or pca (default: mean; ridge for numbers)")
    fit.add_argument("--top-k", type=int, metavar="K", help="keep the K dimensions that correlate most")
    fit.add_argument("--space", metavar="F", help="a voice space whose nuisance to leave out")
    add["show"].add_argument("names", nargs="+", metavar="DIRECTION")
    add["orthogonal"].add_argument("one", metavar="DIRECTION")
    add["orthogonal"].add_argument("other", metavar="FROM")
    for command in (fit, add["orthogonal"]):
        command.add_argument("--output", "-o", metavar="F", help="a .safetensors file")
        command.add_argument("--name", metavar="NAME", help="keep it in the library as @NAME")
        command.add_argument("--overwrite", action="store_true", help="put it in the place of another of that name")


def _viewers(made):
    search, maps = made["search"], made["map"]
    search.add_argument("query", metavar="QUERY", help="a recording, voice, expression, or @direction")
    search.add_argument("-k", type=int, default=5, metavar="N", help="how many (default: 5)")
    search.add_argument("--lowest", action="store_true", help="the farthest, or lowest on the direction")
    _where(search)
    _model(search, "Base model or speaker encoder for a recording (default: mlx_model)")
    maps.add_argument("--output", "-o", required=True, metavar="F", help=".png or .html")
    maps.add_argument("--color-by", metavar="KEY", help="an attribute")
    maps.add_argument("--x", metavar="DIRECTION", help="the axes (default: the first two principal components)")
    maps.add_argument("--y", metavar="DIRECTION")
    _where(maps)
    made["export"].add_argument("archive", metavar="ZIP")
    made["export"].add_argument("names", nargs="*", metavar="NAME", help="(default: all, with directions and space)")
    made["import"].add_argument("archive", metavar="ZIP")
    made["import"].add_argument("--overwrite", action="store_true", help="put its voices in the place of others")


def main(arguments=None):
    options = build_parser().parse_args(arguments)

    def body(options):
        from . import commands

        getattr(commands, f"run_{options.command}")(options)

    cli.run(body, options)


if __name__ == "__main__":
    main()
