"""Intervals and tests against numbers worked out by hand or published."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import metrics


def test_wilson_interval_by_its_formula():
    figure, z = metrics.proportion(81, 263), 1.959963984540054  # the example of Newcombe (1998), table I
    assert (figure["low"], figure["high"]) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    p, n = 81 / 263, 263
    centre, half = (
        (p + z * z / 2 / n) / (1 + z * z / n),
        z / (1 + z * z / n) * (p * (1 - p) / n + (z / 2 / n) ** 2) ** 0.5,
    )
    assert (figure["low"], figure["high"]) == pytest.approx((centre - half, centre + half))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_stays_in_range(counts):
    figure = metrics.proportion(*counts)
    assert -1e-12 <= figure["low"] <= figure["value"] + 1e-12 and figure["value"] <= figure["high"] + 1e-12 <= 1 + 2e-12


def test_mean_interval_by_hand():
    figure = metrics.mean([1.0, 2.0, 3.0])  # standard error 1/sqrt(3), t(2) = 4.303
    assert figure["value"] == 2 and figure["high"] - 2 == pytest.approx(4.302653 / 3**0.5, rel=1e-6)


def test_paired_difference_sees_what_unpaired_intervals_hide():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 50)
    difference = metrics.paired_difference(hard + 1 + rng.normal(0, 0.1, 50), hard)
    assert difference["low"] > 0


def test_mcnemar_by_hand():
    a = [True] * 6 + [False] + [True] * 3
    b = [False] * 6 + [True] + [True] * 3
    test = metrics.mcnemar(a, b)
    assert (test["only_a"], test["only_b"]) == (6, 1)
    assert test["p_value"] == pytest.approx(2 * (1 + 7) / 2**7)
    assert test["difference"]["value"] == pytest.approx(0.5)
    assert metrics.mcnemar(a, a)["p_value"] == 1


def test_auc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    y, scores = np.array([0, 0, 1, 1, 2, 2, 2]), rng.integers(0, 4, (7, 3)).astype(float)  # with ties
    areas = []
    for label in range(3):
        positive, negative = scores[y == label, label], scores[y != label, label]
        pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
        areas.append(np.mean(pairs))
    assert metrics.macro_auc(y, scores) == pytest.approx(np.mean(areas))
    assert metrics.macro_auc(y, scores[:, [0, 1, 2, 2]]) is None  # a class without examples


def test_classification_by_hand():
    y = torch.tensor([0, 0, 1, 2])
    figures = metrics.classification(y, torch.log_softmax(torch.eye(3)[[0, 1, 1, 2]] * 5, dim=-1))
    assert figures["acc"]["value"] == 0.75
    assert figures["per_class_acc"] == [0.5, 1.0, 1.0]
    assert figures["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


@given(st.text("abcd ", max_size=9), st.text("abcd ", max_size=9))
def test_cosine_is_the_largest_similarity(hyp, ref):
    """As the report of 2023-24 derives in 3.4."""
    values = {name: similarity(hyp, ref) for name, similarity in metrics.SIMILARITIES.items()}
    assert max(values.values()) <= values["cosine"] + 1e-12
