"""Training steps of several processes against one, on bundled data.

One process with one thread, several with one thread each, and one with as many threads train in turns on the same
batches.

$ python benchmarks/bench_scaling.py                                         # translation and speech
$ python benchmarks/bench_scaling.py --question q3 --batch_size 256 --n_processes 1 2 4
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import options

SETTINGS = (("q3", 64), ("q3", 256), ("q3-asr", 64))  # question, batch size of all processes together
N_STEPS = {"q3": 30, "q3-asr": 12}
N_WARMUP_STEPS = 4
LAUNCHER = ("-m", "torch.distributed.run", "--standalone")


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    parser.add_option("question", choices=list(N_STEPS), help="with --batch_size: this question only")
    parser.add_option("batch_size", type=options.positive_int, help="of all processes together")
    parser.add_option("n_processes", type=options.positive_int, nargs="+", default=[2], help="default: %(default)s")
    parser.add_option("repeats", type=options.positive_int, default=3, help="turns (default: %(default)s)")
    parser.add_option("steps", type=options.positive_int, help=f"that are timed (default: {N_STEPS})")
    parser.add_option("threads", type=options.positive_int, default=1, help=argparse.SUPPRESS)
    parser.add_option("worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch

import comparisons
import models
import parallel
import utils
from benchmarks.scripts import load_script
from benchmarks.timing import print_ratios
from data import speech, translation


def work(args):
    """What each process does: train for some steps; rank 0 prints the seconds."""
    task = make_task(args.question, ["-batch_size", str(args.batch_size)])
    device = utils.configure_torch(task.args.seed, "auto", args.threads)
    model = task.build().to(device).train()
    parallel.synchronize(model)
    optimization = utils.Optimization(model, task.args, N_WARMUP_STEPS + args.steps)
    order, batches = torch.Generator().manual_seed(0), task.batches(device)
    endless = itertools.chain.from_iterable(batches.epoch(order) for _ in itertools.count())

    def train(n_steps):
        for batch in itertools.islice(endless, n_steps):
            loss, _ = utils.train_step(optimization, task.batch_loss, batch)
            float(loss)  # waits for the device

    train(N_WARMUP_STEPS)
    parallel.gather(None)  # all are there
    start = time.perf_counter()
    train(args.steps)
    seconds = time.perf_counter() - start
    n_params = models.get_number_trainable_params(model)
    print(json.dumps({"seconds": seconds, "n_params": n_params}))  # that of rank 0 is seen


def make_task(question, recipe):
    if question == "q3":
        script = load_script("hw2-q3.py")
        args = script.parse_args(["--use_attn", *recipe])
        return comparisons.single(script.Translation(args, translation.load("bundled")))
    script = load_script("hw2-q3-asr.py")
    args = script.parse_args(["--decoder", "transformer", *recipe])
    return comparisons.single(script.Recognition(args, speech.load("bundled")))


def run_job(question, batch_size, n_steps, n_processes, threads):
    """What rank 0 of a job prints: seconds of the timed steps, and the number of parameters."""
    command = [__file__, "--worker", "--question", question, "--steps", n_steps]
    command += ["--batch_size", batch_size, "--threads", threads]
    launcher = [*LAUNCHER, f"--nproc_per_node={n_processes}"] if n_processes > 1 else []
    process = subprocess.run([sys.executable, *launcher, *map(str, command)], capture_output=True, text=True)
    if process.returncode != 0:
        sys.exit(process.stderr)
    return json.loads(process.stdout.splitlines()[-1])


def bench_scaling(question, batch_size, n_steps, counts, n_repeats):
    """Print the times of one setting."""
    sides = {"1 process, 1 thread": (1, 1)}
    sides |= {f"{n} processes, 1 thread each": (n, 1) for n in counts if n > 1}
    sides |= {f"1 process, {n} threads": (1, n) for n in counts if n > 1}
    times = {name: [] for name in sides}
    for _ in range(n_repeats):
        for name, side in sides.items():
            result = run_job(question, batch_size, n_steps, *side)
            times[name].append(result["seconds"])
    print(f"\n{question}, batch {batch_size}, {n_steps} steps, {result['n_params']:,} parameters")
    print_ratios("ms a step, wall clock", times, lambda seconds: 1000 * seconds / n_steps)


def main():
    args = parse_args()
    if args.worker:
        return work(args)
    settings = [(args.question, args.batch_size)] if args.question and args.batch_size else SETTINGS
    for question, batch_size in settings:
        bench_scaling(question, batch_size, args.steps or N_STEPS[question], args.n_processes, args.repeats)
    return None


if __name__ == "__main__":
    options.run_script(main)
