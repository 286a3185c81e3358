"""Comparisons: processes side by side, their errors, what ends them."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT, terminate

import comparisons
import options
from options import Interrupted


def test_side_by_side_processes_and_their_errors(capsys):
    chains = [
        {"[a]": [sys.executable, "-c", "print('one line')"]},
        {"[b]": [sys.executable, "-c", "import sys; print('warning: x', file=sys.stderr); sys.exit('what is wrong')"]},
        {"[c]": [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]},
    ]
    outcomes = {"[a]": None, "[b]": "what is wrong", "[c]": "it was killed"}
    assert comparisons.run_side_by_side(chains, 1, {}) == outcomes
    assert capsys.readouterr().out == "[a]  one line\n[b]  warning: x\n[b]  what is wrong\n"


def test_a_process_that_cannot_be_started_does_not_hang_the_others(capsys):
    chains = [{"[a]": ["/no/such/program"]}, {"[b]": [sys.executable, "-c", "print('b')"]}]
    outcomes = comparisons.run_side_by_side(chains, 2, {})
    assert outcomes["[a]"].startswith("it could not be started") and outcomes["[b]"] is None
    assert "[b]  b" in capsys.readouterr().out


def test_a_chain_keeps_its_order_also_after_a_failure_and_runs_beside_the_others(tmp_path):
    """a1 waits for b2, which comes after b1, which fails; a2 finds at once what a1 leaves when it ends."""
    code = (
        "import pathlib, sys, time\n"
        "needed, left, seconds, code = sys.argv[1:]\n"
        "end = time.monotonic() + float(seconds)\n"
        "while not pathlib.Path(needed).exists():\n"
        "    if time.monotonic() > end: sys.exit(f'{needed} is not there')\n"
        "    time.sleep(0.01)\n"
        "pathlib.Path(left).touch()\n"
        "sys.exit(int(code))\n"
    )

    def process(needed, left, seconds=0, status=0):
        return [sys.executable, "-c", code, tmp_path / needed, tmp_path / left, seconds, status]

    chains = [
        {"a1": process("b2", "a1", seconds=60), "a2": process("a1", "a2")},
        {"b1": process("", "b1", status=3), "b2": process("b1", "b2")},
    ]
    outcomes = comparisons.run_side_by_side(chains, 2, {})
    assert outcomes == {"a1": None, "a2": None, "b1": "it was killed", "b2": None}


def test_while_no_process_prints_a_line_says_how_many_are_done(capsys, monkeypatch):
    monkeypatch.setattr(options, "PATIENCE", 0.2)
    chains = [{"a": [sys.executable, "-c", ""], "b": [sys.executable, "-c", "import time; time.sleep(2); print('x')"]}]
    assert comparisons.run_side_by_side(chains, 1, {}) == {"a": None, "b": None}
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "b  x" and re.fullmatch(r"1 of 2 done, \d+ s", lines[-1])


def test_long_lines_are_folded(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    words = "  epoch " + "word " * 30
    code = f"import os; print({words!r}); print('/' + 'x' * 150); print(os.environ['MARK'], os.environ['COLUMNS'])"
    chains = [{"12 a": [sys.executable, "-c", code], "3": [sys.executable, "-c", ""]}]
    comparisons.run_side_by_side(chains, 1, {"MARK": "m"})
    first, second, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("12 a    epoch word") and second.startswith("12 a  word") and len(first) <= 100
    assert (first + second.removeprefix("12 a ")).split() == ["12", "a", *words.split()]
    assert rest == ["12 a", "12 a  /" + "x" * 150, "12 a  m 94"]


def test_a_reader_that_goes_away_ends_the_processes_quietly():
    """`hw2-q2.py -learning_rate ... | head -1`: no traceback, and no process is left."""
    code = (
        "import sys, options, comparisons\n"
        'loop = "import os, time\\nfor i in range(600): print(os.getpid(), flush=True); time.sleep(0.05)"\n'
        "child = [sys.executable, '-c', loop]\n"
        "options.run_script(lambda: comparisons.run_side_by_side([{'[a]': child}, {'[b]': child}], 2, {}))\n"
    )
    command = f'"{sys.executable}" -c "$CODE" | head -1'
    process = subprocess.run(
        command, shell=True, cwd=ROOT, env=os.environ | {"CODE": code}, capture_output=True, text=True, timeout=60
    )
    assert process.stdout.count("\n") == 1 and process.stderr == ""
    child = int(process.stdout.split()[-1])
    assert not os.path.exists(f"/proc/{child}")


def test_sigterm_ends_the_processes_and_says_how_to_go_on():
    code = (
        "import sys, options, comparisons\n"
        "child = [sys.executable, '-c', \"import os, time; print(os.getpid(), flush=True); time.sleep(60)\"]\n"
        "options.run_script(lambda: comparisons.run_side_by_side([{'[a]': child}], 1, {}))\n"
    )
    message = "terminated; the same command with -resume goes on where each run stopped\n"
    assert terminate(code) == (143, message, True)


def test_an_interrupt_reaches_a_process_that_is_being_started_and_starts_no_other(monkeypatch):
    """Ctrl-C comes while the second of three processes is forked: it ends too, and the third never begins."""
    popen, started, is_interrupted = subprocess.Popen, [], threading.Event()

    def slow_popen(command, **kwargs):
        if started:
            assert is_interrupted.wait(timeout=30)
            time.sleep(0.1)  # the main thread is on its way to the processes
        started.append(popen(command, **kwargs))
        return started[-1]

    def interrupted_print(*args, **kwargs):
        is_interrupted.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", slow_popen)
    monkeypatch.setattr(comparisons, "print", interrupted_print, raising=False)
    sleeping = [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"]
    with pytest.raises(Interrupted, match="-resume goes on"):
        comparisons.run_side_by_side([{"a": sleeping}, {"b": sleeping}, {"c": sleeping}], 2, {})
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2
