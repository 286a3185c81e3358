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

import files
import runs

PICTURE = "overview.png"
EDITION, PAGE = "2022-23", 9  # the page of translation with attention
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
        copy_figures(args.runs_dir, stage)
        build.main(["--edition", EDITION, "-runs_dir", str(args.runs_dir), "-output_dir", str(stage)])
        (stage / "picture.typ").write_text(LAYOUT, encoding="utf-8")
        picture = typst.compile(stage / "picture.typ", root=stage, format="png", ppi=PIXELS_PER_INCH)
    files.write_bytes(args.output_dir / PICTURE, picture)
    print(f"written to {args.output_dir / PICTURE}")


def copy_figures(runs_dir, stage):
    """The first attention map of the newest translator with attention; the curves of the edition's learning rates."""
    translators = runs.find(runs_dir, "q3", use_attn=True)
    rates = runs.find(runs_dir, "q2", "comparison", dataset="kuzushiji_mnist")
    if not translators or not rates:
        raise options.UserError(f"{runs_dir} lacks the runs of {EDITION}; run make report first")
    shutil.copy(translators[0].folder / "attention_1.pdf", stage / "attention.pdf")
    for figure in ("train_loss.pdf", "val_acc.pdf"):
        shutil.copy(rates[0].folder / figure, stage)


if __name__ == "__main__":
    options.run_script(main)
