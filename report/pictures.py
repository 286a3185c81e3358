"""Make the picture of the README from the runs: an attention map, learning curves, a page of a report.

$ make report                   # makes the runs
$ python report/pictures.py
"""

import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))

import options


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    options.add_report_options(parser, HERE / "pictures")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import build
import typst

import experiment
import files
import runs
from benchmarks.scripts import load_script

PICTURE = "overview.png"
EDITION, PAGE = "2022-23", 8  # the page of translation with attention
PIXELS_PER_INCH = 150
LAYOUT = """
#set page(width: 28cm, height: auto, margin: 2mm)
#grid(
  columns: (11.4cm, 7.4cm, 8cm), column-gutter: 4mm, align: horizon,
  image("attention.pdf", width: 100%),
  stack(spacing: 3mm, image("train_loss.pdf", width: 100%), image("val_acc.pdf", width: 100%)),
  rect(inset: 0pt, stroke: 0.5pt + gray, image("hw2-EDITION.pdf", page: PAGE, width: 100%)),
)
""".replace("EDITION", EDITION).replace("PAGE", str(PAGE))


def main(argv=None):
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as stage:
        stage = Path(stage)
        draw_attention(args.runs_dir, stage / "attention.pdf")
        copy_learning_curves(args.runs_dir, stage)
        build.main(["--edition", EDITION, "-runs_dir", str(args.runs_dir), "-output_dir", str(stage)])
        (stage / "picture.typ").write_text(LAYOUT, encoding="utf-8")
        picture = typst.compile(stage / "picture.typ", root=stage, format="png", ppi=PIXELS_PER_INCH)
    files.write_bytes(args.output_dir / PICTURE, picture)
    print(f"written to {args.output_dir / PICTURE}")


def draw_attention(runs_dir, path):
    """The attention map of a test sentence that the newest translator with attention translates correctly."""
    script = load_script("hw2-q3.py")
    args = script.parse_args(["--use_attn", "-runs_dir", str(runs_dir)])
    translator, model, folder = experiment.restore(script.Translation, args, script.parse_args([]))
    rows = files.read_table(folder / experiment.PREDICTIONS, experiment.PREDICTION_COLUMNS)
    right = [row for row in rows if row["distance"] == "0"]
    longest = max(right, key=lambda row: len(row["source"]))
    result = runs.read_result(folder)
    title = result["title"] + (" (bundled)" if result["bundled"] else "")
    translator.draw_attention(path, model, longest["source"], f"{title}\n")


def copy_learning_curves(runs_dir, stage):
    """The figures of the newest comparison of the edition's learning rates."""
    found = runs.find(runs_dir, "q2", "comparison", dataset="kuzushiji_mnist")
    if not found:
        raise options.UserError(f"no comparison of learning rates is in {runs_dir / 'q2'}; run make report first")
    for figure in ("train_loss.pdf", "val_acc.pdf"):
        shutil.copy(found[0].folder / figure, stage)


if __name__ == "__main__":
    options.run_script(main)
