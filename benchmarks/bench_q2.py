"""Question 2 against the textbook loop: seconds a step, each technique, and the sweep of three learning rates.

$ python benchmarks/bench_q2.py              # 500 steps at batch 8, one thread, 7 interleaved repeats
$ python benchmarks/bench_q2.py --sweep      # the three-rate sweep, default threads; some minutes

The textbook loop stands here: a `Dataset` over ready float tensors, a shuffling `DataLoader`, plain Adam, `.item()` each step. Every variant starts from the same weights and sees the same examples in the same order, without dropout, so
that the losses must agree; the ratio is the textbook's time over the variant's in the same repeat, and its median is quoted.
"""

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import options  # noqa: E402


def parse_args(argv=None):
    parser = options.Parser(__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_option("sweep", action="store_true", help="the sweep in place of single steps")
    parser.add_option("repeats", type=options.positive_int, help="default: 7, or 3 sweeps")
    parser.add_option(
        "epochs", type=options.positive_int, default=3, help="of a run of the sweep (default: %(default)s)"
    )
    parser.add_option("threads", type=options.positive_int, default=1, help="of single steps (default: %(default)s)")
    parser.add_option("compile", action="store_true", help="also torch.compile, which takes a minute to compile")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch.utils.data import DataLoader, Dataset, RandomSampler  # noqa: E402

import utils  # noqa: E402
from data import images  # noqa: E402
from models import CNN  # noqa: E402

BATCH_SIZE, N_STEPS, LEARNING_RATE, SEED = 8, 500, 0.0005, 0
PARSER = options.Parser("")
options.add_training_options(PARSER, optimizer="adam", learning_rate=LEARNING_RATE)
RECIPE = PARSER.parse_args([])
# Sums taken in another order differ in the last bit, and training doubles a difference every few steps: the mean loss of
# the first steps has to agree closely, that of all steps roughly.
N_CLOSE_STEPS, CLOSE, ROUGH = 20, 1e-4, 2e-2  # tolerances are relative


class TensorPairs(Dataset):
    """The textbook's data set: one example at a time."""

    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, index):
        return self.X[index], self.y[index]


def order_generator():
    """The generator of the order of the examples: every variant sees the same one."""
    return torch.Generator().manual_seed(SEED)


def textbook(model, X, y, **adam):
    """Mean loss of one epoch of the textbook loop; `adam`: options of Adam."""
    examples = TensorPairs(X, y)
    shuffle = RandomSampler(examples, generator=order_generator())  # what shuffle=True makes, but for the generator
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, **adam)
    total_loss = 0.0
    for X_batch, y_batch in DataLoader(examples, batch_size=BATCH_SIZE, sampler=shuffle):
        optimizer.zero_grad()
        loss = F.nll_loss(model(X_batch), y_batch)
        loss.backward()
        optimizer.step()
        total_loss += loss.item()
    return total_loss / math.ceil(len(X) / BATCH_SIZE)


def ours(model, X, y, fused=True, channels_last=True, compiled=False):
    """Mean loss of one epoch of `utils.train_epoch`, with techniques that can be taken out or put in."""
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    if compiled:
        model = torch.compile(model)  # the compilation falls into the warm-up, which is not timed
    optimization = utils.Optimization(model, RECIPE, N_STEPS)
    optimization.optimizer.param_groups[0]["fused"] = fused
    batches = utils.Batches(len(X), BATCH_SIZE, images.gatherer(X, y, images.random_distortion()))

    def batch_loss(model, batch):
        return F.nll_loss(model(batch[0]), batch[1], reduction="sum"), len(batch[1])

    return utils.train_epoch(optimization, batches, batch_loss, order_generator())


VARIANTS = {  # by name; the textbook's loop reads ready floats, ours the pixels
    "textbook": textbook,
    "textbook, fused Adam": partial(textbook, fused=True),
    "textbook, foreach Adam": partial(textbook, foreach=True),
    "ours": ours,
    "ours without fused Adam": partial(ours, fused=False),
    "ours without channels_last": partial(ours, channels_last=False),
}


def run_variant(name, X, y):
    """Seconds and mean loss of one epoch of a variant."""
    if name.startswith("textbook"):
        X = images.to_pixels(X)
    torch.manual_seed(SEED)
    model = CNN(dropout_prob=0.0)
    start = time.perf_counter()
    loss = VARIANTS[name](model, X, y)
    return time.perf_counter() - start, loss


def check_losses(losses, tolerance):
    """Stop unless every variant has the textbook's loss."""
    for name, loss in losses.items():
        if not math.isclose(loss, losses["textbook"], rel_tol=tolerance):
            sys.exit(f"{name}: its loss is not the textbook's, so the times do not compare: {losses}")


def bench_steps(n_repeats):
    """Print milliseconds a step and the ratio to the textbook loop for each variant, in interleaved repeats."""
    data = images.load("kuzushiji_mnist", "bundled")
    n, n_close = N_STEPS * BATCH_SIZE, N_CLOSE_STEPS * BATCH_SIZE
    X, y = data.X["train"][:n], data.y["train"][:n]
    check_losses({name: run_variant(name, X[:n_close], y[:n_close])[1] for name in VARIANTS}, CLOSE)
    times, losses = {name: [] for name in VARIANTS}, {}
    for repeat in range(n_repeats + 1):  # the first warms up
        for name in VARIANTS:
            seconds, losses[name] = run_variant(name, X, y)
            if repeat:
                times[name].append(seconds)
    print(f"{N_STEPS} steps at batch {BATCH_SIZE}, threads: {torch.get_num_threads()}, median of {n_repeats} repeats")
    print(f"{'variant':<30}{'ms/step':>9}{'ratio':>8}{'range of the ratio':>21}{'loss':>9}")
    for name, seconds in times.items():
        ratios = [base / s for base, s in zip(times["textbook"], seconds, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(
            f"{name:<30}{1000 * statistics.median(seconds) / N_STEPS:>9.2f}{statistics.median(ratios):>8.2f}"
            f"{spread:>21}{losses[name]:>9.4f}"
        )
    check_losses(losses, ROUGH)


def textbook_run(learning_rate, n_epochs, data):
    """One run of the course's kind: train, and after each epoch validate batch by batch, at default threads."""
    X, y = ({split: part[split] for split in ("train", "val")} for part in (data.X, data.y))
    X = {split: images.to_pixels(part) for split, part in X.items()}
    torch.manual_seed(SEED)
    model = CNN(dropout_prob=0.3)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for _ in range(n_epochs):
        model.train()
        for X_batch, y_batch in DataLoader(TensorPairs(X["train"], y["train"]), batch_size=BATCH_SIZE, shuffle=True):
            optimizer.zero_grad()
            loss = F.nll_loss(model(X_batch), y_batch)
            loss.backward()
            optimizer.step()
            loss.item()
        model.eval()
        with torch.no_grad():
            (model(X["val"]).argmax(dim=-1) == y["val"]).float().mean().item()


def bench_sweep(n_epochs, n_repeats):
    """Print the seconds of the three-rate sweep as a whole command, and of three textbook runs one after the other."""
    rates = (0.00001, 0.0005, 0.01)
    data = images.load("kuzushiji_mnist", "bundled")
    ratios = []
    for _ in range(n_repeats):
        start = time.perf_counter()
        for rate in rates:
            textbook_run(rate, n_epochs, data)
        slow = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, ROOT / "hw2-q2.py", "-data", "bundled", "-skip_test", "-runs_dir", folder]
            start = time.perf_counter()
            subprocess.run([*command, "-epochs", str(n_epochs)], check=True, stdout=subprocess.DEVNULL)
            fast = time.perf_counter() - start
        ratios.append(slow / fast)
        print(f"textbook {slow:.1f} s, the sweep {fast:.1f} s, ratio {slow / fast:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}, {torch.get_num_threads()} threads by default")


def main():
    args = parse_args()
    if args.sweep:
        bench_sweep(args.epochs, args.repeats or 3)
        return
    torch.set_num_threads(args.threads)
    if args.compile:
        VARIANTS["ours, torch.compile"] = partial(ours, compiled=True)
    bench_steps(args.repeats or 7)


if __name__ == "__main__":
    options.run_script(main)
