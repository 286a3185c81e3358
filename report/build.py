"""Compile the three reports from what the runs produced, one PDF an edition.

$ python report/build.py                     # all three
$ python report/build.py --edition 2023-24

Which runs enter. A comparison is worth something within one setting only, so the setting, full or quick scale on real or
bundled data, is chosen once for each question: full before quick, real before bundled, the first in which the question's
first run (that of the learning rates, or of translation without attention) is finished; if it is finished nowhere, the
first in which any of them is. A run that is not there becomes a "not run" box with the command that makes it, and a warning
line. A result that is there but broken stops the compilation (exit code 2): a report must not hide it.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import options  # noqa: E402
import runs  # noqa: E402
from editions import BATCH_SIZE, EDITIONS  # noqa: E402

YEARS = sorted(edition.year for edition in EDITIONS.values())
TIMESTAMP = 0  # nothing in a report depends on when it was compiled
SETTINGS = [(scale, bundled) for scale in ("full", "quick") for bundled in (False, True)]  # the best first
ANY = "any"  # a value of an option: it has to be in the run's name, with whatever value

RATES, BEST = "rates", "best"  # names of runs

THEORY_KEYS = ("claims", "values")
RATES_KEYS = ("title", "bundled", "rates", "best")
IMAGE_KEYS = ("title", "bundled", "learning_rate", "n_params", "best_epoch", "train_loss", "val_acc", "history", "test")
TRANSLATION_KEYS = (
    "title", "bundled", "n_params", "n_pairs", "best_epoch", "train_loss", "val_err_rate", "history", "test",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """A run that a report shows.

    Attributes:
        flags: what is added to the question's command.
        options: those of the run's name, apart from scale, data and seed.
    """

    flags: str = ""
    options: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """The runs of one question: `runs_dir/folder/base[-bundled][-option[=value]]...`.

    Attributes:
        topic: what the report calls the question.
        keys: what the result of a run has to hold.
        wanted: dict from the name that the report gives a run to the run; the first decides about the setting.
    """

    topic: str
    folder: str
    base: str
    command: str
    keys: tuple
    wanted: dict


def image_question(dataset, **more):
    """Question 2: the comparison of the rates, its best run (found through it, so not listed), and `more` runs."""
    command = f"python hw2-q2.py -dataset {dataset}"
    return Question("images", "q2", dataset, command, IMAGE_KEYS, {RATES: Wanted(), **more})


SHUFFLED = {"learning_rate": ANY, "shuffle_pixels": True}
MLP = {"learning_rate": ANY, "network": "mlp"}
QUESTIONS = {
    "2021-22": (
        image_question("fashion_mnist"),
        Question(
            "captioning", "q3-captioning", "captions", "python hw2-q3-captioning.py", ("title", "bundled", "test"),
            {"captioner": Wanted(), "captioner_attention": Wanted("--use_attention", {"use_attention": True})},
        ),
    ),
    "2022-23": (
        image_question(
            "kuzushiji_mnist",
            shuffled=Wanted("-shuffle_pixels", SHUFFLED),
            mlp=Wanted("-network mlp", MLP),
            mlp_shuffled=Wanted("-network mlp -shuffle_pixels", SHUFFLED | MLP),
        ),
        Question(
            "translation", "q3", "tatoeba", "python hw2-q3.py", TRANSLATION_KEYS,
            {
                "translator": Wanted(),
                "translator_attention": Wanted("--use_attn --beam_size 5", {"use_attn": True}),
            },
        ),
    ),
    "2023-24": (
        image_question("octmnist", strided=Wanted("-no_maxpool", {"learning_rate": ANY, "no_maxpool": True})),
        Question(
            "speech", "q3-asr", "lj_speech", "python hw2-q3-asr.py", ("title", "bundled", "test"),
            {"recurrent": Wanted(), "transformer": Wanted("-decoder transformer", {"decoder": "transformer"})},
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Folder:
    """A finished run's folder, and what its name says."""

    path: Path
    base: str
    setting: tuple[str, bool]
    options: dict

    @classmethod
    def of(cls, path):
        # A dash before a letter starts an option; the one of 1e-05 does not.
        base, *parts = re.split(r"-(?=[A-Za-z_])", path.name)
        pairs = [part.partition("=") for part in parts if part != "bundled"]
        named = {name: value if equals else True for name, equals, value in pairs}
        return cls(path, base, (named.pop("scale", "full"), "bundled" in parts), named)

    def matches(self, wanted):
        """Whether the name has the wanted options and no others, apart from the seed."""
        given = {name: value for name, value in self.options.items() if name != "seed"}
        if given.keys() != wanted.options.keys():
            return False
        return all(value in (ANY, given[name]) for name, value in wanted.options.items())


def parse_args(argv=None):
    parser = options.Parser(__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_option("edition", choices=YEARS, help="the report to compile (default: all three)")
    parser.add_option(
        "runs_dir", type=Path, default=options.RUNS_DIR, metavar="DIR", help="results (default: report/runs)"
    )
    parser.add_option("output_dir", type=Path, default=HERE, metavar="DIR", help="where the PDFs go (default: report)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    for year in [args.edition] if args.edition else YEARS:
        output = args.output_dir / f"hw2-{year}.pdf"
        content = gather(year, args.runs_dir)
        missing = [run["command"] for run in content["runs"].values() if run["result"] is None]
        for command in dict.fromkeys(missing):  # one command may make several
            print(f"warning: hw2-{year}: not run: {command}", file=sys.stderr)
        compile_report(year, content, output)
        n_wanted = len(content["runs"])
        print(f"{output}: {n_wanted - len(missing)} of {n_wanted} runs")
    return 0


def gather(year, runs_dir):
    """What the report of an edition reads: {"edition", "network", "batch_size", "runs": by name, "others": by topic}.

    A run is what `describe` returns; the others are those that no question asks for. Raises `UserError` for a result that is
    there but cannot be used.
    """
    network = next(edition for edition in EDITIONS.values() if edition.year == year)
    theory = runs_dir / "q1" / year
    if not (theory / runs.RESULT).exists():
        theory = None
    found = {"theory": describe(theory, THEORY_KEYS, f"python hw2-q1.py --edition {year}")}
    others = {}
    for question in QUESTIONS[year]:
        folders = finished_folders(runs_dir / question.folder, question.base)
        setting = choose_setting(folders, question)
        folders = [folder for folder in folders if folder.setting == setting]
        found |= gather_question(question, folders, setting)
        others[question.topic] = other_runs(folders, question.keys, found)
    return {"edition": year, "network": asdict(network), "batch_size": BATCH_SIZE, "runs": found, "others": others}


def gather_question(question, folders, setting):
    """The runs of one question, by name; `folders`: the finished ones of its setting."""
    command = question.command + (" -scale quick" if setting and setting[0] == "quick" else "")
    found, best_rate = {}, None
    for name, wanted in question.wanted.items():
        matching = [folder for folder in folders if folder.matches(wanted)]
        path = first_choice(matching, best_rate)
        keys = RATES_KEYS if name == RATES else question.keys
        found[name] = describe(path, keys, f"{command} {wanted.flags}".strip(), setting)
        if name == RATES:
            found[BEST] = describe(best_of(found[RATES]), question.keys, command, setting)
            if found[BEST]["result"]:
                best_rate = found[BEST]["result"]["learning_rate"]
                same = Wanted(options={"learning_rate": str(best_rate)})
                found[BEST]["seeds"] = other_seeds([folder for folder in folders if folder.matches(same)])
        else:
            found[name]["seeds"] = other_seeds(matching)
    return found


def finished_folders(runs_dir, base):
    if not runs_dir.is_dir():
        return []
    folders = (Folder.of(path) for path in sorted(runs_dir.iterdir()) if (path / runs.RESULT).exists())
    return [folder for folder in folders if folder.base == base]


def choose_setting(folders, question):
    """The setting (scale, bundled) of a question by the rule above, or None if none of its runs is finished."""
    first, *_ = question.wanted.values()
    for wanted in ([first], question.wanted.values()):
        there = {folder.setting for folder in folders if any(map(folder.matches, wanted))}
        for setting in SETTINGS:
            if setting in there:
                return setting
    return None


def first_choice(folders, rate):
    """Of several that match, the path of one with the default seed: with the rate that won, then the first by name."""
    candidates = [folder for folder in folders if "seed" not in folder.options]
    if not candidates:
        return None
    wrong_rate = {
        folder: rate is not None and folder.options.get("learning_rate") != str(rate) for folder in candidates
    }
    return min(candidates, key=lambda folder: (wrong_rate[folder], folder.path.name)).path


def other_seeds(folders):
    """The results of the same run with other seeds: [{"seed", "result"}, ...]."""
    seeded = [folder for folder in folders if "seed" in folder.options]
    return [
        {
            "seed": folder.options["seed"],
            "name": shown_name(folder.path),
            "result": read_result(folder.path / runs.RESULT, ("test",)),
        }
        for folder in seeded
    ]


def describe(path, keys, command, setting=None):
    """One run as the report reads it: its result, or None, and the names of its figures in `path`."""
    scale = setting[0] if setting else "full"
    run = {"name": None, "path": path, "result": None, "options": None, "figures": [], "seeds": []}
    run |= {"command": command, "scale": scale}
    if path is not None:
        figures = sorted(figure.name for figure in path.glob("*.pdf"))
        run |= {
            "name": shown_name(path),
            "options": runs.read_json(path / runs.CONFIG, "options") if (path / runs.CONFIG).exists() else None,
            "result": read_result(path / runs.RESULT, keys),
            "figures": figures,
        }
    return run


def shown_name(path):
    """A run's folder as the reports name it."""
    return f"{path.parent.name}/{path.name}"


def best_of(rates):
    """The folder of the run that won a comparison of rates, or None if one of them is not there."""
    if rates["result"] is None:
        return None
    try:
        best = rates["path"].with_name(rates["result"]["best"]["run"])
    except (KeyError, TypeError, ValueError) as error:
        raise broken(rates["path"] / runs.RESULT, "names no best run") from error
    return best if (best / runs.RESULT).exists() else None


def other_runs(folders, keys, found):
    """Tested runs of the same setting that no question asks for: other dropout probabilities, other recipes."""
    shown = {run["path"] for run in found.values()}
    others = []
    for folder in folders:
        if folder.path in shown or not folder.options or {"shuffle_pixels", "seed"} & folder.options.keys():
            continue
        if read_result(folder.path / runs.RESULT, ("test",))["test"]:
            named = [name if value is True else f"{name} {value}" for name, value in folder.options.items()]
            run = describe(folder.path, keys, "", folder.setting)
            others.append(run | {"changes": ", ".join(named).replace("_", " ")})
    return others


def read_result(path, keys):
    """The result of a finished run; raises `UserError` if it is not what the scripts write."""
    result = runs.read_json(path)
    if not isinstance(result, dict):
        raise broken(path, "is no JSON object")
    missing = [key for key in keys if key not in result]
    if missing:
        raise broken(path, f"lacks {', '.join(missing)}")
    try:
        json.dumps(result, allow_nan=False)
    except ValueError as error:
        raise broken(path, "holds numbers that are not finite") from error
    return result


def broken(path, what):
    return options.UserError(f"{path} {what}; delete its folder and run again")


def compile_report(year, content, output):
    """Compile one report in a folder of its own, which holds the sources, the content as JSON and copies of the figures."""
    import typst

    with tempfile.TemporaryDirectory() as stage:
        stage = Path(stage)
        for source in HERE.glob("*.typ"):
            shutil.copy(source, stage)
        staged = {name: stage_run(name, run, stage) for name, run in content["runs"].items()}
        others = {topic: [without_path(run) for run in listed] for topic, listed in content["others"].items()}
        runs.write_json(stage / "content.json", content | {"runs": staged, "others": others})
        try:
            pdf = typst.compile(stage / f"hw2-{year}.typ", root=stage, ignore_system_fonts=True, timestamp=TIMESTAMP)
        except typst.TypstError as error:
            reason = f"{output.name} cannot be compiled: {error.message}"
            raise options.UserError(f"{reason}; run again what made the results of {year}") from error
    with runs.atomic_path(output) as path:
        path.write_bytes(pdf)


def stage_run(name, run, stage):
    """Copy a run's figures to `stage/figures/name/`; returns the run without its path."""
    folder = stage / "figures" / name
    folder.mkdir(parents=True)
    for figure in run["figures"]:
        shutil.copy(run["path"] / figure, folder)
    return without_path(run) | {"folder": f"figures/{name}"}


def without_path(run):
    return {key: value for key, value in run.items() if key != "path"}


if __name__ == "__main__":
    options.run_script(main)
