"""Run what the reports show and compile them; `make report` and `make report-full` call it.

$ python report/make_runs.py                            # every question at quick scale
$ python report/make_runs.py -scale full -data_dir DIR  # the handouts' settings, DIR's data

Every step is the command that the report names, with -resume auto: what is finished is shown and
not run again, what was interrupted goes on. As many steps as there are processors run at the same
time, with one thread each, those of one question one after the other. A step that fails does not
keep the others from running, and the reports are compiled all the same: they show what there is,
and what is missing. The exit code is 1 then.
"""

import itertools
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

import options


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    parser.add_option("scale", choices=["quick", "full"], default="quick", help="default: %(default)s")
    help = "data folder (default: data)"
    parser.add_option("data_dir", type=options.path, default=options.DATA_DIR, metavar="DIR", help=help)
    options.add_report_options(parser, HERE)
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import build
from build import QUESTIONS, YEARS

import comparisons
import runs

LONGEST_FIRST = ("speech", "translation", "captioning", "images")  # topics; else the last one runs alone for long


def main(argv=None):
    args = parse_args(argv)
    if not args.data_dir.is_dir():
        raise options.UserError(f"there is no folder {args.data_dir}; name one that is there with -data_dir")
    chains, start = steps(args), time.perf_counter()
    commands = {label: command for chain in chains for label, command in chain.items()}
    try:
        errors = comparisons.run_side_by_side(chains, runs.n_cpus(), {options.BESIDE_OTHERS: "1"})
    except options.Interrupted:
        raise options.Interrupted("the same command goes on where each step stopped") from None
    failed = [label for label in commands if errors[label] is not None]
    print(f"{len(commands) - len(failed)} of {len(commands)} steps done in {time.perf_counter() - start:.0f} s")
    for label in failed:
        print(f"failed: python {' '.join(map(str, commands[label][1:]))}\n        {errors[label]}", file=sys.stderr)
    build.main(["-runs_dir", str(args.runs_dir), "-output_dir", str(args.output_dir)])
    return 1 if failed else 0


def steps(args):
    """For each question a dict from the label of a step to its argument list, and theory if it is not there."""
    results = ["-runs_dir", args.runs_dir] * (args.runs_dir != options.RUNS_DIR)
    common = ["-scale", args.scale, "-threads", "1", "-resume", "auto", *results]
    common += ["-data_dir", args.data_dir] * (args.data_dir != options.DATA_DIR)
    chains, number = [], itertools.count(1)
    for question in sorted(itertools.chain(*QUESTIONS.values()), key=lambda q: LONGEST_FIRST.index(q.topic)):
        _, script, *fixed = question.command.split()
        command = [sys.executable, HERE.parent / script, *fixed]
        chains.append({})
        for flags, _ in question.wanted.values():
            chains[-1][f"{next(number)} {question.topic}"] = [*command, *flags.split(), *common]
    if not all((args.runs_dir / "q1" / year / runs.RESULT).exists() for year in YEARS):
        chains.append({f"{next(number)} theory": [sys.executable, HERE.parent / "hw2-q1.py", *results]})
    return chains


if __name__ == "__main__":
    options.run_script(main)
