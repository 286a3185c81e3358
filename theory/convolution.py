"""Convolutions: their parameters (2021-22, 1.1 and 1.2) and the matrix that each of them is (2022-23, 1.1).

Sizes are named as in the statement of 2022-23: H x W images, M x N filters, and a size is (H, W, M, N).
"""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from models import get_number_trainable_params
from theory.checks import Claim, agreement, largest_difference, new_generator, randn


def affine_parameters(n_inputs, n_outputs):
    """(n_inputs + 1) n_outputs: a weight for each input and a bias; a kernel is one output (2021-22, 1.1 and 1.2)."""
    return (n_inputs + 1) * n_outputs


def output_side(side, kernel, stride=1):
    """floor((side - kernel) / stride) + 1: the places of a kernel along one side, without padding (2021-22, 1.1)."""
    return (side - kernel) // stride + 1


def convolution_output(H, W, M, N):
    """H' = H - M + 1, W' = W - N + 1: the places of the filter, stride 1, no padding (2022-23, 1.1a)."""
    return output_side(H, M), output_side(W, N)


def convolution_matrix(kernel, H, W):
    """M[(a - 1) W' + b, (p - 1) W + q] = kernel[p - a + 1, q - b + 1] inside the filter, else 0, for
    the place (a, b) in the output and the pixel (p, q), both from 1 (2022-23, 1.1b).

    Inside is 0 <= p - a < M and 0 <= q - b < N. Then vec(conv(kernel, x)) = M vec(x), vec row by row, not flipped.
    With vec column by column, (a - 1) W' + b becomes (b - 1) H' + a and (p - 1) W + q becomes (q - 1) H + p.

    Shapes:
        kernel: (M, N)
        returns (H' W', H W)
    """
    M, N = kernel.shape
    H_out, W_out = convolution_output(H, W, M, N)
    a, b, p, q = torch.meshgrid(*map(torch.arange, (H_out, W_out, H, W)), indexing="ij")
    i, j = p - a, q - b  # the place inside the filter, from 0
    inside = (i >= 0) & (i < M) & (j >= 0) & (j < N)
    entries = torch.where(inside, kernel[i.clamp(0, M - 1), j.clamp(0, N - 1)], 0.0)  # (H', W', H, W)
    return entries.reshape(H_out * W_out, H * W)


def nonzero_entries(H, W, M, N):
    """H' W' M N entries of M are not 0: each of its H' W' rows holds the filter once (2022-23, 1.1b)."""
    H_out, W_out = convolution_output(H, W, M, N)
    return H_out * W_out * M * N


def pooled_size(H, W, M, N):
    """floor(H'/2) floor(W'/2): the size of h_2, after 2 x 2 pooling with stride 2 (2022-23, 1.1c)."""
    H_out, W_out = convolution_output(H, W, M, N)
    return (H_out // 2) * (W_out // 2)


def cnn_parameters(H, W, M, N, n_classes=3):
    """MN + 3 floor(H'/2) floor(W'/2): the filter and the output layer, biases ignored (2022-23, 1.1c)."""
    return M * N + n_classes * pooled_size(H, W, M, N)


def dense_parameters(H, W, M, N, n_classes=3):
    """(HW + 3) floor(H'/2) floor(W'/2): a hidden layer of h_2's size, the output layer, no biases (2022-23, 1.1c)."""
    return (H * W + n_classes) * pooled_size(H, W, M, N)


def convolve(x, kernel, **kwargs):
    """PyTorch's convolution of images (n_examples, 1, H, W) with one filter (M, N)."""
    return F.conv2d(x, kernel[None, None], **kwargs)


CHANNELS, IMAGE_SIDE, N_OUTPUTS = 3, 28, 10
N_KERNELS, KERNEL_SIDE = 8, 5
POOL_SIDE, POOL_STRIDE = 4, 2
HIDDEN_SIZE = 100
N_INPUTS = CHANNELS * IMAGE_SIDE**2


def _build_cnn():
    """The layers of the network of 2021-22, by name; the size of the last one comes from running the others."""
    conv = nn.Conv2d(CHANNELS, N_KERNELS, KERNEL_SIDE)
    pool = nn.MaxPool2d(POOL_SIDE, POOL_STRIDE)
    h2 = pool(conv(torch.zeros(1, CHANNELS, IMAGE_SIDE, IMAGE_SIDE)))
    return nn.ModuleDict({"conv": conv, "pool": pool, "linear": nn.Linear(h2.numel(), N_OUTPUTS)})


def claim_cnn_parameters(seed, parameters=affine_parameters, side=output_side):
    """2021-22, 1.1: activations and parameters of the CNN, against the network built and run."""
    net = _build_cnn()
    h1 = net["conv"](torch.zeros(CHANNELS, IMAGE_SIDE, IMAGE_SIDE))
    h2 = net["pool"](h1)
    sizes = [list(h.movedim(0, 2).shape) for h in (h1, h2)]  # height, width, channels, as in the handout
    conv_params, linear_params, cnn_params = map(get_number_trainable_params, (net["conv"], net["linear"], net))

    h1_side = side(IMAGE_SIDE, KERNEL_SIDE)
    h2_side = side(h1_side, POOL_SIDE, POOL_STRIDE)
    expected_conv = parameters(CHANNELS * KERNEL_SIDE**2, N_KERNELS)
    expected_linear = parameters(N_KERNELS * h2_side**2, N_OUTPUTS)
    rows = [
        Claim("1.1", "activations after the convolution", [h1_side, h1_side, N_KERNELS], sizes[0]),
        Claim("1.1", "activations after max pooling", [h2_side, h2_side, N_KERNELS], sizes[1]),
        Claim("1.1", "parameters of the convolution", expected_conv, conv_params),
        Claim("1.1", "parameters of the linear layer", expected_linear, linear_params),
        Claim("1.1", "parameters of the CNN", expected_conv + expected_linear, cnn_params),
    ]
    return rows, {"conv_params": conv_params, "cnn_params": cnn_params}


def claim_mlp_parameters(seed, parameters=affine_parameters):
    """2021-22, 1.2: parameters with a fully connected layer of 100 in place of convolution and pooling."""
    hidden, linear = nn.Linear(N_INPUTS, HIDDEN_SIZE), nn.Linear(HIDDEN_SIZE, N_OUTPUTS)
    hidden_params, linear_params = map(get_number_trainable_params, (hidden, linear))
    mlp_params = hidden_params + linear_params
    expected_hidden = parameters(N_INPUTS, HIDDEN_SIZE)
    expected = expected_hidden + parameters(HIDDEN_SIZE, N_OUTPUTS)
    rows = [
        Claim("1.2", "parameters of the hidden layer", expected_hidden, hidden_params),
        Claim("1.2", "parameters of the fully connected network", expected, mlp_params),
    ]
    return rows, {"mlp_params": mlp_params, "ratio": mlp_params / get_number_trainable_params(_build_cnn())}


def claim_weight_sharing(seed, inputs_seen=CHANNELS * KERNEL_SIDE**2):
    """2021-22, 1.2, why: as a fully connected layer the convolution is almost empty and shares what is left.

    Column k of that layer's matrix is the convolution of the image whose only non-zero value is the k-th.
    """
    kernels = randn(new_generator(seed), N_KERNELS, CHANNELS, KERNEL_SIDE, KERNEL_SIDE)
    units = torch.eye(N_INPUTS, dtype=torch.float64).view(N_INPUTS, CHANNELS, IMAGE_SIDE, IMAGE_SIDE)
    columns = F.conv2d(units, kernels).flatten(1)  # (n_inputs, n_activations)
    connected = columns != 0
    seen = connected.sum(dim=0)
    n_distinct = len(columns[connected].unique())
    rows = [
        Claim("1.2", "inputs that an activation sees, fewest and most", [inputs_seen] * 2, [*map(int, seen.aminmax())]),
        Claim("1.2", "different weights in all the connections", inputs_seen * N_KERNELS, n_distinct),
    ]
    n_connections = int(connected.sum())
    values = {
        "dense_weights": columns.numel(),
        "dense_connections": n_connections,
        "dense_sparsity": 1 - n_connections / columns.numel(),
        "distinct_weights": n_distinct,
        "uses_of_a_weight": n_connections / n_distinct,
    }
    return rows, values


SIDES = range(2, 8)  # of the images on which the formulas are tried, in all combinations with all filters
EXAMPLE_SIZES = ((28, 28, 5, 5), (28, 28, 4, 4), (28, 28, 3, 3), (9, 12, 3, 4), (7, 7, 3, 3))
CURVE_SIDES = (8, 12, 16, 24, 28, 32, 48, 64, 96, 128, 192, 224)  # of square images
CURVE_FILTER = 5


def _image_sizes(smallest_output=1):
    """All sizes with at least `smallest_output` places for the filter each way."""
    sides = [(side, filter_side) for side in SIDES for filter_side in range(1, side - smallest_output + 2)]
    return [(H, W, M, N) for (H, M), (W, N) in itertools.product(sides, sides)]


def _unit_columns(kernel, H, W):
    """The matrix of the convolution, column by column: PyTorch's convolution of the H W unit images."""
    units = torch.eye(H * W, dtype=kernel.dtype).view(H * W, 1, H, W)
    return convolve(units, kernel).flatten(1).T  # (H' W', H W)


def claim_convolution_size(seed, output=convolution_output):
    """2022-23, 1.1a: z is H' x W'."""
    sizes = _image_sizes()
    n_wrong = 0
    for H, W, M, N in sizes:
        z = convolve(torch.zeros(1, 1, H, W), torch.zeros(M, N))
        n_wrong += tuple(z.shape[2:]) != tuple(output(H, W, M, N))
    return [Claim("1.1a", f"sizes, of {len(sizes)}, where z is not H' x W'", 0, n_wrong)], {}


def claim_convolution_matrix(seed, matrix=convolution_matrix, nonzero=nonzero_entries):
    """2022-23, 1.1b: z' = M x' on random images, every entry of M, and how many of them are not 0, for all sizes."""
    generator = new_generator(seed)
    sizes = _image_sizes()
    difference, wrong_entries, wrong_counts = 0.0, 0, 0
    for H, W, M, N in sizes:
        kernel, x = randn(generator, M, N), randn(generator, 1, 1, H, W)
        conv_matrix, columns = matrix(kernel, H, W), _unit_columns(kernel, H, W)
        z = convolve(x, kernel)
        difference = max(difference, largest_difference(conv_matrix @ x.flatten(), z.flatten()))
        wrong_entries += int((conv_matrix != columns).sum())
        wrong_counts += int((columns != 0).sum()) != nonzero(H, W, M, N)
    rows = [
        agreement("1.1b", f"M x' against conv2d, {len(sizes)} sizes", difference),
        Claim("1.1b", "entries of M that are not conv2d's of a unit image", 0, wrong_entries),
        Claim("1.1b", "sizes where M has not H'W'MN entries other than 0", 0, wrong_counts),
    ]
    H, W, M, N = EXAMPLE_SIZES[0]
    columns = _unit_columns(randn(generator, M, N), H, W)
    n_nonzero = int((columns != 0).sum())
    values = {
        "matrix_cases": len(sizes),
        "matrix_difference": difference,
        "matrix_wrong_entries": wrong_entries,
        "matrix_example": [H, W, M, N],
        "matrix_shape": list(columns.shape),
        "matrix_entries": columns.numel(),
        "matrix_nonzero": n_nonzero,
        "matrix_sparsity": 1 - n_nonzero / columns.numel(),
        "matrix_distinct_weights": len(columns[columns != 0].unique()),
    }
    return rows, values


def _build_networks(H, W, M, N, n_classes=3):
    """The two networks of 2022-23, 1.1c, without biases: that of Fig. 1, and the one with a fully connected layer.

    The size of h_2, which that layer has to give, comes from running the first network; it is returned third.
    """
    front = nn.Sequential(nn.Conv2d(1, 1, (M, N), bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    n_features = front(torch.zeros(1, 1, H, W)).shape[1]
    cnn = nn.Sequential(front, nn.Linear(n_features, n_classes, bias=False), nn.Softmax(dim=-1))
    with torch.device("meta"):  # counted only: the hidden layer of a large image would fill the memory
        hidden, linear = nn.Linear(H * W, n_features, bias=False), nn.Linear(n_features, n_classes, bias=False)
    return cnn, nn.Sequential(nn.Flatten(), hidden, linear, nn.Softmax(dim=-1)), n_features


def claim_network_parameters(seed, cnn=cnn_parameters, dense=dense_parameters):
    """2022-23, 1.1c: parameters of both networks, odd H' and W' included, against networks that are built."""
    sizes = _image_sizes(smallest_output=2)  # a smaller output has nothing to pool
    wrong_cnn = wrong_dense = 0
    for size in sizes:
        cnn_net, dense_net, _ = _build_networks(*size)
        wrong_cnn += get_number_trainable_params(cnn_net) != cnn(*size)
        wrong_dense += get_number_trainable_params(dense_net) != dense(*size)
    rows = [
        Claim("1.1c", f"sizes, of {len(sizes)}, where the CNN's count is wrong", 0, wrong_cnn),
        Claim("1.1c", f"sizes, of {len(sizes)}, where the dense network's is wrong", 0, wrong_dense),
    ]
    examples = [_parameter_example(*size) for size in EXAMPLE_SIZES]
    curve = [_parameter_example(side, side, CURVE_FILTER, CURVE_FILTER) for side in CURVE_SIDES]
    values = {
        "parameter_cases": len(sizes),
        "parameter_cases_odd": sum(any(side % 2 for side in convolution_output(*size)) for size in sizes),
        "parameter_examples": examples,
        "parameter_curve": {key: [point[key] for point in curve] for key in ("H", "M", "cnn", "dense")},
        "cnn_params": examples[0]["cnn"],
        "ratio": examples[0]["ratio"],
    }
    return rows, values


def _parameter_example(H, W, M, N):
    """Counts of the built networks for one size; `unrounded` is what H'W'/4 without the floors would give for h_2."""
    cnn_net, dense_net, n_features = _build_networks(H, W, M, N)
    n_cnn, n_dense = get_number_trainable_params(cnn_net), get_number_trainable_params(dense_net)
    H_out, W_out = convolution_output(H, W, M, N)
    sizes = {"H": H, "W": W, "M": M, "N": N, "H_out": H_out, "W_out": W_out}
    return sizes | {
        "features": n_features, "unrounded": H_out * W_out / 4, "cnn": n_cnn, "dense": n_dense, "ratio": n_dense / n_cnn
    }  # fmt: skip
