"""What the tests share: the scripts as modules (their names have hyphens), their command lines, a server."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

# The tests' sizes are tiny and run side by side: more threads each would only fight. Before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from hypothesis import HealthCheck, settings

import comparisons
import options
from benchmarks.scripts import load_script
from options import UserError

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts a job in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on each machine and in each order, as long as they may take beside other work.
settings.register_profile(
    "tests", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")
options.PATIENCE = 3600  # no line of progress between the lines that a test expects, on a slow machine either
ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 0.5  # seconds that a client waits for the slow server, which never answers


@pytest.fixture(scope="module", autouse=True)
def products():
    """`onednn` decides for the whole process; the next module's products are torch's own again, bit for bit."""
    yield
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"


@pytest.fixture(scope="session")
def run_script():
    """Run a command line as a user does; returns the finished process, its output as text."""

    def run(*arguments, cwd=ROOT, **environment):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.fixture
def run_here(monkeypatch):
    """`run_script` without the process, which spares the seconds that torch takes to import."""

    def run(script, *arguments):
        command = [str(ROOT / script), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(2)]
        handler = signal.getsignal(signal.SIGTERM)
        with redirect_stdout(streams[0]), redirect_stderr(streams[1]), pytest.raises(SystemExit) as caught:
            options.run_script(load_script(script).main)
        signal.signal(signal.SIGTERM, handler)
        for stream in streams:
            stream.seek(0)
        code = caught.value.code if isinstance(caught.value.code, int) else int(caught.value.code is not None)
        return subprocess.CompletedProcess(command, code, *(stream.read() for stream in streams))

    return run


@pytest.fixture
def children_here(monkeypatch, run_here):
    """The runs of a comparison come one after the other in this process, as with `run_here`."""

    def run_one_by_one(chains, jobs, environment):
        outcomes = {}
        for label, (_, script, *arguments) in ((label, chain[label]) for chain in chains for label in chain):
            process = run_here(Path(script).relative_to(ROOT), *arguments)
            print(*(f"{label}  {line}" for line in process.stdout.splitlines()), sep="\n")
            outcomes[label] = process.stderr.splitlines()[-1] if process.returncode else None
        return outcomes

    monkeypatch.setattr(comparisons, "run_side_by_side", run_one_by_one)


N_SPOKEN = 60


@pytest.fixture(scope="session")
def spoken(run_script, tmp_path_factory):
    """A data folder with the first bundled clips of the speech question, spoken by a fresh process."""
    folder = tmp_path_factory.mktemp("spoken")
    process = run_script("-m", "data.bundled.speech", "-output_dir", folder, "-n_clips", N_SPOKEN)
    assert process.returncode == 0, process.stderr
    assert f"{N_SPOKEN} clips" in process.stdout
    return folder


def assert_user_error(process, *words):
    """Exit code 2 and one line on stderr (after warnings), without a traceback, that holds all of `words`."""
    assert process.returncode == 2, process.stderr
    lines = [line for line in process.stderr.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1, process.stderr
    assert ": error: " in lines[0]
    for word in words:
        assert word in lines[0], lines[0]


@contextmanager
def one_line_error(*words):
    """The block raises a `UserError` of one line that holds all of `words`."""
    with pytest.raises(UserError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def end_of(stdout):
    """The first words of the lines that end a run; no line is wider than the screen, but for a path that is."""
    lines = stdout.splitlines()
    assert [line for line in lines if len(line) > options.SCREEN_WIDTH and line.split()[:2] != ["written", "to"]] == []
    start = next(i for i, line in enumerate(lines) if line.startswith("Best validation"))
    return [line.split()[0] for line in lines[start:] if not line.startswith("  ")]  # a line that is folded goes on


class Handler(BaseHTTPRequestHandler):
    """The first part of the path says how the server behaves, the last which file it gives."""

    def do_GET(self):
        _, behaviour, name = self.path.split("/")
        first_time = self.path not in [path for path, _ in self.server.requests]
        self.server.requests.append((self.path, self.headers["User-Agent"]))
        self.server.ranges.append(self.headers["Range"])
        content = self.server.files.get(name, b"something else")
        if behaviour == "dying" and not first_time:
            behaviour = "503"
        if behaviour == "slow":
            self.server.closing.wait()
            return
        if behaviour in ("404", "503"):
            self.send_error(int(behaviour))
            return
        if behaviour == "redirect":  # to the right content, so that only the scheme is wrong
            (self.server.folder / name).write_bytes(content)
            self.send_response(302)
            self.send_header("Location", (self.server.folder / name).as_uri())
            self.end_headers()
            return
        if behaviour == "wrong":
            content = content[::-1]
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if match and behaviour != "no_ranges":
            start = int(match[1]) + (behaviour == "shifted")
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            content = content[start:]
        else:
            self.send_response(200)
        if behaviour != "no_length":
            self.send_header("Content-Length", str(len(content)))
        if "gzip" in self.headers["Accept-Encoding"]:  # as servers do that take a .gz for a packed answer
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if behaviour in ("cut", "dying", "stalled") or (behaviour == "flaky" and first_time):
            content = content[: len(content) // 2]
        with suppress(ConnectionError):  # the client may have gone away, as some tests want it to
            self.wfile.write(content)
        if behaviour == "stalled":
            self.server.closing.wait()

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server(request, tmp_path_factory):
    """A local HTTP server that gives the `FILES` of the test module (name -> bytes), well or badly.

    `server.url` is its address and `server.requests` what it was asked for: (path, User-Agent); `server.ranges`
    are the Range headers of these requests.
    """
    proxies = {name: os.environ.pop(name) for name in list(os.environ) if name.lower().endswith("_proxy")}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files = request.module.FILES
    server.folder = tmp_path_factory.mktemp("server")
    server.requests, server.ranges = [], []
    server.closing = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()
    os.environ.update(proxies)


def start(script, *args):
    """A script in a process of its own, as a user starts it."""
    command = [sys.executable, str(ROOT / script), *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


IMPATIENT = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
from data.fetch import download
download.TIMEOUT = {TIMEOUT}
del sys.argv[0]
runpy.run_path({str(ROOT)!r} + "/" + sys.argv[0], run_name="__main__")
"""


def start_impatient(script, *args):
    """The same for a script that downloads, which waits only `TIMEOUT` seconds for its server."""
    command = [sys.executable, "-c", IMPATIENT, script, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    """(exit code, stdout, stderr)"""
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


def terminate(code, cwd=ROOT):
    """Run Python `code` whose first line of output ends in the number of a child process; then terminate it.

    Returns exit code, stderr, and whether the child is gone.
    """
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline().split()[-1])
        process.terminate()
        _, stderr = process.communicate(timeout=20)
    try:
        os.kill(child, 0)
    except ProcessLookupError:
        return process.returncode, stderr, True
    return process.returncode, stderr, False
