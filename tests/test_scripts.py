"""What holds for every script: help at once, one line without torch and after a signal."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (ROOT, ROOT / "report", ROOT / "benchmarks")
    for path in folder.glob("*.py")
    if "options.run_script(main" in path.read_text()
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_does_not_import_torch(script, run_script):
    process = run_script("-X", "importtime", script, "--help")
    assert process.returncode == 0 and "--help" in process.stdout
    assert "torch" not in process.stderr and "numpy" not in process.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_python_without_torch_is_told_in_one_line(script, run_script):
    needed = ["-source", "copy"] if script == "download_rs_captions.py" else []
    process = run_script("-S", script, *needed)  # without the installed packages
    assert process.returncode == 2 and process.stdout == ""
    assert re.fullmatch(rf"{Path(script).name}: error: this Python has no torch, .*\n", process.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_imports_ends_without_a_traceback(number):
    code = (
        "import os, sys, options\n"
        "sys.argv = ['hw2-q3.py']\n"
        "options.before_imports(lambda: None)\n"
        f"os.kill(os.getpid(), {int(number)})\n"
        "print('went on')\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == -number and process.stdout == process.stderr == ""


def test_a_path_that_the_terminal_cannot_show(run_script, tmp_path):
    process = run_script("hw2-q3.py", "-runs_dir", tmp_path / "é", "--translate", "hola", PYTHONIOENCODING="ascii")
    assert process.returncode == 2 and process.stderr.count("\n") == 1 and "\\xe9" in process.stderr
