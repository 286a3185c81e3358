"""Question 2 of all editions: the convolutional network, the functions that train it, and its number of parameters."""

import inspect
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from checks.probe import Failure, Question, needed, numbers, randomize

SIDE, BATCH_SIZE = 28, 3  # pixels; images of the check
POOL = "max_pool2d 2x2 stride 2"
LAYERS = ["conv2d"] * 2 + ["linear"] * 3
CONV = ("conv-channels", "conv-kernel", "conv-stride", "conv-padding")  # a mistake for each of its sizes
# Number of the question, probability of dropout if it is given, number of parameters, and the sizes: those of CONV and
# the pooling for each of the two convolutions, and the outputs of the three affine layers.
NETWORKS = {
    "2021-22": ("2.2", None, 769_930, (16, 3, 1, 1, POOL, 32, 3, 1, 0, POOL, 600, 120, 10)),
    "2022-23": ("2.4", 0.3, 420_906, (8, 5, 1, 2, POOL, 16, 3, 1, 0, POOL, 600, 120, 10)),
    "2023-24": ("2.1", 0.7, 224_892, (8, 3, 1, 1, POOL, 16, 3, 1, 0, POOL, 320, 120, 4)),
    "no_maxpool": ("2.2", 0.7, 224_892, (8, 3, 2, 1, "no pooling", 16, 3, 2, 0, "no pooling", 320, 120, 4)),
}
ARGUMENTS = ("model", "X", "y", "optimizer", "criterion")
N_FEATURES, N_CLASSES, RATE = 5, 4, 0.5
X = numbers(2, 6, N_FEATURES)  # two batches of six examples
Y = torch.tensor([[0, 1, 2, 3, 1, 1], [2, 2, 0, 3, 1, 0]])


def single(value):
    """A size that torch takes as a number or as a pair; the two numbers of a pair are equal in these networks."""
    return value[0] if isinstance(value, tuple | list) and len(set(value)) == 1 else value


def layer_sizes(call, pools):
    """[(mistake if it differs, size, call)] of a layer that forward calls, with the pooling behind it."""
    if call.name == "linear":
        return [("affine-size", call.result.shape[-1], call)]
    given = call.arguments("input", "weight", "bias", "stride", stride=1)
    (n_channels, _, *kernel), stride = given["weight"].shape, single(given["stride"])
    # from the sizes of the maps, since it may be a number, "same", or a call of F.pad
    padding = math.ceil(((call.result.shape[-1] - 1) * stride + kernel[-1] - min(call.args[0].shape[-1], SIDE)) / 2)
    sizes = [(key, size, call) for key, size in zip(CONV, (n_channels, single(kernel), stride, padding))]
    pooling = " and ".join(map(pool_shape, pools)) or "no pooling"
    return [*sizes, ("pooling", pooling, pools[0] if pools else call._replace(layer=None))]


def pool_shape(call):
    given = call.arguments("input", "kernel_size", "stride", "padding", stride=None, padding=0)
    kernel, padding = single(given["kernel_size"]), single(given["padding"])
    stride = single(given["stride"] or kernel)
    return f"{call.name} {kernel}x{kernel} stride {stride}" + f" padding {padding}" * bool(padding)


class CNN(Question):
    """Two times convolution, ReLU and max pooling, then affine, ReLU, dropout, affine, ReLU, affine, log-softmax."""

    output, keywords = "log p", {}
    variants = {"channels last": "you permute each image's map before the flattening; the weights learn any order"}
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
    flat = lambda x: x.flatten(1)      | flatten-mixed: lambda x: x.reshape(-1, len(x)).T
                                       | channels last: lambda x: x.permute(0, 2, 3, 1).flatten(1)
    for n, (layer, pools) in enumerate(self.chain):  # two convolutions and three affine layers
        x = layer.repeat(flat(x) if layer.name == "linear" and x.dim() == 4 else x)
        x = f(x) if n in relus else x
        for pool in pools:
            x = pool.repeat(x)
        for _ in range(dropouts.count(n)):
            x = self.drop(x)
        parts[f"{layer.name} {n + 1}"] = x
    axis = 1                           | log-softmax-dimension: 0
    result = log_softmax(x, dim=axis)  | log-softmax-missing: x
                                       | softmax-without-log: softmax(x, dim=axis)
                                       | softmax-twice: log_softmax(softmax(x, dim=axis), dim=axis)
    """

    def prepare(self):
        self.number, self.dropout, n_right, sizes = NETWORKS["no_maxpool" if self.keywords else self.edition]
        names = [name for name in inspect.signature(self.code["CNN"]).parameters if name != "no_maxpool"]
        self.module = self.build("CNN", *[self.dropout or 0.5][: len(names)], **self.keywords)
        n_parameters = sum(p.numel() for p in self.module.parameters())
        self.n_off = int(n_parameters != n_right)  # no year is nearer than another as long as forward does not run
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
        self.n_off = abs(n_parameters - n_right)
        says = self.read_layers(sizes)
        self.calls.clear()
        count = f"{n_parameters:,} parameters" + f" (the statement's network has {n_right:,})" * (self.n_off > 0)
        self.says = " · ".join([*says, count, "forward"])

    def student(self, x):
        self.inputs = (x,)
        return self.call(self.module, x)

    def read_layers(self, sizes):
        """Compare the layers that forward calls with the statement's; returns what the convolutions are."""
        kinds = [call.name for call, _ in self.chain]
        if kinds != LAYERS:
            layers = [layer for layer in self.module.modules() if not isinstance(layer, nn.Conv2d | nn.Linear)]
            if not self.found and any(layer._parameters for layer in layers):
                raise Failure("it has parameters outside nn.Conv2d and nn.Linear", status="not recognised")
            numbers = f"{kinds.count('conv2d')} convolutions and {kinds.count('linear')} affine layers"
            where = self.chain[-1][0].where if self.chain else ""
            self.name_mistake("layer-number", where, f"{numbers}; the statement has 2 and 3")
            raise Failure("there are no numbers that can be compared")
        first = self.chain[0][0]
        self.border = max(0, (first.args[0].shape[-1] - SIDE) // 2)  # the cells that F.pad has put around the image
        found = [size for call, pools in self.chain for size in layer_sizes(call, pools)]
        for (key, size, call), right in zip(found, sizes):
            if size != right:
                where = self.made.get(call.layer, call.where)
                self.name_mistake(key, where, f"{size}; the statement has {right}")
        if {"conv-stride", "pooling"} <= self.found.keys() and CNNWithoutMaxPool.fits(self.code):
            other = self.build("CNN", 0.5, no_maxpool=not self.keywords)
            strides = [layer.stride[0] for layer in other.modules() if isinstance(layer, nn.Conv2d)]
            is_inverted = strides[0] == sizes[2]  # the other network has the strides that this one should have
            if is_inverted or self.keywords:
                where, self.found = self.found["pooling"]["where"], {}
                self.name_mistake("no-maxpool-inverted" if is_inverted else "no-maxpool-ignored", where)
        if self.edition != "2021-22" and not isinstance(getattr(self.module, "conv1", None), nn.Module):
            self.name_mistake("conv1-name", self.made.get(first.layer, first.where))
        convs = [[size for _, size, _ in found[n : n + len(CONV)]] for n in (0, len(CONV) + 1)]
        return [f"{c}@{k}x{k}" + f" stride {s}" * (s > 1) + f" padding {p}" * (p > 0) for c, k, s, p in convs]


class CNNWithoutMaxPool(CNN):
    """The network of 2023-24, Question 2.2: strides of 2 in place of the pooling."""

    name, target, keywords = "CNN no_maxpool", "CNN", {"no_maxpool": True}

    @classmethod
    def fits(cls, code):
        return bool(code["CNN"]) and "no_maxpool" in inspect.signature(code["CNN"]).parameters


class Network(nn.Linear):
    """A classifier that remembers in `modes` whether it was in training mode when it was called."""

    modes = ()

    def forward(self, x, **kwargs):
        self.modes += (self.training,)
        return super().forward(x).log_softmax(dim=-1)


class TrainBatch(Question):
    """The loss of the batch before the step, then one step along its gradient alone."""

    number, target, says = "2", "train_batch", "gradients set to zero, mean loss, backward, step"
    modes, gradients, output = ("training",), True, "loss"
    elsewhere = {"zero_grad": "gradients-not-zeroed"}  # a method that the script may call elsewhere; the mistake if not
    table = """
    model, X, y, optimizer, criterion = args
    optimizer.zero_grad()  | gradients-not-zeroed: pass
    loss = criterion(model(X), y)
    loss.backward()
    optimizer.step()       | no-step: pass
    result = loss.detach() | loss-not-mean: loss.detach() * len(y)
    """

    @classmethod
    def functions(cls, code):
        """The functions of this name that need no other arguments than the skeleton's; other scripts have others."""
        return [function for function in code.all(cls.target) if needed(function) <= set(ARGUMENTS)]

    @classmethod
    def applies(cls, code):
        return bool(cls.functions(code))

    def prepare(self):
        called = [method for method in self.elsewhere if self.code.calls(method, self.target)]
        self.variants = {self.elsewhere[method]: f"it relies on the call of {method}() elsewhere" for method in called}

    def student(self, *args):
        function = self.functions(self.code)[0]
        names = inspect.signature(function).parameters
        return self.call(function, **{name: arg for name, arg in zip(ARGUMENTS, args) if name in names})

    def drive(self, function):
        self.network = randomize(Network(N_FEATURES, N_CLASSES))
        optimizer = torch.optim.SGD(self.network.parameters(), lr=RATE)
        results = [function(self.network, x, y, optimizer, nn.NLLLoss()) for x, y in zip(X, Y)]
        values = [self.value(result, x, y) for result, x, y in zip(results, X, Y)]
        return {self.output: torch.stack(values), "weights": self.network.weight.detach()}

    def value(self, result, x, y):
        return torch.as_tensor(result[0] if isinstance(result, tuple) else result).detach()


class Predict(TrainBatch):
    """The class with the highest score of each example."""

    target, says, output, elsewhere = "predict", "the class with the highest score", "labels", {}
    table = """
    model, X, *others = args
    axis = 1                           | predict-dimension: 0
    result = model(X).argmax(dim=axis) | predict-values: model(X).amax(dim=axis)
    """


class Evaluate(TrainBatch):
    """The share of right labels, with the network in evaluation mode, and in training mode again for the next epoch."""

    target, says, output, uses = "evaluate", "eval(), share of right labels, train()", "accuracy", ("predict",)
    elsewhere = {"eval": "evaluate-in-training-mode", "train": "left-in-evaluation-mode"}
    table = """
    model, X, y, *others = args
    model.eval()                | evaluate-in-training-mode: model.train()
    n_correct = (model(X).argmax(dim=1) == y).sum()
    model.train()               | left-in-evaluation-mode: pass
    result = n_correct / len(y) | accuracy-count: n_correct
    """

    def value(self, result, x, y):
        """The accuracy, which of several numbers is the one nearest to it; some functions return the loss as well."""
        right = (nn.Linear.forward(self.network, x).argmax(dim=1) == y).float().mean()
        numbers = torch.tensor([float(number) for number in (result if isinstance(result, tuple) else [result])])
        return numbers[(numbers - right).abs().argmin()]

    def drive(self, function):
        parts = super().drive(function)
        modes = {"mode": any(self.network.modes), "mode after it": self.network.training}
        return parts | {name: torch.tensor(float(mode)) for name, mode in modes.items()}


class ParameterCount(Question):
    """The number of elements of the parameters that have a gradient."""

    number, target, says = "2.3", "get_number_trainable_params", "the elements of the parameters that are trained"
    output, modes = "number", ("training",)
    table = """
    (model,) = args
    trained = [True]                         | count-frozen: [True, False]
    least_dim = 1                            | count-without-biases: 2
    sizes = [p.numel() for p in model.parameters() if p.requires_grad in trained and p.dim() >= least_dim]
    result = torch.tensor(float(sum(sizes))) | count-tensors: torch.tensor(float(len(sizes)))
    """

    def prepare(self):
        self.inputs = [nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(4, 5), nn.Linear(5, 6).requires_grad_(False))]

    def student(self, model):
        return torch.as_tensor(self.call(self.code[self.target], model), dtype=torch.float32)
