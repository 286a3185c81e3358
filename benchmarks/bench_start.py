"""The time of a short run outside its epochs: imports, data, figures, the test, files.

$ python benchmarks/bench_start.py                 # five runs of one epoch of Question 3 on the bundled data
$ python benchmarks/bench_start.py --against DIR   # in turns with another checkout of the project
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import options  # noqa: E402

COMMAND = ("hw2-q3.py", "--use_attn", "--data", "bundled", "--scale", "quick", "--n_epochs", "1")


def run_once(root):
    """Wall-clock seconds of one run of the checkout `root`, and the seconds of its epoch."""
    with tempfile.TemporaryDirectory() as runs_dir:
        start = time.perf_counter()
        command = [sys.executable, *COMMAND, "--runs_dir", runs_dir]
        subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        (result,) = Path(runs_dir).glob("q3/*/result.json")
        return seconds, json.loads(result.read_text(encoding="utf-8"))["seconds"]


def parse_args(argv=None):
    parser = options.Parser(__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_option("against", type=Path, metavar="DIR", help="another checkout, run in turns with this one")
    parser.add_option("repeats", type=options.positive_int, default=5, help="default: %(default)s")
    return parser.parse_args(argv)


def main():
    args = parse_args()
    roots = [ROOT] + ([args.against] if args.against else [])
    times = {root: [] for root in roots}
    for repeat in range(args.repeats + 1):  # the first warms up: it writes the cache of the bundled data
        for root in roots:
            seconds = run_once(root)
            if repeat:
                times[root].append(seconds)
    outside = {}
    print(f"python {' '.join(COMMAND)}, median of {args.repeats} runs (range), seconds")
    for root, seconds in times.items():
        outside[root] = [wall - epoch for wall, epoch in seconds]
        parts = {
            "in all": [wall for wall, _ in seconds],
            "the epoch": [epoch for _, epoch in seconds],
            "outside": outside[root],
        }
        shown = [f"{name} {statistics.median(s):.2f} ({min(s):.2f} to {max(s):.2f})" for name, s in parts.items()]
        print(f"{'this checkout' if root == ROOT else 'the other'}: {', '.join(shown)}")
    if args.against:
        ratios = [ours / theirs for ours, theirs in zip(outside[ROOT], outside[args.against], strict=True)]
        print(f"outside, this over the other: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    options.run_script(main)
