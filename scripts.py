"""The scripts as modules: their names have hyphens, so that `import` does not find them."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def load_script(name):
    """The script `name`, a path from the root of the project, as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem.replace("-", "_"), ROOT / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
