"""Comparisons: processes side by side, their errors, what ends them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT, terminate

import comparisons
from options import Interrupted


def test_side_by_side_processes_and_their_errors(capsys):
    commands = {
        "[a]": [sys.executable, "-c", "print('one line')"],
        "[b]": [sys.executable, "-c", "import sys; print('warning: x', file=sys.stderr); sys.exit('what is wrong')"],
        "[c]": [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"],
    }
    outcomes = {"[a]": None, "[b]": "what is wrong", "[c]": "it was killed"}
    assert comparisons.run_side_by_side(commands, jobs=1) == outcomes
    assert "[a]  one line" in capsys.readouterr().out


def test_a_process_that_cannot_be_started_does_not_hang_the_others(capsys):
    commands = {"[a]": ["/no/such/program"], "[b]": [sys.executable, "-c", "print('b')"]}
    outcomes = comparisons.run_side_by_side(commands, jobs=2)
    assert outcomes["[a]"].startswith("it could not be started") and outcomes["[b]"] is None
    assert "[b]  b" in capsys.readouterr().out


def test_a_reader_that_goes_away_ends_the_processes_quietly():
    """`hw2-q2.py -learning_rate ... | head -1`: no traceback, and no process is left."""
    code = (
        "import sys, options, comparisons\n"
        'loop = "import os, time\\nfor i in range(600): print(os.getpid(), flush=True); time.sleep(0.05)"\n'
        "child = [sys.executable, '-c', loop]\n"
        "options.run_script(lambda: comparisons.run_side_by_side({'[a]': child, '[b]': child}, 2))\n"
    )
    command = f'{sys.executable} -c "$CODE" | head -1'
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
        "options.run_script(lambda: comparisons.run_side_by_side({'[a]': child}, 1))\n"
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
        comparisons.run_side_by_side({"a": sleeping, "b": sleeping, "c": sleeping}, jobs=2)
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2
