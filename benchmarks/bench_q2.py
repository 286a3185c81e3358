"""Question 2 against the textbook loop: milliseconds a step, and what each technique gives.

The textbook loop is a `Dataset` over ready float tensors, a shuffling `DataLoader`, plain Adam, `.item()` at each step.
Every side starts from the same weights and sees the same images in the same order, without dropout, so that the losses
must agree.

$ python benchmarks/bench_q2.py              # 500 steps at batch 8, one thread, 7 turns
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import options


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    parser.add_option("threads", type=options.positive_int, default=1, help="default: %(default)s")
    parser.add_option("repeats", type=options.positive_int, default=7, help="turns (default: %(default)s)")
    parser.add_option("steps", type=options.positive_int, default=500, help="of each side (default: %(default)s)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, RandomSampler

import comparisons
import utils
from benchmarks.scripts import load_script
from benchmarks.timing import compare, require_close
from data import images

SEED, RECIPE = 0, ["-learning_rate", "0.0005", "-dropout", "0"]
# Sums taken in another order differ in the last bit, and training doubles a difference every few steps: the mean loss
# of the first steps has to agree closely, that of all steps roughly.
N_CLOSE_STEPS, CLOSE, ROUGH = 20, 1e-4, 2e-2

script = load_script("hw2-q2.py")


class TensorPairs(Dataset):
    """One image as floats, and its label."""

    def __init__(self, X, y):
        self.X, self.y = images.to_pixels(X), y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


def make_model(task):
    torch.manual_seed(SEED)
    return task.build().to(memory_format=torch.contiguous_format)


def order():
    """The generator of the order of the images, the same for every side."""
    return torch.Generator().manual_seed(SEED)


def textbook(task, examples, **adam):
    """The mean loss of an epoch of the textbook loop; `adam`: options of Adam."""
    model = make_model(task).train()
    shuffle = RandomSampler(examples, generator=order())  # what shuffle=True makes, but for the generator
    optimizer = torch.optim.Adam(model.parameters(), lr=task.args.learning_rate, **adam)
    total_loss = 0.0
    for X, y in DataLoader(examples, batch_size=task.args.batch_size, sampler=shuffle):
        optimizer.zero_grad()
        loss = F.nll_loss(model(X), y)
        loss.backward()
        optimizer.step()
        total_loss += loss.item() * len(y)
    return total_loss / len(examples)


def ours(task, fused=True, channels_last=True):
    """The mean loss of an epoch of the script's loop, with techniques that can be taken out."""
    model = make_model(task)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    batches = task.batches("cpu")
    optimization = utils.Optimization(model, task.args, len(batches))
    optimization.optimizer.param_groups[0]["fused"] = fused
    return utils.train_epoch(optimization, batches, task.batch_loss, order())


def make_sides(task):
    examples = TensorPairs(task.data.X["train"], task.data.y["train"])
    return {
        "textbook": partial(textbook, task, examples),
        "textbook, fused Adam": partial(textbook, task, examples, fused=True),
        "textbook, foreach Adam": partial(textbook, task, examples, foreach=True),
        "ours": partial(ours, task),
        "ours without fused Adam": partial(ours, task, fused=False),
        "ours without channels_last": partial(ours, task, channels_last=False),
    }


def make_task(n_steps):
    """The question with so many steps an epoch."""
    args = script.parse_args(RECIPE)
    data = images.load("kuzushiji_mnist", "bundled")
    n = n_steps * args.batch_size
    data = replace(data, X=data.X | {"train": data.X["train"][:n]}, y=data.y | {"train": data.y["train"][:n]})
    return comparisons.single(script.Classification(args, data))


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    warm_up = make_sides(make_task(min(args.steps, N_CLOSE_STEPS)))
    require_close({name: side() for name, side in warm_up.items()}, CLOSE)
    task = make_task(args.steps)
    print(f"{utils.data_title(task.data)}, {args.steps} steps at batch {task.args.batch_size}, {args.threads} threads")
    check = partial(require_close, tolerance=ROUGH)
    compare(make_sides(task), args.repeats, "ms a step", lambda seconds: 1000 * seconds / args.steps, check)


if __name__ == "__main__":
    options.run_script(main)
