"""What holds before and around every script: options, Python, packages, streams, how an error ends."""

import ast
import io
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, load_script, one_line_error

import options
import parallel


@pytest.fixture
def ending(monkeypatch):
    """Call `options.run_script(main)`; returns the exit code. The streams and the signals are restored."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(sys, "argv", ["hw2-q3.py"])

    def run(main):
        with pytest.raises(SystemExit) as caught:
            options.run_script(main)
        return caught.value.code

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def in_place_on_an_expanded_tensor():
    torch.zeros(1).expand(3).add_(1)  # "... refer to a single memory location"


def illegal_access():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.mark.parametrize("main", [in_place_on_an_expanded_tensor, illegal_access])
def test_an_error_of_the_program_that_speaks_of_memory_keeps_its_traceback(main, ending):
    with pytest.raises(RuntimeError, match="memory"):
        ending(main)


def out_of_gpu_memory():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("main", [lambda: torch.empty(2**50), lambda: np.empty(2**50), out_of_gpu_memory])
def test_memory_that_is_not_enough_is_one_line(main, ending, capsys):
    assert ending(main) == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("hw2-q3.py: error: there is not enough memory") and stderr.count("\n") == 1


def test_a_gpu_that_torch_has_no_kernels_for_is_one_line(ending, capsys):
    def main():
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    assert ending(main) == 2
    assert "use -device cpu" in capsys.readouterr().err


class OutStream(io.TextIOBase):
    """As ipykernel's: it writes and flushes, and has no `reconfigure`."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text
        return len(text)


def answer():
    print("an answer")


def mistake():
    raise options.UserError("a mistake")


def test_a_notebooks_streams_are_written_to(ending, monkeypatch):
    out, err = OutStream(), OutStream()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert ending(answer) is None
    assert ending(mistake) == 2
    assert (out.text, err.text) == ("an answer\n", "hw2-q3.py: error: a mistake\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("main", "code"), [("print('an answer')", 0), ("raise options.UserError('a mistake')", 2)])
def test_a_closed_stream_is_no_error(closed, main, code):
    program = f"import sys, options\ndef main():\n    {main}\nsys.argv = ['hw2-q3.py']\noptions.run_script(main)\n"
    command = f'"{sys.executable}" -c "$PROGRAM" {closed}'
    environment = os.environ | {"PROGRAM": program}
    process = subprocess.run(command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == code
    assert "Traceback" not in process.stderr + process.stdout
    if " 2>&-" not in f" {closed}":
        assert process.stderr == ("" if code == 0 else "hw2-q3.py: error: a mistake\n")
    if " >&-" not in f" {closed}":
        assert process.stdout == ("an answer\n" if code == 0 else "")


def nothing_given():
    return options.Parser("A test.").parse_args([])


def test_an_old_python_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 14))
    monkeypatch.setattr(sys, "argv", ["/somewhere/hw2-q2.py"])
    with pytest.raises(SystemExit) as caught:
        options.before_imports(nothing_given)
    assert caught.value.code == "hw2-q2.py: error: this needs Python 3.11.4 or later"


@pytest.mark.parametrize("name", ["options.py", "editions.py", "hw2-q1.py", "hw2-q2.py", "hw2-q3.py"])
def test_an_old_python_can_parse_what_tells_it(name):
    ast.parse((ROOT / name).read_text(encoding="utf-8"), feature_version=(3, 10))


HIDING = """
from importlib.machinery import PathFinder
find_spec = PathFinder.find_spec
PathFinder.find_spec = lambda name, *args: None if name.split(".")[0] in {hidden} else find_spec(name, *args)
"""


@pytest.mark.parametrize(
    ("script", "hidden"),
    [
        ("hw2-q3.py", "Levenshtein"), ("hw2-q3.py", "sacrebleu"), ("hw2-q3-asr.py", "soundfile"),
        ("hw2-q2.py", "sklearn"), ("hw2-q1.py", "matplotlib"), ("download_octmnist.py", "requests"),
        ("report/build.py", "typst"),
    ],
)  # fmt: skip
def test_a_package_that_is_missing_is_named_in_one_line(script, hidden, run_script, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(hidden=[hidden]))
    folders = ["-output_dir", tmp_path / "out", "-runs_dir", tmp_path / "runs"] if script == "report/build.py" else []
    process = run_script(script, *folders, PYTHONPATH=str(tmp_path))
    (line,) = [line for line in process.stderr.splitlines() if not line.startswith("warning: ")]
    assert process.returncode == 2
    assert f"error: this Python has no {hidden}; " in line and "pip install -r requirements.txt" in line


def test_a_script_asks_for_no_package_that_it_does_not_need(run_script, tmp_path):
    others = ["sacrebleu", "jiwer", "soundfile", "soxr", "espeakng_loader", "torchvision", "typst", "pooch", "requests"]
    (tmp_path / "sitecustomize.py").write_text(HIDING.format(hidden=others))
    process = run_script("hw2-q2.py", "-dataset", tmp_path / "none.npz", PYTHONPATH=str(tmp_path))
    assert "none.npz does not exist" in process.stderr  # it went on to its data


@pytest.mark.parametrize("size", ["2", "many", ""])
def test_world_size_without_torchrun_is_not_read(size, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", size)
    monkeypatch.setenv("RANK", "1")
    assert (options.world_size(), options.rank()) == (1, 0)
    assert parallel.start("cpu") is None and parallel.broadcast("value") == "value"


def test_a_path_is_the_same_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    parse_args = load_script("hw2-q2.py").parse_args
    for name in ("dataset", "data_dir", "runs_dir", "init"):
        spelled = [parse_args([f"-{name}={way}"]) for way in ("x.npz", "./x.npz", tmp_path / "x.npz", "~/x.npz")]
        assert {str(getattr(args, name)) for args in spelled} == {str(tmp_path / "x.npz")}, name
    assert parse_args(["-dataset", "octmnist"]).dataset == "octmnist"


def test_options_are_those_of_the_command_line_that_they_make():
    parse_args = load_script("hw2-q2.py").parse_args
    args = parse_args(["-data_dir=-data", "-runs_dir=-runs", "-run_name=-x", "-lr", "0.1", "1e-30", "-no_maxpool"])
    assert (args.data_dir.name, args.runs_dir.name, args.run_name) == ("-data", "-runs", "-x")
    assert parse_args([str(word) for word in options.command_line(args)]) == args


def test_what_was_given_is_known_also_where_it_is_the_default():
    args = load_script("hw2-q3.py").parse_args(["-scale", "full", "--n-epochs", "50", "--seed", "42"])
    assert args.given == {"scale", "epochs", "seed"}


def test_a_message_is_one_line_whatever_it_names():
    with one_line_error("a\\nb", "\\x1b"):
        raise options.UserError("a\nb\x1b[0m")
