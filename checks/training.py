"""Question 2 of all editions: `train_batch`, `predict` and `evaluate`, the functions beside the network."""

import inspect

import torch
from torch import nn

from checks.probe import Failure, Question, mistakes, numbers, randomize

ARGUMENTS = ("model", "X", "y", "optimizer", "criterion")
N_FEATURES, N_CLASSES, RATE = 5, 4, 0.5
X = numbers(2, 6, N_FEATURES)  # two batches of six examples
Y = torch.tensor([[0, 1, 2, 3, 1, 1], [2, 2, 0, 3, 1, 0]])


class Watched(nn.Module):
    """A classifier that remembers whether it was in training mode when it was called."""

    def __init__(self):
        super().__init__()
        self.fc, self.modes = nn.Linear(N_FEATURES, N_CLASSES), []

    def forward(self, x, **kwargs):
        self.modes.append(self.training)
        return self.fc(x).log_softmax(dim=-1)


class Helper(Question):
    """A function of the script, called with the arguments of the skeleton by name."""

    number, equation, modes = "2", "the skeleton of hw2-q2.py", ("training",)
    elsewhere = None  # a method that the script may call in another function

    @classmethod
    def functions(cls, code):
        """The functions of this name that take no other arguments than the skeleton's; other scripts have others."""
        for function in code.all(cls.target):
            parameters = inspect.signature(function).parameters.values()
            if all(
                p.name in ARGUMENTS or p.default is not p.empty or p.kind > p.POSITIONAL_OR_KEYWORD for p in parameters
            ):
                yield function

    @classmethod
    def applies(cls, code):
        return any(cls.functions(code))

    def prepare(self):
        self.function = next(self.functions(self.code))
        if self.elsewhere and self.code.calls(self.elsewhere, outside=self.target):
            form = next(form for form, mistake in self.known.items() if self.elsewhere in mistake.calls)
            self.variants = {form: f"it relies on the call of {self.elsewhere}() elsewhere in your files"}
        self.network = randomize(Watched())
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=RATE)

    def use(self, x, y):
        """What the student's function returns, in a list."""
        given = dict(zip(ARGUMENTS, (self.network, x, y, self.optimizer, nn.NLLLoss())))
        names = inspect.signature(self.function).parameters
        result = self.call(torch.enable_grad()(self.function), **{name: given[name] for name in names if name in given})
        if result is None:
            raise Failure("it returns nothing")
        return result if isinstance(result, tuple) else [result]


class TrainBatch(Helper):
    """The loss of the batch before the step, then one step along its gradient alone."""

    name = target = "train_batch"
    says, elsewhere = "gradients zeroed, loss, backward, step; the mean loss", "zero_grad"
    known = mistakes("""
step | optimizer.zero_grad(), loss.backward(), optimizer.step(), return loss.item()
    gradients-not-zeroed; zero_grad backward; the gradients of the batches add up, since they are never set to zero
    no-step; backward; the weights do not change
    loss-not-mean; item; the loss is multiplied by the number of examples, and must be their mean
""")

    def outputs(self, mode):
        losses = torch.tensor([float(self.use(x, y)[0]) for x, y in zip(X, Y)])
        return {"loss": losses, "weights": self.network.fc.weight.detach().clone()}

    def equations(self, m, drop, mode):
        weight, bias = (parameter.detach().clone() for parameter in randomize(Watched()).parameters())
        losses, old = [], (0, 0)
        for x, y in zip(X, Y):
            log_p = (x @ weight.T + bias).log_softmax(dim=1)
            losses.append(-log_p[range(len(y)), y].mean() * (len(y) if "loss-not-mean" in m else 1))
            error = (log_p.exp() - nn.functional.one_hot(y, N_CLASSES)) / len(y)  # the gradient of the mean loss
            gradients = error.T @ x + old[0], error.sum(dim=0) + old[1]
            old = gradients if "gradients-not-zeroed" in m else old
            rate = 0 if "no-step" in m else RATE
            weight, bias = weight - rate * gradients[0], bias - rate * gradients[1]
        return {"loss": torch.stack(losses), "weights": weight}


class Predict(Helper):
    """The class with the highest score of each example."""

    name = target = "predict"
    says = "argmax over the classes"
    known = mistakes("""
labels | return scores.argmax(dim=-1)
    predict-dimension; argmax max; the maximum is over the examples, and must be over the classes
    predict-values; max; the largest scores are returned, and must be their classes
""")

    def outputs(self, mode):
        return {"labels": torch.as_tensor(self.use(X[0], Y[0])[0])}

    def equations(self, m, drop, mode):
        scores = self.network.fc(X[0]).log_softmax(dim=1)
        labels = scores.argmax(dim=0 if "predict-dimension" in m else 1)
        return {"labels": scores.max(dim=1).values if "predict-values" in m else labels}


class Evaluate(Helper):
    """The share of right labels, with the network in evaluation mode, and in training mode again for the next epoch."""

    name = target = "evaluate"
    says, elsewhere = "eval(), the share of right labels, train() again", "eval"
    known = mistakes("""
mode | model.eval() at the beginning, and model.train() at the end or at the beginning of train_batch
    evaluate-in-training-mode; eval; the network is evaluated in training mode, so that dropout is active
    left-in-evaluation-mode; eval; after model.eval() nothing calls model.train(){found}: dropout stays off in training
accuracy | return n_correct / len(y)
    accuracy-count; sum; the number of right labels is returned, and must be divided by the number of examples
""")

    def outputs(self, mode):
        values = [float(value) for value in self.use(X[0], Y[0]) if value is not None]
        if not self.network.training and not self.code.calls("train"):
            self.name_mistake("left-in-evaluation-mode", found="")
        right = self.equations((), None, mode)["accuracy"]  # some return the loss as well
        accuracy = min(values, key=lambda value: abs(value - right)) if values else torch.nan
        return {"accuracy": torch.tensor(accuracy), "training": torch.tensor(float(any(self.network.modes)))}

    def equations(self, m, drop, mode):
        n_correct = (self.network.fc(X[0]).argmax(dim=1) == Y[0]).sum()
        accuracy = n_correct / (1 if "accuracy-count" in m else len(Y[0]))
        return {"accuracy": accuracy, "training": torch.tensor(float("evaluate-in-training-mode" in m))}


QUESTIONS = [TrainBatch, Predict, Evaluate]
