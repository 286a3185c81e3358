"""Options that the scripts share, and how a script ends when its user made a mistake.

Standard library only, so that `--help` and a wrong option answer at once: the scripts import torch after parsing.
"""

import _thread
import argparse
import functools
import importlib.util
import math
import os
import re
import shlex
import shutil
import signal
import sys
import textwrap
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
DATA_DIR = ROOT / "data"
RUNS_DIR = ROOT / "report" / "runs"
DEFAULT_SEED = 42
MAX_SEED = 2**64 - 1  # what torch takes
MAX_COUNT = 2**31 - 1
MAX_THREADS = 1024
USER_ERROR, BROKEN_PIPE, INTERRUPTED, TERMINATED = 2, 1, 130, 143  # exit codes
ONCE_MORE = 0.01  # seconds after which an interrupt that Python has lost is repeated
LEAST_PYTHON = (3, 11, 4)  # the first 3.11 whose tarfile has filter="data"
SEVERAL = ("learning_rate", "seed")  # options that take several values, to be compared
USES = ("translate", "transcribe", "caption", "classify")  # options that use a trained network again
COMPARED = "HW2_COMPARED"  # set in the environment of a run that is one of a comparison, which speaks for it
BESIDE_OTHERS = "HW2_BESIDE_OTHERS"  # set where others run at the same time: a script starts one process at a time then
PATIENCE = 4  # seconds without a line, after which `progress` prints one
SCREEN_WIDTH, HELP_COLUMN = 100, 30  # most characters of a line, and where the explanations of the help begin
# Groups of the help.
STATEMENT, TRAINING = "from the statements", "training, beyond the statements"
BEYOND = "beyond the statements, off by default"


class UserError(Exception):
    """What a user can cause and mend. The message is one line: what is wrong, and what to do next.

    It may name what a file holds, so it is made `printable`.
    """

    def __init__(self, message):
        super().__init__(printable(message))


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. The message says what is left of the work and how to go on."""


def world_size():
    """How many processes torchrun started, 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank():
    """The rank of this process among those that torchrun started, 0 without it."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


class Options(argparse.Namespace):
    """Parsed options, with `given`, the names of those on the command line, `defaults`, and `what` the script does."""

    __slots__ = ("given", "defaults", "what")

    def fill(self, **defaults):
        """Set the defaults that depend on other options, and with them the options that are not given."""
        self.defaults |= defaults
        vars(self).update({name: value for name, value in defaults.items() if name not in self.given})


def screen_width():
    """The most characters of a line: what the terminal or COLUMNS in the environment says, at most `SCREEN_WIDTH`."""
    return min(shutil.get_terminal_size((SCREEN_WIDTH, 0)).columns, SCREEN_WIDTH)


class Parser(argparse.ArgumentParser):
    """An `argparse` parser that accepts the handouts' spellings and reports an error in one line.

    With the name of a training script, and perhaps its first option, its options are grouped, the statements' first.

    The handouts write `-learning_rate` and `--use_attn`, and sometimes the same option both ways: one dash or two, and
    `-` or `_` inside a name are the same here.
    """

    def __init__(self, description, script=None, first_option=None):
        usage = script and f"python {script} {f'[{first_option}] ' if first_option else ''}[options]"
        widths = {"max_help_position": HELP_COLUMN, "width": screen_width() - 2}
        formatter = functools.partial(argparse.RawDescriptionHelpFormatter, **widths)  # the docstring as it is written
        super().__init__(script, usage, description, formatter_class=formatter, allow_abbrev=False)
        self.group_added_to = self
        if script:
            self.group(STATEMENT)

    def group(self, title):
        """The options that are added from here on stand under this heading of the help."""
        groups = {group.title: group for group in self._action_groups}
        self.group_added_to = groups.get(title) or self.add_argument_group(title)

    def add_option(self, *names, **kwargs):
        """Add one option; `names` come without dashes, the first one names the attribute."""
        return self.group_added_to.add_argument(*(f"--{name}" for name in names), dest=names[0], **kwargs)

    def parse_args(self, args=None, namespace=None):
        """The options as an `Options`."""
        values, default = super().parse_args(args, namespace or Options()), object()
        again = super().parse_args(args, argparse.Namespace(**dict.fromkeys(vars(values), default)))
        values.given = {name for name, value in vars(again).items() if value is not default}
        values.defaults = {name: self.get_default(name) for name in vars(values)}
        values.what = " ".join(re.split(r"[.;]\s", f"{self.description} ")[0].split())
        uses = {*USES} & vars(values).keys()
        if "run" in values.given and uses and not values.given & uses:
            self.error(f"-run names a trained network to use again, with -{uses.pop()}")
        return values

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
        if isinstance(value, list):
            arguments += [f"--{name}", *value]
        elif value is True:
            arguments.append(f"--{name}")
        elif value is not None and value is not False:
            arguments.append(f"--{name}={value}")  # the value may begin with a dash
    return arguments


def before_imports(parse_args, *late):
    """Call `parse_args()` before a script imports torch, so that `--help` and a wrong option answer at once.

    Also prints what the script is going to do, sets what has to be set before torch is imported, and ends with one line
    where a package is missing: one of `late`, which the script imports only after long work, or whatever its imports
    do not find. Ctrl-C and SIGTERM end the process at once until `run_script` takes over.
    """
    if sys.version_info < LEAST_PYTHON:
        sys.exit(f"{Path(sys.argv[0]).name}: error: this needs Python {'.'.join(map(str, LEAST_PYTHON))} or later")
    args = parse_args()
    _prepare_streams()
    announce(args)
    if missing := [name for name in late if importlib.util.find_spec(name) is None]:
        sys.exit(_missing_line(", ".join(missing)))
    sys.excepthook = _on_import_error
    # OpenMP's threads spin while they wait for each other. Beside other programs that makes a step ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) != signal.SIG_IGN:  # a shell's background job ignores Ctrl-C
            signal.signal(signum, signal.SIG_DFL)


def announce(args):
    """Print what the script does, with which data and options, before the seconds that torch takes to be imported."""
    if rank() > 0 or COMPARED in os.environ:
        return
    data = f"data {args.data}" if "data" in vars(args).keys() - args.given else ""
    line = fold("; ".join(filter(None, [args.what, data, shlex.join(sys.argv[1:])])))
    say(line, sys.stderr if args.given & {*USES} else None)  # stdout is for the answers


def run_script(main):
    """Call `main()`. A `UserError`, or memory that is not enough, becomes one line on stderr and exit code 2.

    Ctrl-C and SIGTERM end with one line and the exit codes 130 and 143; a reader that went away (`| head`) ends
    silently.
    """
    _prepare_streams()
    signal.signal(signal.SIGTERM, _on_sigterm)
    sys.unraisablehook = _interrupt_again
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = main()
        sys.stdout.flush()
        sys.exit(code)
    except UserError as error:
        sys.exit(error_line(error, USER_ERROR))
    except (MemoryError, RuntimeError) as error:
        if "no kernel image" in str(error):  # an old GPU, which torch finds all the same
            sys.exit(error_line("this torch has no kernels for this GPU; use -device cpu", USER_ERROR))
        if not _is_out_of_memory(error):
            raise
        advice = "try smaller values of the options, for instance -batch_size, -hidden_size, -beam_size or -n_samples"
        sys.exit(error_line(f"there is not enough memory for this; {advice}", USER_ERROR))
    except KeyboardInterrupt as error:
        what, code = ("terminated", TERMINATED) if _is_terminated else ("interrupted", INTERRUPTED)
        print("; ".join([what, *map(str, error.args)]), file=sys.stderr)
        sys.exit(code)
    except BrokenPipeError:
        # Python flushes stdout once more when it ends, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)


def _prepare_streams():
    """Make every name printable; a closed stream, and that of a rank above 0, swallows what is printed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or (rank() > 0 and name == "stdout"):
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):  # a notebook's has not
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no reason to fail


def _is_out_of_memory(error):
    """Whether an error means that memory was not enough; torch has no type for that of the CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: " in str(error)
    )


_is_terminated = False


def _interrupt_again(unraisable):
    """Python forgets what is raised in the callback of a weak reference; an interrupt comes again a moment later."""
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    number = signal.SIGTERM if _is_terminated else signal.SIGINT
    threading.Timer(ONCE_MORE, _thread.interrupt_main, [number]).start()


def _on_sigterm(signum, frame):
    global _is_terminated
    _is_terminated = True
    raise Interrupted


def _missing_line(names):
    """Say in one line that packages are not installed for the Python that runs the script; returns the exit code."""
    python = Path(".venv") / ("Scripts" if os.name == "nt" else "bin") / "python"
    advice = f"run {python} {sys.argv[0]}, or install " if (ROOT / python).exists() else "install "
    advice += "what is missing with python -m pip install -r requirements.txt"
    return error_line(f"this Python has no {names}; {advice}", USER_ERROR)


def _on_import_error(kind, error, traceback):
    """Takes the place of `sys.excepthook`: a missing package is one line and exit code 2."""
    if not issubclass(kind, ModuleNotFoundError) or importlib.util.find_spec(error.name.partition(".")[0]):
        sys.__excepthook__(kind, error, traceback)
    else:
        sys.exit(_missing_line(error.name))


def error_line(message, code):
    """Print the one line of an error; returns the exit code."""
    script = f"{Path(sys.argv[0]).name}: " + (f"rank {rank()}: " if rank() > 0 else "")
    print(f"{script}error: {message}", file=sys.stderr)
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
python_file = _number(lambda text: path(text), lambda p: p.suffix == ".py" and p.is_file(), "a .py file that exists")


def path(text):
    """An argparse type: an absolute path, so that the same file is the same option; ~ is the home folder."""
    return Path(text).expanduser().absolute()


def name_or_path(*names):
    """An argparse type: one of `names` as it is, anything else as an absolute path; both are strings."""
    return lambda text: text if text in names else str(path(text))


def run_name(text):
    """An argparse type: the name of one folder, not a path."""
    if text in ("", ".", "..") or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"must be a name without a path, got {text!r} (-runs_dir says where)")
    return text


def printable(message):
    """A message on one line: what a terminal would obey is escaped."""
    text = str(message)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def fold(message, indent="  "):
    """A message on lines that fit the screen; a word that is longer, such as a path, has a line of its own."""
    options = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": indent}
    return textwrap.fill(printable(message), screen_width(), **options)


def typed(path):
    """A path as it is typed in the working folder, from there or whole, whichever is shorter."""
    typed = Path(os.path.relpath(path)) if path.drive == Path.cwd().drive else path
    return min(path, typed, key=lambda path: len(str(path)))


def note(message):
    """Print one line to stderr beside the answers, which go to stdout."""
    say(printable(message), sys.stderr)


def warn(message):
    """Print one line to stderr that tells of something to know, while the work goes on."""
    if COMPARED not in os.environ:
        print(f"warning: {printable(message)}", file=sys.stderr)


_said = 0.0  # when `say` was called last


def say(line, stream=None):
    """Print a line at once, to stdout unless a stream is given."""
    global _said
    _said = time.monotonic()
    print(line, file=stream, flush=True)


def progress(steps, what, n_steps=None):
    """The same steps, on a terminal with a bar that comes after a second and goes away at the end.

    Elsewhere, as in a pipe or a notebook, a line says how many are done when none was printed for some seconds. A run
    beside others is silent: whoever started it speaks for it.
    """
    from tqdm import tqdm  # not in the standard library

    bar = tqdm(steps, what, n_steps, leave=False, delay=1, disable=not sys.stderr.isatty())
    speaks = bar.disable and not {COMPARED, BESIDE_OTHERS} & os.environ.keys()
    for n_done, step in enumerate(bar):
        if speaks and n_done and time.monotonic() - _said > PATIENCE:
            say(f"{what}: {n_done} of {bar.total}")
        yield step


def add_data_options(parser):
    """Which data, and where they are; `data.sources` reads these."""
    parser.group("data")
    help = "real data, the bundled data that this project generates, or (auto, the default) real if they are there"
    parser.add_option("data", choices=["auto", "real", "bundled"], default="auto", help=help)
    parser.add_option("data_dir", type=path, default=DATA_DIR, metavar="DIR", help="data folder (default: data)")


def add_report_options(parser, output_dir):
    """Where the runs are, and where what is made of them goes."""
    parser.add_option("runs_dir", type=path, default=RUNS_DIR, metavar="DIR", help="results (default: report/runs)")
    help = f"what is written goes there (default: {output_dir.relative_to(ROOT)})"
    parser.add_option("output_dir", type=path, default=output_dir, metavar="DIR", help=help)


def add_training_options(parser, **defaults):
    """How the weights are learned; `utils.Optimization` and `utils.fit` read these.

    defaults: default of each option; the script fills in those that are missing here. With label_smoothing the option
        of that name is there as well.
    """

    def add(*names, help, default=None, **kwargs):
        default = defaults.get(names[0], default)
        shown = default[0] if isinstance(default, list) else default
        help += "" if shown is None else f" (default: {shown})"
        parser.add_option(*names, default=default, help=help, **kwargs)

    add("epochs", "n_epochs", type=positive_int, help="passes over the training set")
    add("batch_size", type=positive_int, help="training examples of one step")
    rates = {"type": positive_float, "nargs": "+", "metavar": "RATE"}
    add("learning_rate", "lr", help="one, or several to compare on validation", **rates)
    add("dropout", type=probability, help="dropout probability")
    add("optimizer", choices=["sgd", "adam", "adamw"], help="how the gradient changes the weights")
    add("l2_decay", type=non_negative_float, default=0.0, help="weight decay")
    parser.group(TRAINING)
    add("schedule", choices=["constant", "cosine", "linear"], default="constant", help="of the learning rate")
    add("warmup", type=probability, default=0.0, help="of a linear schedule: share of its steps with a rising rate")
    add("max_grad_norm", type=positive_float, help="clip the gradient to this norm")
    add("clip_value", type=non_negative_float, default=0.0, help="clip each element of the gradient to +- this; 0: no")
    add("ema_decay", type=probability, default=0.0, help="evaluate the exponential moving average of the weights")
    add("init", type=path, metavar="RUN", help="start from the best weights of this run's folder")
    if "label_smoothing" in defaults:
        add("label_smoothing", type=probability, help="share of the target's probability that all symbols get evenly")
    parser.group(STATEMENT)


SEARCH_OPTIONS = ("beam_size", "length_penalty", "n_samples")  # options that do not change the training
LENGTH_PENALTY = 0.0  # for translation none of 0.25, 0.5 and 1 was better on validation, over five seeds


def add_search_options(parser):
    """How a network that writes texts is decoded beside greedily; `decoding.searches_to_test` reads these."""
    parser.group("search")
    parser.add_option("beam_size", type=positive_int, default=1, help="also test a beam search (default: no)")
    help = f"log p / length^this scores a beam; of several the best on validation (default: {LENGTH_PENALTY})"
    parser.add_option("length_penalty", type=non_negative_float, nargs="+", default=[LENGTH_PENALTY], help=help)
    parser.add_option("n_samples", type=positive_int, help="also test minimum-risk decoding of so many samples")


def add_use_option(parser, name, metavar, help, **kwargs):
    """The option that uses a trained network again, one of `USES`, and the one that says which."""
    parser.group("use a trained network again, without training")
    parser.add_option(name, nargs="+", metavar=metavar, help=help, **kwargs)
    help = "a run's folder or its name (default: the newest run with the options that are given)"
    parser.add_option("run", type=path, metavar="FOLDER", help=help)


def add_run_options(parser):
    """Where and how to run; `runs.open_run` and `utils.configure_torch` read these."""
    parser.group("runs")
    parser.set_defaults(models=None)  # of a script without this option
    help = "full: the handout's own setting (default); quick: for a first look"
    parser.add_option("scale", choices=["quick", "full"], default="full", help=help)
    help = f"one, or several to compare (default: {DEFAULT_SEED})"
    parser.add_option("seed", type=seed, nargs="+", default=[DEFAULT_SEED], help=help)
    help = "auto (the default) takes a CUDA GPU if there is one"
    parser.add_option("device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help=help)
    help = "CPU threads (default: 1; up to 4 for speech in batches of 32 or more)"
    parser.add_option("threads", type=whole(1, MAX_THREADS), help=help)
    parser.add_option("runs_dir", type=path, default=RUNS_DIR, metavar="DIR", help="results (default: report/runs)")
    help = "name of the run's folder (default: made from the options)"
    parser.add_option("run_name", type=run_name, metavar="NAME", help=help)
    help = "go on with the interrupted run of these options; with auto start it if there is none"
    parser.add_option("resume", nargs="?", const="must", choices=["must", "auto"], help=help)
    parser.add_option("skip_test", action="store_true", help="train and validate only, leave the test set alone")


def parse_training(parser, argv, n_epochs, **quick):
    """Add the options of data and runs, parse, and fill in those not given: `n_epochs`, or at quick scale `quick`."""
    add_data_options(parser)
    add_run_options(parser)
    args = parser.parse_args(argv)
    args.fill(**quick if args.scale == "quick" else {"epochs": n_epochs})
    return args
