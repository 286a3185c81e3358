"""The notebooks: equal to the scripts beside them, without outputs but one picture, and runnable from top to bottom."""

import io
import json
import subprocess
import sys
import types
from contextlib import redirect_stdout

import nbclient
import nbformat
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageDraw

from data import translation
from data.bundled import translation as bundled_translation
from data.bundled.speech import main as speak
from data.fetch.ljspeech import FOLDER_NAME
from notebooks import inline, make
from tests.pairs import write_split

SCRIPTS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("hw2-*.py"))}
MAX_CELLS = 15
SECONDS = 240  # of a cell, on a machine that does other things beside
Q2 = "-epochs 2 -data_dir '{0}' -runs_dir '{0}/runs'"
Q3 = {
    "hw2-2021-22": "-epochs 1 -hidden_size 8 -embedding_size 8 -attention_size 8 -image_size 64",
    "hw2-2022-23": "-epochs 1 -hidden_size 8 -batch_size 16",
    "hw2-2023-24": "-epochs 1 -hidden_size 8 -n_layers 1 -split 12 4 4",
}


def read(script):
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_notebook_is_made_from_the_script_beside_it(script):
    there = json.loads(script.with_suffix(".ipynb").read_text(encoding="utf-8"))
    assert there == make.make(script.read_text(encoding="utf-8"), make.picture_of(there))
    nbformat.validate(read(script))
    assert len(there["cells"]) <= MAX_CELLS


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_a_notebook_holds_one_picture_and_no_other_output(script):
    (output,) = [output for cell in read(script).cells for output in cell.get("outputs", [])]
    assert list(output.data) == ["image/png"] and output.data["image/png"].startswith("iVBORw0KGgo")


def test_cells_of_every_kind_are_made():
    text = "# for the linter\n# %% [markdown]\n# # Title\n#\n# text\n\n# %% writefile a.py\nx = 1\n# %%\n# !ls\n"
    cells = make.make(text)["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    assert sources == ["# Title\n\ntext", "%%writefile a.py\nx = 1", "!ls"]
    assert [cell["cell_type"] for cell in cells] == ["markdown", "code", "code"]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Tiny data of every question, as users have them."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, n_classes in {"kuzushiji_mnist": 10, "octmnist": 4, "fashion_mnist": 10}.items():
        arrays = {}
        for split, n in {"train": 48, "val": 20, "test": 30}.items():
            arrays[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28), np.uint8)
            arrays[f"{split}_labels"] = np.arange(n, dtype=np.uint8) % n_classes
        np.savez(folder / f"{name}.npz", **arrays)
    write_split(translation.split_pairs(bundled_translation.generate(n_pairs=150)), folder)
    (folder / "sydney" / "images").mkdir(parents=True)
    images = []
    for i in range(12):
        picture = Image.new("RGB", (64, 64), "green")
        ImageDraw.Draw(picture).rectangle((8, 8, 20 + 3 * i, 40), fill="white")
        name = "219.tif" if i == 11 else f"{i}.tif"
        picture.save(folder / "sydney" / "images" / name)
        split = ("train", "val", "test")[max(0, i - 9)]
        sentences = [{"tokens": ["a", "white", "house", "on", "grass"]}] * 2
        images.append({"filename": name, "split": split, "sentences": sentences})
    (folder / "sydney" / "dataset.json").write_text(json.dumps({"images": images}))
    speak(["-output_dir", str(folder), "-n_clips", "20"])
    return folder


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_notebook_runs_from_top_to_bottom(name, data_dir, tmp_path):
    """In a copy of the links to the project, so that what it writes stays there."""
    for path in ROOT.iterdir():
        if path.name not in ("my_models.py", "notebooks") and not path.name.startswith("drawing"):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "inline.py").symlink_to(ROOT / "notebooks" / "inline.py")
    notebook = read(SCRIPTS[name])
    (cell,) = [cell for cell in notebook.cells if cell.source.startswith("# A first look")]
    q2 = Q2.format(data_dir)
    cell.source = f"Q2, Q3 = {q2!r}, {f'{Q3[name]} {q2}'.replace('-epochs 2', '')!r}"
    for cell in notebook.cells:
        cell.source = cell.source.replace("speech.bundled_folder()", f"Path({str(data_dir / FOLDER_NAME)!r})")
        cell.source = cell.source.replace('"219.tif"', repr(str(data_dir / "sydney" / "images" / "219.tif")))
    resources = {"metadata": {"path": tmp_path / "notebooks"}}
    nbclient.NotebookClient(notebook, timeout=SECONDS, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") for output in outputs)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert "all packages are there" in said and "WRONG" in said
    assert said.count("Final Test") >= 2 and "drawing-" in said
    assert len(pictures) >= 6  # two live curves, and figures of both questions
    assert not (ROOT / "drawing.png").exists()


def test_only_what_is_missing_or_too_old_is_installed(tmp_path, monkeypatch, capsys):
    calls, file = [], tmp_path / "requirements.txt"
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command))
    file.write_text("numpy>=1.26  # there\nnot-there-at-all>=2  # missing\nnumpy>=9999\nhypothesis>=6\nnor-this\n")
    inline.install_what_is_missing(file)
    assert calls == [[sys.executable, "-m", "pip", "install", "--quiet", "not-there-at-all>=2", "numpy>=9999"]]
    file.write_text("numpy>=1.26\n")
    inline.install_what_is_missing(file)
    assert len(calls) == 1 and "all packages are there" in capsys.readouterr().out


def test_epoch_lines_are_drawn_as_they_come_and_the_folder_is_kept(monkeypatch):
    stream, drawn = io.StringIO(), []
    watched = inline.Watched(stream)
    monkeypatch.setattr(watched, "draw", lambda: drawn.append(dict(watched.epochs[-1])))
    for part in (
        "Epoch 1/2  train loss 1.5  val",
        " bleu 4 0.25  (6.0s)\nEpoch 2/2  train loss 1.25",
        "\nwritten to /a b\n",
    ):
        watched.write(part)
    assert drawn == [{"train loss": 1.5, "val bleu 4": 0.25}, {"train loss": 1.25}]
    assert str(watched.folder) == "/a b" and stream.getvalue().endswith("written to /a b\n")


def test_a_line_of_progress_makes_room_for_the_next_line():
    stream = io.StringIO()
    with redirect_stdout(inline.Watched(stream)):
        for line in ("epoch 2: 30 of 94", "loss: 1 of 2", "drawing the figures", "Loss: 3 of 4"):
            print(line)
    assert stream.getvalue() == (
        f"{'epoch 2: 30 of 94':<40}\r{'loss: 1 of 2':<40}\rdrawing the figures\nLoss: 3 of 4\n"
    )


def test_a_script_that_fails_stops_the_notebook_and_leaves_the_kernel_as_it_was(capsys):
    argv, hook = sys.argv, sys.excepthook
    with pytest.raises(RuntimeError, match=r"hw2-q2.py ended with the code 2"):
        inline.run(f"'{ROOT / 'hw2-q2.py'}' -no_such_option")
    assert (sys.argv, sys.excepthook) == (argv, hook) and "no_such_option" in capsys.readouterr().err
    assert isinstance(sys.modules["__main__"], types.ModuleType)
