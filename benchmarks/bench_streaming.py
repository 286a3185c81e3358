"""Clips that are read from the disk when a batch needs them, against clips in memory: time, memory, and that the batches are equal.

$ python benchmarks/bench_streaming.py                                                     # the bundled clips
$ python benchmarks/bench_streaming.py --data_dir DIR --memory_budgets 1GB 3GB --step      # the LJ Speech in DIR

Each budget has a process of its own. `--step` also trains one step on the batch with the longest clips.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import options  # noqa: E402
from benchmarks.scripts import load_script  # noqa: E402


def parse_args(argv=None):
    parser = options.Parser(__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_option("data_dir", type=Path, metavar="DIR", help="where LJ Speech is (default: the bundled clips)")
    help = "as for hw2-q3-asr.py (default: 1KB 1GB)"
    parser.add_option("memory_budgets", nargs="+", default=["1KB", "1GB"], metavar="SIZE", help=help)
    parser.add_option("batch_size", type=options.positive_int, default=64, help="default: %(default)s")
    parser.add_option("step", action="store_true", help="also a training step on the longest clips")
    parser.add_option("worker", metavar="SIZE", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def work(args):
    """Load the clips, read all batches of an epoch; prints the figures."""
    import hashlib

    import torch

    import utils
    from data import speech

    torch.set_num_threads(1)
    script = load_script("hw2-q3-asr.py")
    command = ["--decoder", "transformer", "--memory_budget", args.worker, "--batch_size", str(args.batch_size)]
    parsed = script.parse_args(command)
    found = {"budget": args.worker, "start_mb": utils.peak_memory_mb()}
    start = time.process_time()
    where = ("real", args.data_dir) if args.data_dir else ("bundled",)
    data = speech.load(*where, memory_budget=parsed.memory_budget)
    found["load_seconds"] = time.process_time() - start

    recogniser = script.Recognition(parsed, parsed, data).single(parsed.learning_rate[0], parsed.seed[0])
    batches, digest = recogniser.batches("cpu"), hashlib.sha256()
    start = time.process_time()
    for mels, _, tgt in batches.epoch(torch.Generator().manual_seed(0)):
        digest.update(mels[0, :1].numpy())
        digest.update(tgt.numpy())
    found |= {"read_seconds": time.process_time() - start, "read_mb": utils.peak_memory_mb()}
    if args.step:
        model = recogniser.build().train()
        rows = batches.rows(torch.Generator().manual_seed(0))
        longest = max(rows, key=lambda batch: data.n_frames[data.rows["train"]][batch].max())
        (batch,) = batches.gather([longest])
        utils.train_step(utils.Optimization(model, recogniser.args, len(batches)), recogniser.batch_loss, [batch])
        found["step_mb"] = utils.peak_memory_mb()
    print(json.dumps(found | {"digest": digest.hexdigest(), "spectrograms_mb": int(data.n_frames.sum()) * 160 / 1e6}))


def main():
    args = parse_args()
    if args.worker:
        return work(args)
    passed = ["--data_dir", args.data_dir] if args.data_dir else []
    passed += ["--batch_size", args.batch_size] + ["--step"] * args.step
    digests = set()
    for budget in args.memory_budgets:
        command = [sys.executable, __file__, "--worker", budget, *map(str, passed)]
        process = subprocess.run(command, capture_output=True, text=True)
        if process.returncode != 0:
            sys.exit(process.stderr)
        found = json.loads(process.stdout.splitlines()[-1])
        digests.add(found["digest"])
        shown = f"{budget} of {found['spectrograms_mb']:,.0f} MB of spectrograms: processor time {found['load_seconds']:.1f} s to load, "
        shown += f"{found['read_seconds']:.1f} s for all batches; peak memory {found['start_mb']:,.0f} MB at the start, {found['read_mb']:,.0f} MB after them"
        print(shown + (f", {found['step_mb']:,.0f} MB after a training step" if args.step else ""), flush=True)
    print("the batches are equal" if len(digests) == 1 else sys.exit("the batches differ"))


if __name__ == "__main__":
    options.run_script(main)
