"""Several processes that torchrun starts: the losses of one, resuming, what is refused; WORLD_SIZE without torchrun."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, assert_user_error, one_line_error

import options
import parallel
import runs
from data import translation
from data.bundled import translation as sentences
from tests.pairs import write_split

N_PAIRS, N_TRAIN, BATCH_SIZE = 230, 190, 11  # 17 batches that 2 or 4 processes do not divide, then one of 3 rows
SIZES = ("--use_attn", "-dropout", 0, "-hidden_size", 12, "-batch_size", BATCH_SIZE, "-epochs", 4, "-threads", 1)
SIZES += ("-device", "cpu")  # of GPUs there may be fewer
CLOSE = 1e-4  # relative: the same terms are summed in another order

# Ctrl-C in a terminal reaches all processes of a job: here as the third epoch begins for the last of them. One that
# ends before the others have begun it would have torchrun terminate them.
INTERRUPTED = """
import os, runpy, signal, sys
import torch
sys.path.insert(0, os.getcwd())
import utils
train_epoch = utils.train_epoch
def interrupted(*args):
    if args[-1] == 3:
        torch.distributed.barrier()
        os.kill(os.getpid(), signal.SIGINT)
    return train_epoch(*args)
utils.train_epoch = interrupted
runpy.run_path("hw2-q3.py", run_name="__main__")
"""


def launch(n_processes, folder, runs_dir, *more, program="hw2-q3.py", **environment):
    """Train the translator in so many processes of a job, or without torchrun in one; returns the finished process."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n_processes}")
    command = [sys.executable, *(torchrun if n_processes else ()), program, *SIZES, "-skip_test"]
    command += ["-data_dir", folder, "-runs_dir", folder / runs_dir, "-run_name", "run", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    command = list(map(str, command))
    return subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT, env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a few sentence pairs."""
    folder = tmp_path_factory.mktemp("parallel")
    splits = translation.split_pairs(sentences.generate(n_pairs=N_PAIRS))
    assert len(splits["train"]) == N_TRAIN
    write_split(splits, folder)
    (folder / "interrupted.py").write_text(INTERRUPTED)
    return folder


def losses(folder, name):
    return [json.loads(line)[name] for line in (folder / runs.HISTORY).read_text().splitlines()]


def test_two_processes_interrupted_and_four_that_go_on_have_the_losses_of_one(folder):
    """The one is not started by torchrun, in an environment where WORLD_SIZE is left over from something else."""
    alone = launch(None, folder, "alone", WORLD_SIZE="2")
    assert alone.returncode == 0, alone.stderr
    two = launch(2, folder, "several", program=folder / "interrupted.py")
    assert two.returncode != 0
    assert two.stderr.count("interrupted; the same command with -resume goes on from the last finished epoch") == 1
    right, run = (folder / name / "q3" / "run" for name in ("alone", "several"))
    for name in ("train_loss", "val_loss"):
        assert losses(run, name) == pytest.approx(losses(right, name)[:2], rel=CLOSE)

    four = launch(4, folder, "several", "-resume")
    assert four.returncode == 0, four.stderr
    assert len(losses(run, "val_loss")) == 4
    assert losses(run, "val_loss") == pytest.approx(losses(right, "val_loss"), rel=CLOSE)
    # The batch of 3 rows, which each of the 4 processes computes, counts 4 times in the mean over the epoch.
    assert losses(run, "train_loss") == pytest.approx(losses(right, "train_loss"), rel=0.01)
    for line in ("Epoch 3/4", "written to"):  # rank 0 alone prints, and goes on where it stopped
        assert four.stdout.count(line) == 1 and "Epoch 2/4" not in four.stdout
    assert {path.name for path in run.iterdir()} == {path.name for path in right.iterdir()}
    assert [runs.read_result(path)["n_processes"] for path in (right, run)] == [1, 4]


def be_rank(monkeypatch, rank, size):
    """Pretend to be one of the processes that torchrun starts."""
    for name, value in (("TORCHELASTIC_RUN_ID", "job"), ("RANK", rank), ("WORLD_SIZE", size)):
        monkeypatch.setenv(name, str(value))


def test_rank_0_alone_has_a_run_to_write(monkeypatch, tmp_path):
    be_rank(monkeypatch, 1, 2)
    with runs.open_run(tmp_path / "run", {}) as run:
        assert run.checkpoint() is None and not parallel.is_main()
    assert not (tmp_path / "run").exists()


def test_several_learning_rates_are_refused(monkeypatch, run_here, folder):
    be_rank(monkeypatch, 0, 2)
    process = run_here("hw2-q3.py", "-learning_rate", 0.1, 0.01, "-data_dir", folder, "-runs_dir", folder / "rates")
    assert_user_error(process, "one -learning_rate and one -seed")


def test_more_processes_than_gpus_are_told_what_to_do(monkeypatch):
    be_rank(monkeypatch, 1, 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with one_line_error("more processes than GPUs", "--nproc_per_node", "-device cpu"):
        parallel.start("cuda")


@pytest.mark.parametrize("value", ["2", "many", ""])
def test_without_torchrun_the_environment_starts_no_job(monkeypatch, value):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, value)
    assert (options.world_size(), options.rank(), parallel.is_main()) == (1, 0, True)
    assert parallel.start("cpu") is None


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_the_shares_of_all_processes_are_the_batch_or_each_is_the_whole(monkeypatch, size):
    rows, shares = torch.arange(5), []
    for rank in range(size):
        be_rank(monkeypatch, rank, size)
        shares.append(parallel.share(rows).tolist())
    if size > len(rows):
        assert shares == [rows.tolist()] * size
    else:
        assert sorted(sum(shares, [])) == rows.tolist()
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
