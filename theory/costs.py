"""What a computation costs: multiplications and memory counted while it runs, and seconds."""

import math
import statistics
import time

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from theory.checks import new_generator

HEAD_SIZE = 32  # D, where costs are counted and timed
WIDE_HEAD_SIZE = 4 * HEAD_SIZE
COUNTED_LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768, 65536)
TIMED_LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
GIB = 2**30
FLOAT_BYTES = 4


class _LargestTensor(TorchDispatchMode):
    """Remembers the entries of the largest tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.entries = max(self.entries, result.numel())
        return result


def count_cost(function, *shapes, **kwargs):
    """Multiplications in the matrix products of `function`, and the entries of the largest tensor it makes.

    They are counted while it runs, on tensors without data (PyTorch's meta device), so no length is too long.
    """
    args = [torch.empty(shape, device="meta") for shape in shapes]
    with FlopCounterMode(display=False) as flops, _LargestTensor() as largest:
        function(*args, **kwargs)
    return flops.get_total_flops() // 2, largest.entries  # a multiplication and an addition make two


def median_seconds(function, *args, min_repeats=5, min_seconds=0.1):
    """The median time of a call, after one call that warms up."""
    function(*args)
    seconds = []
    while len(seconds) < min_repeats or sum(seconds) < min_seconds:
        start = time.perf_counter()
        function(*args)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def fitted_exponent(sizes, costs):
    """The slope of log(cost) over log(size), by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def doubling_exponent(costs):
    """The exponent of the length in a counted cost, from the last of its doublings: exact where the cost is a power."""
    return math.log2(costs[-1] / costs[-2])


def crossing_length(lengths, costs, other_costs):
    """The length from which on `costs` stays below `other_costs`, interpolated between logarithms.

    None if there is no such place among the lengths.
    """
    log_lengths, gap = np.log(lengths), np.log(costs) - np.log(other_costs)
    above = np.flatnonzero(gap >= 0)
    if len(above) == 0 or above[-1] == len(gap) - 1:
        return None
    last = above[-1]
    share = gap[last] / (gap[last] - gap[last + 1])
    return float(np.exp(log_lengths[last] + share * (log_lengths[last + 1] - log_lengths[last])))


def random_heads(seed, L, D):
    """Q, K and V in single precision, as a network has them; scores of size one."""
    Q, K, V = torch.randn(3, L, D, generator=new_generator(seed))
    return Q / math.sqrt(D), K, V
