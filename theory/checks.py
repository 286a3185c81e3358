"""What a claim is, and what all the claims share.

A claim function takes a seed and, as keywords, the formulas under test. It measures the same quantity without them (a
network that is built and counted, PyTorch's own layers, multiplications counted while they run) and returns
`rows, values`: a list of `Claim` and a dict of the named numbers that the report quotes.

Identities are checked exactly, or in float64 within a tolerance. Seconds are never claimed, since a busy machine must
not fail a theorem: a claim about an exponent is checked on counted multiplications, and the measured seconds are values
beside it.
"""

from dataclasses import dataclass

import numpy as np
import torch

TOLERANCE = 1e-12  # float64, sums of a few dozen terms of size one to ten


@dataclass(frozen=True)
class Claim:
    """What a derivation says beside what was measured: numbers, or lists of numbers that are compared one by one.

    relation: how `measured` compares with `expected`, "=", "<=" or ">=", within `tolerance` where there is one.
    """

    id: str
    claim: str
    expected: object
    measured: object
    tolerance: float | None = None
    relation: str = "="

    @property
    def holds(self):
        expected, measured = np.asarray(self.expected, dtype=float), np.asarray(self.measured, dtype=float)
        if expected.shape != measured.shape:
            return False
        tolerance = self.tolerance or 0.0
        within = {
            "=": np.abs(measured - expected) <= tolerance,
            "<=": measured <= expected + tolerance,
            ">=": measured >= expected - tolerance,
        }
        return bool(within[self.relation].all())  # not a number compares as False: it never holds


def agreement(question, text, difference, tolerance=TOLERANCE):
    """The claim that two computations give the same: their largest difference is 0 up to rounding."""
    return Claim(question, text, 0.0, difference, tolerance)


def new_generator(seed):
    return torch.Generator().manual_seed(seed)


def randn(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def largest_difference(a, b):
    return (a - b).abs().max().item()
