"""Hostile and damaged inputs for every reader of the project: each must end in a value or in a `UserError` of one line.

    python -m tests.fuzz                            # 100,000 inputs, shared out among the readers
    python -m tests.fuzz -n 2000 -only zip tar      # those readers whose names hold one of the words
    python -m tests.fuzz -only tatoeba -start 71 -n 1   # one input again, as a finding names it

An input is a copy of a small valid folder that is then damaged (`tests/fuzz/damage.py`): bits, bytes and blocks are changed; archives,
`.npz` files and checkpoints are also taken apart, changed inside and put together again with the right checksums; JSON is
changed by value, or drawn by hypothesis. Input number i of a reader depends on the seed and on i alone. Each reader has a process
of its own with limits for memory and time. Findings are:

    traceback   an exception that is no `UserError`, or a message or warning that has not one line
    code        a process, a connection or a function that a file asked for
    path        a file outside the input's own folder that is opened, made, moved or deleted
    memory      more than `MEMORY` bytes above the start
    time        more than `SECONDS` for one input
    crash       the end of the process

The files of a finding stay in a folder whose path is printed; the exit code is then 1.
"""

import contextlib
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import hypothesis

import options
from options import UserError
from tests.fuzz import damage

N_INPUTS = 100_000
MEMORY = 3 * 2**29  # bytes: what a reader may take by its own limit, 1 GiB unpacked, and half as much again
ADDRESSES = 6 * 2**30  # bytes of address space; what asks for more gets a `MemoryError`, and the machine stays well
SECONDS = 5.0  # of processor time, so that a busy machine makes no finding
GRACE = 60.0  # seconds without an answer after which a process is stuck
MAX_FINDINGS = 20  # of one reader; then it is given up
SHARE_OF_HYPOTHESIS = 0.25  # of the inputs of a reader with a strategy
N_DRAWN = 200  # values that hypothesis draws for a reader
TMPFS = "/dev/shm"
SECRET = "secret\n"  # content of the file beside the input's folder
GOOD = ("value", "user error")


class Hang(BaseException):
    """The time of one input is over."""


class Watch:
    """Notes by Python's audit events what is done while it is on: files outside of a folder, processes, connections, pickles."""

    CODE = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
    CODE = (*CODE, "socket.connect", "socket.getaddrinfo", "pickle.find_class")
    CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")

    def __init__(self, root, inside):
        self.root, self.inside = f"{root}{os.sep}", f"{inside}{os.sep}"
        self.is_on, self.seen = False, []
        sys.addaudithook(self.hear)

    def hear(self, event, arguments):
        if not self.is_on:
            return
        if event in self.CODE:
            self.seen.append(("code", f"{event} {arguments!r:.200}"))
        elif event == "open" or event in self.CHANGES:
            flags = (arguments[2] or 0) if event == "open" else 0
            changes = event != "open" or bool(flags & (os.O_WRONLY | os.O_RDWR))
            follows = event == "open" and not flags & os.O_NOFOLLOW
            for path in arguments[:1] if event == "open" else arguments:
                if isinstance(path, str | bytes | os.PathLike) and self.leaves(os.fsdecode(path), changes, follows):
                    self.seen.append(("path", f"{event} {os.fsdecode(path)!r:.200}"))

    def leaves(self, path, changes, follows):
        """Whether a path lies outside: to be changed anywhere, to be read in the folder around the input's."""
        self.is_on = False  # the calls below are audited, too
        path = os.path.abspath(path)
        if changes:  # a link in the place of a file is replaced, and is followed where a file is opened
            folder, name = os.path.split(path)
            path = os.path.realpath(path) if follows else os.path.join(os.path.realpath(folder), name)
        self.is_on = True
        if (path + os.sep).startswith(self.inside) or path == os.devnull:
            return False
        return changes or path.startswith(self.root)

    @contextlib.contextmanager
    def on(self):
        self.is_on, self.seen = True, []
        try:
            yield
        finally:
            self.is_on = False


class Bench:
    """What judges the inputs of one reader: its folders, and a watch over what happens."""

    def __init__(self, reader, root, seed):
        self.reader, self.seed = reader, seed
        self.valid, self.around, self.inside = root / "valid", root / "around", root / "around" / "inside"
        self.valid.mkdir(parents=True)
        reader.make(self.valid)
        self.drawn = drawn(reader.strategy, seed) if reader.strategy is not None else []
        self.set_up()
        self.watch = Watch(self.around, self.inside)
        self.fresh()
        outcome, what = self.judge()
        if outcome != "value":  # then its damaged copies would show nothing
            raise RuntimeError(f"the valid files of {reader.name} give {outcome}: {what}")

    def set_up(self):
        shutil.rmtree(self.around, ignore_errors=True)
        self.inside.mkdir(parents=True)
        (self.around / damage.OUTSIDE).write_text(SECRET, encoding="utf-8")

    def has_changed(self):
        """Whether anything beside the input's folder is not as `set_up` left it."""
        if sorted(os.listdir(self.around)) != sorted([self.inside.name, damage.OUTSIDE]):
            return True
        return (self.around / damage.OUTSIDE).read_text(encoding="utf-8") != SECRET

    def fresh(self):
        """Copy the valid files into the folder `inside`, which relative paths then start from."""
        shutil.rmtree(self.inside)
        shutil.copytree(self.valid, self.inside)
        os.chdir(self.inside)

    def prepare(self, number):
        """Make the input of that number."""
        self.fresh()
        rng = random.Random(f"{self.seed} {self.reader.name} {number}")
        if self.drawn and rng.random() < SHARE_OF_HYPOTHESIS:
            (self.inside / self.reader.place).write_text(json.dumps(rng.choice(self.drawn)), encoding="utf-8")
        else:
            self.reader.damage(rng, self.inside)

    def judge(self):
        """Read the input that lies in the folder; returns (outcome, description)."""
        said, before = io.StringIO(), peak_memory()
        outcome, what = "value", ""
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), self.watch.on():
                self.reader.read(self.inside)
        except UserError as error:
            outcome, what = "user error", str(error)
            if not what.isprintable():
                outcome, what = "traceback", f"the message is not one line: {what!r}"
        except Hang:
            outcome, what = "time", traceback.format_exc()
        except BaseException:
            outcome, what = "traceback", traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        lines = said.getvalue().split("\n")[:-1]
        if not all(line.startswith("warning: ") and line.isprintable() for line in lines):
            outcome, what = "traceback", f"a warning is not one line: {said.getvalue()!r:.400}"
        if peak_memory() - before > MEMORY:
            outcome, what = "memory", f"{(peak_memory() - before) / 2**30:.1f} GiB; {outcome} {what}"
        if self.watch.seen:
            outcome, what = self.watch.seen[0][0], "; ".join(seen for _, seen in self.watch.seen)
        if (self.around / damage.EXECUTED).exists():
            outcome, what = "code", "a file's code was run"
        elif self.has_changed():
            outcome, what = "path", f"the folder around the input has changed: {sorted(os.listdir(self.around))}"
        return outcome, what


def drawn(strategy, seed):
    """`N_DRAWN` values of hypothesis."""
    values = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=N_DRAWN,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def collect(value):
        values.append(value)

    collect()
    return values


def peak_memory():
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def address_space():
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def work(reader, root, seed, numbers, pipe):
    """The process of a reader: judge the inputs of these numbers, and write a line of JSON for each to `pipe`."""
    signal.signal(signal.SIGPROF, on_alarm)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES + address_space(), resource.RLIM_INFINITY))
    with open(os.devnull, "w", encoding="utf-8") as null:
        for descriptor in (1, 2):  # where the C libraries complain
            os.dup2(null.fileno(), descriptor)
    with open(pipe, "w", encoding="utf-8", buffering=1) as report:
        try:
            bench = Bench(reader, root, seed)
        except RuntimeError as error:
            print(json.dumps(["crash", str(error), None]), file=report)
            return
        for number in numbers:
            kept = None
            try:
                bench.prepare(number)
                outcome, what = bench.judge()
            except BaseException:
                outcome, what = "crash", traceback.format_exc()
            if outcome not in GOOD:
                kept = keep(bench.inside, root, number)
                bench.set_up()
            print(json.dumps([outcome, what, kept]), file=report)
            if outcome == "memory":  # the peak of a process does not fall, so another one goes on
                return


def on_alarm(signum, frame):
    raise Hang


def keep(inside, root, number):
    """Copy the files of a finding; returns the folder. They are made anew from their number, as the reader left its traces."""
    folder = root / f"input-{number}"
    with contextlib.suppress(OSError, shutil.Error):
        shutil.copytree(inside, folder, symlinks=True, ignore=ignore_special)
    return str(folder)


def ignore_special(folder, names):
    """Names of what cannot be copied: pipes."""
    return [name for name in names if Path(folder, name).is_fifo()]


def run(reader, root, seed, start, n):
    """Feed a reader; returns (Counter of outcomes, [(number, outcome, description, folder of the files)], seconds)."""
    counts, findings, began = Counter(), [], time.perf_counter()
    number = start
    while number < start + n and len(findings) < MAX_FINDINGS:
        folder = root / f"{len(findings)}-{number}"
        read_end, write_end = os.pipe()
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(read_end)
                work(reader, folder, seed, range(number, start + n), write_end)
                code = 0
            finally:
                os._exit(code)
        os.close(write_end)
        with open(read_end, "rb", buffering=0) as pipe:
            try:
                for outcome, what, kept in answers(pipe):
                    counts[outcome] += 1
                    if outcome not in GOOD:
                        findings.append((number, outcome, what, kept))
                    number += 1
                    if len(findings) >= MAX_FINDINGS:
                        raise TimeoutError
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if status != 0 and number < start + n and len(findings) < MAX_FINDINGS:
            outcome = "time" if status == signal.SIGKILL else "crash"
            counts[outcome] += 1
            findings.append(
                (number, outcome, f"the process ended with status {status}", str(folder / "around" / "inside"))
            )
            number += 1
    return counts, findings, time.perf_counter() - began


def answers(pipe):
    """The lines of a process, until it ends; raises `TimeoutError` if it is stuck."""
    rest = b""
    while True:
        if not select.select([pipe], [], [], GRACE)[0]:
            raise TimeoutError
        content = pipe.read(2**16)
        if not content:
            return
        *lines, rest = (rest + content).split(b"\n")
        yield from map(json.loads, lines)


def shares(readers, n):
    """How many of `n` inputs each reader gets, by its share; each at least one."""
    total = sum(reader.share for reader in readers)
    return [max(1, round(n * reader.share / total)) for reader in readers]


def fuzz(readers, root, n, seed=options.DEFAULT_SEED, start=0):
    """Feed `n` inputs to some readers and print the table; returns the findings, (reader, number, kind, description, folder)."""
    row = "{:<34} {:>9} {:>9} {:>11} {:>9} {:>9}".format
    print(row("reader", "inputs", "values", "user errors", "findings", "seconds"), flush=True)
    total, total_seconds, found = Counter(), 0.0, []
    for reader, n_inputs in zip(readers, shares(readers, n)):
        counts, findings, seconds = run(
            reader, root / reader.name.replace(" ", "-").replace("/", "-"), seed, start, n_inputs
        )
        n_good = sum(counts[kind] for kind in GOOD)
        print(
            row(reader.name, counts.total(), *(counts[k] for k in GOOD), counts.total() - n_good, f"{seconds:.1f}"),
            flush=True,
        )
        total += counts
        total_seconds += seconds
        found += [(reader.name, *finding) for finding in findings]
    n_good = sum(total[kind] for kind in GOOD)
    print(row("all", total.total(), *(total[k] for k in GOOD), total.total() - n_good, f"{total_seconds:.1f}"))
    return found


def parse_args(argv=None):
    parser = options.Parser("Feed hostile and damaged inputs to every reader of the project.")
    parser.add_option("n", type=options.positive_int, default=N_INPUTS, help="inputs in all (default: %(default)s)")
    parser.add_option("only", nargs="+", metavar="WORD", help="only readers whose names hold one of these words")
    parser.add_option("seed", type=options.seed, default=options.DEFAULT_SEED, help="(default: %(default)s)")
    parser.add_option(
        "start", type=options.whole(0, options.MAX_COUNT), default=0, help="number of the first input (default: 0)"
    )
    return parser.parse_args(argv)


def main():
    args = parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    from tests.fuzz import readers

    wanted = [r for r in readers.READERS if args.only is None or any(word in r.name for word in args.only)]
    if not wanted:
        raise UserError(f"no reader has such a name; there are {', '.join(r.name for r in readers.READERS)}")
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=TMPFS if os.access(TMPFS, os.W_OK) else None) as root:
        findings = fuzz(wanted, Path(root), args.n, args.seed, args.start)
        if findings:
            kept = Path(tempfile.mkdtemp(prefix="fuzz-findings-"))
            for i, (name, number, kind, what, folder) in enumerate(findings):
                print(f"\n{kind}: {name}, input {number} of seed {args.seed}: {kept / str(i)}\n{what}")
                with contextlib.suppress(OSError, shutil.Error, TypeError):  # of a reader that has not started
                    shutil.copytree(folder, kept / str(i), symlinks=True, ignore=ignore_special)
            print(f"\n{len(findings)} findings; their files are in {kept}")
            return 1
    return 0


if __name__ == "__main__":
    options.run_script(main)
