"""What a trained convolution does: what it commutes with, its edge filters (2021-22, 2.1 and 2.3), its dead units."""

import torch

from data.images import to_pixels
from options import UserError

TINY = 1e-30  # below any sum of weights that are not all 0


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
        result[name] = (difference.abs().max() / maps.abs().max().clamp(min=TINY)).item()
    return result


def examine(model, X):
    """What the result says of the first two convolutions of a network, and of how they treat the uint8 images X."""
    conv1, conv2, *_ = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    found = {"equivariance": equivariance(conv1, X), "edges": edge_filters(conv1.weight)}
    return found | {"strengths": strengths(conv2.weight), "balances": balances(conv1.weight)}


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
        if largest >= share * kernel.abs().sum() > 0:
            pairs = zip(differences, (("top", "bottom"), ("left", "right")))
            sides = [pair if value > 0 else pair[::-1] for value, pair in pairs if abs(value) > largest / 2]
            start, end = (" ".join(names) for names in zip(*sides))
            found.append({"filter": number, "direction": f"from {start} to {end}"})
    return found


def strengths(weight):
    """The norms of the weights that read each input channel and that write each output channel (2021-22, 2.3).

    weight: (out_channels, in_channels, height, width). Returns {"inputs", "outputs"}.
    """
    norm = torch.linalg.vector_norm
    return {"inputs": norm(weight, dim=(0, 2, 3)).tolist(), "outputs": norm(weight, dim=(1, 2, 3)).tolist()}


def balances(weight):
    """Of each filter the sum of its weights over that of their absolute values (2022-23, Question 2.5).

    1 and -1 are sums over the patch, 0 is a difference, which is blind to evenly bright patches.

    weight: (n_filters, 1, height, width). Returns a list.
    """
    return (weight.sum(dim=(1, 2, 3)) / weight.abs().sum(dim=(1, 2, 3)).clamp(min=TINY)).tolist()


@torch.no_grad()
def dead_units(model, X, n_images=1000):
    """The share of each layer's units that are 0 behind the ReLU for all of the first `n_images` images.

    A unit is a channel of a convolution, or an output of an affine layer; no gradient comes back through a dead one
    (Lu et al., 2020). The last layer has no ReLU and is left out.

    X: (n, 1, 28, 28), uint8. Returns {"dead_units": {"conv1": share, ...}, "dead_images": how many images}.
    """
    *layers, _ = [(name, m) for name, m in model.named_modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    X, alive = X[:n_images], {}

    def note(name):
        return lambda module, inputs, output: alive.update({name: (output > 0).transpose(0, 1).flatten(1).any(dim=1)})

    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers]
    model.eval()
    model(to_pixels(X).to(next(model.parameters()).device))
    for hook in hooks:
        hook.remove()
    return {"dead_units": {name: 1 - alive[name].double().mean().item() for name, _ in layers}, "dead_images": len(X)}
