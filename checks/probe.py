"""The engine of the check: it runs a student's class and looks for the equations whose numbers equal its own."""

import inspect
import itertools
import math
import re
import sys
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

GOLDEN = (5**0.5 - 1) / 2  # the fractional parts of its multiples are spread evenly, so no two factors are alike
DROPOUTS = {"dropout", "dropout1d", "dropout2d", "dropout3d"}
RELATIVE, ABSOLUTE = 1e-3, 1e-4  # of equality; the order of additions changes 1e-6, a mistake 1e-2
MAX_MISTAKES = 2  # that are looked for in one class at the same time
MODES = ("training", "evaluation")
SEED = 42


class Mistake(NamedTuple):
    """A known mistake; it is in the line of one of `calls`, functions of torch, and `mend` is what is right."""

    key: str
    part: str
    calls: list
    text: str
    mend: str


LOG_PROBABILITIES = {"log_softmax": "it returns log-probabilities, with which the cross-entropy is the same"}


def marked(x):
    """What stands in for dropout in training: each feature times a known factor between 0.5 and 1.5.

    A factor depends on the feature alone, so a loop over the steps sees what one call for all steps sees. The features
    of a map (batch_size, channels, height, width) are its channels and cells.
    """
    shape = x.shape[1:] if x.dim() == 4 else x.shape[-1:]
    factors = 0.5 + (GOLDEN * torch.arange(1, math.prod(shape) + 1)) % 1
    return x * factors.view(shape).to(x)


class Call(NamedTuple):
    """A call of a torch function in the student's code."""

    function: object
    name: str
    line: str
    mode: str
    args: tuple
    kwargs: dict
    result: object

    def arguments(self, *names, **defaults):
        """Its arguments by name, where `names` are those that may come without one."""
        return defaults | dict(zip(names, self.args)) | self.kwargs

    @property
    def x(self):
        return self.arguments("input")["input"]

    def repeat(self, x):
        """The same call with another first argument."""
        named = {name: value for name, value in self.kwargs.items() if name != "input"}
        return self.function(x, *self.args[1:], **named)


class Recorder(TorchFunctionMode):
    """Replaces dropout by `marked` and remembers every call of a torch function, with the student's line."""

    def __init__(self, filenames, mode=""):
        super().__init__()
        self.filenames, self.mode, self.calls = filenames, mode, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name, frame = kwargs or {}, getattr(func, "__name__", "").rstrip("_"), sys._getframe(1)
        result = self.dropout(*args, **kwargs) if name in DROPOUTS else func(*args, **kwargs)
        while frame and frame.f_code.co_filename not in self.filenames:
            frame = frame.f_back
        line = f"{frame.f_code.co_filename}, line {frame.f_lineno}" if frame else ""
        self.calls.append(Call(func, name, line, self.mode, args, kwargs, result))
        return result

    @staticmethod
    def dropout(input, p=0.5, training=True, inplace=False, train=True):
        if not (training and train and p):
            return input
        return input.copy_(marked(input)) if inplace else marked(input)


MESSAGES = {  # what is said about an exception that matches, if not its own text
    "StandInUsed|PermissionError": "",
    "EOFError": "the code asks for input, and a check has nobody to answer",
    "SystemExit": "the code calls exit(); return the result instead",
    "TooLong": "stopped at the time limit; is there a loop that does not end?",
    "MemoryError|alloc": "stopped at the memory limit; is a tensor of the wrong shape?",
    "CUDA|NVIDIA": "the code needs a GPU and the check has none; use .to(x.device) in place of .cuda()",
    "'StandIn'": "something is used that is missing in the check: a module, or a constant that is not executed",
}


class Failure(Exception):
    """The student's code raised an exception, or cannot be called as the skeleton calls it."""

    def __init__(self, message, line="", status="ERROR"):
        super().__init__(message)
        self.line, self.status = line, status


class TooLong(BaseException):
    """The time limit is over; no Exception, so that the student's `except Exception` does not catch it."""


def explain(error, filenames):
    """The `Failure` that tells an exception of the student's code in one line, with the student's line."""
    frame, line = error.__traceback__, ""
    while frame:
        if frame.tb_frame.f_code.co_filename in filenames:
            line = f"{frame.tb_frame.f_code.co_filename}, line {frame.tb_lineno}"
        frame = frame.tb_next
    text = " ".join(str(error).split())[:300]
    if isinstance(error, NotImplementedError):
        return Failure("not written yet", line, "not written")
    for kind, message in MESSAGES.items():
        if re.search(kind, f"{type(error).__name__}: {text}"):
            return Failure(message or text, line)
    return Failure(f"{type(error).__name__}: {text}", line)


def randomize(module):
    """Give every parameter a random value, so that no bias is 0 and no norm the identity; ties between layers stay."""
    generator = torch.Generator().manual_seed(SEED)
    for parameter in module.parameters() if isinstance(module, nn.Module) else ():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) / min(fan_in, 100) ** 0.5)
    return module


def numbers(*shape, seed=SEED):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(actual, right):
    """Whether two tensors are equal in shape, up to axes of length 1, and in numbers, one of which is finite."""
    if not isinstance(actual, torch.Tensor) or actual.squeeze().shape != right.squeeze().shape:
        return False
    actual, right = actual.squeeze().float(), right.squeeze().float()
    scale = right[right.isfinite()].abs().max().item() if right.isfinite().any() else math.nan
    return torch.allclose(actual, right, rtol=RELATIVE, atol=ABSOLUTE * scale, equal_nan=True)


class Question:
    """One line of the output: a class or function of a student's, and the equations that it has to compute.

    `drive` calls a function as the homework's script does, and returns what it computes as {part: tensor}. It is given
    `student`, the student's code, and `forward`, the statement's equations with the same arguments; `forward` takes m
    besides, the forms and keys of mistakes and the variants that are right as well, and leaves what it computes on the
    way in `parts`. The docstring of a subclass has the table of its mistakes, besides those of its base:

        part | the line of code that is right
            key/form,form; functions of torch in whose line the mistake is; what the mistake is
    """

    number = name = target = equation = says = ""  # target: the student's class or function
    arguments = ()  # of the student's __init__ in the check
    n_required = None  # arguments of __init__ without default, where another edition has a class of the same name
    inputs, output = (), ""  # of a single call, and the name of its result
    layers = {}  # the skeleton's name: (kind, weight shape if that tells which one it is)
    known = {}  # form: Mistake
    variants = {}  # what is right in another way: the note that says so
    modes = MODES
    dropout = None  # the statement's probability; None if it gives none
    mode = difference = ""

    def __init_subclass__(cls):
        cls.known = dict(cls.known)
        for line in inspect.cleandoc(cls.__dict__.get("__doc__") or "").splitlines():
            if " | " in line:
                part, mend = line.split(" | ")
            elif line.startswith("    "):
                names, calls, text = line.strip().split("; ", 2)
                key, _, forms = names.partition("/")
                for form in forms.split(","):
                    cls.known[f"{key}/{form}" if form else key] = Mistake(key, part, calls.split(), text, mend)

    def __init__(self, code, edition):
        self.code, self.edition, self.module = code, edition, None
        self.calls, self.notes, self.parts, self.found = [], [], {}, {}  # found: {key: mistake with its text and line}

    @classmethod
    def applies(cls, code):
        """Whether the student's files have this class or function."""
        return code[cls.target] is not None or cls.target in code.failed

    @classmethod
    def fits(cls, code):
        """Whether the student's files have this class, with this edition's signature."""
        if code[cls.target] is None or cls.n_required is None:
            return code[cls.target] is not None
        parameters = inspect.signature(code[cls.target]).parameters.values()
        return sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters) == cls.n_required

    def __getattr__(self, name):
        """The layer of the student's module with this kind and shape; of several the one with the skeleton's name."""
        if name not in self.layers:
            raise AttributeError(name)
        kind, *shape = self.layers[name]
        found = [layer for layer in self.module.modules() if isinstance(layer, kind)]
        found = [layer for layer in found if not shape or layer.weight.shape == tuple(shape)]
        named = [layer for layer in found if layer is getattr(self.module, name, None)]
        if not named and len(found) != 1:
            what = f"{len(found) or 'no'} layers {kind.__name__} {shape or ''}"
            raise Failure(f"{what} found that could be `{name}` of the skeleton", status="not recognised")
        return (named or found)[0]

    def build(self, name, *args, **kwargs):
        """An instance of the student's class with random weights."""
        if self.code[name] is None:
            raise Failure(*self.code.failed.get(name, (f"there is no class {name} in these files",)))
        made = randomize(self.call(self.code[name], *args, **kwargs))
        self.calls.clear()  # of __init__
        return made

    def call(self, function, *args, **kwargs):
        """Call the student's code with marked dropout; an exception becomes a `Failure`."""
        recorder = Recorder(self.code.filenames, self.mode)
        try:
            with torch.no_grad(), recorder:
                result = function(*args, **kwargs)
        except (Exception, SystemExit, TooLong) as error:
            raise explain(error, self.code.filenames) from error
        self.calls += recorder.calls
        return result

    def first_that_runs(self, function, *alternatives):
        """What the function returns for the first of these arguments that the student's code takes."""
        failures = []
        for alternative in alternatives:
            try:
                return function(*alternative)
            except Failure as failure:
                failures.append(failure)
        raise failures[0]

    def block(self, function, *args):
        """A part of the student's own code that the equations take as it is."""
        with Recorder(self.code.filenames):
            return function(*args)

    def prepare(self):
        """Build the student's module."""
        self.module = self.build(self.target, *self.arguments)

    def student(self, *args):
        return self.call(self.module, *args)

    def drive(self, function):
        """The first of the results for `inputs`."""
        result = function(*self.inputs)
        return {self.output: result[0] if isinstance(result, tuple) else result}

    def drop(self, x, place="", m=()):
        """Dropout in the equations, unless m says that it is missing in this place or applied twice."""
        for _ in range(1 - (f"{place}-dropout" in m) + (f"dropout-twice/{place}" in m)):
            x = marked(x) if self.mode == "training" else x
        return x

    def name_mistake(self, form, line="", **values):
        mistake = self.known[form]
        if mistake.key not in self.found:
            text = mistake.text.format(**values)
            details = {"text": text, "numeric": text == mistake.text, "where": line or self.line_of(mistake.calls)}
            self.found[mistake.key] = mistake._asdict() | details

    def check(self):
        """The result of this question as a dictionary."""
        status, where, lines = "ok", "", []
        try:
            self.prepare()
            observed = {mode: self.run(self.student, mode) for mode in self.modes}
            self.check_dropout()
            self.search(observed)
            lines = [self.difference] if self.found else []
        except (Exception, TooLong) as error:
            own = Failure(f"the check cannot read this ({type(error).__name__}: {error})", status="not recognised")
            failure = error if isinstance(error, Failure) else own
            status, where, lines = failure.status, failure.line or self.line_of(()), [str(failure)]
        says = self.says or " · ".join(dict.fromkeys(mistake.part for mistake in self.known.values()))
        result = {name: getattr(self, name) for name in ("number", "name", "edition", "equation", "notes")}
        result |= {"says": says, "mistakes": list(self.found.values()), "where": where, "lines": lines}
        return result | {"status": "WRONG" if self.found else status}

    def check_dropout(self):
        """Name a dropout that is active in evaluation, and a probability that is not the one of the statement."""
        for call in self.calls:
            if call.name in DROPOUTS and "dropout-probability" in self.known:
                p = call.arguments("input", "p", p=0.5)["p"]
                if call.mode == "evaluation" and call.result is not call.x:
                    self.name_mistake("dropout-in-evaluation", found="")
                    self.modes = ("training",)  # its other numbers are as in training
                elif self.dropout and p not in (0, self.dropout):
                    self.name_mistake("dropout-probability", found=p, right=self.dropout)

    def search(self, observed):
        """Find the hypothesis with the fewest mistakes that has the observed numbers."""
        forms = [form for form, mistake in self.known.items() if "{" not in mistake.text]
        hypotheses = itertools.chain(*(itertools.combinations(forms, n) for n in range(MAX_MISTAKES + 1)))
        sizes = range(len(self.variants) + 1)
        rights = [flags for n in sizes for flags in itertools.combinations(self.variants, n)]
        both = itertools.product(hypotheses, rights)
        hypothesis, right = next((pair for pair in both if self.agrees(observed, sum(pair, ()))), (None, ()))
        self.notes += [self.variants[flag] for flag in right]
        for form in hypothesis or ():
            self.name_mistake(form)
        try:
            self.compare(observed)
        except Failure:  # a layer that the equations need is missing
            if not self.found:
                raise
        if hypothesis is None and not self.found:
            raise Failure(self.difference + self.agreement(), status="not recognised")

    def run(self, function, mode):
        """What the student's code or the equations compute, in training or in evaluation."""
        self.mode = mode
        if self.module is not None:
            self.module.train(mode == "training")
        with torch.no_grad():
            return self.drive(function)

    def expected(self, m, mode):
        """What the equations compute with the mistakes and variants m."""
        return self.run(partial(self.forward, frozenset(m).union(form.partition("/")[0] for form in m)), mode)

    def agrees(self, observed, m):
        try:
            for mode in self.modes:
                expected = self.expected(m, mode)
                if not all(same(value, expected[part]) for part, value in observed[mode].items()):
                    return False
            return True
        except (RuntimeError, IndexError, ValueError, TypeError, LookupError, Failure):
            return False  # a mistake that is impossible with these shapes

    def compare(self, observed):
        """Say where the student's numbers differ most from the right ones."""
        largest = 0
        for mode, part, value in [(m, *item) for m in self.modes for item in observed[m].items()]:
            right = self.expected((), mode)[part]
            if value.squeeze().shape != right.squeeze().shape:
                shapes = f"{tuple(value.shape)}, and must have {tuple(right.shape)}"
                self.difference = f"In {mode}, {part} has the shape {shapes}."
                return
            gaps = torch.atleast_1d((value.reshape(right.shape) - right).abs().nan_to_num(math.inf))
            if gaps.max() > largest:
                largest, example = gaps.max().item(), (gaps == gaps.max()).nonzero()[0][0] + 1
                size = f"{largest:.2g}, in {mode}, example {example}".replace("inf", "no number (nan)")
                self.difference = f"The largest difference from the right {part} is {size}."

    def agreement(self):
        """Which parts occur among the results of the student's calls, as a whole or step by step."""

        def occurs(value):
            steps = value.split(1, dim=1) if value.dim() > 2 and value.shape[1] > 1 else ()
            return any(same(call.result, value) for call in self.calls) or (steps and all(map(occurs, steps)))

        outputs = self.expected((), self.modes[0])  # which fills self.parts
        parts = self.parts | outputs
        right = [part for part, value in parts.items() if occurs(value)]
        wrong = [part for part in parts if part not in right]
        return f" Found in your code as it should be: {', '.join(right) or 'nothing'}; not found: {', '.join(wrong)}."

    def line_of(self, names):
        """The student's last line that calls the first of these functions that occurs, or the line of `forward`."""
        target = self.code[self.target]
        code = getattr(getattr(target, "forward", target), "__code__", None)
        lines = [call.line for name in names for call in reversed(self.calls) if call.name == name and call.line]
        return lines[0] if lines else f"{code.co_filename}, line {code.co_firstlineno}" if code else ""


class WithDropout(Question):
    """A network with dropout.

    dropout | self.dropout = nn.Dropout(dropout), as __init__ is told, or F.dropout(x, p, training=self.training)
        dropout-in-evaluation; dropout; dropout is still active in evaluation, after model.eval(){found}
        dropout-probability; dropout; the dropout probability is {found}, and must be {right}
    """
