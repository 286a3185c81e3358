"""Question 2 of all editions: `train_batch`, `predict` and `evaluate`, the functions beside the network."""

import inspect

import torch
from torch import nn

from checks.probe import Failure, Question, mistakes, numbers, randomize

N_FEATURES, N_CLASSES, RATE = 5, 4, 0.5
X = numbers(2, 6, N_FEATURES)  # two batches of six examples
Y = torch.tensor([[0, 1, 2, 3, 1, 1], [2, 2, 0, 3, 1, 0]])


class Watched(nn.Module):
    """A classifier that remembers whether it was in training mode when it was called."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(N_FEATURES, N_CLASSES)
        self.modes = []

    def forward(self, x, **kwargs):
        self.modes.append(self.training)
        return self.fc(x).log_softmax(dim=-1)


class Helper(Question):
    """A function of the script, called with the arguments of the skeleton by name."""

    number, equation, modes = "2", "the skeleton of hw2-q2.py", ("training",)

    def prepare(self):
        self.network = randomize(Watched())
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=RATE)

    def use(self, x, y):
        given = {"model": self.network, "X": x, "y": y, "optimizer": self.optimizer, "criterion": nn.NLLLoss()}
        names = inspect.signature(self.code[self.target]).parameters
        missing = [name for name, p in names.items() if name not in given and p.default is p.empty and p.kind < 2]
        if missing:
            raise Failure(f"it takes {missing[0]}, which the skeleton does not have", status="not recognised")
        with torch.enable_grad():
            return self.call(with_gradients(self.code[self.target]), **{n: given[n] for n in names if n in given})


def with_gradients(function):
    return torch.enable_grad()(function)


class TrainBatch(Helper):
    """The loss of the batch before the step, then one step along its gradient alone."""

    name = target = "train_batch"
    says = "gradients zeroed, loss, backward, step; the mean loss is returned"
    known = mistakes("""
gradients-not-zeroed; gradients; backward; the gradients of the batches add up, since they are never set to zero
    optimizer.zero_grad() before loss.backward()
no-step; step; backward; the weights do not change
    loss.backward(), then optimizer.step()
loss-not-mean; loss; item; the loss is multiplied by the number of examples, and must be their mean
    return loss.item()
""")

    def outputs(self, mode):
        losses = [self.use(x, y) for x, y in zip(X, Y)]
        if losses[0] is None:
            raise Failure("it returns nothing; it must return loss.item()")
        losses = torch.tensor([float(loss[0] if isinstance(loss, tuple) else loss) for loss in losses])
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
            if "no-step" not in m:
                weight, bias = weight - RATE * gradients[0], bias - RATE * gradients[1]
        return {"loss": torch.stack(losses), "weights": weight}


class Predict(Helper):
    """The class with the highest score of each example."""

    name = target = "predict"
    says = "argmax over the classes"
    known = mistakes("""
predict-dimension; labels; argmax max; the maximum is over the examples, and must be over the classes
    return scores.argmax(dim=-1)
predict-values; labels; max; the largest scores are returned, and must be their classes
    return scores.argmax(dim=-1), or scores.max(dim=-1).indices
""")

    def outputs(self, mode):
        result = self.use(X[0], Y[0])
        result = result[0] if isinstance(result, tuple) else result
        return {"labels": torch.as_tensor(result)}

    def equations(self, m, drop, mode):
        scores = self.network.fc(X[0]).log_softmax(dim=1)
        labels = scores.argmax(dim=0 if "predict-dimension" in m else 1)
        return {"labels": scores.max(dim=1).values if "predict-values" in m else labels}


class Evaluate(Helper):
    """The share of right labels, with the network in evaluation mode, and in training mode again for the next epoch."""

    name = target = "evaluate"
    says = "eval(), the share of right labels, train() again"
    known = mistakes("""
evaluate-in-training-mode; eval(); eval; the network is evaluated in training mode, so that dropout is active
    model.eval() at the beginning
left-in-evaluation-mode; train(); eval; after the first evaluation nothing calls model.train(){found}: training goes on without dropout
    model.train() at the end, or at the beginning of train_batch
accuracy-count; accuracy; sum; the number of right labels is returned, and must be divided by the number of examples
    return n_correct / len(y)
""")

    def outputs(self, mode):
        self.network.train()
        result = self.use(X[0], Y[0])
        values = [float(value) for value in (result if isinstance(result, tuple) else (result,)) if value is not None]
        if not values:
            raise Failure("it returns nothing; it must return the accuracy")
        if not self.network.training and not any(".train(" in text for text in self.code.texts):
            self.name_mistake("left-in-evaluation-mode", found="")
        accuracies = [value for value in values if abs(value - self.right_share()) < 1e-6] or values
        return {
            "accuracy": torch.tensor(accuracies[0]),
            "in training mode": torch.tensor(float(any(self.network.modes))),
        }

    def right_share(self):
        return (self.network.fc(X[0]).argmax(dim=1) == Y[0]).float().mean().item()

    def equations(self, m, drop, mode):
        accuracy = torch.tensor(self.right_share() * (len(Y[0]) if "accuracy-count" in m else 1))
        return {"accuracy": accuracy, "in training mode": torch.tensor(float("evaluate-in-training-mode" in m))}


QUESTIONS = [TrainBatch, Predict, Evaluate]
NAMES = [question.name for question in QUESTIONS]
