"""Interrupted runs: a short `make fault`, and what else ends a run early: full disks, limits, a second writer, a loss that is no number."""

import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import fault
import pytest
import torch
from conftest import one_line_error

import options
import runs
import utils

SCRIPT = "hw2-q3.py"
SIZES = ("-hidden_size", "8", "-batch_size", "8", "-skip_test", "-epochs", "3")
N_PAIRS = 400
DISK_BYTES = 1_000_000


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """The translator at tiny size, its data and its undisturbed run."""
    data_dir = tmp_path_factory.mktemp("data")
    fault.make_data(data_dir, [SCRIPT], N_PAIRS)
    trial = fault.Trial(SCRIPT, tmp_path_factory.mktemp("runs"), data_dir, SIZES)
    trial.measure(cold=False)
    return trial


@pytest.fixture
def name(trial, request):
    """The name of a new runs folder of `trial`."""
    return request.node.name


def assert_ended(process, *words):
    """Exit code 2 and one line with all of `words`."""
    code, errors = process.wait(), process.errors()
    assert code == options.USER_ERROR and len(errors) == 1, (code, errors)
    assert errors[0].startswith(f"{SCRIPT}: error: ")
    for word in words:
        assert word in errors[0], errors[0]


def assert_goes_on(trial, name, n_epochs=1):
    """What was written is whole, and the run that goes on from it ends with the right numbers."""
    assert fault.damage(trial.right, trial.run_folder(name), n_epochs)[:2] == (0, [])
    trial.finish(name)
    assert fault.compare(trial.right, trial.run_folder(name)) == (0, [])


def after_an_epoch(trial, name, more=()):
    """A process that has written its first checkpoint and goes on."""
    process = trial.start(name, more=more)
    assert process.wait_until((trial.run_folder(name) / runs.HISTORY).exists), process.errors()
    return process


@pytest.mark.parametrize(("n_kills", "signals"), [(5, [signal.SIGKILL]), (2, [signal.SIGINT, signal.SIGTERM])])
def test_a_run_that_is_killed_and_resumed_equals_one_that_was_not(n_kills, signals, trial):
    row = fault.Row(SCRIPT, "")
    trial.disturb(row, n_kills, signals, random.Random(1), cold=False)
    assert (row.n_differing, row.shown) == (0, [])
    assert row.n_kills == n_kills and row.n_resumed >= n_kills


def test_the_comparison_sees_one_bit_one_line_and_one_file(trial, tmp_path):
    """A tool that finds nothing must be able to find something."""

    def changed(change):
        folder = shutil.copytree(trial.right, tmp_path / "run", dirs_exist_ok=True)
        change(folder)
        return fault.compare(trial.right, folder)

    def flip(folder):
        state = runs.read_checkpoint(folder / runs.LAST)
        weight = next(iter(state["model"].values()))
        weight.view(torch.int32)[(0,) * weight.dim()] ^= 1
        files.write_state(folder / runs.LAST, state)

    def double(folder):
        with open(folder / runs.HISTORY, "a") as file:
            file.write((folder / runs.HISTORY).read_text().splitlines()[-1] + "\n")

    assert changed(lambda folder: None) == (0, [])
    n, (path,) = changed(flip)
    assert n == 1 and path.startswith("last.pt/model/")
    shutil.copy(trial.right / runs.LAST, tmp_path / "run")
    n, paths = changed(double)
    assert n > 1 and "metrics.jsonl (its length)" in paths
    assert fault.damage(trial.right, tmp_path / "run", 0)[0] > 0
    shutil.copy(trial.right / runs.HISTORY, tmp_path / "run")
    assert changed(lambda folder: (folder / runs.RESULT).unlink()) == (1, ["only in one: result.json"])


LIMITS = {  # a kind of limit of a process; from the sizes of the checkpoints to its value; what the process says
    "no checkpoint can be written": ("RLIMIT_FSIZE", min, ["cannot write", "make room there"]),
    "last.pt cannot be written": ("RLIMIT_FSIZE", max, ["cannot write", "make room there"]),
    "no file can be opened": ("RLIMIT_NOFILE", lambda sizes: 0, ["cannot ", "Too many open files"]),
    "the streams alone are open": ("RLIMIT_NOFILE", lambda sizes: 3, ["cannot ", "Too many open files"]),
}


def test_limits_of_a_process_leave_the_checkpoint(trial, name):
    """Each process of one run meets another limit."""
    sizes = [(trial.right / file).stat().st_size - 1 for file in (runs.LAST, runs.BEST)]
    after_an_epoch(trial, name).send(signal.SIGKILL)
    n_epochs = 1
    for kind, limit, words in LIMITS.values():
        process = trial.start(name)
        process.wait_until(process.has_printed)  # it has read the data
        resource.prlimit(process.pid, getattr(resource, kind), (limit(sizes),) * 2)
        assert_ended(process, *words)
        assert "delete" not in process.errors()[0]  # the files are good
        *wrong, n_epochs = fault.damage(trial.right, trial.run_folder(name), n_epochs)
        assert wrong == [0, []]
    assert_goes_on(trial, name, n_epochs)


@contextmanager
def mounted(folder, size):
    """A small tmpfs; skips the test where mounting is not allowed."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(path):
    """Write a file until the disk is full."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


def test_a_full_disk_leaves_the_checkpoint(trial, name):
    folder = trial.run_folder(name)
    with mounted(folder, DISK_BYTES):
        fill(folder / "filler")
        assert_ended(trial.start(name), "make room there")
        (folder / "filler").unlink()
        process = after_an_epoch(trial, name)
        fill(folder / "filler")
        assert_ended(process, "cannot write", "make room there")
        (folder / "filler").unlink()
        assert_goes_on(trial, name)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no file that is always full")
@pytest.mark.parametrize("flush", [True, False])
def test_an_output_that_cannot_be_written_is_told_in_one_line(flush):
    """`python hw2-q3.py > FILE` on a full disk; without `flush` the lines are written when the script ends."""
    code = f"import options; options.run_script(lambda: print('a line', flush={flush}))"
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-c", code]
        process = subprocess.run(command, cwd=fault.ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert process.returncode == options.USER_ERROR
    assert process.stderr.count("\n") == 1 and "the output cannot be written" in process.stderr, process.stderr


@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_an_interrupt_where_python_can_raise_nothing_is_not_lost(number, said):
    """In the callback of a weak reference, where Python prints a traceback, forgets the exception and goes on."""
    code = (
        "import os, time, weakref, options\n"
        "def main():\n"
        f"    callback = lambda reference: os.kill(os.getpid(), {int(number)})\n"
        "    class Thing: pass\n"
        "    thing = Thing(); reference = weakref.ref(thing, callback); del thing\n"
        "    time.sleep(10); print('went on')\n"
        "options.run_script(main)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=fault.ROOT, capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (128 + number, "", f"{said}\n")


@contextmanager
def read_only(folder):
    """Nothing can be made, renamed or removed in the folder, by root neither; skips the test where that cannot be had."""
    if os.geteuid():
        change = [("chmod", "a-w"), ("chmod", "u+w")]
    else:
        change = [("chattr", "+i"), ("chattr", "-i")]
    if shutil.which(change[0][0]) is None or subprocess.run([*change[0], folder], capture_output=True).returncode:
        pytest.skip("a folder cannot be made read-only for this user here")
    try:
        yield
    finally:
        subprocess.run([*change[1], folder], check=True)


def test_a_read_only_folder_leaves_the_checkpoint(trial, name):
    """While a run writes to it, and when a run that was killed while it wrote goes on in it."""
    folder = trial.run_folder(name)
    process = after_an_epoch(trial, name)
    with read_only(folder):
        assert_ended(process, "cannot write", str(folder))
    (folder / ".last.pt.1.tmp").write_bytes(b"half")
    with read_only(folder):
        assert_ended(trial.start(name), "cannot write", str(folder))
    assert_goes_on(trial, name)


def test_a_second_process_is_refused_and_a_dead_ones_lock_is_not_in_the_way(trial, name):
    first = after_an_epoch(trial, name)
    first.send(signal.SIGSTOP)  # it holds the folder, however fast it is
    for more in ((), ("-seed", "7")):
        assert_ended(trial.start(name, streams="second", more=more), "another process is writing to", "-run_name")
    first.send(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert (trial.run_folder(name) / runs.LOCK).exists()
    assert_goes_on(trial, name)


N_STEPS = utils.CHECK_EVERY + 20  # of an epoch, of one example each


@pytest.mark.parametrize(("value", "step", "where"), [
    (math.nan, 3, "between steps 1 and 50 of epoch 2"),
    (math.inf, 50, "between steps 1 and 50 of epoch 2"),
    (-math.inf, 51, "between steps 51 and 70 of epoch 2"),
    (math.nan, None, "in the validation figures after epoch 2"),
])  # fmt: skip
def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_best_weights(value, step, where, tmp_path):
    args = options.Parser("")
    options.add_training_options(args, learning_rate=0.1, optimizer="sgd")
    model, n_calls, kept = torch.nn.Linear(1, 1), 0, None

    def batch_loss(model, rows):
        nonlocal n_calls
        n_calls += 1
        factor = value if step is not None and n_calls == N_STEPS + step else 1.0
        return factor * model(rows[:, None].float() / N_STEPS).square().sum(), len(rows)

    def evaluate(model):
        nonlocal kept
        if n_calls == N_STEPS:
            kept = {name: weight.clone() for name, weight in model.state_dict().items()}
        return {"val_loss": value if n_calls > N_STEPS else 1.0}

    config = {"question": "q", "kind": "run", "options": {}, "data": {"fingerprint": "f"}}
    with one_line_error("not finite", where, "-learning_rate", "-max_grad_norm", "epochs before are kept"):
        with runs.open_run(tmp_path, config) as run:
            utils.fit(
                utils.Optimization(model, args.parse_args([]), 2 * N_STEPS),
                utils.Batches(N_STEPS, 1, iter),
                batch_loss,
                evaluate,
                run,
                2,
                seed=0,
                score="val_loss",
                maximize=False,
            )
    weights = runs.read_checkpoint(tmp_path / runs.BEST)["weights"]
    assert all(torch.equal(weights[name], weight) for name, weight in kept.items())
    assert len(runs.read_checkpoint(tmp_path / runs.LAST)["history"]) == 1


def test_a_learning_rate_that_is_too_high_ends_the_command_in_one_line(trial, name):
    process = trial.start(name, more=("-optimizer", "sgd", "-learning_rate", "1e38"))
    assert_ended(process, "not finite", "of epoch 1", "no epoch was finished", "smaller -learning_rate")
    assert not (trial.run_folder(name) / runs.LAST).exists()
