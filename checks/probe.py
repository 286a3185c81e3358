"""The engine of the check: it runs a student's class and looks for the equations whose numbers equal its own."""

import inspect
import itertools
import math
import re
import sys
import traceback
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

GOLDEN = (5**0.5 - 1) / 2  # the fractional parts of its multiples are spread evenly, so no two factors are alike
DROPOUTS = {"dropout", "dropout1d", "dropout2d", "dropout3d"}
RELATIVE, ABSOLUTE = 1e-3, 1e-4  # of equality; the order of additions changes 1e-6, a mistake 1e-2
MAX_MISTAKES = 2  # that are looked for in one class at the same time
SEED = 42
LOG_PROBABILITIES = {"log_softmax": "it returns log-probabilities, with which the cross-entropy is the same"}


def marked(x):
    """What stands in for dropout in training: each feature times a known factor between 0.5 and 1.5.

    A factor depends on the feature alone, so a loop over the steps sees what one call for all steps sees. The features
    of a map (batch_size, channels, height, width) are its channels and cells.
    """
    shape = x.shape[1:] if x.dim() == 4 else x.shape[-1:]
    factors = 0.5 + (GOLDEN * torch.arange(1, math.prod(shape) + 1)) % 1
    return x * factors.view(shape).to(x)


class Call(namedtuple("Call", "function name layer where training args kwargs result is_in_place")):
    """A call of a torch function in the student's code: by which layer, in which line, and whether in training."""

    def arguments(self, *names, **defaults):
        """Its arguments by name; `names` are those that may be given by their place."""
        return defaults | dict(zip(names, self.args)) | self.kwargs

    def repeat(self, x):
        """The same call with another first argument."""
        return self.function(x, *self.args[1:], **self.kwargs)


def line_in(filenames, frames):
    """The last of the (frame, line) that is in one of these files, as text."""
    lines = [(frame.f_code.co_filename, line) for frame, line in frames if frame.f_code.co_filename in filenames]
    return "{}, line {}".format(*lines[-1]) if lines else ""


class Recorder(TorchFunctionMode):
    """Replaces dropout by `marked` and remembers every call of a torch function, with the student's line."""

    def __init__(self, filenames, training):
        super().__init__()
        self.filenames, self.training, self.calls = filenames, training, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(function, "__name__", "").strip("_")
        args = (kwargs.pop("input"), *args) if "input" in kwargs else args
        first = args[0] if args and isinstance(args[0], torch.Tensor) and not args[0].is_inference() else None
        version = None if first is None else first._version  # torch counts the operations in place
        result = self.dropout(*args, **kwargs) if name in DROPOUTS else function(*args, **kwargs)
        stack = list(traceback.walk_stack(sys._getframe(1))) if self.filenames else []  # of the student's code
        where = line_in(self.filenames, stack)  # the outermost line: in `forward`, not in what that calls
        torchs = itertools.takewhile(lambda item: item[0].f_code.co_filename not in self.filenames, stack)
        layer = next((frame.f_locals["self"] for frame, _ in torchs if "self" in frame.f_locals), None)
        is_in_place = first is not None and first._version != version
        self.calls.append(Call(function, name, layer, where, self.training, args, kwargs, result, is_in_place))
        return result

    @staticmethod
    def dropout(x, p=0.5, training=True, inplace=False, train=True):
        if not (training and train and p):
            return x
        return x.copy_(marked(x)) if inplace else marked(x)


MESSAGES = {  # what is said about an exception that matches, if not its own text
    "is used, but|PermissionError": "",
    "NotImplementedError": "not written yet",
    "EOFError": "the code asks for input, and a check has nobody to answer",
    "SystemExit": "the code calls exit(); return the result instead",
    "TooLong": "stopped at the time limit; is there a loop that does not end?",
    "MemoryError|alloc": "stopped at the memory limit; is a tensor of the wrong shape?",
    "inplace operation": "backward() fails: an operation in place overwrites what it needs (inplace=True, +=, x[i] =)",
    "CUDA|NVIDIA": "the code needs a GPU and the check has none; use .to(x.device) in place of .cuda()",
    "'StandIn'": "something is used that is missing in the check: a module, or a constant that is not executed",
}


class Failure(Exception):
    """The student's code raised an exception, or cannot be called as the skeleton calls it."""

    def __init__(self, message, where="", status="ERROR"):
        super().__init__(message)
        self.where, self.status = where, status


class TooLong(BaseException):
    """The time limit is over; no Exception, so that the student's `except Exception` does not catch it."""


def explain(error, filenames):
    """The `Failure` that tells an exception of the student's code in one line, with the student's line."""
    where = line_in(filenames, traceback.walk_tb(error.__traceback__))  # the innermost line
    text = " ".join(str(error).split())[:300]
    told = f"{type(error).__name__}: {text}"
    messages = [message or text for kind, message in MESSAGES.items() if re.search(kind, told)]
    status = "not written" if isinstance(error, NotImplementedError) else "ERROR"
    return Failure([*messages, told][0], where, status)


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


def tensors(results):
    """The tensors among these results of functions."""
    parts = [result if isinstance(result, tuple) else (result,) for result in results]
    return [part for part in itertools.chain(*parts) if isinstance(part, torch.Tensor)]


def contains(tensors, value):
    return any(same(tensor, value) for tensor in tensors)


def needed(function):
    """The names of the arguments of a function, or of the __init__ of a class, that have no default."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD}


# Code of a mistake or variant with this key. It stands in place of line number `row` of the equations, or behind it.
Line = namedtuple("Line", "key row code is_behind")


class Question:
    """One line of the output: a class or function of the student's, and the equations that it has to compute.

    `drive` calls a function as the homework's script does, and returns what it computes as {name: tensor}. The function
    is `student`, the student's code, or the equations of `table`, which take the same arguments. Beside an equation of
    the table stand the known mistakes in it, each with the code that it has in place of the right one:

        z = self.linear_in(q)      | no-projection: q
        p = softmax(s, dim=2)      | softmax-dimension with 0, 1: softmax(s, dim=$)
                                   | no-softmax: s
                                   | weights-dropout: self.drop(p)

    So softmax-dimension has two forms, with 0 and with 1. Code that reads the name on the left, as self.drop(p) does,
    comes behind the equation, so that it can be wrong together with another mistake in the same equation. What is right
    in another way stands there as a mistake does, and has a note in `variants`. The table is executed as code. It reads
    `args`, the arguments, and leaves `result`; if no hypothesis has the student's numbers, what it leaves in `parts` is
    looked for among them.
    """

    number = name = target = says = ""  # target: the student's class or function, by default the name of this class
    table, variants = "", {}
    uses = ()  # the student's other classes or functions that it calls
    arguments = ()  # of the student's __init__ in the check
    n_required = None  # arguments of __init__ without default, where another edition has a class of the same name
    returns = ""  # what `forward` returns, if that is a tensor and a state
    learned = None  # the output that the loss is computed from, if not all are
    inputs, output = (), ""  # of a single call, and the name of its result
    layers = {}  # the skeleton's name: (kind, weight shape if that tells which one it is)
    modes, training = ("training", "evaluation"), True
    gradients = False
    dropout = None  # the statement's probability; None if it gives none

    def __init_subclass__(cls):
        cls.target = vars(cls).get("target", cls.__name__)
        cls.name = vars(cls).get("name", cls.target)
        cls.equations, cls.lines = [], []
        for text in filter(str.strip, inspect.cleandoc(cls.table).splitlines()):
            equation, _, mistake = text.partition(" | ")
            if equation.strip():
                cls.equations.append(equation.rstrip())
            label, colon, expression = mistake.partition(": ")
            (name, equals, _), (key, _, values) = cls.equations[-1].partition(" = "), label.partition(" with ")
            for value in values.split(", ") if colon else ():
                code = (name if equals else "") + equals + expression.replace("$", value)
                is_behind = name.strip() in re.findall(r"\w+", expression)
                cls.lines.append(Line(key, len(cls.equations) - 1, code, is_behind))

    def __init__(self, code, edition):
        self.code, self.edition, self.module = code, edition, nn.Module()
        self.calls, self.notes, self.difference = [], [], ""
        self.found, self.made = {}, {}  # {key of a mistake: what to say}, {layer: the student's line that makes it}

    @classmethod
    def applies(cls, code):
        """Whether the student's files have this class or function."""
        return code[cls.target] is not None or cls.target in code.failed

    @classmethod
    def fits(cls, code):
        """Whether the student's files have this class, with this edition's signature."""
        return code[cls.target] is not None and cls.n_required in (None, len(needed(code[cls.target])))

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
        with register_module_module_registration_hook(self.remember):
            made = randomize(self.call(self.code[name], *args, **kwargs))
        self.calls.clear()  # of __init__
        return made

    def remember(self, module, name, layer):
        """Remember the student's line that gives a module this layer."""
        self.made[layer] = line_in(self.code.filenames, traceback.walk_stack(sys._getframe(1)))

    def call(self, function, *args, **kwargs):
        """Call the student's code with marked dropout; an exception becomes a `Failure`."""
        recorder = Recorder(self.code.filenames, self.training)
        try:
            with recorder:
                result = function(*args, **kwargs)
        except (Exception, SystemExit, TooLong) as error:
            raise explain(error, self.code.filenames) from error
        self.calls += recorder.calls
        if result is None:
            raise Failure("it returns nothing; is there a return at its end?")
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

    def prepare(self):
        """Build the student's module."""
        self.module = self.build(self.target, *self.arguments)

    def student(self, *args):
        result = self.call(self.module, *args)
        if self.returns and [isinstance(part, torch.Tensor) for part in result] != [True, False]:
            raise Failure(f"forward must return {self.returns}, in this order")
        return result

    def drive(self, function):
        """The first of the results for `inputs`."""
        result = function(*self.inputs)
        return {self.output: result[0] if isinstance(result, tuple) else result}

    def drop(self, x):
        """Dropout in the equations."""
        return marked(x) if self.training else x

    def name_mistake(self, key, where, details="", numeric=False):
        """Remember a mistake at a line; `numeric` if its numbers are found."""
        self.found.setdefault(key, {"key": key, "details": details, "where": where, "numeric": numeric})

    def check(self):
        """The result of this question as a dictionary."""
        status, where = "ok", ""
        try:
            self.prepare()
            observed = self.run(self.student)
            self.check_dropout()
            self.search({key: value for key, value in observed.items() if key[0] in self.modes})
            if not self.found and any(weight.requires_grad for weight in self.module.parameters()):
                self.check_gradients()
        except (Exception, TooLong) as error:
            own = Failure(f"the check cannot read this ({type(error).__name__}: {error})", status="not recognised")
            failure = error if isinstance(error, Failure) else own
            if not self.found:
                status, where, self.difference = failure.status, failure.where, str(failure)
        result = {name: getattr(self, name) for name in ("number", "name", "edition", "says", "notes", "difference")}
        status = "WRONG" if self.found else status
        return result | {"mistakes": list(self.found.values()), "status": status, "where": where}

    def run(self, function, modes=None):
        """What `drive` returns for a function: {(mode, part): tensor}."""
        values = {}
        for mode in modes or self.modes:
            self.training = mode == "training"
            self.module.train(self.training)
            with torch.set_grad_enabled(self.gradients):
                values |= {(mode, part): value for part, value in self.drive(function).items()}
        return values

    def check_dropout(self):
        """Name a dropout that is active in evaluation, and a probability that is not the one of the statement."""
        for call in self.calls:
            p = call.arguments("x", "p", p=0.5)["p"] if call.name in DROPOUTS else 0
            if p and not call.training and call.result is not call.args[0]:
                self.name_mistake("dropout-in-evaluation", call.where)
                self.modes = ("training",)  # whose other numbers are those of evaluation
            elif p and self.dropout not in (None, p):
                where = self.made.get(call.layer, call.where)
                self.name_mistake("dropout-probability", where, f"{p}; the statement has {self.dropout}")

    def hypotheses(self):
        """The choices of lines from the table, those with the fewest mistakes first."""
        mistakes = [line for line in self.lines if line.key not in self.variants]
        variants = [line for line in self.lines if line.key in self.variants]
        for sizes in itertools.product(range(MAX_MISTAKES + 1), range(len(variants) + 1)):
            for pair in itertools.product(*map(itertools.combinations, (mistakes, variants), sizes)):
                lines = sorted(sum(pair, ()), key=lambda line: line.is_behind)
                replaced = [line.row for line in lines if not line.is_behind]
                if len(set(replaced)) == len(replaced):
                    yield lines

    def search(self, observed):
        """Find the hypothesis with the fewest mistakes that has the observed numbers."""
        hypothesis = next((lines for lines in self.hypotheses() if self.agrees(observed, lines)), None)
        if hypothesis is None:
            raise Failure(self.describe(observed), status="not recognised")
        for line in hypothesis:
            if line.key in self.variants:
                self.notes.append(self.variants[line.key])
            else:
                self.name_mistake(line.key, self.place(hypothesis, line), numeric=True)
        self.hypothesis = hypothesis

    def check_gradients(self):
        """Name the layers whose gradients are not those of the equations, or say why `backward` fails."""
        self.gradients, self.calls, mode = True, [], self.modes[:1]
        outputs = self.run(self.student, mode)
        try:
            own, right = self.slopes(outputs), self.slopes(self.expected(self.hypothesis, mode))
        except RuntimeError as error:
            in_place = [call for call in self.calls if call.is_in_place]
            places = [call.where for call in in_place if str([*call.args[0].shape]) in str(error)]
            raise Failure(str(explain(error, ())), *places[-1:]) from error
        wrong = [name for name, slope in right.items() if slope.abs().max() > ABSOLUTE and not same(own[name], slope)]
        if wrong:
            layers = dict.fromkeys(name.rpartition(".")[0] or name for name in wrong)
            self.name_mistake("gradient", "", ", ".join(layers))

    def slopes(self, outputs):
        """{name of a weight: its gradient}, of the sum of these outputs with fixed factors."""
        weights = {name: weight for name, weight in self.module.named_parameters() if weight.requires_grad}
        learned = [output for (_, name), output in outputs.items() if self.learned in (None, name)]
        total = sum((output * numbers(*output.shape)).sum() for output in learned)
        total = total + sum(0 * weight.sum() for weight in weights.values())  # a gradient of 0 where it has none
        slopes = dict(zip(weights, torch.autograd.grad(total, weights.values())))
        for layer in self.module.modules():
            if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
                padding = torch.tensor([layer.padding_idx])  # torch leaves out its gradient, and the equations do not
                names = [name for name in slopes if weights[name] is layer.weight]
                slopes |= {name: slopes[name].index_fill(0, padding, 0) for name in names}
        return slopes

    def expected(self, lines=(), modes=None):
        """What the equations compute, with these lines of the table in place of the right ones."""
        code = list(self.equations)
        for line in lines:
            code[line.row] = f"{code[line.row]}; {line.code.strip()}" if line.is_behind else line.code
        source = compile("\n".join(code), "table", "exec")

        def equations(*args):
            self.values = vars(F) | vars(sys.modules[self.__module__]) | {"self": self, "args": args, "parts": {}}
            exec(source, self.values)
            return self.values["result"]

        with Recorder((), False) as self.recorder:
            return self.run(equations, modes)

    def agrees(self, observed, lines):
        try:
            expected = (self.expected(lines, [mode]) for mode in self.modes)
            return all(same(observed[key], right) for values in expected for key, right in values.items())
        except Exception:
            return False  # a mistake that is impossible with these shapes

    def describe(self, observed):
        """Where an output is furthest from the right one, and which parts of the equations occur in the code."""
        expected = self.expected()
        agrees = {key: same(observed[key], value) for key, value in expected.items()}
        has_shape = {key: observed[key].squeeze().shape == value.squeeze().shape for key, value in expected.items()}
        mode, name = first = min((key for key in agrees if not agrees[key]), key=has_shape.get)
        actual, right = observed[first], expected[first]
        if not has_shape[first]:
            text = f"{name} in {mode} is {tuple(actual.shape)}, and must be {tuple(right.shape)}"
            made = [call for call in self.calls if any(x.shape == actual.shape for x in tensors([call.result]))]
            self.name_mistake("output-shape", made[0].where if made else "", text)
        else:
            gaps = (actual.reshape(right.shape) - right).abs()
            gaps = gaps.reshape(len(right) if right.dim() else 1, -1).amax(dim=1)  # of each example
            size = f"{gaps.max():.2g}, in {mode}, example {gaps.argmax() + 1}"
            text = f"The largest difference from the right {name} is {size}"
        self.expected(modes=[mode])  # leaves the parts of this mode
        found = {part: self.occurs(value) for part, value in self.values["parts"].items()}
        found |= {part: agrees[mode, part] for key, part in agrees if key == mode}
        lists = [", ".join(part for part in found if found[part] is right) for right in (True, False)]
        return f"{text}. Found in your code as it should be: {lists[0] or 'nothing'}; not found: {lists[1]}."

    def occurs(self, value):
        """Whether these numbers are a result of a call in the student's code, or of several that are its steps."""
        if contains(tensors(call.result for call in self.calls), value):
            return True
        return value.dim() > 2 and value.shape[1] > 1 and all(map(self.occurs, value.split(1, dim=1)))

    def place(self, hypothesis, line):
        """The student's line of a mistake: the first with a result that only the right equations have, or only these.

        If there is none, then something is missing behind the last call.
        """
        others = [other for other in hypothesis if other is not line]
        for mode in self.modes:
            calls = [call for call in self.calls if call.where and call.training == (mode == "training")]
            wrong, right = self.results_of(hypothesis, mode), self.results_of(others, mode)
            for call in calls:
                if any(contains(wrong, value) != contains(right, value) for value in tensors([call.result])):
                    return call.where
        return calls[-1].where if calls else ""

    def results_of(self, lines, mode):
        """What torch returns to the equations, at each call."""
        self.expected(lines, [mode])
        return tensors(call.result for call in self.recorder.calls)
