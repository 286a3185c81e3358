"""Run what the reports show, one step after the other, and compile them; `make report` and `make
report-full` call it.

$ python report/make_runs.py                            # every question at quick scale
$ python report/make_runs.py -scale full -data_dir DIR  # the handouts' settings, DIR's data

Every step is the command that the report names, with -resume auto: what is finished is shown and
not run again, what was interrupted goes on. A step that fails does not keep the others from
running, and the reports are compiled all the same: they show what there is, and what is missing.
The exit code is 1 then.
"""

import subprocess
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

import runs


def main(argv=None):
    args = parse_args(argv)
    if not args.data_dir.is_dir():
        raise options.UserError(f"there is no folder {args.data_dir}; name one that is there with -data_dir")
    commands, start, failed = steps(args), time.perf_counter(), []
    for number, (command, paths) in enumerate(commands, start=1):
        shown = "python " + " ".join(command)
        print(f"\n[step {number} of {len(commands)}, {clock(start)}] {shown}", flush=True)
        if call([sys.executable, *command, *paths]) != 0:
            failed.append(shown)
    print(f"\n[{len(commands) - len(failed)} of {len(commands)} steps done, {clock(start)}]")
    for shown in failed:
        print(f"failed: {shown}", file=sys.stderr)
    build.main(["-runs_dir", str(args.runs_dir), "-output_dir", str(args.output_dir)])
    return 1 if failed else 0


def call(command):
    """Run a command line and return its exit code; Ctrl-C and SIGTERM end the command as well."""
    process = subprocess.Popen(command, cwd=HERE.parent)
    try:
        return process.wait()
    except KeyboardInterrupt as error:
        if isinstance(error, options.Interrupted):  # SIGTERM; Ctrl-C reaches the command as well
            process.terminate()
        process.wait()
        raise options.Interrupted("the same command goes on where it stopped") from None


def steps(args):
    """(command, paths), argument lists, of the steps: theory if it is not there, then each question's runs."""
    results = ["-runs_dir", args.runs_dir]
    commands = []
    if not all((args.runs_dir / "q1" / year / runs.RESULT).exists() for year in YEARS):
        commands.append((["hw2-q1.py"], results))
    for question in (question for year in YEARS for question in QUESTIONS[year]):
        script, *fixed = question.command.removeprefix("python ").split()
        for flags, _ in question.wanted.values():
            command = [script, *fixed, *flags.split(), "-scale", args.scale, "-resume", "auto"]
            commands.append((command, ["-data_dir", args.data_dir, *results]))
    return commands


def clock(start):
    """Minutes and seconds since `start`."""
    minutes, seconds = divmod(round(time.perf_counter() - start), 60)
    return f"{minutes}:{seconds:02}"


if __name__ == "__main__":
    options.run_script(main)
