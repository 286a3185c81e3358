"""What the training scripts share beside the training loop: a question with its data, the steps around `fit`.

A script describes its question as a `Task`; its `main` calls the steps. `restore` brings a network back.
"""

import argparse
import copy
import os
import sys
from contextlib import contextmanager

import torch

import files
import metrics
import models
import options
import parallel
import runs
import utils
from data import text
from metrics import format_interval
from options import UserError, command_line, typed

PREDICTIONS = "test_predictions.txt"
PREDICTION_COLUMNS = ("source", "reference", "prediction", "distance")
MAX_OTHERS = 3  # runs that are named beside the one that is used
MPS_HINT = " (-device mps trains on the GPU of this Mac)"
N_EXAMPLES = 8  # of the test set, listed in the result
SEARCH_TITLES = {"greedy": "greedy", "beam": "beam of {beam_size}", "mbr": "minimum risk of {n_samples} samples"}
NOT_MADE = {"beam": None, "mbr": None}  # the test's scores of searches that are not asked for
TEST_SETS = {"official": "test set", "course_529": "the course's 529 images"}


class Task:
    """One question with its options and its data; a subclass says what is the question's own.

    Attributes:
        question: the folder of its runs; base_name: what the name of a run's folder begins with.
        score: the validation score that chooses the best epoch, and among compared values: val_ and its name among the
            scores of the test; `score_name` on screen.
        maximize: whether a higher score is better.
        free_options: options that do not change what is trained.
        max_threads: most CPU threads to use; it depends on the work alone (benchmarks/bench_threads.py).
        quick: the options in which quick scale has a recipe of its own.
        answers: what else the statement asks for, as formats of lines: of a tested run's result, and {bundled}, a note.
        is_recordable: whether `batch_loss` asks the device for no number, so that a CUDA graph can hold the step.
        args: the parsed `options.Options`.
        data: has title, bundled and fingerprint. Where a trained network is used again, by the `settings` that were
            kept with its weights, it is the `runs.Found`.

    What a subclass adds, in the order in which it is used:
        build() -> the network
        batches(device, split="train") -> the `utils.Batches` of a split
        batch_loss(model, batch) -> the sum of the losses of a batch's terms, and the number of terms
        evaluate(model) -> validation scores, a dict with `score` and its interval; empty without validation examples
        draw, which draws the learning curves, and test, which returns what the result says of the test set
        test_score(result) -> the one score of the test by which runs are compared, with its interval
    """

    question, base_name, score, score_name = None, None, None, None
    maximize, max_threads, is_recordable = True, 1, False
    free_options, quick, answers = (), (), ()

    def __init__(self, args, data, settings=None):
        self.args, self.data = args, data

    def settings(self):
        """Plain values that the weights are useless without, such as the vocabulary; kept with them in `best.pt`."""
        return {}

    def facts(self):
        """What the result says besides scores, known before the training."""
        return {}

    def best_baseline(self, result):
        """The best score without training, as the end of a line; empty if there is none."""
        scores = {k: v["value"] if isinstance(v, dict) else v for k, v in result.get("baselines", {}).items()}
        if not scores:
            return ""
        best = (max if self.maximize else min)(scores, key=scores.get)
        return f", {best.replace('_', ' ')} {scores[best]:.4f}"

    def best_epoch(self, history):
        """The epoch whose weights are kept."""
        return utils.best_line(history, self.score, self.maximize)["epoch"]

    def pooled(self, children):
        """Scores of the tests of several seeds together, a dict from a name to a score with its interval."""
        return {}

    def config(self, kind="run"):
        ignored = (*self.free_options, *options.USES, "run")
        return runs.make_config(self.question, self.args, self.data, kind, ignored)

    def folder(self, kind="run"):
        return runs.folder_of(self.config(kind), self.args.runs_dir, self.base_name, self.args.run_name)

    def finished(self, kind="run"):
        """The finished runs or comparisons with these options on these data, wherever they lie, the newest first."""
        config = self.config(kind)
        found = runs.find(self.args.runs_dir, self.question, kind)
        return [run for run in found if not runs.differences(config, run.config)]

    def with_options(self, **changes):
        """The same task with some options changed."""
        other = copy.copy(self)
        other.args = copy.copy(self.args)
        vars(other.args).update(changes)
        return other


class SequenceTask(Task):
    """A question whose network writes texts, greedily and as `options.add_search_options` asks for.

    Attributes:
        measure: a function (hyps, refs) -> the score by which runs are compared, with its interval.
        scores: a function (hyps, refs) -> all scores, a dict.
        loss_options: options that weigh terms of the training loss that the validation loss has not.

    What a subclass adds beside:
        decode(model, split, **search) -> the texts that `decoding.search` finds for the inputs of a split, in order
        differences(hyps_a, hyps_b) -> the paired differences a - b of the scores of two lists of texts for the test
            set, a dict
    """

    measure, scores = None, None
    free_options = options.SEARCH_OPTIONS
    loss_options = ("label_smoothing",)

    def refs(self, split):
        """The references of a split."""
        return self.data.refs(split)

    def score_of(self, hyps, split):
        """The score of texts for the inputs of a split; None for a split without examples."""
        return self.measure(hyps, self.refs(split)) if self.refs(split) else None

    def test_scores(self, hyps):
        """All scores of texts for the test set."""
        return self.scores(hyps, self.refs("test"))

    def differences_from(self, hyps, others):
        """The paired differences of the texts of a search from those of others, a dict from a search to its texts."""
        name = self.score.removeprefix("val_")
        differences = {f"{other} minus this": self.differences(texts, hyps)[name] for other, texts in others.items()}
        return {"difference": differences["greedy minus this"], "differences": differences}

    def mean_loss(self, model, split):
        """The mean loss of a split's symbols, without what training adds to it."""
        return utils.mean_loss(model, self.batches(next(model.parameters()).device, split), self.batch_loss)

    def test_score(self, result):
        return result["test"]["greedy"][self.score.removeprefix("val_")]

    def loss_weights(self):
        """The `loss_options` and their values, by the names that a figure shows."""
        return {name.replace("_", " "): getattr(self.args, name) for name in self.loss_options}


@contextmanager
def open_run(task):
    """The `runs.Run` of a task, with every generator seeded; `run.device` is where the network belongs."""
    args = task.args
    device = utils.configure_torch(args.seed, args.device, args.threads, task.max_threads, bool(args.models))
    with runs.open_run(task.folder(), task.config(), args.resume) as run:
        run.device = device
        yield run


def train(task, model, run):
    """Fit the model, which ends with its best weights. Of several processes rank 0 alone returns; the others end here.

    Returns the history, or None for a run that was finished before.
    """
    history = None
    if parallel.broadcast(run.result is not None):
        run.load_best(model)
    else:
        print_heading(task, model, run.device)
        if run.is_new and task.args.init is not None:
            start_from(task, model)
        history = utils.fit(task, model, run)
    if not parallel.is_main():
        sys.exit()
    if history is not None:
        options.say("drawing the figures" if task.args.skip_test else "drawing the figures, testing")
    return history


def print_heading(task, model, device):
    """Rank 0 prints which network is trained on what data."""
    if not parallel.is_main():
        return
    n_params = models.get_number_trainable_params(model)
    device = f"{device}{MPS_HINT}" if device.type == "cpu" and "mps" in utils.accelerators() else device
    options.say(options.fold(f"{utils.data_title(task.data)}: {n_params:,} trainable parameters, {device}"))
    if task.quick and task.args.scale == "quick":
        options.say("quick recipe: " + ", ".join(f"{name} {getattr(task.args, name)}" for name in task.quick))
    if not task.facts()["n_examples"]["val"]:
        options.warn("without validation examples the last epoch is kept")


def start_from(task, model):
    """Load the best weights of the run `-init`, a folder or its name; raises `UserError` if they do not fit."""
    folder = folder_of(task, task.args, "init")
    runs.warn_of_other_networks(folder, runs.read_config(folder))
    theirs = runs.load_weights(model, folder / runs.BEST)
    for name, value in task.settings().items():
        if theirs.get(name) != value:
            raise UserError(f"-init: the run in {folder} has other {name}; give one that was trained on these data")


def folder_of(task_class, args, option):
    """The folder of the trained run that an option names, by its path or its mere name; raises `UserError`."""
    named, parent = getattr(args, option), args.runs_dir / task_class.question
    folder = named if named.is_dir() else parent / named.name
    if not (folder / runs.BEST).is_file():
        raise UserError(f"-{option}: {typed(named)} is no folder of a trained run; name one of {typed(parent)}")
    return folder


def describe(task, model, history):
    """What the result says of a finished training."""
    best = utils.best_line(history, task.score, task.maximize)
    return {
        "title": task.data.title,
        "bundled": task.data.bundled,
        **task.facts(),
        "best_epoch": best["epoch"],
        "train_loss": best["train_loss"],
        task.score: task.evaluate(model).get(task.score),
        "history": history,
        "seconds": sum(line["seconds"] for line in history),
        "threads": torch.get_num_threads(),
        "n_processes": options.world_size(),
        "device": str(next(model.parameters()).device),
        "n_params": models.get_number_trainable_params(model),
        "test": None,
    }


def test_last_epoch(task, run):
    """The scores on the test set of the last epoch's weights, without `-ema_decay`'s average."""
    model = task.build().to(run.device)
    model.load_state_dict(run.checkpoint()["model"])
    return task.test_scores(task.decode(model, "test"))


def write_predictions(folder, sources, refs, hyps):
    """Write the greedy texts for the test set to a file, the worst last; returns the examples that the result lists."""
    rows = list(zip(sources, refs, hyps, metrics.distances(hyps, refs), strict=True))
    worst_last = sorted(rows, key=lambda row: row[3] / len(row[1]))
    files.write_table(folder / PREDICTIONS, PREDICTION_COLUMNS, worst_last)
    examples = text.at_equal_distances(list(enumerate(rows)), N_EXAMPLES)
    return [{"row": i, "src": source, "ref": ref, "hyp": hyp} for i, (source, ref, hyp, _) in examples]


def report(task, run):
    """Print what a finished run has reached, and where it lies; `result.json` has every score."""
    result = run.result
    score, best, baseline = result.get(task.score), result["best_epoch"], task.best_baseline(result)
    bundled = " (bundled)" if result["bundled"] else ""
    if score is not None:
        print(f"Best validation {task.score_name}: {format_interval(score)} in epoch {best}{bundled}")
    for name, scores in (result["test"] or {}).items():
        if scores is not None:
            search = (SEARCH_TITLES | TEST_SETS)[name].format(**scores)
            shown = f"{format_interval(scores[task.score.removeprefix('val_')])}{baseline}{bundled}"
            print(f"Final Test {task.score_name}, {search}: {shown}")
            baseline = ""
    for line in task.answers if result["test"] else ():
        print(options.fold(line.format(**result | {"bundled": bundled})))
    if task.args.models and result["test"]:
        ours = [run for run in task.with_options(models=None).finished() if run.result["test"]]
        shown = f"{format_interval(task.test_score(ours[0].result))}{bundled}" if ours else "not trained yet"
        print(f"Final Test {task.score_name} of this project's own network (without -models): {shown}")
    for example in result.get("examples", [])[:1]:
        print(options.fold(f"For example: {example['src']} -> {example['hyp']} (reference: {example['ref']})"))
    if options.COMPARED not in os.environ:  # else the comparison says where it lies itself
        print(f"written to {typed(run.folder)}")


def restore(task_class, args):
    """The trained run that the options mean, to use its weights again: task, network and folder.

    Says on stderr which run it is, and names the others of the question. Raises `UserError` if there is no such run.
    """
    found = latest(task_class, args)
    options.note(f"weights of {typed(found.folder)}")
    there = runs.find(args.runs_dir, task_class.question, models=found.options.get("models"))
    others = [run.folder.name for run in there if run.folder != found.folder]
    for name in others[:MAX_OTHERS] if args.run is None else []:
        options.note(f"or with --run {name}")
    runs.warn_of_other_networks(found.folder, found.config)
    state = found.result | runs.read_checkpoint(found.folder / runs.BEST)
    trained = options.Options(**args.defaults | found.options | {"models": args.models})
    task = task_class(trained, found, settings=state)
    device = utils.configure_torch(args.seed[0], args.device, args.threads, task.max_threads, bool(args.models))
    model = task.build().to(device)
    runs.load_weights(model, found.folder / runs.BEST)
    return task, model, found.folder


def latest(task_class, args):
    """The run that `-run` names, or the latest whose options are those that were given; a `runs.Found`.

    An option that was not given may be anything. Raises `UserError` if there is no such run.
    """
    question = task_class.question
    if args.run is not None:
        found = runs.Found(folder_of(task_class, args, "run"))
        if found.config["question"] != question:
            raise UserError(f"-run: {found.folder} is a run of {found.config['question']}, not of {question}")
        if (theirs := found.options.get("models")) != runs.plain(args.models):
            advice = f"give {theirs}, unchanged, as -models" if theirs else "leave out -models"
            raise UserError(f"-run: {typed(found.folder)} has other classes; {advice}")
        return found
    ignored = (*runs.WHERE, *task_class.free_options, *options.USES)
    given = {k: runs.plain(v) for k, v in vars(args).items() if k in {*args.given, "models"} and k not in ignored}
    given = {k: v for k, v in given.items() if v != "auto"}  # which may be anything as well
    bundled = {"auto": (True, False), "real": (False,), "bundled": (True,)}[args.data]
    for run in runs.find(args.runs_dir, question):
        is_meant = all(run.options.get(name) == value for name, value in given.items())
        if is_meant and run.bundled in bundled and args.run_name in (None, run.folder.name):
            return run
    given |= {name: vars(args)[name] for name in ("runs_dir", "models") if name in args.given}
    command = " ".join([f"python hw2-{question}.py", *map(str, command_line(argparse.Namespace(**given)))])
    what = "no trained run with these options" if any(given.values()) else "no trained run"
    raise UserError(f"{what} is in {typed(args.runs_dir / question)}; train one: {command}")
