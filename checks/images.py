"""Question 2 of all editions: the convolutional network, with and without max pooling."""

import inspect
import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from checks.probe import Failure, WithDropout, numbers

SIDE, BATCH_SIZE = 28, 3  # pixels; images of the check
POOLS = ("max_pool2d", "avg_pool2d")
ACTIVATIONS = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "gelu": F.gelu, "leaky_relu": F.leaky_relu}


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
    """(output channels, kernel, stride, padding) of a recorded convolution."""
    given = call.arguments("input", "weight", "bias", "stride", "padding", stride=1, padding=0)
    kernel, padding = single(tuple(given["weight"].shape[2:])), single(given["padding"])
    padding = {"same": (kernel - 1) // 2, "valid": 0}.get(padding, padding)
    return len(given["weight"]), kernel, single(given["stride"]), padding


def pool_shape(call):
    given = call.arguments("input", "kernel_size", "stride", "padding", stride=None, padding=0)
    kernel, padding = single(given["kernel_size"]), single(given["padding"])
    stride = single(given["stride"] or kernel)
    return f"{call.name} {kernel}x{kernel} stride {stride}" + f" padding {padding}" * bool(padding)


class CNN(WithDropout):
    """Two times convolution, ReLU and max pooling, then affine, ReLU, dropout, affine, ReLU, affine, log-softmax.

    convolutions | self.conv1 = nn.Conv2d(1, channels, kernel_size, stride=..., padding=...), with the statement's sizes
        conv-channels; conv2d; the {layer} convolution has {found} output channels, and must have {right}
        conv-kernel; conv2d; the {layer} convolution has kernels of size {found}, and must have {right}
        conv-stride; conv2d; the {layer} convolution has a stride of {found}, and must have {right}
        conv-padding; conv2d; the {layer} convolution has a padding of {found}, and must have {right}
        conv1-name; conv2d; the first convolution is not called self.conv1, which the statement asks for{found}
    pooling | nn.MaxPool2d(kernel_size=2, stride=2) behind each ReLU of a convolution
        pooling; max_pool2d avg_pool2d conv2d; behind the {layer} convolution is {found}, and must be {right}
    no_maxpool | other convolutions in __init__ and no pooling in forward, if no_maxpool
        no-maxpool-ignored; max_pool2d; no_maxpool=True changes nothing{found}
    layers | the statement's list of layers
        layer-number; conv2d linear; there are {found}, and must be {right}
        extra-layer; batch_norm layer_norm group_norm; there is a {found}, which the statement does not have
        affine-size; linear; an affine layer has {found} outputs, and must have {right}
    ReLU | x = F.relu(self.fc1(x)), and so behind every layer but the last
        relu-missing/1,2,3,4; conv2d linear; a ReLU is missing
        relu-on-output; relu; there is a ReLU behind the last affine layer
        activation/tanh,sigmoid,gelu,leaky_relu; tanh sigmoid gelu leaky_relu; another activation is in place of ReLU
    dropout | x = self.drop(F.relu(self.fc1(x))), and nowhere else
        dropout-missing; linear; there is no dropout
        dropout-place/conv1,conv2,fc2,fc3; dropout dropout2d; the dropout is not between the first two affine layers
        dropout-twice/conv1,conv2,fc1,fc2,fc3; dropout dropout2d; there is a second dropout
    log-softmax | return F.log_softmax(x, dim=1)
        log-softmax-missing; linear; the outputs are scores, without the log-softmax
        softmax-without-log; softmax; the outputs are probabilities, not their logarithms
        log-softmax-dimension; log_softmax softmax; the log-softmax is over the images of the batch, not the classes
    """

    name = target = "CNN"
    equation, output = "the list of layers", "log p"
    keywords = {}

    def prepare(self):
        self.network = NETWORKS["no_maxpool" if self.keywords else self.edition]
        self.number, self.dropout = self.network.number, self.network.dropout
        self.module = build_network(self, **self.keywords)
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
        self.border = (convs[0][0].x.shape[-1] - SIDE) // 2 if convs else 0  # cells that F.pad puts around x
        convs[:1] = [(call, (*shape[:3], shape[3] + self.border), pools) for call, shape, pools in convs[:1]]
        affine = [call for call, _ in self.chain if call.name == "linear"]
        self.places = [f"conv{n + 1}" for n in range(len(convs))] + [f"fc{n + 1}" for n in range(len(affine))]
        for call in self.calls:
            if call.name in ("batch_norm", "layer_norm", "group_norm"):
                self.name_mistake("extra-layer", call.line, found=call.name)
        n_parameters = sum(p.numel() for p in self.module.parameters())
        if (len(convs), len(affine)) != (2, 3):
            modules = [layer for layer in self.module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
            if n_parameters > sum(p.numel() for layer in modules for p in layer.parameters()) and not self.found:
                raise Failure("it has parameters outside nn.Conv2d and nn.Linear", status="not recognised")
            counts = f"{len(convs)} convolutions and {len(affine)} affine layers"
            return self.name_mistake("layer-number", found=counts, right="2 convolutions and 3 affine layers")
        for layer, (call, shape, pools), wanted in zip(("first", "second"), convs, self.network.convs):
            pooling = " and ".join(map(pool_shape, pools)) or "no pooling"
            keys = ("conv-channels", "conv-kernel", "conv-stride", "conv-padding", "pooling")
            for key, found, right in zip(keys, (*shape, pooling), (*wanted, self.network.pooling)):
                if found != right:
                    self.name_mistake(key, call.line, layer=layer, found=found, right=right)
        for call, size in zip(affine, self.network.affine):
            if call.result.shape[-1] != size:
                self.name_mistake("affine-size", call.line, found=call.result.shape[-1], right=size)
        if self.edition != "2021-22" and not isinstance(getattr(self.module, "conv1", None), nn.Module):
            self.name_mistake("conv1-name", found="")
        sizes = [f"{c}@{k}x{k}" + f" stride {s}" * (s > 1) + f" padding {p}" * (p > 0) for _, (c, k, s, p), _ in convs]
        self.says = " · ".join([*sizes, f"{n_parameters:,} parameters", "forward"])
        if not self.found and n_parameters != self.network.n_parameters:
            note = f"{n_parameters:,} parameters; the statement's network has {self.network.n_parameters:,}"
            self.notes = [f"{note}: is there a layer that forward does not use, or one without bias?"]

    def forward(self, m, x):
        """The student's layers in their order, with ReLU, dropout and log-softmax where the statement has them."""
        activation = next((function for name, function in ACTIVATIONS.items() if f"activation/{name}" in m), torch.relu)
        dropouts = [form.partition("/")[2] for form in m if form.startswith(("dropout-place/", "dropout-twice/"))]
        dropouts += [] if {"dropout-place", "dropout-missing"} & m else ["fc1"]
        x = F.pad(x.reshape(-1, 1, SIDE, SIDE), [self.border] * 4)
        for n, (place, (layer, pools)) in enumerate(zip(self.places, self.chain), start=1):
            x = layer.repeat(x.flatten(1) if layer.name == "linear" else x)
            x = activation(x) if n < len(self.chain) and f"relu-missing/{n}" not in m else x
            for pool in pools:
                x = pool.repeat(x)
            for _ in range(dropouts.count(place)):
                x = self.drop(x)
            self.parts[place] = x
        x = x.relu() if "relu-on-output" in m else x
        log_p = x.log_softmax(dim=0 if "log-softmax-dimension" in m else 1)
        log_p = x.softmax(dim=1) if "softmax-without-log" in m else log_p
        return x if "log-softmax-missing" in m else log_p


class CNNWithoutMaxPool(CNN):
    """The network of 2023-24, Question 2.2: strides of 2 in place of the pooling."""

    name, keywords = "CNN no_maxpool", {"no_maxpool": True}

    @classmethod
    def fits(cls, code):
        return bool(code["CNN"]) and "no_maxpool" in inspect.signature(code["CNN"]).parameters

    def read_layers(self):
        super().read_layers()
        if {"conv-stride", "pooling"} <= self.found.keys():
            self.found = {}
            self.name_mistake("no-maxpool-ignored", found="")


def build_network(question, **keywords):
    """The student's CNN, with a dropout probability if it takes one."""
    names = [name for name in inspect.signature(question.code["CNN"]).parameters if name != "no_maxpool"]
    return question.build("CNN", *[question.dropout or 0.5][: len(names)], **keywords)


def distances(code, editions):
    """{edition: number of sizes in which the student's layers differ from the statement's}."""
    try:
        layers = list(build_network(CNN(code, "")).modules())
    except Failure:
        return dict.fromkeys(editions, 0)
    sizes = [(layer.out_channels, single(layer.kernel_size)) for layer in layers if isinstance(layer, nn.Conv2d)]
    sizes += [layer.out_features for layer in layers if isinstance(layer, nn.Linear)]
    found = {}
    for edition in editions:
        right = [*(conv[:2] for conv in NETWORKS[edition].convs), *NETWORKS[edition].affine]
        found[edition] = sum(a != b for a, b in itertools.zip_longest(sizes, right))
    return found
