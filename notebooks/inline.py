"""What the notebooks use: install what is missing, run a script with a live curve, show figures of a run as PNG."""

import io
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path

FOR_TESTS = "hypothesis"  # the first requirement of the tests; those before it are what the scripts need
PIXELS_PER_INCH = 110
CURVE_INCHES = 7.5, 2.4
PROGRESS, PROGRESS_WIDTH = re.compile(r"[a-z\d ]+: [\d,]+ of [\d,]+"), 40  # a line of `options.progress`


def install_what_is_missing(requirements="requirements.txt"):
    """Install the scripts' packages that are missing, or older than the requirements say, and nothing else."""
    from packaging.requirements import Requirement

    missing = []
    for line in Path(requirements).read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith(FOR_TESTS):
            break
        requirement = Requirement(text)
        try:
            is_there = requirement.specifier.contains(metadata.version(requirement.name), prereleases=True)
        except metadata.PackageNotFoundError:
            is_there = False
        missing += [] if is_there else [text]
    print("installing", *missing) if missing else print("all packages are there")
    if missing:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)


def run(command):
    """Run a script as the command line does, in this process, and draw its curves while it trains.

    Returns the folder that it names at its end, or None. Raises `RuntimeError` if it fails; it has said why.
    """
    script, *arguments = shlex.split(command)
    output, argv = Watched(sys.stdout), sys.argv
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    excepthook = sys.excepthook
    sys.argv = [script, *arguments]
    try:
        with redirect_stdout(output):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{script} ended with the code {end.code}") from None
    finally:
        sys.argv, sys.excepthook = argv, excepthook
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return output.folder


class Watched(io.TextIOBase):
    """A stream that passes on what is written to it, draws the epoch lines, and keeps the folder that is named.

    The next line takes the place of one that only says how far the work is.
    """

    def __init__(self, stream):
        self.stream, self.line, self.folder = stream, "", None
        self.epochs, self.handle = [], None

    def write(self, text):
        is_replaced = text == "\n" and PROGRESS.fullmatch(self.line)  # `print` writes the end of a line by itself
        self.stream.write(" " * (PROGRESS_WIDTH - len(self.line)) + "\r" if is_replaced else text)
        *lines, self.line = (self.line + text).split("\n")
        for line in lines:
            if line.startswith("written to "):
                self.folder = Path(line.removeprefix("written to "))
            elif line.startswith("Epoch "):
                self.epochs.append({name: float(n) for name, n in re.findall(r"  ([a-z][a-z\d ]*) (-?[\d.]+)", line)})
                self.draw()
        return len(text)

    def flush(self):
        self.stream.flush()

    def draw(self):
        """Losses on the left and the other scores on the right; the picture before is replaced."""
        from IPython.display import Image, display
        from matplotlib.figure import Figure

        fig = Figure(figsize=CURVE_INCHES, layout="constrained")
        for ax, is_loss in zip(fig.subplots(1, 2), (True, False)):
            for name in (name for name in self.epochs[0] if ("loss" in name) == is_loss):
                values = [epoch[name] for epoch in self.epochs]
                ax.plot(range(1, len(values) + 1), values, marker="o", markersize=3, label=name)
            ax.set_xlabel("Epoch")
            ax.legend()
        content = io.BytesIO()
        fig.savefig(content, format="png")
        picture = Image(content.getvalue())
        if self.handle is None:
            self.handle = display(picture, display_id=True)
        else:
            self.handle.update(picture)


def show(folder, *names):
    """Show figures of a run, PDF files, as pictures."""
    import typst
    from IPython.display import Image, display

    for name in names:
        page = f'#set page(width: auto, height: auto, margin: 2pt)\n#image("/{name}")'
        display(Image(typst.compile(page.encode(), root=os.fspath(folder), format="png", ppi=PIXELS_PER_INCH)))
