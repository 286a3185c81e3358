"""The figures: names with any letters, the user's own matplotlib, a disk that is full."""

import resource
import sys
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import one_line_error

import plots

DOLLARS = "cost_$1_$"  # matplotlib would read mathematics, and refuse it
LETTERS = "\u0950\u4e2d\u6587"  # of scripts that the figures' font lacks


def draw_all(folder, name):
    """A figure of each kind, with `name` wherever a figure shows a name that a user gave."""
    weights = torch.full((2, 9), 1 / 9)
    history = [{"train_loss": 1.0, "val_loss": 2.0}]
    X, y = torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 1, 0])
    picture = np.zeros((8, 8, 3), np.uint8)
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(1, 2, 3)
    plots.plot_curves(folder / "curves.pdf", {name: [1.0], "b": [2.0]}, name, name)
    plots.plot_losses(folder / "losses.pdf", history, name, name, extras={name: 0.1})
    plots.plot_examples(folder, X, y, [name, "b"], name)
    plots.plot_confusion(folder / "confusion.pdf", [[1, 0], [2, 3]], [name, "b"], name)
    plots.plot_attention(folder / "attention.pdf", weights, list(name[:9].ljust(9)), [name, "</s>"], name)
    plots.plot_over_time(folder / "over_time.pdf", weights, 1.0, name, name, [name, " "], name)
    plots.plot_log_mel(folder / "log_mel.pdf", weights, 1.0, name)
    plots.plot_captioned(folder, f"{name}.tif", picture, [name], weights.unsqueeze(0), name)
    plots.plot_activation_maps(folder / "maps.pdf", conv, conv, X[:1].float(), name)
    plots.plot_filters(folder / "filters.pdf", conv.weight, name)
    return {path.name: path.read_bytes() for path in folder.glob("*.pdf")}


def test_dollars_in_names_are_dollars(tmp_path):
    drawn = draw_all(tmp_path, DOLLARS)
    assert len(drawn) == 12 and all(content.startswith(b"%PDF") for content in drawn.values())


def test_letters_that_the_font_lacks_are_boxes_and_no_warning(tmp_path, recwarn):
    assert len(draw_all(tmp_path, LETTERS)) == 12
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]  # no ResourceWarning of another test


def test_the_users_own_settings_change_no_byte(tmp_path):
    for name in ("usual", "own"):
        (tmp_path / name).mkdir()
    usual = draw_all(tmp_path / "usual", "a")
    own = {"text.usetex": True, "font.size": 20, "savefig.bbox": "tight", "pdf.compression": 0, "axes.facecolor": "r"}
    with plt.rc_context(own):
        assert draw_all(tmp_path / "own", "a") == usual


def test_the_backend_of_a_notebook_is_not_asked_for(run_script, tmp_path):
    code = "import sys, pathlib, plots; plots.plot_curves(pathlib.Path(sys.argv[1]), {'a': [1.0]}, 'y')"
    process = run_script("-c", code, tmp_path / "a.pdf", MPLBACKEND="module://no_such.backend")
    assert (process.returncode, process.stderr) == (0, "")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


@contextmanager
def full_disk(n_bytes=1000):
    """No file can have more bytes inside the block: as on a full disk, a write ends in the middle.

    Python and its children keep no compiled modules then, which would stay behind cut off for other tests.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_that_fills_while_a_figure_is_drawn_is_one_line_and_keeps_the_old_figure(tmp_path):
    path = tmp_path / "val_acc.pdf"
    plots.plot_curves(path, {"a": [1.0, 2.0]}, "y")
    before = path.read_bytes()
    with full_disk(), one_line_error("cannot write", "val_acc.pdf", "make room"):
        plots.plot_curves(path, {"a": [3.0, 4.0]}, "y")
    assert path.read_bytes() == before and [path] == list(tmp_path.iterdir())
