"""The steps of `make report`: which commands, in which order, what happens when one fails, and what ends them."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, load_script

import comparisons
import files
import options
import runs

make_runs = load_script("report/make_runs.py")


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """Calls make_runs with processes that are recorded, not run; those that contain `failing` fail.

    Returns the exit code and the chains of steps, a list of lists of command lines without Python.
    """

    def call(*arguments, failing="no such word"):
        seen, compiled = [], []

        def record(chains, jobs, environment):
            assert jobs == runs.n_cpus() and options.BESIDE_OTHERS in environment
            assert all(command[0] == sys.executable for chain in chains for command in chain.values())
            lines = {label: [str(a) for a in command[1:]] for chain in chains for label, command in chain.items()}
            assert len(lines) == sum(map(len, chains))  # no label comes twice
            seen.extend([lines[label] for label in chain] for chain in chains)
            return {label: "what is wrong" if failing in line else None for label, line in lines.items()}

        monkeypatch.setattr(comparisons, "run_side_by_side", record)
        monkeypatch.setattr(make_runs.build, "main", lambda arguments: compiled.append(arguments))
        code = make_runs.main(["-runs_dir", str(tmp_path), *arguments])
        assert len(compiled) == 1 and str(tmp_path) in compiled[0]  # also where a step failed
        return code, seen

    return call


def test_every_run_of_the_reports_is_a_step_and_comparisons_come_before_their_variants(steps, tmp_path):
    code, chains = steps()
    assert code == 0 and chains[-1] == [[str(ROOT / "hw2-q1.py"), "-runs_dir", str(tmp_path)]]
    n_wanted = sum(len(question.wanted) for year in make_runs.YEARS for question in make_runs.QUESTIONS[year])
    assert sum(map(len, chains[:-1])) == n_wanted
    for command in (command for chain in chains[:-1] for command in chain):
        for option, value in {"-resume": "auto", "-scale": "quick", "-threads": "1", "-runs_dir": tmp_path}.items():
            assert command[command.index(option) + 1] == str(value)
    lines = [[" ".join(command).removeprefix(f"{ROOT}/") for command in chain] for chain in chains]
    for dataset, n_steps in (("fashion_mnist", 2), ("kuzushiji_mnist", 4), ("octmnist", 2)):
        (of_dataset,) = [chain for chain in lines if f"-dataset {dataset} " in chain[0]]
        assert len(of_dataset) == n_steps and all(f"-dataset {dataset} " in line for line in of_dataset)
        assert not any(word in of_dataset[0] for word in ("-no_maxpool", "-network", "-shuffle_pixels", "-shift"))
    (translation,) = [chain for chain in lines if chain[0].startswith("hw2-q3.py")]
    searches = "--beam_size 5 --length_penalty 0 0.25 0.5 1 --n_samples 64"
    assert len(translation) == 2 and f"--use_attn {searches}" in translation[1]
    assert [line.split()[0] for line in lines[0]] == ["hw2-q3-asr.py"] * 2  # which takes longest


def test_theory_is_not_checked_again(steps, tmp_path):
    for year in make_runs.YEARS:
        files.write_json(tmp_path / "q1" / year / runs.RESULT, {})
    assert not any("hw2-q1.py" in command[0] for chain in steps()[1] for command in chain)


def test_steps_that_fail_are_named_with_their_errors(steps, capsys, tmp_path):
    code, chains = steps("-scale", "full", "-data_dir", str(tmp_path), failing="octmnist")
    assert code == 1 and chains == steps("-scale", "full", "-data_dir", str(tmp_path))[1]
    paths = f"-runs_dir {tmp_path} -data_dir {tmp_path}"
    first, error, second, _ = capsys.readouterr().err.splitlines()
    assert first == f"failed: python {ROOT}/hw2-q2.py -dataset octmnist -scale full -threads 1 -resume auto {paths}"
    assert error.strip() == "what is wrong" and "-no_maxpool" in second


@pytest.mark.parametrize("number, word", [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
def test_an_interrupt_ends_all_steps_and_says_how_to_go_on(number, word, tmp_path):
    """`kill` of make report, and Ctrl-C, which the terminal gives to the steps as well."""
    step = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'report')!r}]\n"
        "import make_runs, options, runs\n"
        f"step = [sys.executable, '-c', {step!r}]\n"
        "runs.n_cpus = lambda: 2\n"
        "make_runs.steps = lambda args: [{'1 a': step, '2 a': step}, {'3 b': step}, {'4 c': step}]\n"
        f"options.run_script(lambda: make_runs.main(['-runs_dir', {str(tmp_path)!r}]))\n"
    )
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", code], **streams) as process:
        started = [process.stdout.readline().split() for _ in range(2)]
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (128 + number, "")  # no other step has begun
    assert stderr == f"{word}; the same command goes on where each step stopped\n"
    assert sorted(label for label, _, _ in started) == ["1", "3"]
    for *_, child in started:
        with pytest.raises(ProcessLookupError):
            os.kill(int(child), 0)


def test_make_keeps_the_runs_and_takes_a_folder_with_a_space():
    def shown(*arguments):
        command = ["make", "--no-print-directory", "--dry-run", "--old-file", ".venv/.ready", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "runs" not in shown("clean") and "report/*.pdf" in shown("clean")
    assert '-data_dir "/my data"' in shown("report", "DATA_DIR=/my data")
