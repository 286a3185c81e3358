"""Comparisons of several learning rates or seeds, or of two networks of a question.

Several learning rates or seeds are runs of the same script, side by side as processes. Learning rates are compared on
validation, and only the best one is tested.
"""

import itertools
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

import files
import metrics
import options
import runs
import utils
from data import images
from experiment import PREDICTION_COLUMNS, PREDICTIONS
from metrics import format_interval
from options import SEVERAL, Interrupted, UserError, command_line

CLASSES = "test_predictions.npz"  # true and predicted classes of the test images
LABELS = {"learning_rate": "lr", "seed": "seed"}  # of the compared options, on screen and in figures


def single(task):
    """The task with one learning rate and one seed; where there are several, they are compared first.

    Of several learning rates the best on validation is left. Returns None if nothing is left to do: all seeds are
    tested, or the best rate is not to be tested.
    """
    distinct = {name: list(dict.fromkeys(getattr(task.args, name))) for name in SEVERAL}
    task = task.with_options(**distinct)
    args = task.args
    if len(args.learning_rate) > 1:
        best = compare(task)["best"]["learning_rate"]
        if args.skip_test:
            return None
        name = args.run_name and f"{args.run_name}, {LABELS['learning_rate']} {decimal(best)}"  # as `compare` names it
        task = task.with_options(learning_rate=[best], resume="auto", run_name=name)
    if len(args.seed) > 1:
        compare(task)
        return None
    return task.with_options(learning_rate=task.args.learning_rate[0], seed=args.seed[0])


def compare(task):
    """Make one run of each learning rate and seed; write, draw and print the comparison, and return its result.

    A run that fails does not take the others down.
    """
    args = task.args
    if options.world_size() > 1:
        raise UserError("several processes train one network: give one -learning_rate and one -seed")
    if not task.facts()["n_examples"]["val"]:
        raise UserError("without validation examples nothing tells which run is better")
    children = make_children(task)
    commands = [{label: [sys.executable, sys.argv[0], *command_line(run.args)]} for label, run in children.items()]
    jobs = max(1, runs.n_cpus() // (args.threads or task.max_threads))
    jobs = 1 if options.BESIDE_OTHERS in os.environ else jobs
    options.say(f"{len(commands)} runs, {min(jobs, len(commands))} at a time")
    errors = run_side_by_side(commands, jobs, {options.COMPARED: "1"})
    entries, histories = collect(task, children, errors)
    result = summarise(task, children, entries)
    folder, title = task.folder("comparison"), utils.data_title(task.data)
    with runs.open_run(folder, task.config("comparison"), args.resume and "auto") as run:
        labels = {"train_loss": "Training loss", task.score: f"Validation {task.score_name}"}
        for name, ylabel in labels.items():
            curves = {label: [line[name] for line in history] for label, history in histories.items()}
            utils.plot_curves(folder / f"{name}.pdf", curves, ylabel, title)
        run.add(**result)
    report(task, result)
    print(f"written to {options.typed(folder)}")
    return result


def best_rate(task):
    """The learning rate that is best for a task; its rates are compared if that is still to be done."""
    found = task.finished("comparison")
    if not found:
        options.say("the learning rates of the plain network are compared first")
        compare(task)
        found = task.finished("comparison")
    rate = files.read_json(found[0].folder / runs.RESULT, "best", "learning_rate", of=float)
    options.say(options.fold(f"learning rate {rate:g}, the best of the comparison in {found[0].folder.name}"))
    return rate


def compared_options(args):
    """The names of the options that have several values."""
    return [name for name in SEVERAL if len(getattr(args, name)) > 1]


def make_children(task):
    """A task for each combination of the values, by label; only where seeds alone differ they are tested."""
    args, over = task.args, compared_options(task.args)
    skip_test, resume = over != ["seed"] or args.skip_test, args.resume and "auto"
    children = {}
    for values in itertools.product(*(getattr(args, name) for name in SEVERAL)):
        label = ", ".join(f"{LABELS[name]} {decimal(value)}" for name, value in zip(SEVERAL, values) if name in over)
        name = args.run_name and f"{args.run_name}, {label}"
        changes = dict(zip(SEVERAL, values)) | {"skip_test": skip_test, "resume": resume, "run_name": name}
        children[label] = task.with_options(**changes)
    return children


def collect(task, children, errors):
    """What the runs have reached: an entry for each, and the histories of those that did not fail, by label."""
    entries, histories, score = [], {}, task.score
    for label, child in children.items():
        entry = {name: getattr(child.args, name) for name in SEVERAL} | {"run": child.folder().name}
        entry |= {"error": errors[label], score: None, "test": None}
        if entry["error"] is None:
            result = runs.read_result(child.folder())
            entry |= {score: result[score], "test": task.test_score(result) if result["test"] else None}
            histories[label] = result["history"]
        entries.append(entry)
    return entries, histories


def summarise(task, children, entries):
    """The result of a comparison: mean and range over the seeds of each learning rate, and the best rate."""
    over, score = compared_options(task.args), task.score
    finished = [entry for entry in entries if entry["error"] is None]
    if not finished:
        raise UserError(f"no run could be made: {entries[0]['error'].split(': error: ')[-1]}")
    rates = dict.fromkeys(entry["learning_rate"] for entry in finished)
    of_rate = {rate: [entry for entry in finished if entry["learning_rate"] == rate] for rate in rates}
    values = [{"learning_rate": rate} | spread([e[score] for e in of_rate[rate]]) for rate in rates]
    best = (max if task.maximize else min)(values, key=lambda value: value["mean"])
    is_tested = all(entry["test"] is not None for entry in finished)
    return {
        "question": task.question,
        "title": task.data.title,
        "bundled": task.data.bundled,
        **task.facts(),
        "over": over,
        "score": score,
        "entries": entries,
        "values": values,
        "best": of_rate[best["learning_rate"]][0],
        "test": spread([entry["test"] for entry in finished]) if is_tested else None,
        "pooled": task.pooled(list(children.values())) if is_tested and len(finished) == len(entries) else {},
    }


def decimal(number):
    """A number without an exponent: 0.00001 and not 1e-05."""
    return np.format_float_positional(number, trim="-") if isinstance(number, float) else str(number)


def spread(scores):
    """The mean and the range of the values of some scores."""
    values = [score["value"] for score in scores]
    return {"n": len(values), "mean": statistics.fmean(values), "low": min(values), "high": max(values)}


def report(task, result):
    """Print each run of a comparison, and what it says of the learning rates or of the seeds."""
    name, bundled = task.score_name, " (bundled)" if result["bundled"] else ""
    for entry in result["entries"]:
        label = ", ".join(f"{LABELS[option]} {decimal(entry[option])}" for option in result["over"])
        shown = entry["error"] or f"validation {name} {entry[result['score']]['value']:.4f}"
        shown += f", test {entry['test']['value']:.4f}" if entry["test"] else ""
        print(f"{label}: {shown}{bundled}")
    for split, score in [("validation", value) for value in result["values"]] + [("test", result["test"])]:
        if score is not None and score["n"] > 1:
            rate = f"learning rate {decimal(score['learning_rate'])}, " if "learning_rate" in score else ""
            span = f"{score['mean']:.4f} ({score['low']:.4f} to {score['high']:.4f})"
            print(f"{rate}{split} {name}, mean and range of {score['n']} seeds: {span}{bundled}")
    for label, score in result["pooled"].items():
        print(options.fold(f"{label}, {len(result['entries'])} seeds: {format_interval(score, sign='+')}{bundled}"))
    if "learning_rate" in result["over"]:
        print(f"best on validation: learning rate {decimal(result['best']['learning_rate'])}{bundled}")


def run_side_by_side(chains, jobs, environment):
    """Run command lines as processes, at most `jobs` at a time, and pass on their lines as they come, labelled.

    Args:
        chains: dicts from a label to the argument list of a process. Those of one dict run one after the other, also
            where one fails.
        jobs: how many run at the same time.
        environment: what is set in the environment of each process.

    Returns a dict from label to None, or to the last line that a process wrote to stderr if it failed. What a process
    wrote there is passed on when it has ended. Whatever ends the caller (Ctrl-C, a reader that went away) ends the
    processes first.
    """
    outcomes, processes, lines, starting = {}, [], queue.Queue(), threading.Lock()
    labels = [label for chain in chains for label in chain]
    width = max(map(len, labels)) + 2  # of the column of labels
    environment = os.environ | environment | {"COLUMNS": str(options.screen_width() - width)}
    is_over = False

    def pass_on(label, line):
        lines.put(options.fold(f"{label:<{width}}{line.rstrip()}", f"{label:<{width}}"))

    def follow(chain):
        for label, command in chain.items():
            try:
                with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
                    with starting:
                        if is_over:
                            return
                        streams = {"stdout": subprocess.PIPE, "stderr": errors, "text": True, "errors": "replace"}
                        process = subprocess.Popen(list(map(str, command)), env=environment, **streams)
                        processes.append(process)
                    for line in process.stdout:
                        pass_on(label, line)
                    outcomes[label] = failure_of(process, errors)
                    errors.seek(0)
                    for line in errors:
                        pass_on(label, line)
            except OSError as error:
                outcomes[label] = f"it could not be started ({error.strerror})"
            finally:
                lines.put(None)

    with ThreadPoolExecutor(jobs) as pool:
        for chain in chains:
            pool.submit(follow, chain)
        try:
            print_lines(lines, len(labels))  # in the main thread, which sees a closed pipe and an interrupt
        except BaseException as error:
            with starting:
                is_over = True
                for process in processes:
                    process.terminate()
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted("the same command with -resume goes on where each run stopped") from None
            raise
    return outcomes


def print_lines(lines, n_processes):
    """Print the lines of a queue until each process has put None there; in between say how many have, and the time."""
    start = time.perf_counter()
    with tqdm(total=n_processes, bar_format="{n} of {total} done, {elapsed}", disable=not sys.stderr.isatty()) as bar:
        while n_processes:
            try:
                line = lines.get(timeout=options.PATIENCE if bar.disable else 1)
            except queue.Empty:
                bar.refresh()
                if bar.disable:
                    options.say(f"{bar.total - n_processes} of {bar.total} done, {time.perf_counter() - start:.0f} s")
                continue
            if line is None:
                n_processes -= 1
                bar.update()
            else:
                with bar.external_write_mode():
                    print(line, flush=True)


def failure_of(process, errors):
    """What a process that failed wrote last to the file `errors`, when it has ended; None if it did not fail."""
    if process.wait() == 0:
        return None
    errors.seek(0)
    said = [line.strip() for line in errors if line.strip() and not line.startswith("warning:")]
    return said[-1] if said and process.returncode > 0 else "it was killed"


def counterpart(task, **changes):
    """The newest tested run of the same data whose options differ in these alone, a `runs.Found` or None."""
    for run in task.with_options(**changes).finished():
        if runs.read_result(run.folder)["test"]:
            return run
    return None


def mcnemar(task, correct, **changes):
    """McNemar's test of the network whose options differ in these alone against this one; None if it is not tested yet.

    correct: one boolean for each test image, whether this network has its class right.
    """
    other = counterpart(task, **changes)
    if other is None:
        return None
    theirs = images.read_correct(other.folder / CLASSES, len(correct))
    tested = {"run": other.folder.name, "acc": task.test_score(other.result)}
    return metrics.mcnemar(theirs, correct) | tested


def minus_counterpart(task, sources, hyps, **changes):
    """The scores of the run whose options differ in these alone minus those of this run, paired, on the test set.

    sources, hyps: the inputs of the test set and this run's texts. Returns None if there is no such run.
    """
    other = counterpart(task, **changes)
    if other is None:
        return None
    table = files.read_table(other.folder / PREDICTIONS, PREDICTION_COLUMNS)
    theirs = {row["source"]: row["prediction"] for row in table}
    if not theirs.keys() >= set(sources):
        raise UserError(f"{other.folder / PREDICTIONS} lacks sentences of the test set; {files.RETRAIN}")
    differences = task.differences([theirs[source] for source in sources], hyps)
    return {"run": other.folder.name, **changes, **differences}
