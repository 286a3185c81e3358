"""What the course's rule costs, by which the last symbol of a translation is dropped also when no end symbol came.

$ python benchmarks/last_symbol.py report/runs/q3/course report/runs/q3/course-use_attn      # folders of trained runs

The skeleton of 2022-23 decodes at most 49 symbols and takes `final_seq[1:-1]` for the translation. Each run translates
its test set greedily in three ways: so, the same with the last symbol kept, and as `hw2-q3.py` does, which stops at
twice the source's length and ten more. Printed are the error rates, the paired difference of the first two, and how
many translations have no end symbol.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import options

MAX_SYMBOLS = 49


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    help = "folders of trained runs of hw2-q3.py (default: those of report/runs that read the same data)"
    parser.add_argument("runs", type=options.path, nargs="*", help=help)
    parser.add_option("data_dir", type=options.path, default=options.DATA_DIR, metavar="DIR", help="data folder")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch

import decoding
import metrics
import runs
import utils
from benchmarks.scripts import load_script
from data import text, translation

script = load_script("hw2-q3.py")


def load_run(folder):
    """The translator of a run and its best weights."""
    args = argparse.Namespace(**vars(script.parse_args([])) | runs.Found(folder).options)
    translator = script.Translation(args, None, settings=runs.read_checkpoint(folder / runs.BEST))
    model = translator.build()
    runs.load_weights(model, folder / runs.BEST)
    return translator, model.eval()


@torch.no_grad()
def decode(translator, model, sentences):
    """Greedy translations of at most `MAX_SYMBOLS`, and whether each one has ended."""
    src = text.pad([translator.src_vocab.encode(sentence) for sentence in sentences])
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    limit = torch.full_like(lengths, MAX_SYMBOLS)
    found = decoding.search(model.step, *model.start(src, lengths), max_steps=limit, **text.SYMBOLS)
    hyps = [translator.tgt_vocab.decode(symbols) for symbols in found.symbols.tolist()]
    return hyps, [len(hyp) < MAX_SYMBOLS for hyp in hyps]


def main(argv=None):
    args = parse_args(argv)
    data = translation.load("real", args.data_dir)
    refs, sentences = zip(*data.pairs["test"])
    print(f"{utils.data_title(data)}: {len(refs):,} test sentences")
    there = runs.find(options.RUNS_DIR, "q3")
    of_data = [run.folder for run in there if run.config["data"]["fingerprint"] == data.fingerprint]
    for folder in args.runs or of_data:
        translator, model = load_run(folder)
        kept, has_ended = decode(translator, model, sentences)
        dropped = [hyp if ended else hyp[:-1] for hyp, ended in zip(kept, has_ended)]
        ours = translator.translate(model, sentences)
        rates = [metrics.error_rates(hyps, refs) for hyps in (dropped, kept, ours)]
        shown = "  ".join(f"{name} {rate.mean():.4f}" for name, rate in zip(("dropped", "kept", "ours"), rates))
        cost = metrics.format_interval(metrics.paired_difference(rates[0], rates[1]), sign="+")
        print(f"{folder.name}: {shown}  dropped - kept {cost}  without an end {len(refs) - sum(has_ended)}")


if __name__ == "__main__":
    options.run_script(main)
