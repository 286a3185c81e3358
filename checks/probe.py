"""The engine of the check: it runs a student's class and looks for the equations whose numbers equal its own."""

import inspect
import itertools
import math
import sys
from typing import NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from checks.loading import StandInUsed

GOLDEN = (5**0.5 - 1) / 2  # the fractional parts of its multiples are spread evenly, so no two factors are alike
DROPOUTS = {"dropout", "dropout1d", "dropout2d", "dropout3d"}
RELATIVE, ABSOLUTE = 1e-3, 1e-4  # of equality; the order of additions changes 1e-6, a mistake 1e-2
MAX_MISTAKES = 2  # that are looked for in one class at the same time
MODES = ("training", "evaluation")
SEED = 42


class Mistake(NamedTuple):
    """A known mistake. `calls` are the functions of torch in whose line it is, `mend` is the line of code that is right."""

    key: str
    forms: tuple
    part: str
    calls: tuple
    text: str
    mend: str


def mistakes(table):
    """{form: Mistake} of a table with two lines a mistake: `key/form,form; part; calls; text`, then the mend."""
    lines = [line.strip() for line in table.splitlines() if line.strip()]
    found = {}
    for head, mend in zip(lines[::2], lines[1::2]):
        name, part, calls, text = (field.strip() for field in head.split(";", 3))
        key, _, forms = name.partition("/")
        forms = tuple(f"{key}/{form}" for form in forms.split(",")) if forms else (key,)
        for form in forms:
            found[form] = Mistake(key, forms, part, tuple(calls.split()), text, mend)
    return found


DROPOUT_MISTAKES = """
dropout-in-evaluation; dropout; dropout; dropout is still active in evaluation, after model.eval(){found}
    self.dropout = nn.Dropout(p), or F.dropout(x, p, training=self.training)
dropout-probability; dropout; dropout; the dropout probability is {found}, and must be {right}
    self.dropout = nn.Dropout(dropout), with the argument of __init__
"""


def marked(x):
    """What stands in for dropout in training: each feature times a known factor between 0.5 and 1.5.

    A factor depends on the feature alone, so a loop over the steps sees the factors that one call for all steps sees. The
    features of a map (batch_size, channels, height, width) are its channels and cells.
    """
    shape = x.shape[1:] if x.dim() == 4 else x.shape[-1:]
    factors = 0.5 + (GOLDEN * torch.arange(1, math.prod(shape) + 1)) % 1
    return x * factors.view(shape).to(x)


def unchanged(x):
    return x


def dropped(x, place, m, drop):
    """x with dropout, unless m says that dropout is missing in this place or applied twice."""
    x = x if f"{place}-dropout" in m else drop(x)
    return drop(x) if f"dropout-twice/{place}" in m else x


class Call(NamedTuple):
    """A call of a torch function in the student's code."""

    function: object
    name: str
    line: str
    args: tuple
    kwargs: dict
    result: object
    mode: str

    def arguments(self, *names, **defaults):
        """Its arguments by name, where `names` are those that may come without one."""
        return defaults | dict(zip(names, self.args)) | self.kwargs

    def repeat(self, x):
        """The same call with another first argument."""
        return self.function(x, *self.args[1:], **{key: value for key, value in self.kwargs.items() if key != "input"})


class Recorder(TorchFunctionMode):
    """Replaces dropout by `marked` and remembers every call of a torch function, with the student's line."""

    def __init__(self, filenames, mode=""):
        super().__init__()
        self.filenames, self.mode, self.calls = filenames, mode, []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(func, "__name__", "").rstrip("_")
        result = self.dropout(*args, **kwargs) if name in DROPOUTS else func(*args, **kwargs)
        self.calls.append(Call(func, name, self.line(), args, kwargs, result, self.mode))
        return result

    @staticmethod
    def dropout(input, p=0.5, training=True, inplace=False, train=True):
        if not (training and train and p):
            return input
        result = marked(input)
        return input.copy_(result) if inplace else result

    def line(self):
        frame = sys._getframe(2)
        while frame and frame.f_code.co_filename not in self.filenames:
            frame = frame.f_back
        return f"{frame.f_code.co_filename}, line {frame.f_lineno}" if frame else ""


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
    if isinstance(error, SystemExit):
        return Failure("the code calls exit(); return the result instead", line)
    if isinstance(error, TooLong):
        return Failure("stopped at the time limit; is there a loop that does not end?", line)
    if isinstance(error, MemoryError) or "alloc" in text or "not enough memory" in text:
        return Failure("stopped at the memory limit; is a tensor of the wrong shape?", line)
    if "CUDA" in text or "NVIDIA" in text:
        return Failure("the code needs a GPU and the check has none; use .to(x.device) in place of .cuda()", line)
    if isinstance(error, StandInUsed | EOFError | PermissionError):
        return Failure(text, line)
    text = text.replace(
        "'StandIn'", "something that is not here while the code is checked (a missing module or constant)"
    )
    return Failure(f"{type(error).__name__}: {text}", line)


def randomize(module):
    """Give every parameter a random value, so that no bias is 0 and no norm the identity; ties between layers stay."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / min(fan_in, 100) ** 0.5)
    return module


def layers(module, kind, shape=None, name=None):
    """The layers of this kind in a module, those of another weight shape left out, the one called `name` first."""
    found = [(key, layer) for key, layer in module.named_modules() if isinstance(layer, kind)]
    found = [(key, layer) for key, layer in found if shape is None or tuple(layer.weight.shape) == tuple(shape)]
    return [layer for key, layer in sorted(found, key=lambda item: item[0] != name)]


def the_layer(module, kind, shape=None, name=None):
    found = layers(module, kind, shape, name)
    if not found or (len(found) > 1 and getattr(module, name or "", None) is not found[0]):
        what = f"{kind.__name__} {'x'.join(map(str, shape)) if shape else ''}".strip()
        number = "no layer" if not found else f"{len(found)} layers"
        raise Failure(f"{number} {what} found that could be the skeleton's `{name}`", status="not recognised")
    return found[0]


def numbers(*shape, seed=SEED):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(actual, right):
    """Whether two tensors are equal in shape, up to axes of length 1, and in numbers, of which one at least is finite."""
    if not isinstance(actual, torch.Tensor) or actual.squeeze().shape != right.squeeze().shape:
        return False
    actual, right = actual.squeeze().float(), right.squeeze().float()
    scale = right[right.isfinite()].abs().max().item() if right.isfinite().any() else math.nan
    return torch.allclose(actual, right, rtol=RELATIVE, atol=ABSOLUTE * scale, equal_nan=True)


def subsets(items):
    return itertools.chain.from_iterable(itertools.combinations(items, n) for n in range(len(items) + 1))


class Question:
    """One line of the output: a class or function of a student's, and the equations that it has to compute.

    A subclass says `outputs`, what the student's code computes, and `equations`, what the statement says, both {part: tensor};
    `equations` may have more parts, the intermediate ones. It takes m, a set of forms of mistakes and of variants that are
    right as well, and `drop`, what dropout does in this mode.
    """

    number = name = target = equation = says = ""  # target: the student's class or function
    n_required = None  # arguments of __init__ without default, where another edition has a class of the same name
    known = {}  # form: Mistake
    variants = {}  # what is right in another way: the note that says so
    modes = MODES
    dropout = None  # the statement's probability; None if it gives none

    def __init__(self, code, edition):
        self.code, self.edition = code, edition
        self.calls, self.notes, self.found = [], [], []  # found: (mistake, its text)
        self.module = None

    @classmethod
    def fits(cls, code):
        """Whether the student's files have this class, with this edition's signature."""
        if not code[cls.target] or cls.n_required is None:
            return bool(code[cls.target])
        parameters = inspect.signature(code[cls.target]).parameters.values()
        return sum(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters) == cls.n_required

    def build(self, name, *args, **kwargs):
        """An instance of the student's class with random weights."""
        if name in self.code.failed and self.code[name] is None:
            line, problem = self.code.failed[name]
            raise Failure(problem, line)
        made = self.call(self.code[name], *args, **kwargs)
        self.calls.clear()  # of __init__
        return randomize(made) if isinstance(made, nn.Module) else made

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

    def block(self, function, *args):
        """A part of the student's own code that the equations take as it is."""
        with Recorder(self.code.filenames):
            return function(*args)

    def prepare(self):
        """Build the student's module; a subclass adds here what it finds by reading layers."""

    def outputs(self, mode):
        raise NotImplementedError

    def equations(self, m, drop, mode):
        raise NotImplementedError

    def diagnose(self):
        """Name a mistake by other means than numbers, for numbers that no hypothesis has."""

    def evidence(self, keys):
        """A sentence that shows a mistake in the student's numbers, or ''."""
        return ""

    def name_mistake(self, form, **values):
        mistake = self.known[form]
        if mistake.key not in [other.key for other, _ in self.found]:
            self.found.append((mistake, mistake.text.format(**values)))

    def check(self):
        """The result of this question as a dictionary."""
        try:
            self.prepare()
            observed = {}
            for mode in self.modes:
                self.set_mode(mode)
                observed[mode] = self.outputs(mode)
            self.check_dropout()
            self.search(observed)
            return self.result()
        except Failure as failure:
            line = failure.line or self.line_of(())
            return self.result(status=failure.status, where=line, lines=[str(failure)])

    def check_dropout(self):
        """Name a dropout that is active in evaluation, and a probability that is not the one of the statement."""
        for call in self.calls:
            if call.name in DROPOUTS and "dropout-probability" in self.known:
                p = call.arguments("input", "p", p=0.5)["p"]
                if call.mode == "evaluation" and call.result is not call.args[0]:
                    self.name_mistake("dropout-in-evaluation", found="")
                    self.modes = ("training",)  # its other numbers are as in training
                elif p and self.dropout and p != self.dropout:
                    self.name_mistake("dropout-probability", found=p, right=self.dropout)

    def search(self, observed):
        """Find the hypothesis with the fewest mistakes that has the observed numbers."""
        for n_mistakes in range(MAX_MISTAKES + 1):
            for forms in itertools.combinations(self.numeric_forms(), n_mistakes):
                if len({self.known[form].key for form in forms}) < n_mistakes:
                    continue
                for variant in subsets(self.variants):
                    if self.agrees(observed, {*forms, *variant}):
                        self.notes += [self.variants[flag] for flag in variant]
                        for form in forms:
                            self.name_mistake(form)
                        return self.compare(observed) if forms else None
        self.diagnose()
        self.compare(observed)
        if not self.found:
            raise Failure(self.difference + self.agreement(), status="not recognised")

    def numeric_forms(self):
        return [form for form, mistake in self.known.items() if "{" not in mistake.text]

    mode = ""

    def set_mode(self, mode):
        self.mode = mode
        if self.module is not None:
            self.module.train(mode == "training")

    def expected(self, m, mode):
        self.set_mode(mode)
        with torch.no_grad():
            return self.equations(frozenset(m), marked if mode == "training" else unchanged, mode)

    def agrees(self, observed, m):
        try:
            for mode in self.modes:
                expected = self.expected(m, mode)
                if not all(same(value, expected[part]) for part, value in observed[mode].items()):
                    return False
        except (RuntimeError, IndexError, ValueError, TypeError, LookupError):
            return False  # a mistake that is impossible with these shapes
        return True

    difference = ""

    def compare(self, observed):
        """Say where the student's numbers differ most from the right ones."""
        largest = -1
        for mode, part in ((mode, part) for mode in self.modes for part in observed[mode]):
            value, right = observed[mode][part], self.expected((), mode)[part]
            if value.squeeze().shape != right.squeeze().shape:
                shapes = f"{tuple(value.shape)}, and must have {tuple(right.shape)}"
                self.difference = f"In {mode}, {part} has the shape {shapes}."
                return
            gaps, dim = (value.reshape(right.shape) - right).abs().nan_to_num(math.inf), self.batch_dim(part)
            if gaps.max() > largest:
                largest = gaps.max().item()
                examples = gaps.amax([i for i in range(gaps.dim()) if i != dim]) if gaps.dim() > 1 else gaps
                size = f"{largest:.2g}" if largest < math.inf else "no number (nan)"
                place = f"in {mode}, example {examples.argmax() + 1}"
                self.difference = f"The largest difference from the right {part} is {size}, {place}."

    def batch_dim(self, part):
        return 0

    def agreement(self):
        """Which of the intermediate parts occur among the results of the student's calls."""
        results = [call.result for call in self.calls]
        parts = self.expected((), self.modes[0])
        right = [part for part, value in parts.items() if any(same(result, value) for result in results)]
        wrong = [part for part in parts if part not in right]
        return f" Found in your code as it should be: {', '.join(right) or 'nothing'}; not found: {', '.join(wrong)}."

    def line_of(self, names):
        """The student's last line that calls one of these functions, or the line where `forward` begins."""
        for call in reversed(self.calls):
            if call.name in names and call.line:
                return call.line
        target = self.code[self.target]
        code = getattr(getattr(target, "forward", target), "__code__", None)
        return f"{code.co_filename}, line {code.co_firstlineno}" if code else ""

    def result(self, status=None, where="", lines=()):
        keys = [mistake.key for mistake, _ in self.found]
        result = {"number": self.number, "name": self.name, "edition": self.edition, "says": self.says}
        result |= {"mistakes": [], "equation": self.equation}
        if self.found and status is None:
            status = "WRONG"
            lines = [text for text in (self.evidence(keys) or self.difference,) if text]
            result["mistakes"] = [
                mistake._asdict()
                | {"text": text, "where": self.line_of(mistake.calls), "numeric": text == mistake.text}
                for mistake, text in self.found
            ]
        return result | {"status": status or "ok", "where": where, "lines": list(lines), "notes": self.notes}
