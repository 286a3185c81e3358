"""Question 2.1 of 2021-22: how far a convolution is from commuting with a shift, and with a rotation."""

import torch

from data.images import to_pixels


@torch.no_grad()
def equivariance(conv, X):
    """How far `conv` is from commuting with a shift and with a quarter turn (2021-22, Question 2.1).

    conv(T x) - T conv(x), the largest difference over the largest value, away from the border, where pixels leave the
    image; uint8 images X (n_examples, 1, 28, 28). Returns {"shift", "rotation"}: 0 is equivariance.
    """
    x = to_pixels(X).to(conv.weight.device)
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
