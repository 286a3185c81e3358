"""Compile the three reports from what the runs produced, one PDF an edition.

$ python report/build.py                     # all three
$ python report/build.py --edition 2023-24

Which runs enter. A comparison is worth something within one setting only, so the setting, full or
quick scale on real or bundled data, is chosen once for each question: full before quick, real
before bundled, the course's own sentences before those of Tatoeba, the first in which the
question's first run (that of the learning rates, or of translation without attention) is finished;
if it is finished nowhere, the first in which any of them is. A run that is not there becomes a "not
run" box with the command that makes it, and a warning line. A result that is there but broken stops
the compilation (exit code 2): a report must not hide it.
"""

import itertools
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import options
from editions import BATCH_SIZE, DATASETS, EDITIONS

YEARS = sorted(EDITIONS)


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    parser.add_option("edition", choices=YEARS, help="the report to compile (default: all three)")
    options.add_report_options(parser, HERE)
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import files
import runs

TIMESTAMP = 0  # nothing in a report depends on when it was compiled
# Scale, bundled, and whether the sentences are the course's; the best first.
SETTINGS = list(itertools.product(("full", "quick"), (False, True), (True, False)))

RATES, BEST = "rates", "best"  # names of runs


@dataclass(frozen=True)
class Question:
    """The runs of one question.

    Attributes:
        topic: what the report calls the question.
        folder: of the question's runs.
        command: what makes the first run.
        wanted: dict from the name that the report gives a run to (what is added to the command, the options in which
            the run differs from the handout's, apart from the learning rate); the first decides about the setting.
        dataset: value of that option, if the script has it.
    """

    topic: str
    folder: str
    command: str
    wanted: dict
    dataset: str | None = None


def image_question(dataset, **more):
    """Question 2: the comparison of the rates, its best run (found through it, so not listed), and `more` runs."""
    command = f"python hw2-q2.py -dataset {dataset}"
    return Question("images", "q2", command, {RATES: ("", {}), **more}, dataset)


SHUFFLED = {"shuffle_pixels": True}
MLP = {"network": "mlp"}
QUESTIONS = {
    "2021-22": (
        image_question("fashion_mnist", shifted=("-shift 2", {"shift": 2})),
        Question(
            "captioning", "q3-captioning", "python hw2-q3-captioning.py",
            {"captioner": ("", {}), "captioner_attention": ("--use_attention", {"use_attention": True})},
            "sydney",
        ),
    ),
    "2022-23": (
        image_question(
            "kuzushiji_mnist",
            shuffled=("-shuffle_pixels", SHUFFLED),
            mlp=("-network mlp", MLP),
            mlp_shuffled=("-network mlp -shuffle_pixels", SHUFFLED | MLP),
        ),
        Question(
            "translation", "q3", "python hw2-q3.py",
            {
                "translator": ("", {}),
                "translator_attention": (
                    "--use_attn --beam_size 5 --length_penalty 0 0.25 0.5 1 --n_samples 64",
                    {"use_attn": True},
                ),
            },
        ),
    ),
    "2023-24": (
        image_question("octmnist", strided=("-no_maxpool", {"no_maxpool": True})),
        Question(
            "speech", "q3-asr", "python hw2-q3-asr.py",
            {"recurrent": ("", {}), "transformer": ("-decoder transformer", {"decoder": "transformer"})},
        ),
    ),
}  # fmt: skip


def main(argv=None):
    args = parse_args(argv)
    for year in [args.edition] if args.edition else YEARS:
        output = args.output_dir / f"hw2-{year}.pdf"
        content = gather(year, args.runs_dir)
        missing = [run["command"] for run in content["runs"].values() if run["result"] is None]
        for command in dict.fromkeys(missing):  # one command may make several
            options.warn(f"hw2-{year}: not run: {command}")
        compile_report(year, content, output)
        n_wanted = len(content["runs"])
        print(f"{output}: {n_wanted - len(missing)} of {n_wanted} runs")
    return 0


def gather(year, runs_dir):
    """What the report of an edition reads: {"edition", "network", "batch_size", "runs": by name, "others": by topic}.

    A run is what `describe` returns; the others are those that no question asks for. Raises `UserError` for a result
    that is there but cannot be used.
    """
    network = EDITIONS[year]
    theory = runs.Found(runs_dir / "q1" / year)
    found = {"theory": describe(theory if theory.is_finished else None, f"python hw2-q1.py --edition {year}")}
    others = {}
    for question in QUESTIONS[year]:
        asked = {} if question.dataset is None else {"dataset": question.dataset}
        finished = {kind: runs.find(runs_dir, question.folder, kind, **asked) for kind in ("run", "comparison")}
        setting = choose_setting(finished, question)
        finished = {kind: [run for run in there if setting_of(run) == setting] for kind, there in finished.items()}
        found |= gather_question(question, finished, setting)
        others[question.topic] = other_runs(finished["run"], question, found)
    return {"edition": year, "network": asdict(network), "batch_size": BATCH_SIZE, "runs": found, "others": others}


def gather_question(question, finished, setting):
    """The runs of one question, by name; `finished`: those of its setting."""
    command = question.command + (" -scale quick" if setting and setting[0] == "quick" else "")
    found, best_rate = {}, None
    for name, (flags, _) in question.wanted.items():
        matching = matching_runs(finished, question, name)
        # Of several learning rates that of the best run comes first; of several runs the newest.
        matching.sort(key=lambda run: best_rate not in (None, run.options["learning_rate"]))
        first = next((run for run in matching if run.options["seed"] == options.DEFAULT_SEED), None)
        found[name] = describe(first, f"{command} {flags}".strip(), setting)
        if name == RATES:
            children, best = rate_runs(finished["run"], question, first)
            found[name]["children"] = [describe(run, command_of(command, run), setting) for run in children]
            found[BEST] = describe(best, command_of(command, best), setting)
            best_rate = best and best.options["learning_rate"]
            first, matching = best, [run for run in finished["run"] if best and run.changed == best.changed]
            name = BEST
        found[name]["seeds"] = [
            describe(run, f"{command_of(command, run)} -seed {run.options['seed']}", setting)
            | {"seed": run.options["seed"]}
            for run in other_seeds(matching, first)
        ]
    return found


def command_of(command, run):
    """The command line of one run of a question."""
    flags = [] if run is None else [f"-{k}" if v is True else f"-{k} {v}" for k, v in run.changed.items()]
    return " ".join([command, *flags])


def rate_runs(finished, question, comparison):
    """The runs of a comparison of learning rates, and the best of them on validation, or None.

    Without a comparison they are the runs that differ from the handout's in the learning rate alone, such as the one
    that the handout's own command makes.
    """
    if comparison is None:
        single = [run for run in finished if is_single_rate(run, question)]
        accuracies = {run: files.read_json(run.folder / runs.RESULT, "val_acc", "value", of=float) for run in single}
        return single, max(accuracies, key=accuracies.get, default=None)
    entries = files.read_json(comparison.folder / runs.RESULT, "entries", of=list)
    children = [runs.Found(comparison.folder.parent / entry["run"]) for entry in entries]
    name = files.read_json(comparison.folder / runs.RESULT, "best", "run", of=str)
    best = runs.Found(comparison.folder.parent / name)
    return [run for run in children if run.is_finished], best if best.is_finished else None


def is_single_rate(run, question):
    """Whether a run is the plain network of Question 2 with one of the handout's learning rates and the usual seed."""
    is_plain = question.dataset in DATASETS and run.changed.keys() == {"learning_rate"}
    rates = DATASETS[question.dataset].learning_rates if is_plain else ()
    return is_plain and run.changed["learning_rate"] in rates and run.options["seed"] == options.DEFAULT_SEED


def setting_of(run):
    """One of `SETTINGS`: the scale of a run, whether its data are bundled, and whether they are the course's files."""
    return run.options["scale"], run.bundled, run.options.get("dataset") == "course"


def matching_runs(finished, question, name):
    """The finished runs that a report means by `name`, with any seed; for the learning rates their comparisons."""
    _, wanted = question.wanted[name]
    if name == RATES:
        rates = sorted(DATASETS[question.dataset].learning_rates)
        comparisons = [run for run in finished["comparison"] if run.changed.keys() == {"learning_rate"}]
        several = [run for run in comparisons if isinstance(run.changed["learning_rate"], list)]
        return [run for run in several if sorted(run.changed["learning_rate"]) == rates]
    free = {"learning_rate"} if RATES in question.wanted else set()  # Question 2 tunes it
    return [run for run in finished["run"] if {k: v for k, v in run.changed.items() if k not in free} == wanted]


def choose_setting(finished, question):
    """The setting (scale, bundled) of a question by the rule above, or None if none of its runs is finished."""
    first, *_ = question.wanted
    single = [run for run in finished["run"] if is_single_rate(run, question)]
    any_run = [run for name in question.wanted for run in matching_runs(finished, question, name)]
    for candidates in (matching_runs(finished, question, first), single, any_run):
        there = {setting_of(run) for run in candidates}
        for setting in SETTINGS:
            if setting in there:
                return setting
    return None


def other_seeds(matching, first):
    """The runs that differ from the run `first` in their seed alone."""
    seeded = [run for run in matching if first and run.changed == first.changed]
    seeded.sort(key=lambda run: run.options["seed"])
    return [run for run in seeded if run.options["seed"] != first.options["seed"]]


def describe(run, command, setting=None):
    """One run as the report reads it: its result, or None, and the names of its figures in `path`."""
    shown = {"name": None, "path": None, "result": None, "options": None, "hardware": None, "figures": []}
    shown |= {"versions": None, "seeds": [], "children": []}
    shown |= {"command": command, "scale": setting[0] if setting else "full"}
    if run is not None:
        shown |= {
            "name": f"{run.folder.parent.name}/{run.folder.name}",
            "path": str(run.folder),
            "result": run.result,
            "figures": run.figures,
        }
        if (run.folder / runs.CONFIG).exists():
            shown |= {"options": run.options} | {key: run.config.get(key) for key in ("hardware", "versions")}
            if run.options.get("threads"):  # which decide about the last digits
                shown["command"] += f" -threads {shown['result'].get('threads', run.options['threads'])}"
    return shown


def other_runs(finished, question, found):
    """Tested runs of the same setting that no question asks for: other dropout probabilities, other recipes."""
    shown = {run["path"] for listed in found.values() for run in (listed, *listed["children"])}
    others = []
    for run in finished:
        is_asked = str(run.folder) in shown or not run.changed or {"shuffle_pixels", "models"} & run.changed.keys()
        if is_asked or run.options["seed"] != options.DEFAULT_SEED or not run.result.get("test"):
            continue
        changes = [name if value is True else f"{name} {value}" for name, value in run.changed.items()]
        others.append(
            describe(run, command_of(question.command, run), setting_of(run))
            | {"changes": ", ".join(changes).replace("_", " ")}
        )
    return others


def compile_report(year, content, output):
    """Compile one report in a folder that holds the sources, the content as JSON and copies of the figures."""
    import typst

    with tempfile.TemporaryDirectory() as stage:
        stage = Path(stage)
        for source in (*HERE.glob("*.typ"), *HERE.glob("*.bib")):
            shutil.copy(source, stage)
        staged = {name: stage_run(name, run, stage) for name, run in content["runs"].items()}
        files.write_json(stage / "content.json", content | {"runs": staged})
        try:
            pdf = typst.compile(stage / f"hw2-{year}.typ", root=stage, ignore_system_fonts=True, timestamp=TIMESTAMP)
        except typst.TypstError as error:
            reason = f"{output.name} cannot be compiled: {error.message}"
            raise options.UserError(f"{reason}; run again what made the results of {year}") from error
    files.write_bytes(output, pdf)


def stage_run(name, run, stage):
    """Copy a run's figures to `stage/figures/name/`, which becomes its folder."""
    folder = stage / "figures" / name
    folder.mkdir(parents=True)
    for figure in run["figures"]:
        shutil.copy(Path(run["path"]) / figure, folder)
    return run | {"folder": f"figures/{name}"}


if __name__ == "__main__":
    options.run_script(main)
