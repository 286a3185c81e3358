"""Two sides timed in turns, by the wall clock and by the time that the processor worked for this process."""

import statistics
import time

import numpy as np

CLOCKS = ("wall clock", "processor time")


def timed(function):
    """The seconds that pass, those that the processor works for this process (other programs do not count), and the result."""
    start = time.perf_counter(), time.process_time()
    result = function()
    return np.array([time.perf_counter() - start[0], time.process_time() - start[1]]), result


def median_and_range(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def compare(sides, n_repeats, unit, to_figure, check):
    """Run both sides in turns and print a figure of each and the ratio of their times.

    Args:
        sides: a dict from name to a function, the textbook first.
        to_figure: from seconds to what is printed, in `unit`.
        check: `check(results)` stops the program unless both sides have the same result.
    """
    times = {name: [] for name in sides}
    for _ in range(n_repeats):
        results = {}
        for name, side in sides.items():
            seconds, results[name] = timed(side)
            times[name].append(seconds)
        check(results)
    for i, clock in enumerate(CLOCKS):
        for name, seconds in times.items():
            print(f"{clock:<16}{name:<10}{statistics.median(to_figure(pair[i]) for pair in seconds):>9.3f} {unit}")
        ratios = [textbook[i] / ours[i] for textbook, ours in zip(*times.values(), strict=True)]
        print(f"{clock:<16}{'ratio':<10}{median_and_range(ratios, 1)}")
