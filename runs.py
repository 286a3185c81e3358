"""The folder of a run: one writer at a time, checkpoints, resuming, and finding a run again."""

import hashlib
import json
import os
import platform
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import filelock

import files
from options import DEFAULT_SEED, Interrupted, UserError, rank, typed, warn

CONFIG, HISTORY, RESULT = "config.json", "metrics.jsonl", "result.json"
LAST, BEST = "last.pt", "best.pt"
LOCK, NEW = ".lock", ".new-"
RESULT_KEYS = ("title", "bundled", "n_params", "best_epoch", "history", "test")  # of every trained network's result
# These options do not change the result. (Data are compared by fingerprint; earlier runs have "verbose".)
WHERE = ("data", "data_dir", "runs_dir", "run_name", "resume", "skip_test", "device", "threads", "verbose")
NETWORKS = Path(__file__).with_name("models.py")
MAX_NAME = 80  # characters of a folder's name; longer ones are cut


def make_config(question, args, data, kind="run", ignored=()):
    """What determines the numbers of a run, and where they came from.

    Args:
        question: the folder of its runs, such as "q2".
        args: the parsed `options.Options`.
        data: has title, bundled and fingerprint.
        kind: "run", or "comparison" of several runs.
        ignored: options that do not change what is trained, such as how a finished model is decoded.
    """
    values = {name: plain(value) for name, value in vars(args).items() if name not in ignored}
    shown_otherwise = (*WHERE, "scale", "seed", "dataset")
    changed = {k: v for k, v in values.items() if k not in shown_otherwise and v != plain(args.defaults.get(k))}
    return {
        "question": question,
        "kind": kind,
        "options": values,
        "changed": changed,
        "data": {"name": data.title, "bundled": data.bundled, "fingerprint": data.fingerprint},
        "networks": plain(NETWORKS),
        "versions": {"python": platform.python_version()} | {p: metadata.version(p) for p in ("torch", "numpy")},
        "hardware": {"cpu": cpu_name(), "n_cpus": n_cpus()},
    }


def plain(value):
    """The value of an option as a config has it: a path as text, code as name and hash, one in a list by itself."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, Path) and value.suffix == ".py" and value.is_file():
        return f"{value.name}-{hashlib.sha256(value.read_bytes()).hexdigest()[:8]}"
    return str(value) if isinstance(value, Path) else value


def cpu_name():
    """The processor as Linux names it; what Python knows of it elsewhere."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    return platform.processor()


def n_cpus():
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def differences(config, other):
    """The names of the options, and "data" or "kind", in which two configs differ in what decides about the numbers."""
    options, others = config["options"], other["options"]
    names = sorted(name for name in options.keys() | others.keys() if options.get(name) != others.get(name))
    names = [name for name in names if name not in WHERE]
    if config["kind"] != other["kind"]:
        names.append("kind")
    if config["data"]["fingerprint"] != other["data"]["fingerprint"]:
        names.append("data")
    return names


def warn_of_other_networks(folder, config):
    """Say that models.py has changed since a run was trained: its weights may now stand in other equations."""
    if not config["options"].get("models") and config.get("networks") not in (None, plain(NETWORKS)):
        warn(f"models.py has changed since {typed(folder)} was trained; if its equations have, train it again")


def folder_of(config, runs_dir, base, run_name=None):
    """The folder of the run with this config.

    It is `run_name`, or named for people: `base`, then the options that differ from the defaults. A folder that holds
    another run, of other data for instance, is left to it: the name then ends in a few digits of the config's hash.
    """
    parent = Path(runs_dir) / config["question"]
    if run_name:
        return parent / run_name
    usual = {"scale": "full", "seed": DEFAULT_SEED}
    shown = {name: config["options"].get(name, default) for name, default in usual.items()}
    shown = config["changed"] | {name: value for name, value in shown.items() if value != usual[name]}
    parts = [base, "bundled"] if config["data"]["bundled"] else [base]
    for name, value in shown.items():
        value = ",".join(map(str, value)) if isinstance(value, list) else value
        parts.append(name if value is True else f"{name}={value}")
    name = "-".join(parts).replace("/", "_")
    deciding = {name: value for name, value in config["options"].items() if name not in WHERE}
    deciding = json.dumps([deciding, config["kind"], config["data"]["fingerprint"]], sort_keys=True)
    if len(name) > MAX_NAME or (
        os.path.exists(parent / name / CONFIG) and differences(config, read_config(parent / name))
    ):
        name = f"{name[:MAX_NAME]}-{hashlib.sha256(deciding.encode()).hexdigest()[:6]}"
    return parent / name


def read_config(folder):
    """The config of the run in a folder; raises `UserError` if it cannot be read."""
    path = folder / CONFIG
    config = files.read_json(path, of=dict)
    for keys, kind in ((("kind",), str), (("options",), dict), (("changed",), dict), (("data", "fingerprint"), str)):
        files.read_json(path, *keys, of=kind)
    return config


def read_result(folder):
    """The result of the trained network in `folder`; raises `UserError` if it cannot be read or is another's."""
    path = Path(folder) / RESULT
    result = files.read_json(path, of=dict)
    if missing := [key for key in RESULT_KEYS if key not in result]:
        raise UserError(f"{path} lacks {', '.join(missing)}; {files.RETRAIN}")
    return result


@dataclass(frozen=True)
class Found:
    """A finished run in its folder."""

    folder: Path

    @property
    def is_finished(self):
        return os.path.exists(self.folder / RESULT)

    @cached_property
    def config(self):
        """What `make_config` returned."""
        return read_config(self.folder)

    @property
    def options(self):
        return self.config["options"]

    @property
    def changed(self):
        """The options that differ from the handout's."""
        return self.config["changed"]

    @property
    def bundled(self):
        return files.read_json(self.folder / CONFIG, "data", "bundled", of=bool)

    @property
    def title(self):
        return self.result["title"]

    @cached_property
    def result(self):
        return files.read_json(self.folder / RESULT, of=dict)

    @property
    def figures(self):
        return sorted(path.name for path in self.folder.glob("*.pdf") if path.is_file())


def find(runs_dir, question, kind="run", **wanted):
    """The finished runs of a question, the newest first, as a list of `Found`.

    Args:
        kind: "run" or "comparison".
        wanted: what options must be, for instance dataset="octmnist", seed=42.

    Raises `UserError` for a folder whose config cannot be read.
    """
    paths = [
        path.parent for path in (Path(runs_dir) / question).glob(f"*/{RESULT}") if os.path.exists(path.parent / CONFIG)
    ]
    found = [run for run in map(Found, sorted(paths)) if run.config["kind"] == kind]
    found = [run for run in found if all(run.options.get(name) == value for name, value in wanted.items())]
    return sorted(found, key=lambda run: (run.folder / RESULT).stat().st_mtime, reverse=True)


def read_checkpoint(path, map_location="cpu"):
    """What was written to a `last.pt` or `best.pt`, a dict; raises `UserError` for a file that cannot be read."""
    try:
        return files.read_state(path, map_location)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {files.RETRAIN}") from None
    except Exception as error:  # torch and pickle raise whatever a damaged file makes them raise
        reason = files.reason_of(error) if isinstance(error, OSError | ValueError) else type(error).__name__
        raise UserError(f"{path} cannot be read as a checkpoint ({reason}); {files.RETRAIN}") from error


def load_weights(model, path):
    """Load the weights of a `best.pt` into `model`; returns what else it holds.

    Raises `UserError` if they are another network's.
    """
    state = read_checkpoint(path, next(model.parameters()).device)
    try:
        model.load_state_dict(state.pop("weights"))
    except (KeyError, RuntimeError, AttributeError, TypeError) as error:
        advice = "give the options that it was trained with, or train it again if models.py has changed"
        raise UserError(f"{path} holds the weights of another network; {advice}") from error
    return state


class Run:
    """One run and its folder; `open_run` makes it.

    The history (one dict an epoch) lives in `last.pt`; `metrics.jsonl` is written anew from it. Each epoch writes, in
    this order and each file whole or not at all: `best.pt` if the epoch is the best so far, `last.pt`, `metrics.jsonl`.
    So a resumed run repeats whatever a kill cut off, with the same numbers.

    Attributes:
        is_new: there is no checkpoint of this run yet; the folder may hold another run's files.
        result: what `add` has written, or None if the run is not finished.
    """

    def __init__(self, folder, config, resume=None):
        self.folder, self.config = folder, config
        is_begun = os.path.exists(folder / LAST)  # False, and no error, in a folder without permission
        self.is_new = not (resume and is_begun)
        self.result = None
        if not self.is_new:
            theirs = read_config(folder)
            if names := differences(config, theirs):
                advice = "resume it with its own options, or start anew without -resume"
                raise UserError(f"the run in {folder} was made with other {', '.join(names)}; {advice}")
            warn_of_other_networks(folder, theirs)
            self.config = config | {"networks": theirs.get("networks")}
            self.result = read_result(folder) if os.path.exists(folder / RESULT) else None
        elif resume == "must":
            raise UserError(f"there is no run to resume in {folder}; leave out -resume to start it")
        elif resume is None and (is_begun or os.path.exists(folder / RESULT)):
            print(f"replacing the run in {typed(folder)}")

    def checkpoint(self):
        """What `save_epoch` wrote last, or None for a run that starts. Also mends `metrics.jsonl`."""
        if self.is_new:
            return None
        state = read_checkpoint(self.folder / LAST)
        self.write_history(state["history"])
        return state

    def save_epoch(self, state, best=None):
        """Write the checkpoints of one epoch; `best`, weights and what goes with them, if it is the best so far."""
        prefix = NEW if self.is_new else ""
        if best is not None:
            files.write_state(self.folder / f"{prefix}{BEST}", best)
        files.write_state(self.folder / f"{prefix}{LAST}", state)
        if self.is_new:  # another run's files give way now that this one has a whole checkpoint
            files.write_json(self.folder / f"{NEW}{CONFIG}", self.config)
            with files.writing(self.folder):
                for name in (RESULT, LAST):  # without these two it is no run any more, whatever else is there
                    (self.folder / name).unlink(missing_ok=True)
                for name in (BEST, CONFIG, LAST):
                    (self.folder / f"{NEW}{name}").replace(self.folder / name)
            self.is_new = False
        self.write_history(state["history"])

    def load_best(self, model):
        """Load the weights that were best on validation."""
        load_weights(model, self.folder / BEST)

    def write_history(self, history):
        """Write `metrics.jsonl` anew."""
        files.write_bytes(self.folder / HISTORY, "".join(json.dumps(line) + "\n" for line in history).encode())

    def add(self, **result):
        """Add these scores to the result and write it; from the first call on the run counts as finished."""
        self.result = (self.result or {}) | result
        files.write_json(self.folder / CONFIG, self.config)
        files.write_json(self.folder / RESULT, self.result)


@contextmanager
def open_run(folder, config, resume=None):
    """A `Run` in `folder`, which no other process may write to as long as the block lasts.

    Args:
        config: of `make_config`, JSON values only.
        resume: None replaces the run that is there as soon as this one has a checkpoint; "must" goes on with it; "auto"
            goes on with it or starts it.

    Of several processes (`parallel`) rank 0 alone has it, the others something that writes nothing.

    Raises `UserError` if the folder cannot be written, is in use, or holds a run with another config (with `resume`).
    """
    if rank() > 0:
        yield SimpleNamespace(is_new=True, result=None, checkpoint=lambda: None, load_best=lambda model: None)
        return
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(f"another process is writing to {folder}; wait for it, or give this one a -run_name") from error
    except OSError as error:
        advice = "name another folder with -runs_dir DIR"
        raise UserError(f"cannot write to {folder} ({files.reason_of(error)}); {advice}") from error
    run = None
    try:
        for leftover in [*folder.glob(".*.tmp"), *folder.glob(f"{NEW}*")]:  # of a process that was killed
            leftover.unlink()
        run = Run(folder, config, resume)
        yield run
    except KeyboardInterrupt:
        kept = "no epoch was finished, nothing was changed"
        if run is not None and not run.is_new:
            kept = "the same command with -resume goes on from the last finished epoch"
        raise Interrupted(kept) from None
    finally:
        lock.release()
