"""The exponential's series as an inner product of features (2023-24, 1.2, and its sign for 1.3).

Named as in the statement: D coordinates, M features, K terms of the series (`n_terms`).
"""

import functools
import itertools
import math

import torch

from theory.checks import TOLERANCE, Claim, agreement, largest_difference, new_generator, randn

N_TERMS = 3  # of the exponential's series, as 2023-24 has it


def series(t, n_terms=N_TERMS):
    """1 + t + t^2 / 2 + ... + t^(K - 1) / (K - 1)! (1.2)"""
    return sum(t**n / math.factorial(n) for n in range(n_terms))


def remainder_bound(t, n_terms=N_TERMS):
    """Lagrange: |exp(t) - series(t)| <= |t|^K / K! max(1, exp(t))."""
    return t.abs() ** n_terms / math.factorial(n_terms) * t.exp().clamp(min=1)


def tensor_features(x, n_terms=N_TERMS):
    """phi(x) = [1, x, vec(x x^T) / sqrt(2!), ...], all products of up to K - 1 coordinates: phi(q).phi(k) is the sum of
    the first K terms of exp(q.k) (1.2).

    Shapes:
        x: (L, D)
        returns (L, 1 + D + D^2 + ... + D^(K - 1))
    """
    power = x.new_ones(len(x), 1)
    powers = [power]
    for n in range(1, n_terms):
        power = (power.unsqueeze(2) * x.unsqueeze(1)).flatten(1) / math.sqrt(n)  # (L, D^n)
        powers.append(power)
    return torch.cat(powers, dim=1)


@functools.cache  # the lists of Python take longer than the products of tensors
def _monomials(D, degree):
    """The monomials of one degree: their coordinates (degree, n_monomials), and 1 / sqrt(alpha!) of each."""
    monomials = list(itertools.combinations_with_replacement(range(D), degree))
    factorials = [math.prod(math.factorial(monomial.count(i)) for i in set(monomial)) for monomial in monomials]
    return torch.tensor(monomials, dtype=torch.long).T, torch.tensor(factorials, dtype=torch.float64).rsqrt()


def monomial_features(x, n_terms=N_TERMS):
    """phi_alpha(x) = x^alpha / sqrt(alpha!), |alpha| < K: x_i x_j stands once, with the weight of both.

        (q.k)^n / n! = sum over |alpha| = n of q^alpha k^alpha / alpha!

    Shapes:
        x: (L, D)
        returns (L, C(D + K - 1, K - 1))
    """
    columns = x.T.contiguous()  # rows are copied faster than columns
    features = []
    for degree in range(n_terms):
        coordinates, weights = _monomials(len(columns), degree)
        powers = weights.to(x)[:, None].expand(-1, len(x))  # (n_monomials, L)
        for coordinate in coordinates:
            powers = powers * columns[coordinate]
        features.append(powers)
    return torch.cat(features).T


def tensor_dimension(D, n_terms=N_TERMS):
    """M = 1 + D + D^2 for three terms, (D^K - 1) / (D - 1) for K, which is K for D = 1 (1.2)."""
    return n_terms if D == 1 else (D**n_terms - 1) // (D - 1)


def monomial_dimension(D, n_terms=N_TERMS):
    """M = (D + 1)(D + 2) / 2 for three terms, C(D + K - 1, K - 1) for K: monomials of degree below K (1.2)."""
    return math.comb(D + n_terms - 1, n_terms - 1)


MAP_SIZES = tuple(itertools.product((1, 2, 3, 5), (2, 3, 4, 5)))  # (D, K)
SMALL_MAP_SIZES = ((2, 3), (3, 3), (2, 4), (3, 4))  # where the rank of a kernel's matrix can be told from rounding
N_POINTS = 6  # rows of Q and of K


def _check_map(seed, name, text, features, dimension):
    """Rows and values for a feature map at all (D, K): that phi(q).phi(k) is series(q.k, K), and its dimension."""
    generator = new_generator(seed)
    difference, dimensions = 0.0, []
    for D, n_terms in MAP_SIZES:
        Q, K = randn(generator, 2, N_POINTS, D) / math.sqrt(D)
        phi_q, phi_k = features(Q, n_terms), features(K, n_terms)
        difference = max(difference, largest_difference(phi_q @ phi_k.T, series(Q @ K.T, n_terms)))
        dimensions.append(phi_q.shape[1])
    rows = [
        agreement("1.2", f"{text}: phi(q).phi(k) against it", difference),
        Claim("1.2", f"{text}: number of features", [dimension(D, n_terms) for D, n_terms in MAP_SIZES], dimensions),
    ]
    table = [{"D": D, "K": n_terms, "M": M} for (D, n_terms), M in zip(MAP_SIZES, dimensions, strict=True)]
    return rows, {f"{name}_difference": difference, f"{name}_dimensions": table}


def claim_K_terms(seed, features=tensor_features, dimension=tensor_dimension):
    """1.2: K terms of the series take (D^K - 1) / (D - 1) features, three of them 1 + D + D^2."""
    return _check_map(seed, "K_terms", "K terms, three among them", features, dimension)


def claim_K_terms_once(seed, features=monomial_features, dimension=monomial_dimension):
    """1.2: the same with every monomial once, C(D + K - 1, K - 1) features, for three terms (D + 1)(D + 2) / 2."""
    return _check_map(seed, "K_terms_once", "K terms, each monomial once", features, dimension)


def claim_smallest_map(seed, dimension=monomial_dimension):
    """1.2: no feature map of the series is smaller: at random points its matrix has the rank of the last map."""
    generator = new_generator(seed)
    expected = [dimension(D, n_terms) for D, n_terms in SMALL_MAP_SIZES]
    ranks = []
    for D, n_terms in SMALL_MAP_SIZES:
        n_points = tensor_dimension(D, n_terms)  # as many as the largest of the maps has features
        Q, K = randn(generator, 2, n_points, D)
        ranks.append(int(torch.linalg.matrix_rank(series(Q @ K.T, n_terms))))
    rows = [Claim("1.2", "rank of the series over random points, by (D, K)", expected, ranks)]
    table = [{"D": D, "K": n_terms, "rank": r} for (D, n_terms), r in zip(SMALL_MAP_SIZES, ranks, strict=True)]
    return rows, {"kernel_ranks": table}


SERIES_TERMS = (2, 3, 4, 5, 6)  # K
SCORES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # |q.k|


def _scored_pair(score, generator, D=4):
    """Random q and k, (1, D) each, with q.k = score: the part of k along q is set, the rest stays random."""
    q, k = randn(generator, 2, 1, D)
    return q, k + q * ((score - q @ k.T) / (q @ q.T))


def claim_series_error(seed, bound=remainder_bound, features=monomial_features):
    """1.2: phi(q).phi(k) is off exp(q.k) by no more than Lagrange's remainder, for each K and q.k of either sign.

    The values are relative errors, since the weights of attention are normalised.
    """
    generator = new_generator(seed)
    scores = [sign * score for sign in (1, -1) for score in SCORES]
    relative_errors, largest_ratios = [], []
    for n_terms in SERIES_TERMS:
        errors, ratios = [], []
        for score in scores:
            q, k = _scored_pair(score, generator)
            t = q @ k.T
            error = (features(q, n_terms) @ features(k, n_terms).T - t.exp()).abs()
            errors.append((error / t.exp()).item())
            ratios.append((error / bound(t, n_terms)).item())
        relative_errors.append(errors)
        largest_ratios.append(max(ratios))
    limits = [1.0] * len(SERIES_TERMS)
    rows = [Claim("1.2", "error over |q.k|^K / K! max(1, exp(q.k)), by K", limits, largest_ratios, relation="<=")]
    values = {
        "series_terms": list(SERIES_TERMS),
        "scores": list(SCORES),
        "series_error_positive": [errors[: len(SCORES)] for errors in relative_errors],
        "series_error_negative": [errors[len(SCORES) :] for errors in relative_errors],
    }
    return rows, values


STEEPEST_SCORE = 10
SCORE_STEP = 0.01


def claim_positive_weights(seed, n_terms=N_TERMS):
    """1.3: with three terms no weight is below 1/2, so D can be inverted whatever the scores.

    1 + t + t^2 / 2 = ((1 + t)^2 + 1) / 2. An even number of terms ends in an odd power, which turns negative.
    """
    t = torch.arange(-STEEPEST_SCORE, STEEPEST_SCORE + SCORE_STEP, SCORE_STEP, dtype=torch.float64)[:, None]
    one = torch.ones_like(t[:1])  # D = 1 and k = 1: the scores are t themselves
    smallest = {n: (monomial_features(t, n) @ monomial_features(one, n).T).min().item() for n in SERIES_TERMS}
    rows = [Claim("1.3", "smallest weight of any score, three terms", 0.5, smallest[n_terms], TOLERANCE)]
    return rows, {"smallest_weights": list(smallest.values()), "steepest_score": STEEPEST_SCORE}
