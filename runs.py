"""The folder of a run: files that are whole or absent, one writer at a time, checkpoints, resuming, runs side by side.

torch is imported where a checkpoint is read or written, so that scripts without one need not wait for it.
"""

import json
import os
import platform
import subprocess
import sys
import threading
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import filelock

from options import UserError

CONFIG, HISTORY, RESULT = "config.json", "metrics.jsonl", "result.json"
LAST, BEST = "last.pt", "best.pt"
LOCK = ".lock"
OWN_FILES = (CONFIG, HISTORY, RESULT, LAST, BEST, "*.pdf", "test_predictions.*")
# Options that say where or how a run is made, not what is computed; of data the fingerprint decides.
NOT_COMPARED = ("data", "data_dir", "runs_dir", "resume", "run_name", "device")


@contextmanager
def atomic_path(path):
    """A temporary path beside `path`; it is flushed to the disk and renamed onto `path` if the block succeeds.

    A reader sees the old file or the new one, never a part. Raises `UserError` where the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb"):
            pass  # an unwritable folder shows here, before the work of the block
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); name another folder or make room there"
        ) from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def write_json(path, value):
    """Write `value` as JSON, atomically; nan and infinity are refused, since JSON has neither."""
    with atomic_path(path) as new_path:
        new_path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path, *keys):
    """The value of a JSON file, or the one inside it that `keys` lead to; raises `UserError` if there is none."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        for key in keys:
            value = value[key]
        return value
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); delete its folder and run again") from error
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path} has no {'.'.join(map(str, keys))}; delete its folder and run again") from error


def save_checkpoint(path, state):
    """Write tensors and plain values for `load_checkpoint`, atomically."""
    import torch

    with atomic_path(path) as new_path:
        torch.save(state, new_path)


def load_checkpoint(path, map_location="cpu"):
    """What `save_checkpoint` wrote; only tensors and plain values are unpickled. Raises `UserError` for anything else."""
    import torch

    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch and pickle raise whatever a damaged file makes them raise
        raise UserError(f"{path} is not a checkpoint of this project; delete its folder and train again") from error


def load_weights(model, path):
    """Load the weights of a `best.pt` into `model`; raises `UserError` if they are another network's."""
    weights = part_of_checkpoint(path, "weights", next(model.parameters()).device)
    try:
        model.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise wrong_network(path) from error


def part_of_checkpoint(path, name, map_location="cpu"):
    """One entry of a `best.pt`; raises `UserError` if it has none of that name."""
    try:
        return load_checkpoint(path, map_location)[name]
    except (KeyError, TypeError, IndexError) as error:
        raise wrong_network(path) from error


def wrong_network(path):
    return UserError(f"{path} holds the weights of another network; give the options that it was trained with")


def default_name(base, args, defaults, ignored=()):
    """A run's name: `base`, then each option that differs from its default, `octmnist-learning_rate=0.1-no_maxpool`.

    `args` and `defaults` are dicts from option to value; a default that is missing counts as None.
    """
    parts = [base]
    for name, value in args.items():
        if name in (*NOT_COMPARED, *ignored, "threads") or value == defaults.get(name):
            continue
        parts.append(name if value is True else f"{name}={value}")
    return "-".join(parts).replace("/", "_")


def run_folder(question, base, args, defaults, ignored=()):
    """The folder of the run with these options: the one that the user named, or one named after those that differ.

    Args:
        question: the folder of the question's runs.
        args, defaults: the parsed options, and what they are when none is given; `default_name` reads them.
    """
    defaults = vars(defaults) | {"scale": "full"}  # quick runs say so
    return args.runs_dir / question / (args.run_name or default_name(base, vars(args), defaults, ignored))


def make_config(question, args, data, ignored=()):
    """What determines a run's numbers, and where they came from, for `open_run`.

    Args:
        args: the parsed options; those in `ignored` do not matter to what is trained.
        data: has title, bundled and fingerprint.
    """
    values = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    return {
        "question": question,
        "options": {name: value for name, value in values.items() if name not in ignored},
        "data": {"name": data.title, "bundled": data.bundled, "fingerprint": data.fingerprint},
        "versions": versions(),
    }


def versions():
    """What computed the numbers: Python and the packages that they depend on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in ("torch", "numpy")}


class Run:
    """One run and its folder; `open_run` makes it.

    The history (one dict an epoch) lives in `last.pt`, `metrics.jsonl` is written anew from it. At each epoch come, each
    whole or not at all and in this order: `best.pt` if the epoch is the best so far, `last.pt`, `metrics.jsonl`; so
    that whatever was killed between them is repeated, with the same numbers, by a resumed run.
    """

    def __init__(self, folder, config, resume):
        self.folder = folder
        self.config = config
        self.is_new = True  # no checkpoint of this run yet: the folder may hold another run's files
        if resume and (folder / LAST).exists():
            self._refuse_other_config()
            self.is_new = False
        elif resume:
            print(f"nothing to resume in {folder}; starting from the beginning")
        elif any((folder / name).exists() for name in (LAST, RESULT)):
            print(f"replacing the run in {folder}")

    @property
    def result(self):
        """The result of this run if it is finished, else None."""
        path = self.folder / RESULT
        return None if self.is_new or not path.exists() else read_json(path)

    def checkpoint(self):
        """What `save_epoch` wrote last, or None for a run that starts."""
        return None if self.is_new else load_checkpoint(self.folder / LAST)

    def save_epoch(self, state, history, best=None):
        """Write the checkpoints of one epoch; `best`, weights and what goes with them, if it is the best so far."""
        if self.is_new:
            self._clear()
            write_json(self.folder / CONFIG, self.config)
            self.is_new = False
        if best is not None:
            save_checkpoint(self.folder / BEST, best)
        save_checkpoint(self.folder / LAST, state | {"history": history})
        with atomic_path(self.folder / HISTORY) as path:
            path.write_text("".join(json.dumps(line) + "\n" for line in history), encoding="utf-8")

    def finish(self, result):
        """Write the final figures; from now on the run counts as finished."""
        write_json(self.folder / RESULT, result)

    def _clear(self):
        """Remove the files of the run that this one replaces, those that would make it look alive first."""
        own = [path for pattern in OWN_FILES for path in self.folder.glob(pattern)]
        for path in sorted(own, key=lambda path: ({RESULT: 0, LAST: 1}.get(path.name, 2), path.name)):
            path.unlink()

    def _refuse_other_config(self):
        there_options, here_options = (
            {k: v for k, v in options.items() if k not in NOT_COMPARED}
            for options in (dict(read_json(self.folder / CONFIG, "options")), self.config["options"])
        )
        different = [k for k in sorted(here_options | there_options) if here_options.get(k) != there_options.get(k)]
        different += ["data"] * (
            read_json(self.folder / CONFIG, "data", "fingerprint") != self.config["data"]["fingerprint"]
        )
        if different:
            raise UserError(
                f"the run in {self.folder} was made with other {', '.join(different)}; "
                "resume it with its own options, or start anew without -resume"
            )


@contextmanager
def open_run(folder, config, resume=False):
    """A `Run` in `folder`, which no other process may write to as long as the block lasts.

    Args:
        config: what determines the numbers: {"options": {...}, "data": {"fingerprint": ...}, ...}, JSON values only.
        resume: go on with the run that is there. Otherwise it is replaced, once this run has its first checkpoint.

    Raises `UserError` if the folder cannot be written, is in use, or holds a run with another config (with `resume`).
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(f"another process is writing to {folder}; wait for it, or give this one a -run_name") from error
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror}); name another folder with -runs_dir DIR"
        ) from error
    try:
        for leftover in folder.glob(".*.tmp"):  # of a process that was killed while it wrote
            leftover.unlink()
        yield Run(folder, config, resume)
    finally:
        lock.release()


def n_cpus():
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_side_by_side(commands, jobs):
    """Run command lines as processes, at most `jobs` at a time, and pass on their lines as they come, labelled.

    Args:
        commands: dict from a label to the argument list of a process.
        jobs: how many run at the same time.

    Returns a dict from label to None, or to the last line that a process wrote to stderr if it failed.
    """
    outcomes, processes, slots, printing = {}, {}, threading.Semaphore(jobs), threading.Lock()
    width = max(map(len, commands))

    def follow(label, command):
        with slots:
            if outcomes.get(label) is not None:  # interrupted while it waited
                return
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
            )
            processes[label] = process
            errors = []
            reader = threading.Thread(target=lambda: errors.extend(process.stderr))
            reader.start()
            for line in process.stdout:
                with printing:
                    print(f"{label:<{width}}  {line}", end="", flush=True)
            reader.join()
            said = [line.strip() for line in errors if not line.startswith("warning:")]
            failure = said[-1] if said and process.wait() > 0 else "it was killed"
            outcomes[label] = failure if process.wait() != 0 else None

    threads = [threading.Thread(target=follow, args=item) for item in commands.items()]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        outcomes |= dict.fromkeys(commands, "interrupted")
        for process in processes.values():
            process.terminate()
        for thread in threads:
            thread.join()
        raise
    return outcomes


def this_script(*arguments):
    """The argument list that runs this script again with other arguments."""
    return [sys.executable, sys.argv[0], *map(str, arguments)]
