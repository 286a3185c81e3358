"""Question 2 of all editions: the convolutional network, with and without max pooling."""

import inspect
import itertools

import torch.nn.functional as F
from torch import nn

from checks.probe import Failure, Question, numbers

SIDE, BATCH_SIZE = 28, 3  # pixels; images of the check
POOL = "max_pool2d 2x2 stride 2"
CONV = ("conv-channels", "conv-kernel", "conv-stride", "conv-padding", "pooling")  # a mistake for each of its sizes
# Number of the question, probability of dropout if it is given, number of parameters, and the sizes: those of CONV for
# each of the two convolutions, and the outputs of the three affine layers.
NETWORKS = {
    "2021-22": ("2.2", None, 769_930, (16, 3, 1, 1, POOL, 32, 3, 1, 0, POOL, 600, 120, 10)),
    "2022-23": ("2.4", 0.3, 420_906, (8, 5, 1, 2, POOL, 16, 3, 1, 0, POOL, 600, 120, 10)),
    "2023-24": ("2.1", 0.7, 224_892, (8, 3, 1, 1, POOL, 16, 3, 1, 0, POOL, 320, 120, 4)),
    "no_maxpool": ("2.2", 0.7, 224_892, (8, 3, 2, 1, "no pooling", 16, 3, 2, 0, "no pooling", 320, 120, 4)),
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
    x = pad(args[0].reshape(-1, 1, SIDE, SIDE), [self.border] * 4)
    f = relu                           | activation with tanh, sigmoid, gelu, leaky_relu: $
                                       | relu-missing: lambda x: x
    relus = {0, 1, 2, 3}               | relu-missing with 0, 1, 2, 3: relus - {$}
                                       | relu-on-output: {*relus, 4}
    dropouts = [2]                     | dropout-missing: []
                                       | dropout-place with 0, 1, 3, 4: [$]
                                       | dropout-twice with 0, 1, 2, 3, 4: [*dropouts, $]
    for n, (layer, pools) in enumerate(self.chain):  # two convolutions and three affine layers
        x = layer.repeat(x.flatten(1) if layer.name == "linear" else x)
        x = f(x) if n in relus else x
        for pool in pools:
            x = pool.repeat(x)
        for _ in range(dropouts.count(n)):
            x = self.drop(x)
        parts[f"{layer.name} {n + 1}"] = x
    axis = 1                           | log-softmax-dimension: 0
    result = log_softmax(x, dim=axis)  | log-softmax-missing: x
                                       | softmax-without-log: softmax(x, dim=axis)
    """

    def prepare(self):
        self.number, self.dropout, n_right, sizes = NETWORKS["no_maxpool" if self.keywords else self.edition]
        names = [name for name in inspect.signature(self.code["CNN"]).parameters if name != "no_maxpool"]
        self.module = self.build("CNN", *[self.dropout or 0.5][: len(names)], **self.keywords)
        images = numbers(BATCH_SIZE, 1, SIDE, SIDE)
        self.first_that_runs(self.student, [images], [images.flatten(1)])  # flat, as some loaders give them
        self.chain = []  # (convolution or affine layer, the pooling behind it), as the student's forward calls them
        for call in self.calls:
            if call.name in ("conv2d", "linear"):
                self.chain.append((call, []))
            elif call.name in ("max_pool2d", "avg_pool2d") and self.chain:
                self.chain[-1][1].append(call)
            elif call.name in ("batch_norm", "layer_norm", "group_norm"):
                self.name_mistake("extra-layer", call.where, call.name)
        for (call, pools), (following, _) in itertools.pairwise(self.chain):
            if call.name == "conv2d" and not pools and call.result.numel() == 4 * following.args[0].numel():
                pools.append(call._replace(function=F.max_pool2d, name="max_pool2d", args=(None, 2)))  # by other means
        n_parameters = sum(p.numel() for p in self.module.parameters())
        self.n_off = abs(n_parameters - n_right)
        says = self.read_layers(sizes)
        self.calls.clear()
        self.says = " · ".join([*says, f"{n_parameters:,} parameters", "forward"])
        if self.n_off and not self.found:
            note = f"{n_parameters:,} parameters; the statement's network has {n_right:,}"
            self.notes = [f"{note}: is there a layer that forward does not use, or one without bias?"]

    def student(self, x):
        self.inputs = (x,)
        return self.call(self.module, x)

    def read_layers(self, sizes):
        """Compare the layers that forward calls with the statement's; returns what the convolutions are."""
        convs = [(call, conv_shape(call), pools) for call, pools in self.chain if call.name == "conv2d"]
        affine = [call for call, _ in self.chain if call.name == "linear"]
        if (len(convs), len(affine)) != (2, 3):
            modules = [layer for layer in self.module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
            known = {id(parameter) for layer in modules for parameter in layer.parameters()}
            if not (self.found or known.issuperset(map(id, self.module.parameters()))):
                raise Failure("it has parameters outside nn.Conv2d and nn.Linear", status="not recognised")
            found = f"{len(convs)} convolutions and {len(affine)} affine layers"
            self.name_mistake("layer-number", ["conv2d", "linear"], f"{found}; the statement has 2 and 3")
            return []
        self.border = (convs[0][0].args[0].shape[-1] - SIDE) // 2  # cells that F.pad puts around x
        convs[0][1][3] += self.border
        found = [("affine-size", call.result.shape[-1], call) for call in affine]
        for call, shape, pools in reversed(convs):
            pooling = " and ".join(map(pool_shape, pools)) or "no pooling"
            found = [*((key, size, call) for key, size in zip(CONV, (*shape, pooling))), *found]
        for (key, size, call), right in zip(found, sizes):
            if size != right:
                self.name_mistake(key, call.where, f"{size}; the statement has {right}")
        if self.edition != "2021-22" and not isinstance(getattr(self.module, "conv1", None), nn.Module):
            self.name_mistake("conv1-name", ["conv2d"])
        return [f"{c}@{k}x{k}" + f" stride {s}" * (s > 1) + f" padding {p}" * (p > 0) for _, (c, k, s, p), _ in convs]

    def search(self, observed):
        if "layer-number" not in self.found:
            super().search(observed)


class CNNWithoutMaxPool(CNN):
    """The network of 2023-24, Question 2.2: strides of 2 in place of the pooling."""

    name, target, keywords = "CNN no_maxpool", "CNN", {"no_maxpool": True}

    @classmethod
    def fits(cls, code):
        return bool(code["CNN"]) and "no_maxpool" in inspect.signature(code["CNN"]).parameters

    def read_layers(self, sizes):
        says = super().read_layers(sizes)
        if {"conv-stride", "pooling"} <= self.found.keys():
            self.found = {}
            self.name_mistake("no-maxpool-ignored", ["max_pool2d"])
        return says
