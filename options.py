"""Options that the scripts share, and how a script ends when its user made a mistake.

Standard library only, so that `--help` and a wrong option answer at once: the scripts import torch after parsing.
"""

import _thread
import argparse
import errno
import importlib.util
import math
import os
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "report" / "runs"
DEFAULT_SEED = 42
MAX_SEED = 2**64 - 1  # what torch takes
MAX_COUNT = 2**31 - 1
MAX_THREADS = 1024
MEMORY_BUDGET = 10**9  # bytes of features that are held in memory
MAX_MESSAGE = 2000  # characters of an error or a warning
USER_ERROR, BROKEN_PIPE, INTERRUPTED, TERMINATED = 2, 1, 130, 143  # exit codes
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ONCE_MORE = 0.05  # seconds after which an interrupt that could not be raised is repeated
SAME_REQUEST = 2.0  # seconds; torchrun passes on to its processes a Ctrl-C that they have received already

SEVERAL = ("learning_rate", "seed")  # options that take several values, to be compared


class UserError(Exception):
    """What a user can cause and mend. The message is one line: what is wrong, and what to do next.

    It may name what a file holds, so it is made `printable`.
    """

    def __init__(self, message):
        super().__init__(printable(message))


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. The message says what is left of the work and how to go on."""


def rank():
    """The rank of this process among those that torchrun started, 0 without it."""
    return int(os.environ.get("RANK", 0)) if world_size() > 1 else 0


def world_size():
    """How many processes torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


class Parser(argparse.ArgumentParser):
    """An `argparse` parser that accepts the handouts' spellings and reports an error in one line.

    The handouts write `-learning_rate` and `--use_attn`, and sometimes the same option both ways: one dash or two, and `-`
    or `_` inside a name are the same here.
    """

    def __init__(self, description, **kwargs):
        super().__init__(description=description, allow_abbrev=False, **kwargs)

    def add_option(self, *names, **kwargs):
        """Add one option; `names` come without dashes, the first one names the attribute."""
        return self.add_argument(*(f"--{name}" for name in names), dest=names[0], **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        args = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._spelled(arg) for arg in args], namespace)

    def _spelled(self, argument):
        """The argument as it was declared if it names an option in another spelling, else unchanged."""
        name, equals, value = argument.partition("=")
        declared = "--" + name.lstrip("-").replace("-", "_")
        is_option = name.startswith("-") and declared in self._option_string_actions
        return declared + equals + value if is_option else argument

    def error(self, message):
        if rank() > 0:  # rank 0 says it
            sys.exit(USER_ERROR)
        self.exit(USER_ERROR, f"{self.prog}: error: {message}; see python {self.prog} --help\n")


def command_line(args):
    """The arguments that parse to these options."""
    arguments = []
    for name, value in vars(args).items():
        if value is True:
            arguments.append(f"--{name}")
        elif value is not None and value is not False:
            arguments += [f"--{name}", *(value if isinstance(value, list) else [value])]
    return arguments


def before_imports(parse_args):
    """Call `parse_args()` before a script imports torch, so that `--help` and a wrong option answer at once.

    Ends with one line if torch is not installed for the Python that runs the script, and on Ctrl-C or SIGTERM during the
    imports.
    """
    parse_args()
    signal.signal(signal.SIGTERM, _end_at_once)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores Ctrl-C
        signal.signal(signal.SIGINT, _end_at_once)
    _require_packages()


def _require_packages():
    """End with one line if torch, and so the rest, is not installed for the Python that runs the script."""
    if importlib.util.find_spec("torch") is None:
        python = Path(".venv") / ("Scripts" if os.name == "nt" else "bin") / "python"
        advice = f"run {python} {sys.argv[0]}" if (ROOT / python).exists() else "run make setup first, it makes .venv"
        sys.exit(_error_line(f"this Python has no torch; {advice}", USER_ERROR))


def run_script(main):
    """Call `main()`. A `UserError`, or memory that is not enough, becomes one line on stderr and exit code 2.

    Ctrl-C and SIGTERM end with one line and the exit codes 130 and 143; a reader that went away (`| head`) ends silently.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to fail
    sys.unraisablehook = _interrupt_once_more
    signal.signal(signal.SIGTERM, _on_sigterm)
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if rank() > 0:  # rank 0 prints; errors are shown all the same
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")
    try:
        code = main()
        sys.stdout.flush()
        sys.exit(code)
    except UserError as error:
        sys.exit(_error_line(error, USER_ERROR))
    except ModuleNotFoundError:
        _require_packages()
        raise
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or "memory" in str(error)):
            raise
        advice = "try smaller values of the options, for instance -batch_size, -hidden_size, -beam_size or -n_samples"
        sys.exit(_error_line(f"there is not enough memory for this; {advice}", USER_ERROR))
    except KeyboardInterrupt as error:
        code = TERMINATED if _terminated else INTERRUPTED
        what = "terminated" if _terminated else "interrupted"
        print("; ".join([what, *map(str, error.args)]), file=sys.stderr)
        sys.exit(code)
    except BrokenPipeError:
        _close_output()
        sys.exit(BROKEN_PIPE)
    except OSError as error:  # of `print`: `atomic_path` names its file
        if error.errno not in NO_ROOM:
            raise
        _close_output()
        sys.exit(_error_line(f"the output cannot be written ({error.strerror}); make room where it goes", USER_ERROR))


def _close_output():
    """Python flushes stdout once more when it ends, which must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_terminated = False


def _end_at_once(signum, frame):
    """End during the imports, when nothing has been started; an exception here would become a traceback inside torch."""
    what, code = ("terminated", TERMINATED) if signum == signal.SIGTERM else ("interrupted", INTERRUPTED)
    os.write(sys.stderr.fileno(), f"{what}\n".encode())
    os._exit(code)


def _interrupt_once_more(unraisable):
    """Repeat an interrupt that came where Python can raise nothing: in a `__del__` or the callback of a weak reference.

    matplotlib's figures leave so many of these that Ctrl-C while they are drawn would often be lost.
    """
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    signum = signal.SIGTERM if _terminated else signal.SIGINT
    timer = threading.Timer(ONCE_MORE, _thread.interrupt_main, [signum])
    timer.daemon = True  # a process that ends need not wait for it
    timer.start()


def _on_sigterm(signum, frame):
    global _terminated
    _terminated = True
    raise Interrupted


@contextmanager
def deferred_interrupts():
    """Inside the block the first Ctrl-C or SIGTERM is only noted; a second one of its kind raises `KeyboardInterrupt` at once.

    Yields a function that says whether one was noted. If so, the block's end raises `Interrupted`.
    """
    noted, previous = {}, {}

    def note(signum, frame):
        global _terminated
        _terminated |= signum == signal.SIGTERM  # the block may raise `Interrupted` itself
        is_launched = "TORCHELASTIC_RUN_ID" in os.environ
        if signum in noted and not (is_launched and time.monotonic() < noted[signum] + SAME_REQUEST):
            raise KeyboardInterrupt  # not `Interrupted`: nobody may take this moment for the end of a step
        noted.setdefault(signum, time.monotonic())

    if threading.current_thread() is threading.main_thread():
        for signum in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(signum)):
                previous[signum] = signal.signal(signum, note)
    try:
        yield lambda: bool(noted)
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if noted:
        raise Interrupted


def _error_line(message, code):
    """Print the one line of an error; returns the exit code."""
    script = f"{Path(sys.argv[0]).name}: " + (f"rank {rank()}: " if rank() > 0 else "")
    print(f"{script}error: {message}", file=sys.__stderr__ if rank() > 0 else sys.stderr)
    return code


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


UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}  # of a size in bytes


def _n_bytes(text):
    match = re.fullmatch(rf"(\d{{1,20}}(?:\.\d+)?) ?([{''.join(UNITS)}]?)B?", text, re.ASCII | re.IGNORECASE)
    if match is None:
        raise ValueError
    return round(float(match[1]) * UNITS[match[2].upper()])


byte_size = _number(_n_bytes, lambda n: n < 2**63, "a size such as 500MB or 1GB")


def run_name(text):
    """An argparse type: the name of one folder, not a path."""
    if text in ("", ".", "..") or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"must be a name without a path, got {text!r} (-runs_dir says where)")
    return text


def printable(message):
    """A message on one line: line breaks and what else a terminal would obey are escaped, and the middle of a long one is cut."""
    text = str(message)
    if len(text) > MAX_MESSAGE:
        text = f"{text[: MAX_MESSAGE // 2]} ... {text[-MAX_MESSAGE // 2 :]}"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def warn(message):
    """Print one line to stderr that tells of something to know, while the work goes on."""
    print(f"warning: {printable(message)}", file=sys.stderr)


def add_data_options(parser):
    """Which data, and where they are; `data.sources` reads these."""
    parser.add_option(
        "data",
        choices=["auto", "real", "bundled"],
        default="auto",
        help="real data, the bundled data that this project generates, or (auto, the default) real if they are there",
    )
    parser.add_option("data_dir", type=Path, default=DATA_DIR, metavar="DIR", help="data folder (default: data)")


def add_memory_option(parser):
    """How much of the features is held in memory; the data module reads this."""
    help = "features that take more memory, such as 500MB, are read from the disk for each batch (default: 1GB)"
    parser.add_option("memory_budget", type=byte_size, default=MEMORY_BUDGET, metavar="SIZE", help=help)


def add_report_options(parser, output_dir):
    """Where the runs are, and where what is made of them goes."""
    parser.add_option("runs_dir", type=Path, default=RUNS_DIR, metavar="DIR", help="results (default: report/runs)")
    help = f"what is written goes there (default: {output_dir.relative_to(ROOT)})"
    parser.add_option("output_dir", type=Path, default=output_dir, metavar="DIR", help=help)


def add_training_options(parser, **defaults):
    """How the weights are learned; `utils.Optimization` and `utils.fit` read these.

    defaults: what the question has by default, by the option's name; of epochs, batch_size, learning_rate, dropout and optimizer one
        that is missing is filled in by the script. With label_smoothing the option of that name is there as well.
    """

    def add(*names, help, default=None, **kwargs):
        default = defaults.get(names[0], default)
        shown = (
            ""
            if default is None
            else f" (default: {default:g})"
            if isinstance(default, float)
            else f" (default: {default})"
        )
        parser.add_option(*names, default=default, help=help + shown, **kwargs)

    add("epochs", "n_epochs", type=positive_int, help="passes over the training set")
    add("batch_size", type=positive_int, help="training examples of one step")
    add(
        "learning_rate",
        "lr",
        type=positive_float,
        nargs="+",
        metavar="RATE",
        help="one, or several to compare on validation",
    )
    add("dropout", type=probability, help="dropout probability")
    add("optimizer", choices=["sgd", "adam", "adamw"], help="how the gradient changes the weights")
    # What the handouts do not ask for is off by default.
    add("l2_decay", type=non_negative_float, default=0.0, help="weight decay")
    add("momentum", type=probability, default=0.0, help="of SGD")
    add("schedule", choices=["constant", "cosine", "linear"], default="constant", help="of the learning rate")
    add(
        "warmup", type=probability, default=0.0, help="share of the steps in which the learning rate rises to its value"
    )
    add("max_grad_norm", type=positive_float, help="clip the gradient to this norm")
    add("ema_decay", type=probability, default=0.0, help="evaluate the exponential moving average of the weights")
    add("accumulate", type=positive_int, default=1, help="parts of a batch that are computed one after the other")
    add("amp", action="store_true", default=False, help="bfloat16 where it suffices, torch.autocast")
    add("init", type=Path, metavar="RUN", help="start from the best weights of this run's folder")
    if "label_smoothing" in defaults:
        add("label_smoothing", type=probability, help="share of the target's probability that all symbols get evenly")


SEARCH = ("beam_size", "length_penalty", "n_samples")  # options that do not change the training
LENGTH_PENALTY = 0.0  # for translation none of 0.25, 0.5 and 1 was better on validation, over five seeds


def add_search_options(parser):
    """How a network that writes texts is decoded beside greedily; `experiment.SequenceExperiment` reads these."""
    parser.add_option("beam_size", type=positive_int, default=1, help="also test a beam search (default: no)")
    help = f"log p / length^this scores a beam; of several the best on validation (default: {LENGTH_PENALTY})"
    parser.add_option("length_penalty", type=non_negative_float, nargs="+", default=[LENGTH_PENALTY], help=help)
    parser.add_option("n_samples", type=positive_int, help="also test minimum-risk decoding of so many samples")


def search_of(args):
    """The arguments of `decoding.search` that the options ask for where one search is wanted."""
    return {"beam_size": args.beam_size, "length_penalty": args.length_penalty[0], "n_samples": args.n_samples}


def add_run_options(parser):
    """Where and how to run; `runs.open_run` and `utils.configure_torch` read these."""
    parser.add_option(
        "scale",
        choices=["quick", "full"],
        default="full",
        help="full: the handout's own setting (default); quick: fewer epochs and examples, for a first look",
    )
    parser.add_option(
        "seed",
        type=seed,
        nargs="+",
        default=[DEFAULT_SEED],
        help=f"one, or several to compare (default: {DEFAULT_SEED})",
    )
    parser.add_option(
        "device",
        choices=["auto", "cpu", "cuda", "mps"],
        default="auto",
        help="auto (the default) takes a GPU if there is one",
    )
    parser.add_option(
        "threads", type=whole(1, MAX_THREADS), help="CPU threads (default: chosen by the size of the work)"
    )
    parser.add_option("runs_dir", type=Path, default=RUNS_DIR, metavar="DIR", help="results (default: report/runs)")
    parser.add_option(
        "run_name", type=run_name, metavar="NAME", help="name of the run's folder (default: made from the options)"
    )
    parser.add_option(
        "resume",
        nargs="?",
        const="must",
        choices=["must", "auto"],
        help="go on with the interrupted run of these options; with auto start it if there is none",
    )
    parser.add_option("skip_test", action="store_true", help="train and validate only, leave the test set alone")


def parse_training(parser, argv, n_epochs, quick_epochs):
    """Add the options of data and runs, parse, and fill in the epochs of the scale where none are given."""
    add_data_options(parser)
    add_run_options(parser)
    args = parser.parse_args(argv)
    if args.epochs is None:
        args.epochs = quick_epochs if args.scale == "quick" else n_epochs
    return args
