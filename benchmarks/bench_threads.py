"""Each training script with one thread, two and its default, quiet and beside processes that take all they can get.

$ python benchmarks/bench_threads.py               # three turns, beside 0, 1 and 2 busy processes
$ python benchmarks/bench_threads.py --busy 0 4    # quiet, and beside four

A busy process is a loop of Python. The seconds are those of the epochs with their validation, on the bundled data.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import options

COMMANDS = {
    "q2": "hw2-q2.py -learning_rate 0.0005",
    "q3": "hw2-q3.py --use_attn",
    "q3-asr": "hw2-q3-asr.py --decoder recurrent",
    "q3-asr-64": "hw2-q3-asr.py --decoder recurrent --batch_size 64",
    "q3-captioning": "hw2-q3-captioning.py --use_attention",
}
COMMON = ("-data", "bundled", "-scale", "quick", "-skip_test")


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    parser.add_option("repeats", type=options.positive_int, default=3, help="turns (default: %(default)s)")
    parser.add_option("threads", type=options.positive_int, nargs="+", default=[1, 2], help="default: %(default)s")
    parser.add_option("busy", type=int, nargs="+", default=[0, 1, 2], help="processes beside (default: %(default)s)")
    parser.add_option("epochs", type=options.positive_int, default=1, help="of each run (default: %(default)s)")
    parser.add_option("only", choices=list(COMMANDS), nargs="+", default=list(COMMANDS), help="these commands")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

from benchmarks.timing import print_ratios


@contextlib.contextmanager
def busy(n_processes):
    """While it is open, `n_processes` programs beside take what the system gives them."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_processes)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run_once(command, threads):
    """Seconds of the epochs of one run of `command`, by the wall clock."""
    with tempfile.TemporaryDirectory() as runs_dir:
        line = [sys.executable, *command.split(), *threads, "-runs_dir", runs_dir]
        subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (result,) = Path(runs_dir).rglob("result.json")
        return json.loads(result.read_text(encoding="utf-8"))["seconds"]


def main():
    args = parse_args()
    commands = [f"{COMMANDS[name]} {' '.join(COMMON)} -epochs {args.epochs}" for name in args.only]
    for command in commands:
        run_once(command, ())  # warms up: it writes the cache of the bundled data
    threads = {f"-threads {n}": ("-threads", str(n)) for n in args.threads} | {"default": ()}
    times = {(command, n_busy): {side: [] for side in threads} for command in commands for n_busy in args.busy}
    for _ in range(args.repeats):
        for (command, n_busy), sides in times.items():
            with busy(n_busy):
                for side, seconds in sides.items():
                    seconds.append(run_once(command, threads[side]))
    for (command, n_busy), sides in times.items():
        print_ratios(f"\npython {command}\nbeside {n_busy} busy processes, s", sides)


if __name__ == "__main__":
    options.run_script(main)
