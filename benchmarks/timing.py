"""What the benchmarks share: sides that are timed in turns, what has to be equal, the speed of bare matrix products."""

import math
import statistics
import sys
import time

import torch

import onednn

CLOCKS = ("wall clock", "processor time")  # the second does not count what other programs take
GIGA = 1e9
MAX_DIFFERING = 0.01  # of the texts, where two symbols are equally probable but for rounding


def timed(function):
    """The seconds that pass and those that the processor works for this process, as a pair; and the result."""
    start = time.perf_counter(), time.process_time()
    result = function()
    return (time.perf_counter() - start[0], time.process_time() - start[1]), result


def compare(sides, n_repeats, unit, to_number, check=lambda results: None):
    """Run the sides in turns and print the numbers and the ratio of each.

    Args:
        sides: a dict from name to a function, the textbook first.
        to_number: from seconds to what is printed, in `unit`.
        check: `check(results)`, a dict from name to result, stops the program unless the sides have computed the same.

    Returns the results of the last turn.
    """
    times = {name: [] for name in sides}
    for _ in range(n_repeats):
        results = {}
        for name, side in sides.items():
            seconds, results[name] = timed(side)
            times[name].append(seconds)
        check(results)
    for i, clock in enumerate(CLOCKS):
        print_ratios(
            f"{unit}, {clock}", {name: [pair[i] for pair in pairs] for name, pairs in times.items()}, to_number
        )
    return results


def print_ratios(heading, times, to_number=float):
    """Print the median of each side, and how many times as fast as the first side it was in the same turn.

    times: a dict from name to the seconds of each turn.
    """
    first = next(iter(times.values()))
    print(heading)
    for name, seconds in times.items():
        ratios = [base / own for base, own in zip(first, seconds, strict=True)]
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"  {name:<30}{statistics.median(map(to_number, seconds)):>12,.2f}  ratio {shown}", flush=True)


def with_onednn(function):
    """`function` with oneDNN's products, as captioning and speech have them; other sides have torch's own choice."""

    def call():
        onednn.use_where_precise()
        try:
            return function()
        finally:
            torch.backends.mkldnn.matmul.fp32_precision = "ieee"

    return call


def require_close(losses, tolerance):
    """Stop the program unless all losses, a dict by side, are those of the first side; the tolerance is relative."""
    first = next(iter(losses.values()))
    if not all(math.isclose(first, loss, rel_tol=tolerance) for loss in losses.values()):
        sys.exit(f"the losses differ, so the times do not compare: {losses}")


def require_equal(texts):
    """Stop the program unless both sides have found the same texts."""
    differing = [pair for pair in zip(*texts.values(), strict=True) if pair[0] != pair[1]]
    if len(differing) > MAX_DIFFERING * len(next(iter(texts.values()))):
        sys.exit(f"{len(differing)} texts differ, so the times do not compare; such as {differing[0]}")


class FixedBatches:
    """The same batches in every epoch, gathered again in each."""

    def __init__(self, gather, rows):
        self.gather, self.rows = gather, rows

    def __len__(self):
        return len(self.rows)

    def epoch(self, generator):
        return map(self.gather, self.rows)


def compare_with_products(step, shapes, n_repeats):
    """Print the speed of a training step beside that of its bare matrix products; the ratio is the share it reaches.

    shapes: the products of the forward pass, (how often, how many at once, m, k, n, products of each backward).
        Backward there are two, for the left and the right factor; one if the left factor is data.
    """
    n_products = sum((1 + n_back) * times * many * m * k * n for times, many, m, k, n, n_back in shapes)
    factors = [
        (times, *(torch.randn(many, *shape).squeeze(0) for shape in ((m, k), (k, n), (m, n))), n_back)
        for times, many, m, k, n, n_back in shapes
    ]

    def products():
        for times, a, b, gradient, n_back in factors:
            for _ in range(times):
                a @ b, a.mT @ gradient
                if n_back == 2:
                    gradient @ b.mT

    step(), products()  # warm up
    print(f"\na training step of {n_products / GIGA:.2f} G multiply-adds")
    sides = {"bare products": products, "the step": step}
    compare(sides, n_repeats, "G multiply-adds a second", lambda seconds: n_products / seconds / GIGA)
