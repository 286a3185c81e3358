"""What holds for every script: help at once, one line without torch and after a signal."""

import io
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import options
from data import captions, images, sources, speech, translation

SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in (ROOT, ROOT / "report", ROOT / "benchmarks")
    for path in folder.glob("*.py")
    if "options.run_script(main" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_does_not_import_torch(script, run_script):
    process = run_script("-X", "importtime", script, "--help")
    assert process.returncode == 0 and "--help" in process.stdout
    assert "torch" not in process.stderr and "numpy" not in process.stderr


@pytest.mark.parametrize("script", [script for script in SCRIPTS if not script.startswith("benchmarks/")])
def test_the_help_fits_a_terminal_of_100_columns(script, run_script):
    lines = run_script(script, "--help", COLUMNS="100").stdout.splitlines()
    assert [line for line in lines if len(line) > 100] == []


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script.startswith("hw2-q")])
def test_the_help_begins_with_examples_and_the_statements_own_options(script, run_script):
    text = run_script(script, "--help").stdout
    headings = re.findall(r"^([a-z][^:\n]*):$", text, re.MULTILINE)
    assert text.index(f"$ python {script}") < text.index("--help")
    if script != "hw2-q1.py":
        assert headings[:3] == ["options", options.STATEMENT, options.TRAINING]


def test_the_first_line_says_what_with_which_data_and_options(run_script):
    """It comes before torch is imported, which this Python does not find."""
    process = run_script("-S", "hw2-q3.py", "-data", "bundled", "--scale=quick", "-lr", "0.01")
    what = "Question 3 of 2022-23: character-level translation from Spanish to English"
    assert " ".join(process.stdout.split()) == f"{what}; -data bundled --scale=quick -lr 0.01"
    assert max(map(len, process.stdout.splitlines())) <= 100
    process = run_script("-S", "hw2-q3.py", "--translate", "no tengo hambre.")  # stdout is for the answers
    said = " ".join(process.stderr.split())
    assert said.startswith(f"{what}; data auto; --translate 'no tengo hambre.' ") and process.stdout == ""


def test_the_first_line_of_answers_stands_apart_from_them(run_script):
    process = run_script("-S", "hw2-q3.py", "--translate", "hola")
    assert process.stdout == "" and process.stderr.startswith("Question 3 of 2022-23")


@pytest.mark.parametrize(
    ("title", "command"),
    [
        *((image_set.title, f"python download_{name}.py") for name, image_set in images.DATASETS.items()),
        *((title, captions.DOWNLOAD_COMMAND) for title in captions.TITLES.values()),
        (speech.TITLE, speech.DOWNLOAD_COMMAND),
        (translation.TITLE, translation.DOWNLOAD_COMMAND),
    ],
)
def test_the_warning_of_bundled_data_fits_a_terminal_of_100_columns(title, command, tmp_path, capsys):
    sources.warn_of_bundled_data.cache_clear()
    assert sources.choose("auto", tmp_path, [(tmp_path / "data",)], title, command) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert title in line and command in line and len(line) <= 100


def test_a_long_line_is_folded_and_a_path_stays_whole():
    path = "/" + "long-name/" * 12
    lines = options.fold(f"{'word ' * 30}{path} end").splitlines()
    assert path in [line.strip() for line in lines] and " ".join(map(str.strip, lines)).split()[-1] == "end"
    assert max(len(line) for line in lines if path not in line) <= 100


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("where", ["a pipe", "a terminal", options.COMPARED, options.BESIDE_OTHERS])
def test_a_line_says_how_many_steps_are_done_when_none_was_printed_for_some_seconds(where, monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(options.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(options, "PATIENCE", 4)
    if where == "a terminal":
        monkeypatch.setattr(sys, "stderr", Terminal())
    elif where != "a pipe":
        monkeypatch.setenv(where, "1")
    options.say("Epoch 1")
    seen = []
    for step in options.progress(iter(range(11)), "epoch 2", 11):
        seen.append(step)
        now[0] += 1.5
        if step == 6:
            options.say("another line")  # the patience begins anew
    assert seen == list(range(11))
    lines = ["Epoch 1", "epoch 2: 3 of 11", "epoch 2: 6 of 11", "another line", "epoch 2: 10 of 11"]
    assert capsys.readouterr().out.splitlines() == (lines if where == "a pipe" else ["Epoch 1", "another line"])


def test_progress_that_has_not_begun_is_not_told(monkeypatch, capsys):
    """A sentence that comes late on the standard input is one batch: its translation stands alone on stdout."""
    monkeypatch.setattr(options, "PATIENCE", 4)
    monkeypatch.setattr(options, "_said", options.time.monotonic() - 100)
    assert list(options.progress(["a batch"], "decoding", 1)) == ["a batch"]
    assert capsys.readouterr().out == ""


def test_a_path_is_shown_as_it_is_typed_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert options.typed(tmp_path / "runs" / "q3") == Path("runs/q3")
    assert options.typed(tmp_path.parent / "runs") == Path("../runs")
    assert options.typed(Path("/runs")) == Path("/runs")  # shorter than from here


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_python_without_torch_is_told_in_one_line(script, run_script):
    needed = {"download_rs_captions.py": ["-source", "copy"], "benchmarks/last_symbol.py": ["run"]}
    process = run_script("-S", script, *needed.get(script, []))  # without the installed packages
    assert process.returncode == 2
    assert re.fullmatch(rf"{Path(script).name}: error: this Python has no \w+(, \w+)*; .*\n", process.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_imports_ends_without_a_traceback(number):
    code = (
        "import os, sys, options\n"
        "sys.argv = ['hw2-q3.py']\n"
        "options.before_imports(options.Parser('A test').parse_args)\n"
        f"os.kill(os.getpid(), {int(number)})\n"
        "print('went on')\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == -number and (process.stdout, process.stderr) == ("A test\n", "")


def test_a_path_that_the_terminal_cannot_show(run_script, tmp_path):
    process = run_script("hw2-q3.py", "-runs_dir", tmp_path / "é", "--translate", "hola", PYTHONIOENCODING="ascii")
    assert process.returncode == 2 and "\\xe9" in process.stderr and "Traceback" not in process.stderr
