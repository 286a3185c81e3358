"""Options that the scripts share, and how a script ends when its user made a mistake.

Standard library only, so that `--help` and a wrong option answer at once: the scripts import torch after parsing.
"""

import argparse
import math
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "report" / "runs"
DEFAULT_SEED = 42
MAX_SEED = 2**64 - 1  # what torch takes
MAX_COUNT = 2**31 - 1
MAX_THREADS = 1024
USER_ERROR, BROKEN_PIPE, INTERRUPTED = 2, 1, 130  # exit codes


RESUMABLE = "the same command with -resume goes on from the last finished epoch"


class UserError(Exception):
    """What a user can cause and mend. The message is one line: what is wrong, and what to do next."""


class Parser(argparse.ArgumentParser):
    """An `argparse` parser that takes each option with one dash and with two, and reports an error in one line.

    The handouts write `-learning_rate` and `--use_attn`, and sometimes the same option both ways.
    """

    def __init__(self, description, **kwargs):
        super().__init__(description=description, allow_abbrev=False, **kwargs)

    def add_option(self, *names, **kwargs):
        """Add one option; `names` come without dashes, the first names the attribute."""
        flags = [dashes + name for name in names for dashes in ("-", "--")]
        return self.add_argument(*flags, dest=names[0], **kwargs)

    def error(self, message):
        self.exit(USER_ERROR, f"{self.prog}: error: {message}; see python {self.prog} --help\n")


def run_script(main, on_interrupt="nothing was left half done"):
    """Call `main()`; a `UserError` becomes one line on stderr and exit code 2.

    An interrupt ends with the line `on_interrupt`, a reader that went away (`| head`) silently.
    """
    try:
        sys.exit(main())
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        print(f"interrupted; {on_interrupt}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        sys.exit(BROKEN_PIPE)


def _number(convert, test, wanted):
    """An argparse type: `convert` the text, then ask `test`; `wanted` says in words what is accepted."""

    def parse(text):
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not test(value):  # False for nan as well: every comparison with nan is
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text!r}")
        return value

    return parse


def whole(low, high):
    """An argparse type: a whole number in a range that includes its ends."""
    return _number(int, lambda n: low <= n <= high, f"a whole number from {low} to {high}")


positive_int = _number(int, lambda n: 0 < n <= MAX_COUNT, "a whole number above 0, below 2^31")
even_int = _number(int, lambda n: 0 < n <= MAX_COUNT and n % 2 == 0, "an even number above 0, below 2^31")
positive_float = _number(float, lambda x: 0 < x < math.inf, "a number above 0")
non_negative_float = _number(float, lambda x: 0 <= x < math.inf, "a number, 0 or above")
seed = _number(int, lambda n: 0 <= n <= MAX_SEED, "a whole number from 0 to below 2^64")
probability = _number(float, lambda p: 0 <= p < 1, "a number from 0 to below 1")


def run_name(text):
    """An argparse type: the name of one folder, not a path."""
    if text in ("", ".", "..") or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"must be a name without a path, got {text!r} (-runs_dir says where)")
    return text


def add_data_options(parser):
    """Which data, and where they are; `data.sources` reads these."""
    parser.add_option(
        "data",
        choices=["auto", "real", "bundled"],
        default="auto",
        help="real data, the bundled twin that this project generates, or (auto, the default) real if it is there",
    )
    parser.add_option("data_dir", type=Path, default=DATA_DIR, metavar="DIR", help="data folder (default: data)")


def add_run_options(parser):
    """Where and how to run; `runs.open_run` and `utils.configure_torch` read these."""
    parser.add_option(
        "scale",
        choices=["quick", "full"],
        default="full",
        help="full: the handout's own setting (default); quick: fewer epochs and examples, for a first look",
    )
    parser.add_option("seed", type=seed, default=DEFAULT_SEED, help="random seed (default: %(default)s)")
    parser.add_option("device", choices=["auto", "cpu", "cuda", "mps"], default="cpu", help="default: %(default)s")
    parser.add_option(
        "threads", type=whole(1, MAX_THREADS), help="CPU threads (default: chosen by the size of the work)"
    )
    parser.add_option("runs_dir", type=Path, default=RUNS_DIR, metavar="DIR", help="results (default: report/runs)")
    parser.add_option(
        "run_name", type=run_name, metavar="NAME", help="name of the run's folder (default: made from the options)"
    )
    parser.add_option("resume", action="store_true", help="go on with an interrupted run of the same name")
