"""End the training scripts at random moments, resume them until they finish, compare with runs that nobody disturbed.

$ python -m tests.fault                                              # make fault: every script
$ python -m tests.fault -scripts hw2-q3.py -kills 30 -signals 0 -seed 1

Each script trains at tiny size. A run from the command line says what is right. Other runs of the same options take the
place of a finished run with another seed. They are ended again and again, by SIGKILL or by SIGINT and SIGTERM in turns,
half of the time at a random moment and half of the time when a file is written in part, renamed or removed. After each
end the folder must hold one whole run, the old or the new one, with no epoch fewer than before. When the last process
has finished, all files must have the same bytes as those of the undisturbed run, but for the seconds.

Most processes are forked from one that has imported torch, which spares some seconds each. Exit code 1 after a fault.
"""

import importlib
import itertools
import json
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path

import options
import runs

ROOT = Path(__file__).resolve().parents[1]
# Dropout, random shifts and the moving average of the weights have states of their own to be resumed.
SCRIPTS = {
    "hw2-q2.py": "-dataset octmnist -learning_rate 0.003 -shift 1 -dropout 0.2 -optimizer adam",
    "hw2-q3.py": "--use_attn -hidden_size 16 -batch_size 16 -ema_decay 0.9",
    "hw2-q3-asr.py": "--hidden_size 32 --n_layers 1 --batch_size 8 --dropout 0.1 --spec_augment",
    "hw2-q3-captioning.py": "--use_attention -dataset ucm -hidden_size 16 -batch_size 4 -encoder efficientnet_lite0",
}
IMPORTED = ("encoders", "comparisons", "data.images", "data.speech", "data.translation")
N_IMAGES, N_PAIRS, N_CLIPS, N_SCENES = 800, 800, 60, 40  # images of each split
N_EPOCHS, OTHER_SEED = 3, 7
FIRST_CALLS, CALLS = 24, 12  # a process ends itself at one of so many; the first epoch makes 17, others 6 or 9
SHARE = 0.7  # of the time of an undisturbed run, in which the random moments lie
TIMEOUT = 120  # seconds; no process of these sizes takes so long
COLUMNS = ("runs", "SIGKILL", "SIGINT, SIGTERM", "while writing", "faults", "seconds")
SECONDS = re.compile(rb'"seconds": [^,}\s]*')
NOT_COMPARED = (runs.LOCK, runs.CONFIG, runs.LAST)  # they hold the name of the folder, and seconds


def parse_args(argv=None):
    parser = options.Parser("End the training scripts at random moments and compare what comes of it.")
    count = options.whole(0, options.MAX_COUNT)
    parser.add_option("kills", type=count, default=8, help="SIGKILLs of each script (default: %(default)s)")
    parser.add_option("signals", type=count, default=4, help="SIGINTs and SIGTERMs of each (default: %(default)s)")
    parser.add_option("seed", type=options.seed, default=0, help="of the moments (default: %(default)s)")
    parser.add_option("scripts", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), help="default: all")
    return parser.parse_args(argv)


def make_data(folder, scripts):
    """A small data set for each script, made by the generators of the bundled data."""
    import numpy as np

    from data import translation
    from data.bundled import captions, images, speech
    from data.bundled import translation as sentences
    from tests.pairs import write_split

    if "hw2-q2.py" in scripts:
        np.savez(folder / "octmnist.npz", **{k: v[:N_IMAGES] for k, v in images.generate("octmnist").items()})
    if "hw2-q3.py" in scripts:
        write_split(translation.split_pairs(sentences.generate(n_pairs=N_PAIRS)), folder)
    if "hw2-q3-asr.py" in scripts:
        with redirect_stdout(sys.stderr):
            speech.main(["-output_dir", str(folder), "-n_clips", str(N_CLIPS)])
    if "hw2-q3-captioning.py" in scripts:
        captions.write(folder / "ucm", captions.generate("ucm", N_SCENES))


def fork(command, stderr, number=None, n_calls=0):
    """Start the script `command` in a forked process, its errors in the file `stderr`; returns the process's number.

    With `n_calls` the process sends itself the signal `number` when it flushes, renames or removes a file for the n-th
    time.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(TIMEOUT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as `before_imports` sets it
        sys.stdout, sys.stderr = open(os.devnull, "w"), open(stderr, "w", encoding="utf-8")
        if n_calls:
            end_at_call(number, n_calls)
        sys.argv = command
        runpy.run_path(str(ROOT / command[0]), run_name="__main__")
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def end_at_call(number, n_calls):
    """Let the n-th flush, rename or removal of a file end this process; the file to flush is cut in half before."""
    calls, fsync = itertools.count(1), os.fsync

    def ending(call):
        def end_or_call(*args, **kwargs):
            if next(calls) == n_calls:
                if call is fsync:
                    os.ftruncate(*args, os.fstat(*args).st_size // 2)
                os.kill(os.getpid(), number)
            return call(*args, **kwargs)

        return end_or_call

    os.fsync, os.replace, os.unlink = map(ending, (os.fsync, os.replace, os.unlink))


def wait(pid, number=None, seconds=0.0):
    """The exit code of a process, negative for a signal; it is sent `number` after so many seconds."""
    moment = time.monotonic() + seconds
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if number is not None and time.monotonic() >= moment:
            os.kill(pid, number)
            number = None
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1])


def content(path):
    """The bytes of a file, of JSON without the seconds."""
    text = path.read_bytes()
    return SECONDS.sub(b"", text) if path.suffix in (".json", ".jsonl") else text


def differing(right, found):
    """The names of the files that differ between two folders of runs, or are in one only."""
    contents = [{path.name: content(path) for path in folder.iterdir()} for folder in (right, found)]
    names = (contents[0].keys() | contents[1].keys()) - set(NOT_COMPARED)
    return sorted(name for name in names if contents[0].get(name) != contents[1].get(name))


def state_of(folder, right, old):
    """What is wrong in a folder, or None; how many epochs of the new run are there; whether the old run is there."""
    if not (folder / runs.LAST).exists():
        return "a result without a checkpoint" if (folder / runs.RESULT).exists() else None, 0, False
    try:
        last, _ = (runs.read_checkpoint(folder / name) for name in (runs.LAST, runs.BEST))
        is_old = runs.read_config(folder)["options"]["seed"] == OTHER_SEED
    except options.UserError as error:
        return str(error), 0, False
    wanted = map(json.loads, ((old if is_old else right) / runs.HISTORY).read_text().splitlines())
    for line, wanted_line in zip(last["history"], wanted):
        if line | {"seconds": 0} != wanted_line | {"seconds": 0}:
            return f"epoch {line['epoch']} has other numbers", 0, is_old
    if is_old and content(folder / runs.BEST) != content(old / runs.BEST):
        return "the old run has other weights", 0, is_old
    return None, 0 if is_old else len(last["history"]), is_old


class Trial:
    """One script with its undisturbed run, `right`, the run that is to be replaced, `old`, and what happened so far."""

    def __init__(self, script, folder, data_dir, dice):
        self.folder, self.dice, self.counts, self.faults = folder, dice, Counter(), []
        self.command = [script, *SCRIPTS[script].split(), "-epochs", str(N_EPOCHS), "-threads", "1", "-run_name", "run"]
        self.command += ["-data_dir", str(data_dir), "-runs_dir"]
        subprocess.run([sys.executable, *self.command, folder / "right"], cwd=ROOT, check=True, capture_output=True)
        start = time.monotonic()
        code = wait(fork([*self.command, str(folder / "old"), "-seed", str(OTHER_SEED)], folder / "stderr"))
        self.seconds = time.monotonic() - start
        self.right, self.old = (next((folder / name).glob("*/run")) for name in ("right", "old"))
        if code or not differing(self.right, self.old):
            self.faults.append(f"exit code {code} of the run with another seed, or the same numbers")

    def disturb(self, signals):
        """Make runs that are ended by these signals, one after the other, and compare what they have come to."""
        while signals:
            name = f"run {self.counts['runs']}"
            self.counts["runs"] += 1
            found = shutil.copytree(self.old, self.folder / name / self.old.relative_to(self.folder / "old"))
            n_epochs, is_old = 0, True
            while True:
                number = signals[-1] if signals else None
                code = self.start(name, number, [] if is_old else ["-resume", "auto"])
                if code == 0:
                    break
                if number is None or code not in (-number, 128 + number):
                    self.faults.append(f"{name}: exit code {code}")
                    return
                self.counts["SIGKILL" if signals.pop() == signal.SIGKILL else "SIGINT, SIGTERM"] += 1
                fault, n_found, is_old = state_of(found, self.right, self.old)
                if fault or n_found < n_epochs:
                    self.faults.append(f"{name}: {fault or f'{n_epochs} epochs became {n_found}'}")
                n_epochs = n_found
            self.faults += [f"{name}: {file} differs" for file in differing(self.right, found)]

    def start(self, name, number, resume):
        """Start the run and end it by a signal, unless it has finished before; returns its exit code."""
        n_calls = self.dice.randint(1, CALLS if resume else FIRST_CALLS) if number and self.dice.random() < 0.5 else 0
        stderr = self.folder / "stderr"
        pid = fork([*self.command, str(self.folder / name), *resume], stderr, number, n_calls)
        code = wait(pid, None if n_calls else number, self.dice.uniform(0, SHARE * self.seconds))
        lines = [line for line in stderr.read_text().splitlines() if not line.startswith("warning:")]
        if len(lines) != (code > 0):  # one line, and none of a process that finished or that the system ended
            self.faults.append(f"{name}: exit code {code} with {len(lines)} lines: {' | '.join(lines)}")
        self.counts["while writing"] += code != 0 and n_calls > 0
        return code


def main(argv=None):
    args = parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in IMPORTED:  # here, so that the forked processes need not
        importlib.import_module(name)
    dice, row, n_faults = random.Random(args.seed), "{:<22}{:>6}{:>9}{:>17}{:>15}{:>8}{:>9}".format, 0
    print(row("script", *COLUMNS), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder), args.scripts)
        for script in args.scripts:
            start = time.monotonic()
            (Path(folder) / script).mkdir()
            trial = Trial(script, Path(folder) / script, folder, dice)
            signals = [signal.SIGKILL] * args.kills + ([signal.SIGINT, signal.SIGTERM] * args.signals)[: args.signals]
            trial.disturb(dice.sample(signals, len(signals)))
            n_faults += len(trial.faults)
            trial.counts |= Counter(faults=len(trial.faults), seconds=round(time.monotonic() - start))
            print(row(script, *(trial.counts[column] for column in COLUMNS)), *trial.faults, sep="\n", flush=True)
    return int(n_faults > 0)


if __name__ == "__main__":
    options.run_script(main)
