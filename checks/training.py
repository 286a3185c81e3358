"""Question 2 of all editions: `train_batch`, `predict` and `evaluate`, and 2023-24's number of parameters."""

import inspect

import torch
from torch import nn

from checks.probe import Failure, Question, numbers, randomize

ARGUMENTS = ("model", "X", "y", "optimizer", "criterion")
N_FEATURES, N_CLASSES, RATE = 5, 4, 0.5
X = numbers(2, 6, N_FEATURES)  # two batches of six examples
Y = torch.tensor([[0, 1, 2, 3, 1, 1], [2, 2, 0, 3, 1, 0]])


class Watched(nn.Linear):
    """A classifier that remembers in `modes` whether it was in training mode when it was called."""

    modes = ()

    def forward(self, x, **kwargs):
        self.modes += (self.training,)
        return super().forward(x).log_softmax(dim=-1)


class Helper(Question):
    """A function of the script, called with the arguments of the skeleton by name."""

    number, equation, modes = "2", "the skeleton of hw2-q2.py", ("training",)
    elsewhere = None  # a method that the script may call in another function

    @classmethod
    def functions(cls, code):
        """The functions of this name that take no other arguments than the skeleton's; other scripts have others."""
        for function in code.all(cls.target):
            given = inspect.signature(function).parameters.values()
            needed = [p.name for p in given if p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD]
            if set(needed) <= set(ARGUMENTS):
                yield function

    @classmethod
    def applies(cls, code):
        return any(cls.functions(code))

    def prepare(self):
        if self.elsewhere and self.code.calls(self.elsewhere, outside=self.target):
            form = next(form for form, mistake in self.known.items() if self.elsewhere in mistake.calls)
            self.variants = {form: f"it relies on the call of {self.elsewhere}() elsewhere in your files"}

    def drive(self, function):
        self.network = randomize(Watched(N_FEATURES, N_CLASSES))
        optimizer = torch.optim.SGD(self.network.parameters(), lr=RATE)
        results = [function(self.network, x, y, optimizer, nn.NLLLoss()) for x, y in zip(X, Y)]
        values = [self.value(result, x, y) for result, x, y in zip(results, X, Y)]
        return {self.output: torch.stack(values), "weights": self.network.weight.detach()}

    def value(self, result, x, y):
        return torch.as_tensor(result[0] if isinstance(result, tuple) else result).detach()

    def student(self, *args):
        function, given = next(self.functions(self.code)), dict(zip(ARGUMENTS, args))
        names = [name for name in inspect.signature(function).parameters if name in given]
        result = self.call(torch.enable_grad()(function), **{name: given[name] for name in names})
        if result is None:
            raise Failure("it returns nothing")
        return result


class TrainBatch(Helper):
    """The loss of the batch before the step, then one step along its gradient alone.

    step | optimizer.zero_grad(), loss.backward(), optimizer.step(), return loss.item()
        gradients-not-zeroed; zero_grad backward; the gradients of the batches add up, since they are never set to zero
        no-step; backward; the weights do not change
        loss-not-mean; item; the loss is multiplied by the number of examples, and must be their mean
    """

    name = target = "train_batch"
    output, elsewhere = "loss", "zero_grad"

    @torch.enable_grad()
    def forward(self, m, model, X, y, optimizer, criterion):
        if "gradients-not-zeroed" not in m:
            optimizer.zero_grad()
        loss = criterion(model(X), y)
        loss.backward()
        if "no-step" not in m:
            optimizer.step()
        return loss.detach() * (len(y) if "loss-not-mean" in m else 1)


class Predict(Helper):
    """The class with the highest score of each example.

    labels | return scores.argmax(dim=-1)
        predict-dimension; argmax max; the maximum is over the examples, and must be over the classes
        predict-values; max; the largest scores are returned, and must be their classes
    """

    name = target = "predict"
    output = "labels"

    def forward(self, m, model, X, *others):
        scores, labels = model(X).max(dim=0 if "predict-dimension" in m else 1)
        return scores if "predict-values" in m else labels


class Evaluate(Helper):
    """The share of right labels, with the network in evaluation mode, and in training mode again for the next epoch.

    mode | model.eval() at the beginning, and model.train() at the end or at the beginning of train_batch
        evaluate-in-training-mode; eval; the network is evaluated in training mode, so that dropout is active
        left-in-evaluation-mode; eval; after model.eval() nothing calls model.train(){found}: dropout stays off
    accuracy | return n_correct / len(y)
        accuracy-count; sum; the number of right labels is returned, and must be divided by the number of examples
    """

    name = target = "evaluate"
    output, elsewhere = "accuracy", "eval"

    def value(self, result, x, y):
        values = [float(value) for value in (result if isinstance(result, tuple) else [result]) if value is not None]
        right = (nn.Linear.forward(self.network, x).argmax(dim=1) == y).float().mean()  # some return the loss as well
        return torch.tensor(min(values, key=lambda value: abs(value - right)) if values else torch.nan)

    def drive(self, function):
        parts = super().drive(function)
        if not self.network.training and not self.code.calls("train"):
            self.name_mistake("left-in-evaluation-mode", found="")
        return parts | {"training": torch.tensor(float(any(self.network.modes)))}

    def forward(self, m, model, X, y, *others):
        model.train("evaluate-in-training-mode" in m)
        n_correct = (model(X).argmax(dim=1) == y).sum()
        model.train()
        return n_correct / (1 if "accuracy-count" in m else len(y))


class ParameterCount(Question):
    """get_number_trainable_params(model): the number of elements of the parameters that have a gradient.

    count | return sum(p.numel() for p in model.parameters() if p.requires_grad)
        count-frozen; numel; parameters that are not trained are counted as well
        count-tensors; len; the tensors are counted, not their elements
        count-without-biases; numel; the biases are not counted
    """

    number, name, target = "2.3", "get_number_trainable_params", "get_number_trainable_params"
    equation, output, modes = "get_number_trainable_params", "number", ("training",)

    def prepare(self):
        self.inputs = [nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(4, 5), nn.Linear(5, 6).requires_grad_(False))]

    def student(self, model):
        count = self.call(self.code[self.target], model)
        if count is None:
            raise Failure("it returns nothing; it must return the number")
        return torch.as_tensor(count, dtype=torch.float32)

    def forward(self, m, model):
        counted = [p for p in model.parameters() if p.requires_grad or "count-frozen" in m]
        counted = [p for p in counted if p.dim() > 1 or "count-without-biases" not in m]
        return torch.tensor(float(sum(1 if "count-tensors" in m else p.numel() for p in counted)))


QUESTIONS = [TrainBatch, Predict, Evaluate]
