"""What a convolution commutes with, and which of its filters respond to edges (2021-22, Questions 2.1 and 2.3)."""

import torch

from data.images import to_pixels
from options import UserError


def find(model, name):
    """The convolution called `name`, as Python writes it: `conv1`, or `convblock1[0]` inside an `nn.Sequential`."""
    path = name.replace("[", ".").replace("]", "")
    convolutions = {key: module for key, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)}
    if path not in convolutions:
        raise UserError(f"the network has no convolution called {name}; it has {', '.join(convolutions)}")
    return convolutions[path]


@torch.no_grad()
def equivariance(conv, X, n_examples=100):
    """How far `conv` is from commuting with a shift and with a quarter turn (2021-22, Question 2.1).

    conv(T x) - T conv(x), the largest difference over the largest value, away from the border, where pixels leave the
    image; of the first `n_examples` uint8 images X (n, 1, 28, 28). Returns {"shift", "rotation"}: 0 is equivariance.
    """
    x = to_pixels(X[:n_examples]).to(conv.weight.device)
    stride, border = conv.stride[0], conv.kernel_size[0]
    transforms = {  # each for the image, and for the map, whose cells are `stride` pixels apart
        "shift": (lambda x: x.roll(stride, dims=-1), lambda maps: maps.roll(1, dims=-1)),
        "rotation": (lambda x: x.rot90(dims=(-2, -1)),) * 2,
    }
    result, maps = {}, conv(x)
    for name, (transform_image, transform_maps) in transforms.items():
        difference = (conv(transform_image(x)) - transform_maps(maps))[..., border:-border, border:-border]
        result[name] = (difference.abs().max() / maps.abs().max()).item()
    return result


def edge_filters(weight, share=0.5):
    """The filters that go from negative weights on one side to positive ones on the other (2021-22, Question 2.3).

    These respond to edges. The two sides have to differ by at least `share` of the sum of the absolute weights. Where
    the other two sides differ by more than half as much, the edge is diagonal.

    weight: (n_filters, 1, height, width). Returns [{"filter": from 1, "direction"}].
    """
    found = []
    for number, kernel in enumerate(weight.detach().cpu()[:, 0], start=1):
        down, across = (torch.arange(n) - (n - 1) / 2 for n in kernel.shape)
        differences = (kernel.sum(dim=1) @ down.sign()).item(), (kernel.sum(dim=0) @ across.sign()).item()
        largest = max(map(abs, differences))
        if largest >= share * kernel.abs().sum():
            pairs = zip(differences, (("top", "bottom"), ("left", "right")))
            sides = [pair if value > 0 else pair[::-1] for value, pair in pairs if abs(value) > largest / 2]
            start, end = (" ".join(names) for names in zip(*sides))
            found.append({"filter": number, "direction": f"from {start} to {end}"})
    return found


def strengths(first, second):
    """The norms of the filters of two convolutions (2021-22, Question 2.3): {"filters", "inputs", "outputs"}.

    first, second: weights (out_channels, in_channels, height, width). Of the first the norm of each filter, of the
    second that of all kernels that read one input channel, and of all that write one output channel.
    """
    norm = torch.linalg.vector_norm
    return {
        "filters": norm(first, dim=(1, 2, 3)).tolist(),
        "inputs": norm(second, dim=(0, 2, 3)).tolist(),
        "outputs": norm(second, dim=(1, 2, 3)).tolist(),
    }
