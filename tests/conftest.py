"""What the tests share: the scripts as modules (their names have hyphens), and their command lines in a subprocess."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load_script(name):
    """The script `name` as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem.replace("-", "_"), ROOT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run_script():
    """Run a command line as a user does; returns the finished process, its output as text."""

    def run(*arguments, cwd=ROOT, **environment):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


def assert_user_error(process, *words):
    """Exit code 2 and one line on stderr (after warnings), without a traceback, that holds all of `words`."""
    assert process.returncode == 2, process.stderr
    lines = [line for line in process.stderr.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1, process.stderr
    assert ": error: " in lines[0]
    for word in words:
        assert word in lines[0], lines[0]
