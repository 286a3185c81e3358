"""Question 2 of all editions: `train_batch`, `predict` and `evaluate`, and 2023-24's number of parameters."""

import inspect

import torch
from torch import nn

from checks.probe import Failure, Question, mistakes, numbers, randomize

ARGUMENTS = ("model", "X", "y", "optimizer", "criterion")
N_FEATURES, N_CLASSES, RATE = 5, 4, 0.5
X = numbers(2, 6, N_FEATURES)  # two batches of six examples
Y = torch.tensor([[0, 1, 2, 3, 1, 1], [2, 2, 0, 3, 1, 0]])


class Watched(nn.Linear):
    """A classifier that remembers in `modes` whether it was in training mode when it was called."""

    def forward(self, x, **kwargs):
        self.modes = [*getattr(self, "modes", ()), self.training]
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
        return self.read([result if isinstance(result, tuple) else (result,) for result in results])

    def student(self, *args):
        function, given = next(self.functions(self.code)), dict(zip(ARGUMENTS, args))
        names = [name for name in inspect.signature(function).parameters if name in given]
        result = self.call(torch.enable_grad()(function), **{name: given[name] for name in names})
        if result is None:
            raise Failure("it returns nothing")
        return result


class TrainBatch(Helper):
    """The loss of the batch before the step, then one step along its gradient alone."""

    name = target = "train_batch"
    elsewhere = "zero_grad"
    known = mistakes("""
step | optimizer.zero_grad(), loss.backward(), optimizer.step(), return loss.item()
    gradients-not-zeroed; zero_grad backward; the gradients of the batches add up, since they are never set to zero
    no-step; backward; the weights do not change
    loss-not-mean; item; the loss is multiplied by the number of examples, and must be their mean
""")

    def read(self, results):
        return {"loss": torch.tensor([float(result[0]) for result in results]), "weights": self.network.weight.detach()}

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
    """The class with the highest score of each example."""

    name = target = "predict"
    known = mistakes("""
labels | return scores.argmax(dim=-1)
    predict-dimension; argmax max; the maximum is over the examples, and must be over the classes
    predict-values; max; the largest scores are returned, and must be their classes
""")

    def read(self, results):
        return {"labels": torch.stack([torch.as_tensor(result[0]) for result in results])}

    def forward(self, m, model, X, *others):
        scores, labels = model(X).max(dim=0 if "predict-dimension" in m else 1)
        return scores if "predict-values" in m else labels


class Evaluate(Helper):
    """The share of right labels, with the network in evaluation mode, and in training mode again for the next epoch."""

    name = target = "evaluate"
    elsewhere = "eval"
    known = mistakes("""
mode | model.eval() at the beginning, and model.train() at the end or at the beginning of train_batch
    evaluate-in-training-mode; eval; the network is evaluated in training mode, so that dropout is active
    left-in-evaluation-mode; eval; after model.eval() nothing calls model.train(){found}: dropout stays off in training
accuracy | return n_correct / len(y)
    accuracy-count; sum; the number of right labels is returned, and must be divided by the number of examples
""")

    def read(self, results):
        if not self.network.training and not self.code.calls("train"):
            self.name_mistake("left-in-evaluation-mode", found="")
        modes, accuracies = self.network.modes, []
        for x, y, values in zip(X, Y, results):
            right = self.forward((), self.network, x, y)
            values = [float(value) for value in values if value is not None]  # some return the loss as well
            accuracies.append(min(values, key=lambda value: abs(value - right)) if values else torch.nan)
        return {"accuracy": torch.tensor(accuracies), "training": torch.tensor(float(any(modes)))}

    def forward(self, m, model, X, y, *others):
        model.train("evaluate-in-training-mode" in m)
        n_correct = (model(X).argmax(dim=1) == y).sum()
        model.train()
        return n_correct / (1 if "accuracy-count" in m else len(y))


class ParameterCount(Question):
    """get_number_trainable_params(model): the number of elements of the parameters that have a gradient."""

    number, name, target = "2.3", "get_number_trainable_params", "get_number_trainable_params"
    equation, modes = "get_number_trainable_params", ("training",)
    known = mistakes("""
count | return sum(p.numel() for p in model.parameters() if p.requires_grad)
    count-frozen; numel; parameters that are not trained are counted as well
    count-tensors; len; the tensors are counted, not their elements
    count-without-biases; numel; the biases are not counted
""")

    def prepare(self):
        self.model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(4, 5), nn.Linear(5, 6).requires_grad_(False))

    def student(self, model):
        return self.call(self.code[self.target], model)

    def drive(self, count):
        number = count(self.model)
        if number is None:
            raise Failure("it returns nothing; it must return the number")
        return {"number": torch.as_tensor(number, dtype=torch.float32)}

    def forward(self, m, model):
        counted = [p for p in model.parameters() if p.requires_grad or "count-frozen" in m]
        counted = [p for p in counted if p.dim() > 1 or "count-without-biases" not in m]
        return sum(1 if "count-tensors" in m else p.numel() for p in counted)


QUESTIONS = [TrainBatch, Predict, Evaluate]
