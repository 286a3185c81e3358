"""Several processes that torchrun starts: the same losses as one, interrupts, a process that dies, the scripts' command lines."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import ROOT

import parallel
import runs
import utils
from benchmarks import plan_scaling
from data import translation
from data.bundled import translation as bundled_translation

N_PAIRS = 230  # 184 of them train: 12 batches of 16, the last with 8 rows
BATCH_SIZE = 16
N_STEPS = 60
CLOSE = 1e-4
TIMEOUT = 120  # seconds
SIZES = {"train": 16, "val": 11, "test": 13}  # images

# Trains the translator and writes the loss of each step and the validation figures of each epoch. With a signal, the last process gets it at a step.
PROGRAM = """
import json, os, sys, signal
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
import torch
from conftest import load_script
import experiment, options, parallel, runs, utils
script = load_script("hw2-q3.py")
folder, losses_file, at_step, number, *command = sys.argv[1:]
losses = []
train_step = utils.train_step
def recorded(optimization, batch_loss, parts, is_interrupted):
    if len(losses) + 1 == int(at_step) and parallel.rank() == parallel.world_size() - 1:
        os.kill(os.getpid(), int(number))
    step = train_step(optimization, batch_loss, parts, is_interrupted)
    losses.append(float(step[0] / step[1]))
    if parallel.is_main():
        open(losses_file, "a").write(f"{{losses[-1]}}\\n")
    return step
utils.train_step = recorded
options.run_script(lambda: script.main(command))
"""


def torchrun(n_processes, program, *arguments, **kwargs):
    """The finished process of a job of `n_processes`."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={n_processes}", "--standalone"]
    return subprocess.run(
        [*command, program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        **kwargs,
    )


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A function that trains the tiny translator in `n_processes`; returns the process and the losses of all steps so far."""
    folder = tmp_path_factory.mktemp("parallel")
    pairs = bundled_translation.generate(n_pairs=N_PAIRS)
    translation.write_split(translation.split_pairs(pairs), folder)
    program = folder / "program.py"
    program.write_text(PROGRAM.format(root=str(ROOT)))

    def run(name, n_processes, *options_, at_step=0, number=signal.SIGINT):
        losses = folder / f"{name}.losses"
        command = [
            "--use_attn",
            "-dropout",
            0,
            "-hidden_size",
            12,
            "-batch_size",
            BATCH_SIZE,
            "-epochs",
            5,
            "-threads",
            1,
        ]
        command += ["-data_dir", folder, "-runs_dir", folder / name, "-run_name", "run", *options_]
        arguments = (folder, losses, at_step, int(number), *command)
        if n_processes == 1:
            process = subprocess.run(
                [sys.executable, program, *map(str, arguments)], capture_output=True, text=True, timeout=TIMEOUT
            )
        else:
            process = torchrun(n_processes, program, *arguments)
        found = [float(line) for line in losses.read_text().split()] if losses.exists() else []
        return process, found, folder / name / "q3" / "run"

    return run


@pytest.fixture(scope="module")
def alone(job):
    process, losses, folder = job("alone", 1, "--beam_size", 2)
    assert process.returncode == 0, process.stderr
    assert len(losses) == N_STEPS
    return losses, folder


def without_seconds(path):
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in path.read_text().splitlines()]


def test_two_processes_interrupted_and_four_that_go_on_have_the_losses_of_one(job, alone):
    """Ctrl-C reaches one process only, in step 23; 4 processes do not divide all batches, and the last one has 8 rows."""
    process, losses, folder = job("several", 2, "--beam_size", 2, at_step=23)
    assert process.returncode != 0
    assert "interrupted; the same command with -resume goes on from epoch 2, step 11" in process.stderr
    assert "rank 1" not in process.stderr.split("Root Cause")[0].replace("local_rank", "")
    assert len(losses) == 23 and losses == pytest.approx(alone[0][:23], rel=CLOSE)

    process, losses, folder = job("several", 4, "--beam_size", 2, "-resume")
    assert process.returncode == 0, process.stderr
    assert losses == pytest.approx(alone[0], rel=CLOSE)
    assert process.stdout.count("Epoch 3/5") == process.stdout.count("written to") == 1  # rank 0 alone prints
    for ours, theirs in zip(
        without_seconds(folder / runs.HISTORY), without_seconds(alone[1] / runs.HISTORY), strict=True
    ):
        assert ours == pytest.approx(theirs, rel=CLOSE)
    ours, theirs = (runs.read_result(path) for path in (folder, alone[1]))
    assert ours["n_processes"] == 4 and theirs["n_processes"] == 1
    for search in ("greedy", "beam"):
        figures = [result["test"][search]["err_rate"]["value"] for result in (ours, theirs)]
        assert figures[0] == pytest.approx(figures[1], rel=1e-3)


def test_a_process_that_is_killed_ends_the_job(job, alone):
    start = time.monotonic()
    process, losses, folder = job("killed", 2, at_step=30, number=signal.SIGKILL)
    assert time.monotonic() - start < TIMEOUT / 2
    assert process.returncode != 0
    assert "another process of this job has ended" in process.stderr or "terminated; the same command" in process.stderr
    assert runs.read_checkpoint(folder / runs.LAST)["place"] is None

    process, losses, folder = job("killed", 1, "-resume")
    assert process.returncode == 0, process.stderr
    assert losses[-N_STEPS // 2 :] == pytest.approx(alone[0][-N_STEPS // 2 :], rel=CLOSE)


def test_several_rates_or_seeds_are_refused():
    process = subprocess.run(
        [sys.executable, "hw2-q3.py", "-seed", "1", "2", "-scale", "quick", "-data", "bundled"],
        env=os.environ | {"WORLD_SIZE": "2", "RANK": "0"},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert process.returncode == 2
    assert "one -learning_rate and one -seed" in process.stderr and process.stderr.count("\n") == 1


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_the_shares_of_all_processes_are_the_whole(monkeypatch, size):
    for rows in (list("abcde"), torch.arange(5), []):
        shares = []
        for rank in range(size):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", str(size))
            shares.append(list(parallel.share(rows)))
        assert parallel.whole(shares) == list(rows)
        sizes = list(map(len, shares))
        assert max(sizes) - min(sizes) <= 1


def test_the_batches_of_all_processes_are_those_of_one(monkeypatch):
    """Each in its order, also where a process has no row of a batch."""
    X = torch.arange(22)

    def epoch(rank, size):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(size))
        batches = utils.Batches(len(X), 4, lambda batches: (X[rows] for rows in batches))
        return [torch.cat(parts).tolist() if parts else [] for parts in batches.steps(torch.Generator().manual_seed(0))]

    shares = [epoch(rank, 3) for rank in range(3)]
    assert [parallel.whole(parts) for parts in zip(*shares, strict=True)] == epoch(0, 1)
    assert any(not part for parts in shares for part in parts)  # the last batch has two rows


@pytest.fixture
def as_three_processes(monkeypatch):
    """`parallel.call` as three processes answer it, one after the other."""

    def call(target, name, model, *args, **kwargs):
        answers = []
        for rank in range(3):
            with monkeypatch.context() as patch:
                patch.setenv("RANK", str(rank))
                patch.setenv("WORLD_SIZE", "3")
                answers.append(getattr(target, name)(model, *args, **kwargs))
        return answers

    def use():
        monkeypatch.setattr(parallel, "call", call)

    return use


def figures_of(path):
    """The numbers of a result by where they stand, and everything else."""

    def flat(value, where):
        if isinstance(value, dict):
            return {k: v for name, part in value.items() for k, v in flat(part, (*where, name)).items()}
        if isinstance(value, list):
            return flat(dict(enumerate(value)), where)
        return {where: value}

    values = {
        k: v for k, v in flat(json.loads(path.read_text()), ()).items() if not {"seconds", "peak_memory_mb"} & {*k}
    }
    numbers = {where: value for where, value in values.items() if isinstance(value, int | float)}
    return numbers, {where: value for where, value in values.items() if where not in numbers}


@pytest.mark.parametrize("name", ["hw2-q2.py", "hw2-q3-asr.py"])
def test_evaluation_and_test_that_are_shared_out_give_the_same_figures(
    name, run_here, spoken, as_three_processes, tmp_path
):
    if name == "hw2-q2.py":
        rng = np.random.default_rng(0)
        arrays = {f"{split}_images": rng.integers(0, 256, (n, 28, 28), np.uint8) for split, n in SIZES.items()}
        arrays |= {f"{split}_labels": rng.integers(0, 10, n, np.uint8) for split, n in SIZES.items()}
        np.savez(tmp_path / "kuzushiji_mnist.npz", **arrays)
        options_ = ("-data_dir", tmp_path, "-learning_rate", 0.0005)
    else:
        options_ = ("-data_dir", spoken, "--hidden_size", 12, "--n_layers", 1, "--batch_size", 16)
    found = []
    for several in (False, True):
        if several:
            as_three_processes()
        process = run_here(name, *options_, "-epochs", 1, "-threads", 1, "-runs_dir", tmp_path / str(several))
        assert process.returncode == 0, process.stderr
        (path,) = (tmp_path / str(several)).glob("*/*/result.json")
        found.append(figures_of(path))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5) and len(found[0][0]) > 20
    assert found[1][1] == found[0][1]


def test_the_calculation_on_paper():
    """Alone nothing is summed; many GPUs send twice the gradient's bytes; one GPU per clip is not faster than starting the kernels."""
    assert plan_scaling.sum_seconds(1e9, 1) == 0
    assert plan_scaling.sum_seconds(1e9, 1_000) == pytest.approx(2 * 4e9 / 50e9, rel=0.01)
    assert plan_scaling.sum_seconds(0, 1_000) < 25 * plan_scaling.MESSAGE_SECONDS  # along a tree, not a ring
    network = plan_scaling.NETWORKS[0]
    one = plan_scaling.plan(network, 1, 512, hours=10_000)
    assert one["speedup"] == 1 and one["n_steps"] == pytest.approx(10_000 * 3600 / 6.6 / 512)
    many = plan_scaling.plan(network, 512, 512, hours=10_000)
    assert many["compute_ms"] == pytest.approx(1e3 * plan_scaling.KERNELS_A_STEP * plan_scaling.KERNEL_SECONDS)
    assert many["speedup"] < 512
