"""Kill the training scripts at random moments, resume them until they end, and compare with runs that nobody disturbed.

$ python tests/fault.py                                       # make fault: every script, SIGKILL, then Ctrl-C and SIGTERM
$ python tests/fault.py -kills 10 -signals 0 -scripts hw2-q3.py -seed 1

Each script trains at tiny size on data made by the generators of the bundled data. A run without a disturbance says what is right. Then
runs of the same options, in folders of their own, are killed several times each, at moments drawn from the time that such a run takes, some
of them as soon as a checkpoint's temporary file appears; they are resumed with `-resume auto` until they end. After each kill the
checkpoints must load and the history must be the beginning of the right one, no shorter than before. In the end every number of
`best.pt`, `last.pt`, `metrics.jsonl` and `result.json` is compared, all but times and memory, and every other file byte by byte.

Most processes are forked from one that has imported torch (multiprocessing's fork server); in each run one kill, chosen at random, is
of the command line as a user types it. Exit code 1 if anything differs.
"""

import argparse
import functools
import io
import json
import multiprocessing
import multiprocessing.forkserver
import os
import random
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: many short processes, of which two work at a time

import options  # noqa: E402

COMMON = ("-threads", "1", "-resume", "auto", "-run_name", "run")
N_EPOCHS = 4
# Options at which a run takes seconds; dropout and the moving average have states of their own to be resumed.
SCRIPTS = {
    "hw2-q2.py": "-dataset octmnist -learning_rate 0.003 -shift 1 -dropout 0.2 -optimizer adam",
    "hw2-q3.py": "--use_attn -hidden_size 16 -batch_size 16 -ema_decay 0.9",
    "hw2-q3-asr.py": "--hidden_size 32 --n_layers 1 --batch_size 8 --dropout 0.1 --spec_augment --accumulate 2",
    "hw2-q3-captioning.py": "--use_attention -dataset ucm -hidden_size 16 -batch_size 4 -encoder efficientnet_lite0",
}
QUESTIONS = {script: script.removeprefix("hw2-").removesuffix(".py") for script in SCRIPTS}  # the folders of their runs
IMPORTED = [
    "baselines",
    "encoders",
    "experiment",
    "torch",
    "theory.equivariance",
]  # once, by the process that is forked
IMPORTED += ["data.captions", "data.images", "data.speech", "data.translation"]
N_IMAGES = {"train": 800, "val": 100, "test": 100}
N_PAIRS, N_CLIPS, N_SCENES = 800, 60, 40
TIMEOUT = 120  # seconds; no process of these sizes takes so long

KILLS_A_RUN = 5
SHARE_WRITING = 0.4  # of the kills wait for a checkpoint's temporary file
MIN_SHARE_WRITING = 1 / 8  # of the kills must fall while a checkpoint is written: 5 of 40
SHARE_FROM_START = 0.2  # of the kills count their time from the start of the process, not from its first line
SHARE_LATE = 0.2  # of the moments are drawn from the whole time of a run, the others from that of its epochs
SHARE_TWICE = 0.25  # of the signals are sent twice
ENDING = 0.5  # seconds that a script may take after its last line
PAUSE = 0.002  # seconds between two looks at a process
LOOKS = 200  # for a temporary file, between two looks at the process
UNEQUAL = ("seconds", "peak_memory_mb")  # what two runs of the same numbers do not share
NOT_COMPARED = (".lock", "config.json")  # the latter names the folder of the run


def parse_args(argv=None):
    parser = options.Parser(__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    count = options.whole(0, options.MAX_COUNT)
    parser.add_option("kills", type=count, default=40, help="with SIGKILL, over all scripts (default: %(default)s)")
    help = "Ctrl-C and SIGTERM in turns, over all scripts (default: %(default)s)"
    parser.add_option("signals", type=count, default=20, help=help)
    parser.add_option("seed", type=options.seed, default=0, help="of the moments (default: %(default)s)")
    parser.add_option("scripts", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), help="default: all")
    return parser.parse_args(argv)


def make_data(folder, scripts=SCRIPTS, n_pairs=N_PAIRS):
    """A small data set for each script, made by the generators of the bundled data."""
    if "hw2-q2.py" in scripts:
        import numpy as np

        from data.bundled import images

        arrays = images.generate("octmnist")
        np.savez(folder / "octmnist.npz", **{k: v[: N_IMAGES[k.split("_")[0]]] for k, v in arrays.items()})
    if "hw2-q3.py" in scripts:
        from data import translation
        from data.bundled import translation as bundled_translation

        pairs = bundled_translation.generate(n_pairs=n_pairs)
        translation.write_split(translation.split_pairs(pairs), folder)
    if "hw2-q3-asr.py" in scripts:
        from data.bundled import speech

        with redirect_stdout(io.StringIO()):
            speech.main(["-output_dir", str(folder), "-n_clips", str(N_CLIPS)])
    if "hw2-q3-captioning.py" in scripts:
        from data.bundled import captions

        captions.write(folder / "ucm", captions.generate("ucm", N_SCENES))


class Process:
    """A command line `python SCRIPT ...` whose two streams go to files.

    warm: it is forked from a process that has imported torch, which spares seconds; else it is started as a user starts it.
    """

    def __init__(self, command, folder, warm=True):
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.err = folder / "stdout.txt", folder / "stderr.txt"
        for path in (self.out, self.err):
            path.write_bytes(b"")
        command = [str(part) for part in command]
        if warm:
            self.forked = forks().Process(target=_run, args=(command, self.out, self.err))
            self.forked.start()
            self.pid = self.forked.pid
        else:
            self.forked = None
            with open(self.out, "wb") as out, open(self.err, "wb") as err:
                self.started = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=out, stderr=err)
            self.pid = self.started.pid

    def poll(self):
        """The exit code, negative for a signal; None as long as the process runs."""
        return self.started.poll() if self.forked is None else self.forked.exitcode

    def wait(self):
        """The exit code, once the process has ended."""
        if self.forked is None:
            return self.started.wait(TIMEOUT)
        self.forked.join(TIMEOUT)
        if self.forked.exitcode is None:
            raise TimeoutError(f"process {self.pid} takes longer than {TIMEOUT} s")
        return self.forked.exitcode

    def send(self, number):
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)

    def wait_until(self, condition):
        """Look again and again until `condition()` holds or the process has ended; returns whether it holds."""
        while not condition():
            if self.poll() is not None:
                return bool(condition())
            time.sleep(PAUSE)
        return True

    def has_printed(self):
        return self.out.stat().st_size > 0

    def errors(self):
        """The lines on stderr, without warnings."""
        lines = self.err.read_text(errors="replace").splitlines()
        return [line for line in lines if not line.startswith("warning:")]


@functools.cache
def forks():
    """The context of multiprocessing whose server has imported what the scripts import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), before]))  # of the server, to find the modules
    multiprocessing.forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    return context


def _run(command, out, err):
    """In the forked process: become the script."""
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was started: tqdm makes a lock of it
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
    for path, stream in ((out, sys.stdout), (err, sys.stderr)):
        os.dup2(os.open(path, os.O_WRONLY), stream.fileno())
    os.chdir(ROOT)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")


def leaves(value, path=""):
    """The numbers, texts and tensors in nested dicts and lists: a dict from their paths; without times and memory."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found = {f"{path} (its length)": len(value)}  # an empty one counts too
        for key, part in items:
            if key not in UNEQUAL:
                found |= leaves(part, f"{path}/{key}")
        return found
    return {path: value}


def n_differing(a, b):
    """How many numbers of two tensors differ in a bit, or 0 or 1 for other values; 1 for different types or shapes."""
    import torch

    if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)):
        return int(type(a) is not type(b) or a != b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return 1
    a, b = (tensor.contiguous().view(-1).view(torch.uint8).view(-1, tensor.element_size()) for tensor in (a, b))
    return int((a != b).any(dim=1).sum())


def differences(wanted, found, what, n_shown=3):
    """The leaves of `found` that are not those of `wanted`: how many numbers, and some of the paths."""
    wanted, found = leaves(wanted), leaves(found)
    wrong = dict.fromkeys(wanted.keys() ^ found.keys(), 1)
    wrong |= {path: n_differing(wanted[path], found[path]) for path in wanted.keys() & found.keys()}
    wrong = {path: n for path, n in sorted(wrong.items()) if n}
    return sum(wrong.values()), [f"{what}{path}" for path in list(wrong)[:n_shown]]


def read(path):
    """What a file of a run holds, as `leaves` takes it."""
    import runs

    if path.suffix == ".pt":
        return runs.read_checkpoint(path)
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    return path.read_bytes()


def compare(wanted, found):
    """Every file of two run folders: how many numbers differ, and some of their names; a missing file counts as one."""
    names = [{path.name for path in folder.iterdir()} - set(NOT_COMPARED) for folder in (wanted, found)]
    n, shown = len(names[0] ^ names[1]), sorted(f"only in one: {name}" for name in names[0] ^ names[1])
    for name in sorted(names[0] & names[1]):
        more, lines = differences(read(wanted / name), read(found / name), name)
        n, shown = n + more, shown + lines
    return n, shown


def damage(wanted, found, n_before):
    """What is wrong in the folder of a run that was ended early: how many numbers, some names, and its number of whole epochs.

    wanted: the folder of the run that was not; n_before: how many whole epochs there were before.
    """
    n, shown, n_epochs = 0, [], 0
    right = read(wanted / "metrics.jsonl")
    for name in ("last.pt", "best.pt", "metrics.jsonl"):
        if not (found / name).exists():
            continue
        try:
            content = read(found / name)
        except (ValueError, options.UserError) as error:
            n, shown = n + 1, [*shown, f"{name}: {error}"]
            continue
        history = content if name == "metrics.jsonl" else content.get("history", [])
        more, lines = differences(right[: len(history)], history, f"{name}, after a kill: ")
        n, shown = n + more, shown + lines
        if name == "last.pt":
            n_epochs = len(history)
    if n_epochs < n_before:
        n, shown = n + 1, [*shown, f"{n_before} epochs became {n_epochs}"]
    return n, shown, n_epochs


def temporary_files(folder, pid=None):
    """The paths that a process writes its checkpoints to; those that are there if no process is named."""
    import runs

    names = [prefix + name for prefix in ("", runs.NEW) for name in (runs.LAST, runs.BEST)]
    if pid is not None:
        return [str(folder / f".{name}.{pid}.tmp") for name in names]
    return [path for name in names for path in folder.glob(f".{name}.*.tmp")]


@dataclass
class Row:
    """One line of the table: what was done to one script, and what came of it."""

    script: str
    signals: str
    n_runs: int = 0
    n_kills: int = 0
    n_writing: int = 0
    n_resumed: int = 0
    n_differing: int = 0
    shown: list = field(default_factory=list)

    def add(self, n, shown):
        self.n_differing += n
        self.shown += shown


class Trial:
    """One script: its command, the run that nobody disturbed, and how long such a run takes."""

    def __init__(self, script, folder, data_dir, more=()):
        self.script, self.folder = script, folder
        self.command = [script, *SCRIPTS[script].split(), "-epochs", N_EPOCHS, *COMMON, "-data_dir", data_dir, *more]
        self.right = self.run_folder("right")

    def run_folder(self, name):
        return self.folder / name / QUESTIONS[self.script] / "run"

    def start(self, name, warm=True, more=(), streams="streams"):
        command = [*self.command, *more, "-runs_dir", self.folder / name]
        return Process(command, self.folder / name / streams, warm)

    def finish(self, name, warm=True):
        """Run it to its end, which must be a good one."""
        process = self.start(name, warm)
        code = process.wait()
        if code:
            raise RuntimeError(f"{self.script} ended with exit code {code}: {process.err.read_text()}")

    def measure(self, cold=True):
        """Make the undisturbed run; its times say when to kill.

        cold: make it by the command line as well and return what `compare` says of the two.
        """
        start = time.monotonic()
        process = self.start("warm" if cold else "right")
        process.wait_until(process.has_printed)
        self.seconds_to_line = time.monotonic() - start
        if process.wait():
            raise RuntimeError(f"{self.script} does not run: {process.err.read_text()}")
        self.seconds = time.monotonic() - start - self.seconds_to_line
        if cold:
            self.finish("right", warm=False)
        self.epoch_seconds = sum(line["seconds"] for line in read(self.right / "metrics.jsonl"))
        return compare(self.right, self.run_folder("warm")) if cold else (0, [])

    def disturb(self, row, n_kills, signals, dice, cold=True):
        """Make disturbed runs until there were `n_kills`, each by one of the signals; adds to `row`.

        cold: one kill of each run, chosen at random, is of the command line.
        """
        while row.n_kills < n_kills:
            numbers = [dice.choice(signals) for _ in range(min(KILLS_A_RUN, n_kills - row.n_kills))]
            self.disturb_run(f"{signals[0].name}{row.n_runs}", row, numbers, dice, cold)

    def disturb_run(self, name, row, numbers, dice, cold):
        """Start a run again and again, ended by the next of the signals `numbers` each time, then let it end."""
        cold = dice.randrange(len(numbers)) if cold else None
        n_epochs, n_started = 0, 0
        for i, number in enumerate(numbers):
            process = self.start(name, warm=i != cold)
            n_started += 1
            twice = number != signal.SIGKILL and dice.random() < SHARE_TWICE
            until = self.seconds if dice.random() < SHARE_LATE else 2 * self.epoch_seconds / len(numbers)
            n_printed = self.strike(process, name, dice, until, number, twice)
            sent = time.monotonic()
            code = process.wait()
            if code == 0:  # it was faster
                went_on = process.out.stat().st_size > n_printed and time.monotonic() - sent > ENDING
                if went_on or process.errors():
                    row.add(1, [f"went on after {number.name}: {' | '.join(process.errors())}"])
                break
            row.n_kills += 1
            row.n_writing += bool(temporary_files(self.run_folder(name)))
            row.add(*self.judge_end(process, code, number, twice))
            if self.run_folder(name).exists():
                *found, n_epochs = damage(self.right, self.run_folder(name), n_epochs)
                row.add(*found)
        else:
            n_started += 1
            process = self.start(name)
            code = process.wait()
        if code:
            row.add(1, [f"exit code {code} in the end: {' | '.join(process.errors())}"])
        row.n_runs += 1
        row.n_resumed += n_started - 1
        row.add(*compare(self.right, self.run_folder(name)))

    def strike(self, process, name, dice, until, number, twice):
        """Wait for a moment drawn from the first `until` seconds, then send the signal; returns how much was printed by then."""
        if dice.random() >= SHARE_FROM_START:  # a run that was trained already prints its first line at the end
            limit = time.monotonic() + 3 * self.seconds_to_line + 1
            process.wait_until(lambda: process.has_printed() or (process.forked and time.monotonic() > limit))
        moment = time.monotonic() + dice.uniform(0, until)
        process.wait_until(lambda: time.monotonic() >= moment)
        if dice.random() < SHARE_WRITING:
            paths = temporary_files(self.run_folder(name), process.pid)
            while process.poll() is None:
                if any(map(os.path.exists, paths * LOOKS)):
                    break
        n_printed = process.out.stat().st_size
        for _ in range(1 + twice):
            process.send(number)
        return n_printed

    def judge_end(self, process, code, number, twice):
        """What is wrong with how a process ended that got a signal: `(how many, which)`."""
        if number == signal.SIGKILL:
            return (0, []) if code == -number else (1, [f"exit code {code} after SIGKILL"])
        codes = {128 + number, -number} if twice else {128 + number}
        errors = process.errors()
        if code not in codes or len(errors) > 1 or (not twice and len(errors) != 1):
            return 1, [f"exit code {code} after {number.name}{' twice' * twice}: {' | '.join(errors)}"]
        return 0, []


def main(argv=None):
    args = parse_args(argv)
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # in a shell's background job, and what it starts would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    dice = random.Random(args.seed)
    rows, start = [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        data_dir.mkdir()
        make_data(data_dir, args.scripts)
        for i, script in enumerate(args.scripts):
            trial = Trial(script, Path(folder) / QUESTIONS[script], data_dir)
            n, shown = trial.measure()
            print(
                f"{script}: an undisturbed run trains and tests for {trial.seconds:.1f} s after its first line",
                flush=True,
            )
            for n_all, label, signals in (
                (args.kills, "SIGKILL", [signal.SIGKILL]),
                (args.signals, "SIGINT, SIGTERM", [signal.SIGINT, signal.SIGTERM]),
            ):
                wanted = len(range(i, n_all, len(args.scripts)))  # an even share
                row = Row(script, label)
                row.add(n, shown)
                trial.disturb(row, wanted, signals, dice)
                if wanted:
                    rows.append(row)
                    print(*row.shown, sep="\n", end="\n" * bool(row.shown), flush=True)
    return report(rows, time.monotonic() - start)


def report(rows, seconds):
    """Print the table; returns the exit code."""
    titles = ("Script", "Signal", "Runs", "Kills", "While a checkpoint was written", "Resumed", "Differing numbers")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    n_kills, n_writing, n_differing = 0, 0, 0
    for row in rows:
        is_kill = row.signals == "SIGKILL"
        cells = (row.n_runs, row.n_kills, row.n_writing if is_kill else "", row.n_resumed, row.n_differing)
        print(f"| {row.script} | {row.signals} | {' | '.join(map(str, cells))} |")
        n_kills, n_writing = n_kills + is_kill * row.n_kills, n_writing + is_kill * row.n_writing
        n_differing += row.n_differing
    print(
        f"{n_kills} kills with SIGKILL, {n_writing} while a checkpoint was written; {n_differing} differing numbers; {seconds:.0f} s"
    )
    if n_writing < int(MIN_SHARE_WRITING * n_kills):
        print("too few kills fell while a checkpoint was written; give another -seed")
        return 1
    return int(n_differing > 0)


if __name__ == "__main__":
    options.before_imports(parse_args)
    options.run_script(main)
