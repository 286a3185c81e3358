"""The networks: sizes, equations written as loops, invariances."""

import math

import pytest
import torch

from editions import EDITIONS
from models import CNN, MLP, get_number_trainable_params

# The handouts' architectures counted by hand: weights and biases of conv1, conv2 and the three affine layers.
PARAMS = {
    ("2022-23", False): (8 * 25 + 8) + (16 * 72 + 16) + (576 * 600 + 600) + (600 * 120 + 120) + (120 * 10 + 10),
    ("2022-23", True): (8 * 9 + 8) + (16 * 72 + 16) + (576 * 600 + 600) + (600 * 120 + 120) + (120 * 10 + 10),
    ("2023-24", False): 224_892,
    ("2023-24", True): 224_892,
    ("2021-22", False): 769_930,
    ("2021-22", True): 769_930,
}


@pytest.mark.parametrize(("edition", "no_maxpool"), PARAMS)
def test_parameter_counts_and_shapes(edition, no_maxpool):
    model = CNN(0.3, no_maxpool, edition)
    assert get_number_trainable_params(model) == PARAMS[edition, no_maxpool]
    log_probs = model(torch.rand(3, 1, 28, 28))
    assert log_probs.shape == (3, EDITIONS[edition].n_classes)
    torch.testing.assert_close(log_probs.exp().sum(dim=1), torch.ones(3))
    assert model(torch.rand(2, 784)).shape == (2, EDITIONS[edition].n_classes)


def test_frozen_parameters_are_not_counted():
    model = CNN(0.3)
    assert get_number_trainable_params(model) == 420_906
    model.conv1.requires_grad_(False)
    assert get_number_trainable_params(model) == 420_906 - 208


def convolve(x, conv):
    """Convolution written as loops: x (channels, height, width) as nested lists, one output at a time."""
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.padding[0]
    height = (len(x[0]) + 2 * padding - kernel) // stride + 1
    weight, bias = conv.weight.tolist(), conv.bias.tolist()

    def pixel(channel, row, column):
        inside = 0 <= row < len(x[0]) and 0 <= column < len(x[0])
        return x[channel][row][column] if inside else 0.0

    return [
        [
            [
                bias[k]
                + sum(
                    weight[k][c][i][j] * pixel(c, row * stride + i - padding, column * stride + j - padding)
                    for c in range(len(x))
                    for i in range(kernel)
                    for j in range(kernel)
                )
                for column in range(height)
            ]
            for row in range(height)
        ]
        for k in range(len(weight))
    ]


def relu(plane):
    return [[max(value, 0.0) for value in row] for row in plane]


def pool(plane):
    n = len(plane) // 2
    return [[max(plane[2 * i + a][2 * j + b] for a in (0, 1) for b in (0, 1)) for j in range(n)] for i in range(n)]


def affine(x, layer):
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [sum(w * value for w, value in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


@pytest.mark.parametrize("no_maxpool", [False, True])
def test_the_forward_pass_is_the_handouts_network_written_as_loops(no_maxpool):
    torch.manual_seed(0)
    model = CNN(0.3, no_maxpool, "2023-24").double().eval()
    x = torch.rand(1, 1, 28, 28, dtype=torch.float64)
    planes = x[0].tolist()
    for conv in (model.conv1, model.conv2):
        planes = [relu(plane) for plane in convolve(planes, conv)]
        if not no_maxpool:
            planes = [pool(plane) for plane in planes]
    features = [value for plane in planes for row in plane for value in row]
    features = [max(value, 0.0) for value in affine(features, model.fc1)]
    features = [max(value, 0.0) for value in affine(features, model.fc2)]
    scores = affine(features, model.fc3)
    log_sum = math.log(sum(math.exp(score) for score in scores))
    expected = torch.tensor([[score - log_sum for score in scores]], dtype=torch.float64)
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(("edition", "n_params"), [("2022-23", 544_330), ("2023-24", 290_204)])
def test_the_fully_connected_counterpart(edition, n_params):
    model = MLP(0.3, edition)
    assert get_number_trainable_params(model) == n_params
    log_probs = model(torch.rand(3, 1, 28, 28))
    assert log_probs.shape == (3, EDITIONS[edition].n_classes)
    torch.testing.assert_close(log_probs.exp().sum(dim=1), torch.ones(3))


def test_the_fully_connected_network_can_undo_an_order_of_the_pixels_and_the_convolutional_one_cannot():
    torch.manual_seed(0)
    x, order = torch.rand(3, 784), torch.randperm(784)
    model, permuted = MLP(0.0).eval(), MLP(0.0).eval()
    permuted.load_state_dict(model.state_dict())
    permuted.fc1.weight.data = model.fc1.weight[:, order].detach()
    torch.testing.assert_close(permuted(x[:, order]), model(x))
    cnn = CNN(0.0).eval()
    assert not torch.allclose(cnn(x[:, order]), cnn(x))


def test_dropout_only_in_training():
    torch.manual_seed(0)
    model, x = CNN(0.5), torch.rand(4, 784)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_an_image_does_not_depend_on_its_batch():
    torch.manual_seed(0)
    model, x = CNN(0.3).eval(), torch.rand(5, 784)
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]))
