"""A short `make fault`, a fault that it must find, and what else ends a run early: an interrupt, a full disk."""

import functools
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch

import files
import runs
from tests import fault

SCRIPT = "hw2-q3.py"
SIZES = "-hidden_size 8 -batch_size 8 -dropout 0.3 -skip_test"


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """The translator at tiny size with its undisturbed runs."""
    folder = tmp_path_factory.mktemp("fault")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fault, "N_PAIRS", 400)
        patch.setitem(fault.SCRIPTS, SCRIPT, SIZES)
        fault.make_data(folder, [SCRIPT])
        trial = fault.Trial(SCRIPT, folder / "runs", folder, fault.random.Random(1))
    assert trial.faults == []
    return trial


@pytest.fixture
def faults(trial):
    """The faults of a trial, none at the start."""
    trial.faults.clear()
    yield trial.faults
    trial.faults.clear()


def test_runs_that_are_killed_and_resumed_equal_one_that_was_not(trial, faults):
    before = trial.counts["SIGKILL"]
    trial.disturb([signal.SIGKILL] * 5)
    assert faults == [] and trial.counts["SIGKILL"] == before + 5


def test_a_resumed_run_with_other_random_numbers_is_found(trial, faults, monkeypatch):
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)  # dropout then goes on with other numbers
    monkeypatch.setattr(fault, "SHARE", 0.0)  # every kill comes while a file is written
    monkeypatch.setattr(trial.dice, "random", lambda: 0.0)
    monkeypatch.setattr(trial.dice, "randint", lambda low, high: fault.FIRST_CALLS if high == fault.FIRST_CALLS else 1)
    trial.disturb([signal.SIGKILL])
    assert any("best.pt differs" in line for line in faults), faults


@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
@pytest.mark.parametrize(("n_calls", "kept"), [
    (2, "no epoch was finished, nothing was changed"),
    (18, "the same command with -resume goes on from the last finished epoch"),  # when the second one is written
])  # fmt: skip
def test_an_interrupt_ends_in_one_line_that_says_what_is_kept(number, said, n_calls, kept, trial, tmp_path):
    code = fault.wait(fault.fork([*trial.command, str(tmp_path)], tmp_path / "stderr", number, n_calls))
    assert code == 128 + number
    assert (tmp_path / "stderr").read_text() == f"{said}; {kept}\n"
    (folder,) = tmp_path.glob("*/run")
    assert fault.state_of(folder, trial.right, trial.old) == (None, int(n_calls > 2), False)
    assert not [*folder.glob("*.tmp")]


def write(folder, seed):
    """A run of one epoch whose files all tell its seed; it replaces what is there."""
    config = {"options": {"seed": seed}, "changed": {}, "kind": "run", "data": {"fingerprint": ""}}
    with runs.open_run(folder, config) as run:
        run.save_epoch({"history": [{"epoch": 1, "seconds": 0.0}], "seed": seed}, {"seed": seed})
        run.add(seed=seed)


def test_a_killed_run_is_never_mixed_with_the_one_that_it_replaces(tmp_path):
    write(tmp_path / "old", 1)
    (tmp_path / "old" / "notes.pdf").write_text("the user's own")
    seen, code, n_calls = set(), None, 0
    while code != 0:
        folder, n_calls = shutil.copytree(tmp_path / "old", tmp_path / str(n_calls)), n_calls + 1
        if (pid := os.fork()) == 0:
            try:
                fault.end_at_call(signal.SIGKILL, n_calls)
                write(folder, 2)
            finally:
                os._exit(0)
        code = fault.wait(pid)
        assert (folder / "notes.pdf").exists()
        if (folder / runs.LAST).exists():
            seeds = {runs.read_checkpoint(folder / name)["seed"] for name in (runs.LAST, runs.BEST)}
            seeds.add(runs.read_config(folder)["options"]["seed"])
            seeds |= {files.read_json(folder / runs.RESULT)["seed"]} if (folder / runs.RESULT).exists() else set()
            assert len(seeds) == 1, n_calls
            seen |= seeds
    assert seen == {1, 2} and n_calls > 20


def test_a_file_that_may_not_grow_ends_in_one_line_and_leaves_the_run(trial, tmp_path):
    shutil.copytree(trial.right.parents[1], tmp_path, dirs_exist_ok=True)
    (folder,) = tmp_path.glob("*/run")
    size = (folder / runs.LAST).stat().st_size // 2
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    command = [sys.executable, "-B", *trial.command, tmp_path, "-seed", "5"]  # no compiled module is cut off
    process = subprocess.run(command, cwd=fault.ROOT, preexec_fn=limit, capture_output=True, text=True)
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert "cannot write" in process.stderr and "make room there" in process.stderr
    assert fault.differing(trial.right, folder) == [f"{runs.NEW}{runs.BEST}"]  # which the next start removes
