"""The folder of a run: files that are whole or absent, one writer at a time, checkpoints, resuming, and finding a run again.

torch is imported where a checkpoint is read or written, so that scripts without one need not wait for it.
"""

import errno
import hashlib
import io
import json
import os
import platform
import queue
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

import filelock

import safe_io
from options import DEFAULT_SEED, Interrupted, UserError, rank, warn

CONFIG, HISTORY, RESULT = "config.json", "metrics.jsonl", "result.json"
LAST, BEST = "last.pt", "best.pt"
FINISHED_EPOCH = "the last finished epoch"
LOCK, REPLACING, NEW = ".lock", ".replacing", ".new-"
RESULT_KEYS = ("title", "bundled", "n_params", "best_epoch", "history", "test")  # of every trained network's result
OWN_FILES = (RESULT, LAST, CONFIG, HISTORY, BEST, "*.pdf", "*.png", "test_predictions.*", "caps_generated_*.json")
# Options that say where or how a run is made, not what is computed; of the data the fingerprint decides.
WHERE = ("data", "data_dir", "runs_dir", "run_name", "resume", "skip_test", "device", "threads", "memory_budget")
# What the system refuses for reasons of its own; the file that was asked for may be good.
REFUSALS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)
MAX_NAME = 80  # characters of a folder's name; longer ones are cut


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
        with suppress(OSError):  # a folder that is missing or read-only, where there is nothing to remove
            temporary.unlink(missing_ok=True)


def write_json(path, value):
    """Write `value` as JSON, atomically; nan and infinity are refused, since JSON has neither."""
    with atomic_path(path) as new_path:
        new_path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def cannot_read(path, error, otherwise):
    """The `UserError` for a file that could not be read: `otherwise` is its message unless the system refused to read.

    Whatever advises to delete a file goes through here.
    """
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return UserError(f"cannot read {path} ({error.strerror}); the file may be good, run again when it can be read")
    return UserError(otherwise)


def read_json(path, *keys, of=None):
    """The value of a JSON file, or the one inside it that `keys` lead to.

    of: the form that the value must have (`safe_io.has_form`), for instance `dict`.

    Raises `UserError` if the file is no JSON, or has no such value.
    """
    try:
        value = json.loads(safe_io.read_bytes(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        message = f"{path} cannot be read as JSON ({error}); delete its folder and run again"
        raise cannot_read(path, error, message) from error
    try:
        for key in keys:
            value = value[key]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path} has no {'.'.join(map(str, keys))}; delete its folder and run again") from error
    if of is not None and not safe_io.has_form(value, of):
        where = ".".join(map(str, keys)) or "file"
        raise UserError(f"{path}: its {where} is no {form_name(of)}; delete its folder and run again")
    return value


def form_name(form):
    """A form of `safe_io.has_form` in messages."""
    return getattr(form, "__name__", str(form))


def read_result(folder, keys=RESULT_KEYS):
    """The result of the run in `folder`; raises `UserError` if it cannot be read or lacks one of `keys`."""
    path = Path(folder) / RESULT
    result = read_json(path, of=dict)
    missing = [key for key in keys if key not in result]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; delete its folder and run again")
    return result


def write_table(path, header, rows):
    """Write a text file of columns separated by tabs, atomically."""
    with atomic_path(path) as new_path:
        lines = ["\t".join(map(str, row)) + "\n" for row in (header, *rows)]
        new_path.write_text("".join(lines), encoding="utf-8")


def read_table(path, header):
    """The rows that `write_table` wrote, a dict from column to text each; raises `UserError` for another file."""
    try:
        first, *lines = safe_io.read_bytes(path).decode("utf-8").replace("\r\n", "\n").split("\n")[:-1]
        rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines]
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read ({error}); delete its folder and run again"
        raise cannot_read(path, error, message) from error
    if first.split("\t") != list(header):
        raise UserError(f"{path} is not the table that it was; delete its folder and run again")
    return rows


def save_checkpoint(path, state):
    """Write tensors and plain values for `load_checkpoint`, atomically."""
    import torch

    content = io.BytesIO()  # torch's own writer raises a RuntimeError on a full disk
    torch.save(state, content)
    with atomic_path(path) as new_path:
        new_path.write_bytes(content.getbuffer())


def load_checkpoint(path, map_location="cpu"):
    """What `save_checkpoint` wrote; only tensors and plain values are unpickled. Raises `UserError` for anything else."""
    try:
        return safe_io.read_state(path, map_location)
    except Exception as error:  # torch and pickle raise whatever a damaged file makes them raise
        reason = str(error) if type(error) is ValueError else type(error).__name__
        message = f"{path} is not a checkpoint of this project ({reason}); delete its folder and train again"
        raise cannot_read(path, error, message) from error


def load_weights(model, path):
    """Load the weights of a `best.pt` into `model`; raises `UserError` if they are another network's, or not finite."""
    weights = part_of_checkpoint(path, "weights", next(model.parameters()).device)
    try:
        model.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise wrong_network(path) from error
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise UserError(f"{path} holds weights that are not finite; delete its folder and train again")


def part_of_checkpoint(path, name, map_location="cpu", of=None):
    """One entry of a `best.pt`; raises `UserError` if it has none of that name, or not of the form `of` (`safe_io.has_form`)."""
    checkpoint = load_checkpoint(path, map_location)
    if not isinstance(checkpoint, dict) or name not in checkpoint:
        raise wrong_network(path)
    if of is not None and not safe_io.has_form(checkpoint[name], of):
        raise wrong_network(path)
    return checkpoint[name]


def wrong_network(path):
    return UserError(f"{path} holds the weights of another network; give the options that it was trained with")


def make_config(question, args, defaults, data, kind="run", ignored=()):
    """What determines the numbers of a run, and where they came from.

    Args:
        question: "q2" or "q3", the folder of its runs.
        args, defaults: the parsed options, and what they are if none is given.
        data: has title, bundled and fingerprint.
        kind: "run", or "comparison" of several runs.
        ignored: options that do not change what is trained, such as how a finished model is decoded.
    """

    def plain(value):
        """A path as text, and one value in a list by itself."""
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        return str(value) if isinstance(value, Path) else value

    values, usual = ({k: plain(v) for k, v in vars(part).items()} for part in (args, defaults))
    values = {k: v for k, v in values.items() if k not in ignored}
    unchanged = (*WHERE, "scale", "seed", "dataset")
    changed = {k: v for k, v in values.items() if k not in unchanged and v != usual.get(k)}
    return {
        "question": question,
        "kind": kind,
        "options": values,
        "changed": changed,
        "data": {
            "name": data.title,
            "bundled": data.bundled,
            "fingerprint": data.fingerprint,
            "origin": getattr(data, "origin", None),
        },
        "versions": versions(),
        "hardware": {"cpu": cpu_name(), "n_cpus": n_cpus()},
    }


def cpu_name():
    """The processor as Linux names it; what Python knows of it elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def versions():
    """What computed the numbers: Python and the packages that they depend on."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in ("torch", "numpy")}


def compared(config):
    """The part of a config that decides about the numbers."""
    options = {name: value for name, value in config["options"].items() if name not in WHERE}
    return {"kind": config["kind"], "options": options, "data": config["data"]["fingerprint"]}


def folder_of(config, runs_dir, base, run_name=None):
    """The folder of the run with this config.

    It is `run_name`, or named for people: `base`, then the options that differ from the defaults. A folder that holds another
    run, of other data for instance, is left to it: the name then ends in a few digits of the config's hash.
    """
    parent = Path(runs_dir) / config["question"]
    if run_name:
        return parent / run_name
    shown = config["changed"] | {
        name: config["options"][name]
        for name, usual in (("scale", "full"), ("seed", DEFAULT_SEED))
        if config["options"].get(name, usual) != usual
    }
    parts = [base] + ["bundled"] * config["data"]["bundled"]
    for name, value in shown.items():
        value = ",".join(map(str, value)) if isinstance(value, list) else value
        parts.append(name if value is True else f"{name}={value}")
    name = "-".join(parts).replace("/", "_")
    digest = hashlib.sha256(json.dumps(compared(config), sort_keys=True).encode()).hexdigest()[:6]
    if len(name) > MAX_NAME or ((parent / name / CONFIG).exists() and different(parent / name, config)):
        name = f"{name[:MAX_NAME]}-{digest}"
    return parent / name


def different(folder, config):
    """The names of the options, and "data" or "kind", in which the run in `folder` differs from `config`."""
    path = folder / CONFIG
    there = {
        "kind": read_json(path, "kind"),
        "options": read_json(path, "options", of=dict),
        "data": {"fingerprint": read_json(path, "data", "fingerprint")},
    }
    there, here = compared(there), compared(config)
    names = sorted(here["options"] | there["options"])
    names = [name for name in names if here["options"].get(name) != there["options"].get(name)]
    return names + [name for name in ("kind", "data") if there[name] != here[name]]


@dataclass(frozen=True)
class Found:
    """A finished run in its folder."""

    folder: Path

    @property
    def is_finished(self):
        return (self.folder / RESULT).exists()

    @cached_property
    def config(self):
        """What `make_config` returned."""
        read_json(self.folder / CONFIG, "data", "fingerprint", of=str)
        return read_json(self.folder / CONFIG, of=dict)

    @cached_property
    def options(self):
        return read_json(self.folder / CONFIG, "options", of=dict)

    @cached_property
    def changed(self):
        """The options that differ from the handout's."""
        return read_json(self.folder / CONFIG, "changed", of=dict)

    @cached_property
    def bundled(self):
        return read_json(self.folder / CONFIG, "data", "bundled", of=bool)

    @cached_property
    def result(self):
        return read_json(self.folder / RESULT, of=dict)

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
    paths = [path.parent for path in (Path(runs_dir) / question).glob(f"*/{RESULT}") if (path.parent / CONFIG).exists()]
    found = [Found(path) for path in sorted(paths)]
    found = [run for run in found if read_json(run.folder / CONFIG, "kind") == kind]
    found = [run for run in found if all(run.options.get(name) == value for name, value in wanted.items())]
    return sorted(found, key=lambda run: (run.folder / RESULT).stat().st_mtime, reverse=True)


class Run:
    """One run and its folder; `open_run` makes it.

    The history (one dict an epoch) lives in `last.pt`; `metrics.jsonl` is written anew from it. Each epoch writes, in this
    order and each file whole or not at all: `best.pt` if the epoch is the best so far, `last.pt`, `metrics.jsonl`. So a
    resumed run repeats whatever a kill cut off, with the same numbers.
    """

    def __init__(self, folder, config, resume=None):
        self.folder = folder
        self.config = config
        self.is_new = True  # no checkpoint of this run yet: the folder may hold another run's files
        self.place = FINISHED_EPOCH  # from where resuming goes on
        is_there = (folder / LAST).exists()
        self.replaces = is_there or (folder / RESULT).exists()
        if resume and is_there:
            self._refuse_other_config()
            self.is_new = False
        elif resume == "must":
            raise UserError(f"there is no run to resume in {folder}; leave out -resume to start it")
        elif resume is None and self.replaces:
            print(f"replacing the run in {folder}")

    @property
    def result(self):
        """The result of this run if it is finished, else None."""
        return None if self.is_new or not (self.folder / RESULT).exists() else read_result(self.folder)

    def checkpoint(self):
        """What `save_epoch` wrote last, or None for a run that starts. Also mends `metrics.jsonl`."""
        if self.is_new:
            return None
        path = self.folder / LAST
        checkpoint = load_checkpoint(path)
        if not isinstance(checkpoint, dict) or not safe_io.has_form(checkpoint.get("history"), [{str: object}]):
            raise UserError(f"{path} is the checkpoint of another model; start anew without -resume")
        try:
            self.write_history(checkpoint["history"])
        except (TypeError, ValueError) as error:  # of json: no plain values
            raise UserError(f"{path} has no history of numbers; start anew without -resume") from error
        except UserError as error:  # a finished run in a read-only folder is shown all the same
            warn(error)
        if checkpoint.get("place") is not None:
            self.place = "the same place as before"
        return checkpoint

    def save_epoch(self, state, history, best=None):
        """Write the checkpoints of one epoch; `best`, weights and what goes with them, if it is the best so far."""
        prefix = NEW if self.is_new else ""
        if best is not None:
            save_checkpoint(self.folder / f"{prefix}{BEST}", best)
        save_checkpoint(self.folder / f"{prefix}{LAST}", state | {"history": history})
        if self.is_new:  # another run's files give way now that this one has a whole checkpoint
            write_json(self.folder / f"{NEW}{CONFIG}", self.config)
            write_json(self.folder / REPLACING, [CONFIG, LAST] + [BEST] * (best is not None))
            finish_replacing(self.folder)
            self.is_new = False
        self.place = FINISHED_EPOCH
        self.write_history(history)

    def save_place(self, state, history, epoch, step):
        """Write the checkpoint of an epoch that is interrupted after `step` steps, unless a finished run would give way to it."""
        if not (self.is_new and self.replaces):
            self.save_epoch(state, history)
            self.place = f"epoch {epoch}, step {step}"

    def load_best(self, model):
        """Load the weights that were best on validation."""
        load_weights(model, self.folder / BEST)

    def write_history(self, history):
        """Write `metrics.jsonl` unless it says so already."""
        path, lines = self.folder / HISTORY, "".join(json.dumps(line) + "\n" for line in history)
        there = None
        with suppress(OSError):  # it is missing, or it cannot be read and writing says so
            there = path.read_bytes()
        if there != lines.encode():
            with atomic_path(path) as new_path:
                new_path.write_text(lines, encoding="utf-8")

    def finish(self, result):
        """Write the final figures; from now on the run counts as finished."""
        write_json(self.folder / CONFIG, self.config)
        write_json(self.folder / RESULT, result)

    def _refuse_other_config(self):
        names = different(self.folder, self.config)
        if names:
            raise UserError(
                f"the run in {self.folder} was made with other {', '.join(names)}; "
                "resume it with its own options, or start anew without -resume"
            )


class Follower:
    """What a process that follows another has in place of the `Run` that rank 0 writes."""

    is_new, folder, result = True, None, None

    def checkpoint(self):
        return None

    def save_epoch(self, *state):
        pass

    save_place = load_best = finish = save_epoch


def finish_replacing(folder):
    """Put a new run's first checkpoint in the place of the run that was here.

    The marker names the new files, all of them whole. A kill in between is made good when the folder is opened next. Raises
    `UserError` for a marker that names any other file: it may lead out of the folder.
    """
    marker = folder / REPLACING
    if not os.path.lexists(marker):
        return
    names = read_json(marker, of=[str])
    if not set(names) <= {CONFIG, LAST, BEST}:
        raise UserError(f"{marker} names files that no run has; delete its folder and run again")
    try:
        for path in [path for pattern in OWN_FILES for path in folder.glob(pattern)]:
            if path.name not in names:
                path.unlink()
        for name in names:
            if (folder / f"{NEW}{name}").exists():
                (folder / f"{NEW}{name}").replace(folder / name)
        marker.unlink()
    except OSError as error:
        raise cannot_write_to(folder, error) from error


def cannot_write_to(folder, error):
    return UserError(f"cannot write to {folder} ({error.strerror}); name another folder with -runs_dir DIR")


@contextmanager
def open_run(folder, config, resume=None):
    """A `Run` in `folder`, which no other process may write to as long as the block lasts.

    Args:
        config: of `make_config`, JSON values only.
        resume: None replaces the run that is there as soon as this one has a checkpoint; "must" goes on with it; "auto"
            goes on with it or starts it.

    Of several processes (`parallel`) rank 0 alone has it, the others a `Follower`.

    Raises `UserError` if the folder cannot be written, is in use, or holds a run with another config (with `resume`).
    """
    if rank() > 0:
        yield Follower()
        return
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(f"another process is writing to {folder}; wait for it, or give this one a -run_name") from error
    except OSError as error:
        if resume and (folder / RESULT).exists():  # a finished run can be shown without writing
            yield Run(folder, config, resume)
            return
        raise cannot_write_to(folder, error) from error
    run = None
    try:
        finish_replacing(folder)
        for pattern in (".*.tmp", f"{NEW}*"):  # of a process that was killed while it wrote
            for leftover in folder.glob(pattern):
                with suppress(OSError):  # they do no harm in a folder that cannot be written
                    leftover.unlink()
        run = Run(folder, config, resume)
        yield run
    except KeyboardInterrupt:
        started = run is not None and not run.is_new
        kept = (
            f"the same command with -resume goes on from {run.place}"
            if started
            else "no epoch was finished, nothing was changed"
        )
        raise Interrupted(kept) from None
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

    Returns a dict from label to None, or to the last line that a process wrote to stderr if it failed. Whatever ends the
    caller (Ctrl-C, a reader that went away) ends the processes first.
    """
    outcomes, processes, slots, lines = {}, {}, threading.Semaphore(jobs), queue.Queue()
    width = max(map(len, commands))
    is_over = threading.Event()

    def follow(label, command):
        with slots:
            if is_over.is_set():
                return
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
            )
            processes[label] = process
            errors = []
            reader = threading.Thread(target=lambda: errors.extend(process.stderr))
            reader.start()
            for line in process.stdout:
                lines.put(f"{label:<{width}}  {line}")
            reader.join()
            said = [line.strip() for line in errors if not line.startswith("warning:")]
            failure = said[-1] if said and process.wait() > 0 else "it was killed"
            outcomes[label] = failure if process.wait() != 0 else None
            lines.put(None)

    threads = [threading.Thread(target=follow, args=item) for item in commands.items()]
    for thread in threads:
        thread.start()
    try:
        n_running = len(threads)
        while n_running:  # printed by the main thread, which sees a closed pipe and an interrupt
            line = lines.get()
            if line is None:
                n_running -= 1
            else:
                print(line, end="", flush=True)
    except BaseException as error:
        is_over.set()
        for process in processes.values():
            process.terminate()
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted("the same command with -resume goes on where each run stopped") from None
        raise
    finally:
        for thread in threads:
            thread.join()
    return outcomes


def this_script(*arguments):
    """The argument list that runs this script again with other arguments."""
    return [sys.executable, sys.argv[0], *map(str, arguments)]
