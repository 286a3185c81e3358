"""The time of a short run outside its epoch: imports, data, figures, the test, files.

$ python benchmarks/bench_start.py                 # five runs of one epoch of Question 3 on the bundled data
$ python benchmarks/bench_start.py --against DIR   # in turns with another checkout of the project
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import options

COMMAND = ("hw2-q3.py", "--use_attn", "--data", "bundled", "--scale", "quick", "--n_epochs", "1")


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    parser.add_option("against", type=Path, metavar="DIR", help="another checkout, run in turns with this one")
    parser.add_option("repeats", type=options.positive_int, default=5, help="turns (default: %(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

from benchmarks.timing import print_ratios


def run_once(root):
    """Seconds of one run of the checkout `root` by the wall clock, without those of its epoch."""
    with tempfile.TemporaryDirectory() as runs_dir:
        start = time.perf_counter()
        command = [sys.executable, *COMMAND, "--runs_dir", runs_dir]
        subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        (result,) = Path(runs_dir).glob("q3/*/result.json")
        return seconds - json.loads(result.read_text(encoding="utf-8"))["seconds"]


def main():
    args = parse_args()
    roots = {"the other checkout": args.against} if args.against else {}
    roots["this checkout"] = ROOT
    times = {name: [] for name in roots}
    for repeat in range(args.repeats + 1):  # the first warms up: it writes the cache of the bundled data
        for name, root in roots.items():
            seconds = run_once(root)
            if repeat:
                times[name].append(seconds)
    print(f"python {' '.join(COMMAND)}")
    print_ratios("s outside the epoch, wall clock", times)


if __name__ == "__main__":
    options.run_script(main)
