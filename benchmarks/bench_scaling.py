"""Training steps of several processes against one, and what interrupts and several processes add to a step of one.

$ python benchmarks/bench_scaling.py                                         # translation and speech, bundled data
$ python benchmarks/bench_scaling.py --question q3 --batch_size 256 --n_processes 1 2 4

One process with one thread, several with one thread each, and one with as many threads train in turns on the same batches of the whole
job; a ratio is the seconds of one process with one thread over the others' in the same turn.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import options  # noqa: E402
from benchmarks.scripts import load_script  # noqa: E402

COMMANDS = {"q3": ("hw2-q3.py", "--use_attn"), "q3-asr": ("hw2-q3-asr.py", "--decoder", "transformer")}
SETTINGS = (("q3", 64), ("q3", 256), ("q3-asr", 64))  # question, batch size of the whole job
N_STEPS = {"q3": 30, "q3-asr": 12}
N_WARMUP_STEPS = 4
N_EMPTY_STEPS = 20_000
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone")


def parse_args(argv=None):
    parser = options.Parser(__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_option("question", choices=list(COMMANDS), help="with --batch_size: this question only")
    parser.add_option("batch_size", type=options.positive_int, help="of the whole job")
    parser.add_option("n_processes", type=options.positive_int, nargs="+", default=[2], help="default: %(default)s")
    parser.add_option("repeats", type=options.positive_int, default=3, help="turns (default: %(default)s)")
    help = "another checkout, whose empty step is timed in turns with this one's"
    parser.add_option("against", type=Path, metavar="DIR", help=help)
    parser.add_option("threads", type=options.positive_int, default=1, help=argparse.SUPPRESS)
    parser.add_option("worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def work(args):
    """What each process of a job does: train for some steps; rank 0 prints the seconds."""

    import parallel
    import utils

    script_name, *command = COMMANDS[args.question]
    script = load_script(script_name)
    command += ["--data", "bundled", "--batch_size", str(args.batch_size), "--threads", str(args.threads)]
    experiment = load_experiment(script, args.question, script.parse_args(command))
    device = utils.configure_torch(experiment.args.seed, "auto", args.threads, args.threads)
    model = experiment.build().to(device).train()
    parallel.synchronize(model)
    batches = experiment.batches(device)
    optimization = utils.Optimization(model, experiment.args, len(batches))
    n_steps = N_STEPS[args.question]
    loss = 0.0
    for step, parts in enumerate(batches.steps(utils.torch.Generator().manual_seed(0))):
        if step == N_WARMUP_STEPS:
            parallel.broadcast(parallel.gather(None))  # all are there
            start = time.perf_counter()
        if step == N_WARMUP_STEPS + n_steps:
            break
        total, n_terms, _ = utils.train_step(optimization, experiment.batch_loss, parts)
        loss = float(total / n_terms)
    if parallel.is_main():
        n_params = sum(param.numel() for param in optimization.params)
        print(json.dumps({"seconds": time.perf_counter() - start, "loss": loss, "n_params": n_params}))
    parallel.stop()


def load_experiment(script, question, args):
    if question == "q3":
        experiment = script.Translation(args, args, script.translation.load("bundled", options.DATA_DIR))
    else:
        experiment = script.Recognition(args, args, script.speech.load("bundled", options.DATA_DIR))
    return experiment.single(args.learning_rate[0], args.seed[0])


def run_job(question, batch_size, n_processes, threads):
    """What rank 0 of a job prints: seconds of the timed steps, the last loss, the number of parameters."""
    command = [__file__, "--worker", "--question", question, "--batch_size", batch_size, "--threads", threads]
    launcher = [*LAUNCHER, f"--nproc_per_node={n_processes}"] if n_processes > 1 else [sys.executable]
    process = subprocess.run([*launcher, *map(str, command)], capture_output=True, text=True)
    if process.returncode != 0:
        sys.exit(process.stderr)
    return json.loads(process.stdout.splitlines()[-1])


def bench_scaling(question, batch_size, counts, n_repeats):
    """Print the times of one setting."""
    kinds = {"1 process, 1 thread": (1, 1)}
    kinds |= {f"{n} processes, 1 thread each": (n, 1) for n in counts if n > 1}
    kinds |= {f"1 process, {n} threads": (1, n) for n in counts if n > 1}
    found = {name: [] for name in kinds}
    for _ in range(n_repeats):
        for name, (n_processes, threads) in kinds.items():
            found[name].append(run_job(question, batch_size, n_processes, threads))
    n_params = found["1 process, 1 thread"][0]["n_params"]
    print(f"{' '.join(COMMANDS[question])}, batch {batch_size}, {N_STEPS[question]} steps, {n_params:,} parameters")
    base = [result["seconds"] for result in found["1 process, 1 thread"]]
    for name, results in found.items():
        seconds = [result["seconds"] for result in results]
        ratios = [one / several for one, several in zip(base, seconds, strict=True)]
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rate = N_STEPS[question] * batch_size / statistics.median(seconds)
        print(
            f"  {name}: {1000 * statistics.median(seconds) / N_STEPS[question]:.1f} ms a step, {rate:,.0f} a second, {shown}"
        )


# A step whose loss is one number, without an optimizer: what is left is the loop's own. Runs in the checkout that is the current folder.
EMPTY_STEPS = """
import statistics, sys, time
sys.path.insert(0, ".")
import torch, utils
class Nothing:
    model, params, n_parts, learning_rate = torch.nn.Linear(1, 1), [torch.zeros(1)], 1, 0.0
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=False)
    def zero_grad(self): pass
    def step(self): pass
one, n_steps = torch.ones((), requires_grad=True), int(sys.argv[1])
def microseconds():
    batches = utils.Batches(n_steps, 1, lambda rows: iter(rows))
    start = time.process_time()
    utils.train_epoch(Nothing(), batches, lambda model, batch: (one * 1, 1), torch.Generator())
    return (time.process_time() - start) / n_steps * 1e6
print(statistics.median(microseconds() for _ in range(5)))
"""


def bench_overhead(against, n_repeats):
    """Print what a step of the training loop takes beside what it computes, microseconds of processor time."""
    found = {root: [] for root in [ROOT] + ([against] if against else [])}
    for _ in range(n_repeats):
        for root, times in found.items():
            command = [sys.executable, "-c", EMPTY_STEPS, str(N_EMPTY_STEPS)]
            process = subprocess.run(command, cwd=root, capture_output=True, text=True)
            if process.returncode != 0:
                sys.exit(process.stderr)
            times.append(float(process.stdout))
    for root, times in found.items():
        name = "this checkout" if root == ROOT else "the other"
        shown = f"{statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f})"
        print(f"an empty step of the training loop, {name}: {shown} microseconds")


def main():
    args = parse_args()
    if args.worker:
        return work(args)
    settings = [(args.question, args.batch_size)] if args.question and args.batch_size else SETTINGS
    for question, batch_size in settings:
        bench_scaling(question, batch_size, args.n_processes, args.repeats)
    bench_overhead(args.against, args.repeats)


if __name__ == "__main__":
    options.run_script(main)
