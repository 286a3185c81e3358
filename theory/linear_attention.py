"""Attention that is linear in the length (2023-24, 1.3 and 1.4). L tokens, D coordinates, M features."""

import bisect
import math

import torch
import torch.nn.functional as F

from options import progress
from theory import costs
from theory.attention import softmax_attention
from theory.checks import Claim, agreement, largest_difference, new_generator, randn
from theory.feature_maps import N_TERMS, monomial_dimension, monomial_features, series


def kernel_attention(phi_q, phi_k, values, linear=True):
    """Z ~ D^-1 Phi(Q) Phi(K)^T V with D = Diag(Phi(Q) Phi(K)^T 1), in either order of the products (1.3).

    A column of ones beside V gives the diagonal of D by the products that give the numerators. The linear order
    Phi(Q) (Phi(K)^T [V 1]) passes through M x (D + 1) numbers; the other, (Phi(Q) Phi(K)^T) [V 1], through L x L.

    Shapes:
        phi_q, phi_k: (L, M)
        values: (L, D)
        returns (L, D)
    """
    values = torch.cat([values, values.new_ones(len(values), 1)], dim=1)
    Z = phi_q @ (phi_k.T @ values) if linear else (phi_q @ phi_k.T) @ values  # (L, D + 1)
    return Z[:, :-1] / Z[:, -1:]


def linear_multiplications(L, M, D):
    """O(L M D) for Phi(Q) (Phi(K)^T [V 1]): L M (D + 1) multiplications in each product (1.4)."""
    return 2 * L * M * (D + 1)


def quadratic_multiplications(L, M, D):
    """O(L^2 (M + D)) for (Phi(Q) Phi(K)^T) [V 1]: L^2 M multiplications, then L^2 (D + 1) (1.4)."""
    return L**2 * (M + D + 1)


def orders_crossing(M, D):
    """L = 2 M (D + 1) / (M + D + 1), where both orders of the products cost the same."""
    return 2 * M * (D + 1) / (M + D + 1)


def softmax_crossing(M, D):
    """L = M (D + 1) / D, about M, where the linear order costs as much as the exact attention."""
    return M * (D + 1) / D


def approximation_bound(largest_score, n_terms, values):
    """2 e / (1 - e) max|V|, e = T^K / K! exp(T), T = max|q.k|: the most that it differs from exact attention.

    e bounds the relative error of every weight exp(q.k), by `feature_maps.remainder_bound`. With weights p (1 + delta),
    |delta| <= e, an output moves by |sum p (delta - mean delta) v| / (1 + mean delta). From e = 1 on nothing is said.
    """
    e = largest_score**n_terms / math.factorial(n_terms) * math.exp(largest_score)
    return 2 * e / (1 - e) * values.abs().max().item() if e < 1 else math.inf


def claim_kernel_attention(seed, attention=kernel_attention):
    """1.3: D^-1 Phi(Q) Phi(K)^T V is the attention with the series for the exponential, written as sums, row by row."""
    generator = new_generator(seed)
    L, D = 11, 3
    Q, K, V = randn(generator, 3, L, D)
    phi_q, phi_k = monomial_features(Q), monomial_features(K)
    expected = torch.zeros_like(V)
    for i in range(L):
        weights = [series(Q[i] @ K[j]) for j in range(L)]
        expected[i] = sum(weight * v for weight, v in zip(weights, V, strict=True)) / sum(weights)
    difference = largest_difference(attention(phi_q, phi_k, V), expected)
    ones = torch.ones_like(V[:, :1])
    row_sums = attention(phi_q, phi_k, ones)
    rows = [
        agreement("1.3", "D^-1 Phi(Q) Phi(K)^T V against its sums", difference),
        agreement("1.3", "its weights sum to one in each row", largest_difference(row_sums, ones)),
    ]
    return rows, {"kernel_attention_difference": difference}


LARGEST_SCORES = (0.005, 0.02, 0.08, 0.32)  # max|q.k|, small: where the approximation is claimed
WIDER_SCORES = (1.28, 5.12)  # and where it is only looked at
COMPARED_TERMS = (2, 3, 4)  # K
ORDER_TOLERANCE = 0.1  # the order is that of the limit; at the larger scores the series' next term still counts


def claim_agreement(seed, features=monomial_features, bound=approximation_bound):
    """1.4: as the scores get small the linear attention comes to the exact one, with an error of order K in them."""
    generator = new_generator(seed)
    L, D = 64, 4
    Q, K, V = randn(generator, 3, L, D)
    Q = Q / (Q @ K.T).abs().max()  # max|q.k| = 1
    scores, errors = LARGEST_SCORES + WIDER_SCORES, {}
    exact = [F.scaled_dot_product_attention(score * Q, K, V, scale=1.0) for score in scores]
    for n_terms in COMPARED_TERMS:
        approximate = [kernel_attention(features(score * Q, n_terms), features(K, n_terms), V) for score in scores]
        errors[n_terms] = [*map(largest_difference, approximate, exact)]
    n_small = len(LARGEST_SCORES)
    bounds = [bound(score, N_TERMS, V) for score in LARGEST_SCORES]
    orders = [costs.fitted_exponent(LARGEST_SCORES, errors[n_terms][:n_small]) for n_terms in COMPARED_TERMS]
    text = f"difference from exact attention, max|q.k| = {', '.join(map(str, LARGEST_SCORES))}"
    rows = [
        Claim("1.4", text, bounds, errors[N_TERMS][:n_small], relation="<="),
        Claim("1.4", "its order in the scores, K = 2, 3, 4", list(COMPARED_TERMS), orders, ORDER_TOLERANCE),
    ]
    values = {
        "largest_scores": list(scores),
        "agreement_terms": list(COMPARED_TERMS),
        "agreement_errors": list(errors.values()),
        "agreement_bounds": bounds,
        "agreement_orders": orders,
        "largest_output": exact[-1].abs().max().item(),
    }
    return rows, values


N_FEATURES = monomial_dimension(costs.HEAD_SIZE)  # M


def _count(L, linear):
    shapes = (L, N_FEATURES), (L, N_FEATURES), (L, costs.HEAD_SIZE)
    return costs.count_cost(kernel_attention, *shapes, linear=linear)


def claim_order_of_products(
    seed,
    linear=linear_multiplications,
    quadratic=quadratic_multiplications,
    memory=lambda L, M: L * M,
    attention=kernel_attention,
):
    """1.4: both orders give the same; one takes O(L M D) operations and L M numbers, the other O(L^2 M) and L^2."""
    Q, K, V = randn(new_generator(seed), 3, 50, costs.HEAD_SIZE) / math.sqrt(costs.HEAD_SIZE)
    phi_q, phi_k = monomial_features(Q), monomial_features(K)
    difference = largest_difference(attention(phi_q, phi_k, V, linear=True), attention(phi_q, phi_k, V, linear=False))
    L = costs.COUNTED_LENGTHS[-1]
    expected_linear = [linear(length, N_FEATURES, costs.HEAD_SIZE) for length in costs.COUNTED_LENGTHS]
    expected_quadratic = [quadratic(length, N_FEATURES, costs.HEAD_SIZE) for length in costs.COUNTED_LENGTHS]
    n_linear, n_quadratic = ([_count(length, order)[0] for length in costs.COUNTED_LENGTHS] for order in (True, False))
    expected_exponents = [costs.doubling_exponent(counts) for counts in (expected_linear, expected_quadratic)]
    exponents = [costs.doubling_exponent(counts) for counts in (n_linear, n_quadratic)]
    at = f"L = {L}, M = {N_FEATURES}, D = {costs.HEAD_SIZE}"
    rows = [
        agreement("1.4", "both orders of the products", difference),
        Claim("1.4", f"multiplications of the linear order, {at}", expected_linear[-1], n_linear[-1]),
        Claim("1.4", "multiplications of the other order", expected_quadratic[-1], n_quadratic[-1]),
        Claim("1.4", "exponents of L in them", expected_exponents, exponents),
        Claim("1.4", "numbers in the linear order's largest tensor", memory(L, N_FEATURES), _count(L, linear=True)[1]),
    ]
    values = {
        "n_features": N_FEATURES,
        "linear_multiplications": n_linear,
        "quadratic_multiplications": n_quadratic,
        "linear_counted_exponent": exponents[0],
        "quadratic_counted_exponent": exponents[1],
        "linear_memory_gib": _count(L, linear=True)[1] * costs.FLOAT_BYTES / costs.GIB,
        "quadratic_memory_gib": _count(L, linear=False)[1] * costs.FLOAT_BYTES / costs.GIB,
    }
    return rows, values


def claim_crossing(seed, orders=orders_crossing, softmax=softmax_crossing):
    """1.4: the lengths from which the linear order takes fewer multiplications, found by counting (and bisection)."""
    lengths = range(1, costs.COUNTED_LENGTHS[-1])

    def first_cheaper(cost):
        return lengths[bisect.bisect_left(lengths, True, key=lambda L: _count(L, linear=True)[0] < cost(L))]

    from_orders = first_cheaper(lambda L: _count(L, linear=False)[0])
    from_softmax = first_cheaper(lambda L: costs.count_cost(softmax_attention, *[(L, costs.HEAD_SIZE)] * 3)[0])
    expected = [math.floor(crossing(N_FEATURES, costs.HEAD_SIZE)) + 1 for crossing in (orders, softmax)]
    rows = [
        Claim("1.4", "first L where the linear order is the cheaper one", expected[0], from_orders),
        Claim("1.4", "first L where it is cheaper than exact attention", expected[1], from_softmax),
    ]
    return rows, {"crossing_length_counted": from_orders, "softmax_crossing_length_counted": from_softmax}


def linear_attention(queries, keys, values):
    """The approximation from the heads themselves, feature maps included."""
    return kernel_attention(monomial_features(queries), monomial_features(keys), values)


def time_linear_attention(seed):
    """1.1 and 1.4: seconds by length of the exact attention, of both orders of the products, and of all the linear one.

    Values only. They are timed side by side, at each length in turn: a crossing of curves that were taken at different
    moments would be one of the machine's moods.
    """
    seconds = {"linear": [], "quadratic": [], "linear_with_features": [], "softmax": []}
    for L in progress(costs.TIMED_LENGTHS, "timed lengths"):
        Q, K, V = costs.random_heads(seed, L, costs.HEAD_SIZE)
        phi_q, phi_k = monomial_features(Q), monomial_features(K)
        for name, function, args in (
            ("linear", kernel_attention, (phi_q, phi_k, V, True)),
            ("quadratic", kernel_attention, (phi_q, phi_k, V, False)),
            ("linear_with_features", linear_attention, (Q, K, V)),
            ("softmax", softmax_attention, (Q, K, V)),
        ):
            seconds[name].append(costs.median_seconds(function, *args))
    exact, approximate = seconds["softmax"], seconds["linear_with_features"]
    values = {
        "timed_lengths": list(costs.TIMED_LENGTHS),
        "crossing_length": costs.crossing_length(costs.TIMED_LENGTHS, seconds["linear"], seconds["quadratic"]),
        "softmax_crossing_length": costs.crossing_length(costs.TIMED_LENGTHS, approximate, exact),
        "speed_up_at_longest": exact[-1] / approximate[-1],
    }
    return [], values | {f"{name}_seconds": curve for name, curve in seconds.items()}
