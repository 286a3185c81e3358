"""Attention: its heads (2021-22, 1.3), pixels as tokens (2022-23, 1.2) and what it costs (2023-24, 1.1)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from theory import costs
from theory.checks import Claim, agreement, largest_difference, new_generator, randn
from theory.convolution import convolve


def attention_matrix(W_Q, W_K):
    """A = W_Q W_K^T, of rank at most d, since Q K^T = X W_Q W_K^T X^T (2021-22, 1.3a)."""
    return W_Q @ W_K.T


def transform_head(W_Q, W_K, B):
    """(W_Q B) (W_K B^-T)^T = W_Q B B^-1 W_K^T = A: another head with the same probabilities (2021-22, 1.3b)."""
    return W_Q @ B, W_K @ torch.linalg.inv(B).T


def head_dimension(n, d):
    """2 n d - d^2 directions in which A can move: the weights of a head, less those of B (2021-22, 1.3b)."""
    return 2 * n * d - d**2


def pixel_attention(x):
    """P = softmax(x' x'^T), Z = P x': one pixel is one token and W_Q = W_K = W_V = 1 (2022-23, 1.2).

    Shapes:
        x: (n_pixels, 1)
        returns P (n_pixels, n_pixels), Z (n_pixels, 1)
    """
    alpha = torch.softmax(x @ x.T, dim=-1)
    return alpha, alpha @ x


def softmax_attention(queries, keys, values):
    """Z = softmax(Q K^T) V, all L x D; 1 / sqrt(D), where it is wanted, belongs to Q (2023-24, 1.1)."""
    return torch.softmax(queries @ keys.T, dim=-1) @ values


def softmax_multiplications(L, D):
    """O(L^2 D): L^2 D multiplications for Q K^T, as many for P V, and P holds L^2 numbers (2023-24, 1.1)."""
    return 2 * L**2 * D


N_TOKENS = 7
HEAD_SHAPES = ((5, 1), (8, 3), (12, 4), (6, 6))  # (n, d) with d <= n
N_HEADS = 2


def _fused_probabilities(queries, keys):
    """softmax(Q K^T) by PyTorch's attention: with the identity for V it returns the probabilities themselves."""
    return F.scaled_dot_product_attention(queries, keys, torch.eye(len(keys), dtype=keys.dtype), scale=1.0)


def claim_attention_rank(seed, matrix=attention_matrix):
    """2021-22, 1.3a: the probabilities of each head are Softmax(X A X^T), and A has rank at most d."""
    generator = new_generator(seed)
    differences, ranks, bounds, spectra, unconstrained = [], [], [], [], []
    for n, d in HEAD_SHAPES:
        X = randn(generator, N_TOKENS, n)
        for _ in range(N_HEADS):
            W_Q, W_K = randn(generator, 2, n, d) / math.sqrt(n)  # scores of size one
            A = matrix(W_Q, W_K)
            alpha = torch.softmax(X @ A @ X.T, dim=-1)
            differences.append(largest_difference(alpha, _fused_probabilities(X @ W_Q, X @ W_K)))
            ranks.append(int(torch.linalg.matrix_rank(A)))
            bounds.append(d)
        singular_values = torch.linalg.svdvals(A)
        spectra.append((singular_values / singular_values[0]).tolist())
        unconstrained.append(int(torch.linalg.matrix_rank(randn(generator, n, n))))
    rows = [
        agreement("1.3a", "Softmax(X A X^T) against PyTorch's attention", max(differences)),
        Claim("1.3a", "rank of A in two heads each, at most d", bounds, ranks, relation="<="),
    ]
    vanishing = [spectrum[d] for spectrum, (n, d) in zip(spectra, HEAD_SHAPES, strict=True) if d < n]
    values = {
        "head_shapes": [list(shape) for shape in HEAD_SHAPES],
        "ranks": ranks[::N_HEADS],
        "unconstrained_ranks": unconstrained,
        "spectra": spectra,
        "largest_vanishing_singular_value": max(vanishing),
    }
    return rows, values


CONDITION_NUMBERS = (1.0, 10.0, 1e4)  # of B; with 1, B is orthogonal and B^-T = B
TRANSFORMED_TOLERANCE = 1e-9  # rounding grows with the condition number of B


def _matrix_of_condition(condition, size, generator):
    U, _, V = torch.linalg.svd(randn(generator, size, size))
    return U * torch.logspace(0, -math.log10(condition), size, dtype=U.dtype) @ V


def claim_equal_heads(seed, transform=transform_head, dimension=head_dimension):
    """2021-22, 1.3b: W_Q B and W_K B^-T give the same probabilities, and nothing else in a head is redundant.

    The second is the rank of the Jacobian of A by (W_Q, W_K), less than their number of weights by the d^2 of B.
    """
    generator = new_generator(seed)
    n, d = 8, 3
    X = randn(generator, N_TOKENS, n)
    W_Q, W_K = randn(generator, 2, n, d) / math.sqrt(n)
    alpha = _fused_probabilities(X @ W_Q, X @ W_K)
    differences, B_in_both = [], []
    for condition in CONDITION_NUMBERS:
        B = _matrix_of_condition(condition, d, generator)
        W_Q2, W_K2 = transform(W_Q, W_K, B)
        differences.append(largest_difference(_fused_probabilities(X @ W_Q2, X @ W_K2), alpha))
        B_in_both.append(largest_difference(_fused_probabilities(X @ W_Q @ B, X @ W_K @ B), alpha))

    jacobians = torch.autograd.functional.jacobian(attention_matrix, (W_Q, W_K))  # each (n, n, n, d)
    jacobian = torch.cat([J.reshape(n * n, n * d) for J in jacobians], dim=1)
    rank = int(torch.linalg.matrix_rank(jacobian))
    rows = [
        agreement("1.3b", "probabilities with W_Q B and W_K B^-T", max(differences), TRANSFORMED_TOLERANCE),
        Claim("1.3b", f"directions in which A moves, n = {n}, d = {d}", dimension(n, d), rank),
    ]
    values = {
        "condition_numbers": list(CONDITION_NUMBERS),
        "transformed_difference": max(differences),
        "B_in_both_differences": B_in_both,
        "head_shape": [n, d],
        "head_weights": jacobian.shape[1],
        "head_dimension": rank,
    }
    return rows, values


def claim_pixel_attention(seed, attention=pixel_attention):
    """2022-23, 1.2: P = softmax(x' x'^T) and Z = P x', against two attentions of PyTorch."""
    x = randn(new_generator(seed), 4 * 5, 1)  # an image of 4 x 5 pixels, flattened
    alpha, Z = attention(x)
    layer = nn.MultiheadAttention(embed_dim=1, num_heads=1, bias=False, dtype=x.dtype)
    for weight in layer.parameters():  # W_Q, W_K, W_V and the output's projection, 1 x 1 each
        nn.init.ones_(weight)
    with torch.no_grad():
        layer_Z, layer_alpha = layer(x, x, x)
    fused_Z = F.scaled_dot_product_attention(x, x, x, scale=1.0)
    differences = {
        "P against nn.MultiheadAttention": largest_difference(alpha, layer_alpha),
        "Z against nn.MultiheadAttention": largest_difference(Z, layer_Z),
        "Z against scaled_dot_product_attention": largest_difference(Z, fused_Z),
    }
    rows = [agreement("1.2", text, difference) for text, difference in differences.items()]
    return rows, {}


SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))  # the classical filter for vertical edges


def edge_map(image):
    """A convolution that keeps the size: `SOBEL` over the image (H, W), zeros around it."""
    return convolve(image[None, None], image.new_tensor(SOBEL), padding=1)[0, 0]


def attention_map(image):
    """`pixel_attention` of an image (H, W), put back into its shape."""
    return pixel_attention(image.reshape(-1, 1))[1].view_as(image)


def shuffled_and_back(layer, image, order):
    """`layer` on the image with its pixels in another order, and the output's pixels put back into theirs."""
    shuffled = image.flatten()[order].view_as(image)
    return layer(shuffled).flatten()[order.argsort()].view_as(image)


def drawn_image(side=16):
    """A disc that darkens upwards with a bar across it, in [0, 1]: an image whose places matter."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, side, dtype=torch.float64)] * 2, indexing="ij")
    disc = (x**2 + y**2 < 0.7) * (0.5 + 0.3 * y)
    return torch.where((x - y).abs() < 0.15, 1.0, disc)


def claim_pixel_permutation(seed, attention=attention_map, convolution=edge_map):
    """2022-23, 1.2: with no positions, permuting the pixels only permutes Z; a convolution it destroys."""
    image = drawn_image()
    order = torch.randperm(image.numel(), generator=new_generator(seed))
    change = {}
    for name, layer in (("attention", attention), ("convolution", convolution)):
        Z = layer(image)
        change[name] = ((shuffled_and_back(layer, image, order) - Z).norm() / Z.norm()).item()
    rows = [
        agreement("1.2", "relative change of Z when pixels are permuted", change["attention"]),
        Claim("1.2", "the same for a convolution: another output", 0.5, change["convolution"], relation=">="),
    ]
    return rows, {f"{name}_permutation_change": value for name, value in change.items()}


def claim_attention_cost(seed, multiplications=softmax_multiplications, memory=lambda L: L**2):
    """2023-24, 1.1: O(L^2 D) in time and L^2 numbers in memory, counted on the attention itself."""
    L = costs.COUNTED_LENGTHS[-1]
    narrow = [costs.count_cost(softmax_attention, *[(length, costs.HEAD_SIZE)] * 3) for length in costs.COUNTED_LENGTHS]
    n_mult_wide, _ = costs.count_cost(softmax_attention, *[(L, costs.WIDE_HEAD_SIZE)] * 3)
    expected = [multiplications(length, costs.HEAD_SIZE) for length in costs.COUNTED_LENGTHS]
    n_mult = [n for n, _ in narrow]
    text = f"multiplications at L = {L}, D = {costs.HEAD_SIZE} and {costs.WIDE_HEAD_SIZE}"
    rows = [
        Claim("1.1", text, [expected[-1], multiplications(L, costs.WIDE_HEAD_SIZE)], [n_mult[-1], n_mult_wide]),
        Claim("1.1", "exponent of L in them", costs.doubling_exponent(expected), costs.doubling_exponent(n_mult)),
        Claim("1.1", f"numbers in the largest tensor at L = {L}", memory(L), narrow[-1][1]),
    ]
    values = {
        "head_size": costs.HEAD_SIZE,
        "softmax_counted_exponent": costs.doubling_exponent(n_mult),
        "counted_lengths": list(costs.COUNTED_LENGTHS),
        "softmax_multiplications": n_mult,
        "score_matrix_gib": [entries * costs.FLOAT_BYTES / costs.GIB for _, entries in narrow],
    }
    return rows, values
