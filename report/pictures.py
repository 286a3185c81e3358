"""Make the pictures of the README from the runs: learning curves, activation maps, an attention map.

$ python report/pictures.py
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import options  # noqa: E402


def parse_args(argv=None):
    parser = options.Parser(__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_report_options(parser, HERE / "pictures")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import typst  # noqa: E402

import runs  # noqa: E402

# Name of the picture, question, kind of run, options of the run, its figures, and the picture's width.
PICTURES = (
    ("learning_curves", "q2", "comparison", {"dataset": "kuzushiji_mnist"}, ("train_loss", "val_acc"), "15cm"),
    (
        "activation_maps",
        "q2",
        "run",
        {"dataset": "kuzushiji_mnist", "network": "cnn", "shuffle_pixels": False},
        ("activation_maps",),
        "8cm",
    ),
    ("attention", "q3", "run", {"use_attn": True}, ("attention_1",), "8cm"),
)
PIXELS_PER_INCH = 110


def main(argv=None):
    args = parse_args(argv)
    for name, question, kind, wanted, figures, width in PICTURES:
        found = runs.find(args.runs_dir, question, kind, **wanted)
        found = [run for run in found if all(f"{figure}.pdf" in run.figures for figure in figures)]
        found = [run for run in found if kind == "comparison" or runs.read_result(run.folder)["test"]]
        if not found:
            raise options.UserError(
                f"no {kind} in {args.runs_dir / question} has {figures[0]}.pdf; run make report first"
            )
        images = ", ".join(f'image("{figure}.pdf", width: 100%)' for figure in figures)
        source = f"#set page(width: {width}, height: auto, margin: 2pt)\n#grid(columns: {len(figures)}, {images})"
        with tempfile.TemporaryDirectory() as stage:
            for figure in figures:
                shutil.copy(found[0].folder / f"{figure}.pdf", stage)
            Path(stage, "picture.typ").write_text(source, encoding="utf-8")
            picture = typst.compile(Path(stage, "picture.typ"), root=stage, format="png", ppi=PIXELS_PER_INCH)
        with runs.atomic_path(args.output_dir / f"{name}.png") as path:
            path.write_bytes(picture)
        print(f"{args.output_dir / name}.png: from {found[0].folder.name}")


if __name__ == "__main__":
    options.run_script(main)
