"""Question 2 of all editions: the convolutional network, with and without max pooling."""

import inspect
import itertools
from typing import NamedTuple

import torch.nn.functional as F
from torch import nn

from checks.probe import Failure, Question, numbers

SIDE, BATCH_SIZE = 28, 3  # pixels; images of the check
POOLS = ("max_pool2d", "avg_pool2d")
NORMS = ("batch_norm", "layer_norm", "group_norm")
SIZES = {  # of a convolution, with the words for each
    "conv-channels": "output channels",
    "conv-kernel": "as the size of its kernels",
    "conv-stride": "as its stride",
    "conv-padding": "as its padding",
    "pooling": "behind it",
}


class Network(NamedTuple):
    """What a statement asks for; a convolution is (output channels, kernel, stride, padding)."""

    number: str  # of the question
    convs: tuple
    affine: tuple  # output features
    dropout: float | None  # None: of the student's choice
    n_parameters: int
    pooling: str = "max_pool2d 2x2 stride 2"  # behind each convolution


NETWORKS = {
    "2021-22": Network("2.2", ((16, 3, 1, 1), (32, 3, 1, 0)), (600, 120, 10), None, 769_930),
    "2022-23": Network("2.4", ((8, 5, 1, 2), (16, 3, 1, 0)), (600, 120, 10), 0.3, 420_906),
    "2023-24": Network("2.1", ((8, 3, 1, 1), (16, 3, 1, 0)), (320, 120, 4), 0.7, 224_892),
    "no_maxpool": Network("2.2", ((8, 3, 2, 1), (16, 3, 2, 0)), (320, 120, 4), 0.7, 224_892, "no pooling"),
}


def single(value):
    """A size that torch takes as a number or as a pair; the two numbers of a pair are equal in these networks."""
    return value[0] if isinstance(value, tuple | list) and len(set(value)) == 1 else value


def conv_shape(call):
    """[output channels, kernel, stride, padding] of a recorded convolution."""
    given = call.arguments("input", "weight", "bias", "stride", "padding", stride=1, padding=0)
    kernel, padding = single(tuple(given["weight"].shape[2:])), single(given["padding"])
    padding = {"same": (kernel - 1) // 2, "valid": 0}.get(padding, padding)
    return [len(given["weight"]), kernel, single(given["stride"]), padding]


def pool_shape(call):
    given = call.arguments("input", "kernel_size", "stride", "padding", stride=None, padding=0)
    kernel, padding = single(given["kernel_size"]), single(given["padding"])
    stride = single(given["stride"] or kernel)
    return f"{call.name} {kernel}x{kernel} stride {stride}" + f" padding {padding}" * bool(padding)


class CNN(Question):
    """Two times convolution, ReLU and max pooling, then affine, ReLU, dropout, affine, ReLU, affine, log-softmax."""

    output, keywords = "log p", {}
    n_off = 0  # parameters more or less than the statement's network has
    table = """
                              | x = pad(args[0].reshape(-1, 1, SIDE, SIDE), [self.border] * 4)
                              | f = relu
    activation: tanh, sigmoid, gelu, leaky_relu | f = $
                              | relus = [1, 1, 1, 1, 0]  # behind the two convolutions and the three affine layers
    relu-missing: 0, 1, 2, 3  | relus = [n != $ for n in range(4)] + [0]
    relu-on-output            | relus = [1, 1, 1, 1, 1]
                              | dropouts = [2]  # behind the first affine layer
    dropout-missing           | dropouts = []
    dropout-place: 0, 1, 3, 4 | dropouts = [$]
    dropout-twice: 0, 1, 2, 3, 4 | dropouts = [2, $]
                              | for n, (layer, pools) in enumerate(self.chain):
                              |     x = layer.repeat(x.flatten(1) if layer.name == "linear" else x)
                              |     x = f(x) if relus[n] else x
                              |     for pool in pools:
                              |         x = pool.repeat(x)
                              |     for _ in range(dropouts.count(n)):
                              |         x = self.drop(x)
                              |     parts[f"{layer.name} {n + 1}"] = x
                              | result = log_softmax(x, dim=1)
    log-softmax-missing       | result = x
    softmax-without-log       | result = softmax(x, dim=1)
    log-softmax-dimension     | result = log_softmax(x, dim=0)
    """

    def prepare(self):
        self.network = NETWORKS["no_maxpool" if self.keywords else self.edition]
        self.number, self.dropout = self.network.number, self.network.dropout
        names = [name for name in inspect.signature(self.code["CNN"]).parameters if name != "no_maxpool"]
        self.module = self.build("CNN", *[self.dropout or 0.5][: len(names)], **self.keywords)
        images = numbers(BATCH_SIZE, 1, SIDE, SIDE)
        self.first_that_runs(self.student, [images], [images.flatten(1)])  # flat, as some loaders give them
        self.chain = []  # (convolution or affine layer, the pooling behind it), as the student's forward calls them
        for call in self.calls:
            if call.name in ("conv2d", "linear"):
                self.chain.append((call, []))
            elif call.name in POOLS and self.chain:
                self.chain[-1][1].append(call)
        for (call, pools), (following, _) in itertools.pairwise(self.chain):
            if call.name == "conv2d" and not pools and call.result.numel() == 4 * following.x.numel():
                pools.append(call._replace(function=F.max_pool2d, name="max_pool2d", args=(None, 2)))  # by other means
        self.read_layers()
        self.calls.clear()

    def student(self, x):
        self.inputs = (x,)
        return self.call(self.module, x)

    def read_layers(self):
        """Compare the layers that forward calls with the statement's, and write `says`."""
        convs = [(call, conv_shape(call), pools) for call, pools in self.chain if call.name == "conv2d"]
        affine = [call for call, _ in self.chain if call.name == "linear"]
        for call in self.calls:
            if call.name in NORMS:
                self.name_mistake("extra-layer", [], f"It is a {call.name}.", call.where)
        n_parameters = sum(p.numel() for p in self.module.parameters())
        self.n_off = abs(n_parameters - self.network.n_parameters)
        if (len(convs), len(affine)) != (2, 3):
            modules = [layer for layer in self.module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
            if n_parameters > sum(p.numel() for layer in modules for p in layer.parameters()) and not self.found:
                raise Failure("it has parameters outside nn.Conv2d and nn.Linear", status="not recognised")
            details = f"There are {len(convs)} convolutions and {len(affine)} affine layers, and must be 2 and 3."
            return self.name_mistake("layer-number", ["conv2d", "linear"], details)
        self.border = (convs[0][0].x.shape[-1] - SIDE) // 2  # cells that F.pad puts around x
        convs[0][1][3] += self.border
        for layer, (call, shape, pools), wanted in zip(("first", "second"), convs, self.network.convs):
            pooling = " and ".join(map(pool_shape, pools)) or "no pooling"
            for (key, words), found, right in zip(SIZES.items(), (*shape, pooling), (*wanted, self.network.pooling)):
                if found != right:
                    details = f"The {layer} one has {found} {words}, and must have {right}."
                    self.name_mistake(key, [], details, call.where)
        for call, size in zip(affine, self.network.affine):
            if call.result.shape[-1] != size:
                details = f"It has {call.result.shape[-1]}, and must have {size}."
                self.name_mistake("affine-size", [], details, call.where)
        if self.edition != "2021-22" and not isinstance(getattr(self.module, "conv1", None), nn.Module):
            self.name_mistake("conv1-name", ["conv2d"])
        sizes = [f"{c}@{k}x{k}" + f" stride {s}" * (s > 1) + f" padding {p}" * (p > 0) for _, (c, k, s, p), _ in convs]
        self.says = " · ".join([*sizes, f"{n_parameters:,} parameters", "forward"])
        if not self.found and self.n_off:
            note = f"{n_parameters:,} parameters; the statement's network has {self.network.n_parameters:,}"
            self.notes = [f"{note}: is there a layer that forward does not use, or one without bias?"]

    def search(self, observed):
        if "layer-number" not in self.found:
            super().search(observed)


class CNNWithoutMaxPool(CNN):
    """The network of 2023-24, Question 2.2: strides of 2 in place of the pooling."""

    name, target, keywords = "CNN no_maxpool", "CNN", {"no_maxpool": True}

    @classmethod
    def fits(cls, code):
        return bool(code["CNN"]) and "no_maxpool" in inspect.signature(code["CNN"]).parameters

    def read_layers(self):
        super().read_layers()
        if {"conv-stride", "pooling"} <= self.found.keys():
            self.found = {}
            self.name_mistake("no-maxpool-ignored", ["max_pool2d"])
