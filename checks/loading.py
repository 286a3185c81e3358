"""Executes what a student's files define: imports, classes, functions and constants, never a training.

A module that is neither torch's nor the standard library's may be missing here. Its name then belongs to a `StandIn`,
which fails only when it is used; so does the name of an assignment that fails.
"""

import __future__

import ast
import builtins
import inspect
import json
import re
import sys
import types
from pathlib import Path

REAL_PACKAGES = {"torch", "numpy", "einops"}  # the last two are used if they are there
# An assignment may call these, and nothing that the student wrote: `model = train(...)` is no constant.
PURE_PACKAGES = {"torch", "numpy", "math", "collections", "types", "string", "builtins"}
IMPURE_BUILTINS = {"open", "exec", "eval", "compile", "__import__", "input", "print", "exit", "quit", "breakpoint"}
MAGIC = re.compile(r"(?m)^([ \t]*)(?:\w+ *= *)?(?:[!%?].*|\w+\?+[ \t]*)$")  # lines for the shell or the notebook
OTHER_LANGUAGES = ("%%bash", "%%sh", "%%html", "%%javascript", "%%writefile", "%%latex")
FUTURE_ANNOTATIONS = __future__.annotations.compiler_flag  # type hints stay text, so that they cannot fail


class CallError(Exception):
    """The user has to mend a file first, or to call the check in another way; the message is one line."""


class StandIn:
    """Stands in for what is missing. Its attributes are stand-ins as well; it fails when it is called."""

    def __init__(self, name, reason):
        self._name, self._reason = name, reason

    def __getattr__(self, attribute):
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return StandIn(f"{self._name}.{attribute}", self._reason)

    def __call__(self, *args, **kwargs):
        if len(args) == 1 and not kwargs and (inspect.isfunction(args[0]) or inspect.isclass(args[0])):
            return args[0]  # as a decorator it changes nothing
        raise NameError(f"{self._name} is used, but {self._reason}")

    def __mro_entries__(self, bases):
        return ()


class Code:
    """The definitions of a student's files, {name shown to the user: source text}."""

    def __init__(self, files):
        self.cells = {name: list(split_cells(name, text)) for name, text in files.items()}
        self.filenames = {cell for cells in self.cells.values() for cell, _ in cells}
        self.modules, self.failed = {}, {}  # failed: {class: (problem, line)}
        for name in files:
            self.load(name)

    def __getitem__(self, name):
        """The class or function of this name, or None; of several the last that is defined."""
        return next(reversed(self.all(name)), None)

    def all(self, name):
        found = [vars(module).get(name) for module in self.modules.values()]
        return [obj for obj in found if obj is not None and getattr(obj, "__module__", None) in self.modules]

    def calls(self, method, function):
        """Whether a method of this name is called in a file that defines or uses this function."""
        files = [[node for _, tree in cells for node in ast.walk(tree)] for cells in self.cells.values()]
        named = [{getattr(node, field, "") for node in nodes for field in ("name", "id", "attr")} for nodes in files]
        called = [{getattr(node.func, "attr", "") for node in nodes if isinstance(node, ast.Call)} for nodes in files]
        return any(function in names and method in methods for names, methods in zip(named, called))

    def load(self, name):
        if name not in self.modules:
            module = self.modules[name] = types.ModuleType(name)
            module.__builtins__ = vars(builtins) | {"__import__": self.import_module}
            for cell, tree in self.cells[name]:
                for node in tree.body:
                    self.execute(node, vars(module), cell)
        return self.modules[name]

    def own(self, name):
        """The student's module that an import of `a.b.name` means, or None: name.py, b/name.py or a/b/name.py."""
        for file in reversed(self.cells):
            parts = zip(reversed(Path(file).with_suffix("").parts), reversed(name.split(".")))
            if name and all(part == wanted for part, wanted in parts):
                return self.load(file)

    def import_module(self, name, globals=None, locals=None, fromlist=(), level=0):
        """`__import__` for the student's files: their own modules, real ones, and stand-ins for all others."""
        top, own = name.partition(".")[0], self.own(name)
        if not level and (top in REAL_PACKAGES or (top in sys.stdlib_module_names and not own)):
            return __import__(name, globals, locals, fromlist)
        if own and (fromlist or top == name):
            return own
        reason = f"the module {top or 'beside it'} is not among the files that were given"
        package = StandIn(name if fromlist else top, reason)
        modules = {item: self.own(f"{name}.{item}".strip(".")) for item in fromlist or ()}
        vars(package).update({item: module for item, module in modules.items() if module})
        return package

    def execute(self, node, namespace, cell):
        """Execute one statement if it is a definition; an assignment or import that fails leaves a stand-in."""
        names = []
        if isinstance(node, ast.Try) or (isinstance(node, ast.If) and is_constant(node.test, namespace)):
            test = ast.Assert(node.test) if isinstance(node, ast.If) else ast.Pass()
            failed = run(ast.copy_location(test, node), namespace, cell)
            for inner in node.orelse if failed else node.body:
                self.execute(inner, namespace, cell)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            problem = run(node, namespace, cell)
            self.failed |= {node.name: (problem, f"{cell}, line {node.lineno}")} if problem else {}
        elif isinstance(node, ast.Import | ast.ImportFrom) and run(node, namespace, cell):
            names = [alias.asname or alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            parts = [part for target in getattr(node, "targets", None) or [node.target] for part in ast.walk(target)]
            if any(isinstance(part, ast.Attribute | ast.Subscript) for part in parts):
                return  # it would change something that is defined elsewhere
            if node.value is None or not is_constant(node.value, namespace) or run(node, namespace, cell):
                names = [part.id for part in parts if isinstance(part, ast.Name)]
        for name in names:
            namespace[name] = StandIn(name, f"{cell}, line {node.lineno} fails or is not executed in the check")


def run(node, namespace, cell):
    """Execute a statement; returns what went wrong, or None."""
    try:
        exec(compile(ast.Module([node], []), cell, "exec", FUTURE_ANNOTATIONS, True), namespace)
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"


def is_constant(expression, namespace):
    """Whether the expression calls nothing but harmless functions of Python and torch."""
    functions = [node.func for node in ast.walk(expression) if isinstance(node, ast.Call)]
    for name in [node.id for function in functions for node in ast.walk(function) if isinstance(node, ast.Name)]:
        value = namespace.get(name, vars(builtins).get(name))
        home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", type(value).__module__)
        is_pure = name not in IMPURE_BUILTINS and (home or "builtins").partition(".")[0] in PURE_PACKAGES
        if not is_pure and not isinstance(value, StandIn):
            return False
    return True


def split_cells(name, text):
    """The (file name, syntax tree) of a file, or of each code cell of a notebook."""
    if not name.endswith(".ipynb"):
        yield name, parse(text, name)
        return
    try:
        sources = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError):
        raise CallError(f"{name} is no notebook that can be read; save it again as .ipynb or .py") from None
    for number, source in enumerate(sources, start=1):
        cell = f"{name}, cell {number}"
        try:
            yield cell, parse(source, cell)
        except CallError:  # a line for the shell or the notebook becomes `pass`, so that its block keeps a statement
            if not source.lstrip().startswith(OTHER_LANGUAGES):
                yield cell, parse(MAGIC.sub(r"\1pass", source), cell)


def parse(text, name):
    try:
        return ast.parse(text, name)
    except (SyntaxError, ValueError) as error:
        message = f"{name}, line {getattr(error, 'lineno', 0) or 1}: {getattr(error, 'msg', error)}"
        raise CallError(f"{message}; mend this first") from None
