"""Question 2 of all editions: `train_batch`, `predict` and `evaluate`, and 2023-24's number of parameters."""

import inspect

import torch
from torch import nn

from checks.probe import Failure, Question, needed, numbers, randomize

ARGUMENTS = ("model", "X", "y", "optimizer", "criterion")
N_FEATURES, N_CLASSES, RATE = 5, 4, 0.5
X = numbers(2, 6, N_FEATURES)  # two batches of six examples
Y = torch.tensor([[0, 1, 2, 3, 1, 1], [2, 2, 0, 3, 1, 0]])


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
        called = [method for method in self.elsewhere if self.code.calls(method)]
        self.variants = {self.elsewhere[method]: f"it relies on the call of {method}() elsewhere" for method in called}

    def student(self, *args):
        function = self.functions(self.code)[0]
        names = inspect.signature(function).parameters
        result = self.call(function, **{name: arg for name, arg in zip(ARGUMENTS, args) if name in names})
        if result is None:
            raise Failure("it returns nothing")
        return result

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

    target, says, output = "evaluate", "eval(), share of right labels, train()", "accuracy"
    elsewhere = {"eval": "evaluate-in-training-mode"}
    table = """
    model, X, y, *others = args
    model.eval()                | evaluate-in-training-mode: model.train()
    n_correct = (model(X).argmax(dim=1) == y).sum()
    model.train()
    result = n_correct / len(y) | accuracy-count: n_correct
    """

    def value(self, result, x, y):
        """The accuracy, which of several numbers is the one nearest to it; some functions return the loss as well."""
        right = (nn.Linear.forward(self.network, x).argmax(dim=1) == y).float().mean()
        numbers = torch.tensor([float(number) for number in (result if isinstance(result, tuple) else [result])])
        return numbers[(numbers - right).abs().argmin()]

    def drive(self, function):
        parts = super().drive(function)
        if not self.network.training and not self.code.calls("train"):
            self.name_mistake("left-in-evaluation-mode", ["eval"])
        return parts | {"training": torch.tensor(float(any(self.network.modes)))}


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
        count = self.call(self.code[self.target], model)
        if count is None:
            raise Failure("it returns nothing; it must return the number")
        return torch.as_tensor(count, dtype=torch.float32)
