"""Every benchmark runs, at tiny size; what it measures is no test."""

import argparse
import re

import pytest
import torch
from conftest import ROOT, assert_user_error

from benchmarks import gpu

TINY = {
    "bench_asr.py": ("--steps", 1, "--clips", 2),
    "bench_captioning.py": ("--steps", 1),
    "bench_q2.py": ("--steps", 5),
    "bench_q3.py": ("--steps", 1),
    "bench_scaling.py": ("--steps", 1, "--question", "q3", "--batch_size", 4),
    "bench_start.py": (),
    "bench_threads.py": ("--busy", 1, "--only", "q2", "--threads", 1),
}
RATIO = re.compile(r" ratio \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)$", re.MULTILINE)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "benchmarks").glob("bench_*.py")))
def test_a_benchmark_compares_its_sides(name, run_script, request):
    sizes = TINY[name]  # a new benchmark needs its line there
    if name == "bench_asr.py":
        sizes += ("--data_dir", request.getfixturevalue("spoken"))
    process = run_script(f"benchmarks/{name}", "--repeats", 1, *sizes)
    assert process.returncode == 0, process.stderr
    assert RATIO.search(process.stdout), process.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_program_says_so(run_here, tmp_path):
    output = tmp_path / "gpu.json"
    assert_user_error(run_here("benchmarks/gpu.py", "-output", output), "no CUDA GPU")
    assert not output.exists()


def test_the_checks_of_a_gpu_hold_between_cpu_and_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "N_EPOCHS", 2)
    monkeypatch.setattr(gpu, "N_FIRST_STEPS", 2)
    command = "hw2-q3.py -hidden_size 8 -batch_size 512 -data bundled -scale quick"
    bits = {"q3": gpu.check_bits(command, tmp_path, "cpu")}
    assert bits["q3"] == {
        "epochs": 2, "same bits twice": True, "interrupted": True, "resumed to the same bits": True, "warnings": []
    }  # fmt: skip
    losses = gpu.losses(argparse.Namespace(data_dir=None), "cpu")
    assert all(loss["largest difference"] == 0 for loss in losses.values())
    assert gpu.is_right({"bits": bits, "losses": losses})
    assert not gpu.is_right({"bits": {"q3": bits["q3"] | {"resumed to the same bits": False}}})
    assert not gpu.is_right({"losses": {"q3": losses["q3"] | {"largest difference": 2 * gpu.CLOSE}}})
    assert not gpu.is_right({"bits": {"q3": {"failed": "no"}}})


def test_speech_is_timed_to_its_end(monkeypatch):
    monkeypatch.setattr(gpu, "N_CLIPS", {"train": 4, "val": 1, "test": 1})
    monkeypatch.setattr(gpu, "N_TIMED_EPOCHS", {"q3-asr": 2})
    found = gpu.time_epochs("q3-asr", argparse.Namespace(), "cpu")
    assert found["steps"] == 1 and found["an epoch, s"] >= found["of it training"] > 0


def test_what_is_done_on_another_card_is_done_anew(tmp_path):
    path, where = tmp_path / "gpu.json", {"card": "A", "torch": "2"}
    assert gpu.read(path, where) == where
    path.write_text('{"card": "A", "torch": "2", "bits": {}}')
    assert gpu.read(path, where) == where | {"bits": {}}
    assert gpu.read(path, where | {"card": "B"}) == where | {"card": "B"}
