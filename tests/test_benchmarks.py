"""Every benchmark runs, at tiny size; what it measures is no test."""

import re

import pytest
from conftest import ROOT

TINY = {
    "bench_asr.py": ("--steps", 1, "--clips", 2),
    "bench_captioning.py": ("--steps", 1),
    "bench_q2.py": ("--steps", 5),
    "bench_q3.py": ("--steps", 1),
    "bench_scaling.py": ("--steps", 1, "--question", "q3", "--batch_size", 4),
    "bench_start.py": (),
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
