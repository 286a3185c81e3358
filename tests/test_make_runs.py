"""The steps of `make report`: which commands, in which order, and what happens when one fails."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT, load_script, terminate

import files
import runs

make_runs = load_script("report/make_runs.py")


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """Calls make_runs with commands that are recorded, not run; those that contain `failing` fail."""

    def call(*arguments, failing="no such word"):
        seen, compiled = [], []

        def record(command):
            seen.append(list(map(str, command[1:])))
            return int(failing in seen[-1])

        monkeypatch.setattr(make_runs, "call", record)
        monkeypatch.setattr(make_runs.build, "main", lambda arguments: compiled.append(arguments))
        code = make_runs.main(["-runs_dir", str(tmp_path), *arguments])
        assert len(compiled) == 1 and str(tmp_path) in compiled[0]  # also where a step failed
        return code, seen

    return call


def test_every_run_of_the_reports_is_a_step_and_comparisons_come_before_their_variants(steps):
    code, commands = steps()
    assert code == 0 and commands[0][0] == "hw2-q1.py"
    for command in commands[1:]:
        assert command[command.index("-resume") + 1] == "auto" and command[command.index("-scale") + 1] == "quick"
    lines = [" ".join(command) for command in commands]
    for dataset, n_steps in (("fashion_mnist", 1), ("kuzushiji_mnist", 4), ("octmnist", 2)):
        of_dataset = [line for line in lines if f"-dataset {dataset} " in line]
        assert len(of_dataset) == n_steps
        assert not any(word in of_dataset[0] for word in ("-no_maxpool", "-network", "-shuffle_pixels"))
    translation = [line for line in lines if line.startswith("hw2-q3.py")]
    assert (
        len(translation) == 2
        and "--use_attn --beam_size 5 --length_penalty 0 0.25 0.5 1 --n_samples 64" in translation[1]
    )


def test_theory_is_not_checked_again(steps, tmp_path):
    for year in make_runs.YEARS:
        files.write_json(tmp_path / "q1" / year / runs.RESULT, {})
    assert all(command[0] != "hw2-q1.py" for command in steps()[1])


def test_a_step_that_fails_is_named_and_the_others_run(steps, capsys):
    code, commands = steps("-scale", "full", failing="octmnist")
    assert code == 1 and commands[-1][0] != "hw2-q1.py"
    assert len(commands) == len(steps("-scale", "full")[1])
    assert "failed: python hw2-q2.py -dataset octmnist -scale full -resume auto\n" in capsys.readouterr().err


def test_sigterm_ends_the_step_that_is_running(tmp_path):
    """`kill` of make report: no run is left, and one line says how to go on."""
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'report')!r}]\n"
        "import make_runs, options\n"
        "child = [sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)']\n"
        "options.run_script(lambda: make_runs.call(child))\n"
    )
    assert terminate(code, tmp_path) == (143, "terminated; the same command goes on where it stopped\n", True)


def test_ctrl_c_lets_the_step_say_what_it_has_kept(tmp_path):
    """The terminal interrupts both; the step ends by itself and is not interrupted a second time."""
    step = (
        "import time\\n"
        "try:\\n    print('started', flush=True); time.sleep(60)\\n"
        "except KeyboardInterrupt:\\n    time.sleep(0.5); print('kept', flush=True)\\n"
    )
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'report')!r}]\n"
        "import make_runs, options\n"
        f'options.run_script(lambda: make_runs.call([sys.executable, "-c", "{step}"]))\n'
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "started\n"
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (130, "kept\n")
    assert stderr == "interrupted; the same command goes on where it stopped\n"


def test_make_keeps_the_runs_and_takes_a_folder_with_a_space():
    def shown(*arguments):
        command = ["make", "--dry-run", "--old-file", ".venv/.ready", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert "runs" not in shown("clean") and "report/*.pdf" in shown("clean")
    assert '-data_dir "/my data"' in shown("report", "DATA_DIR=/my data")
