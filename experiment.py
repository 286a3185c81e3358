"""The protocol of every training script: train with validation, test the best weights once, draw, write, print.

A script describes its question as a subclass of `Experiment` and calls `run`. Where an option has several values (learning
rates, seeds), `run` makes one run of each, side by side as processes, and compares them.
"""

import argparse
import copy
import itertools
import statistics

import numpy as np
import torch

import metrics
import models
import runs
import utils
from options import SEVERAL, UserError, command_line

LABELS = {"learning_rate": "lr", "seed": "seed"}  # of the compared options, on screen and in figures


class Experiment:
    """One question with its options and its data; a subclass says what is the question's own.

    Attributes:
        question: the folder of its runs; base_name: what the name of a run's folder begins with.
        score: the validation figure that chooses the best epoch, and among the compared values; `score_name` on screen.
        maximize: whether a higher score is better.
        decoding_options: options that do not change what is trained.
        max_threads: more CPU threads do not pay.
        patience: training stops after so many epochs without a better score; None: never.
        args, defaults: the parsed options, and what they are if none is given.
        data: has title, bundled and fingerprint.
    """

    question, base_name, score, score_name = None, None, None, None
    maximize = True
    decoding_options = ()
    max_threads = 1
    patience = None

    def __init__(self, args, defaults, data):
        self.args = args
        self.defaults = defaults
        self.data = data

    def build(self):
        """The network."""
        raise NotImplementedError

    def batches(self, device):
        """The `utils.Batches` of the training set."""
        raise NotImplementedError

    def batch_loss(self, model, batch):
        """The sum of the losses of a batch's terms, and the number of terms."""
        raise NotImplementedError

    def evaluate(self, model):
        """Validation figures, a dict with `score` among them."""
        raise NotImplementedError

    def validated(self, model):
        """The score of the best weights on validation, with its interval."""
        raise NotImplementedError

    def facts(self):
        """What the result says besides, known before the training; also what the network needs to be used again."""
        return {}

    def extra(self):
        """Plain values that the weights are useless without, kept with them."""
        return None

    def draw(self, model, history, folder):
        """The figures that need no test set."""

    def test(self, model, folder):
        """What the best weights reach on the test set, added to the result: "test" and what belongs to it."""
        raise NotImplementedError

    def search_again(self, model, result, folder):
        """Test the weights of a finished run in another way if the options ask for it; returns whether it did."""
        return False

    def report(self, result):
        """Print the figures of a finished run."""
        raise NotImplementedError

    def test_figure(self, result):
        """The one figure of the test by which runs are compared, with its interval."""
        raise NotImplementedError

    def pooled(self, children):
        """What the tests of several seeds show together: a dict from a name to a figure with its interval.

        children: the experiments of the seeds, all of them tested.
        """
        return {}

    def config(self, kind="run"):
        return runs.make_config(self.question, self.args, self.defaults, self.data, kind, self.decoding_options)

    def folder(self, kind="run"):
        return runs.folder_of(self.config(kind), self.args.runs_dir, self.base_name, self.args.run_name)

    def changed(self, **options):
        """The same experiment with some options changed."""
        other = copy.copy(self)
        other.args = argparse.Namespace(**vars(self.args) | options)
        return other

    def counterpart(self, **options):
        """The latest tested run on the same data that differs in these options alone, a `runs.Found`; None without one."""
        wanted = runs.compared(self.changed(**options).config())["options"]
        for run in runs.find(self.args.runs_dir, self.question, **wanted):
            if run.result["test"] and run.config["data"]["fingerprint"] == self.data.fingerprint:
                return run
        return None

    def best_search(self, model, candidates):
        """Of some ways to search, dicts of options, the best on validation: (its validation figure, the options)."""
        figures = [self.validated(model, **search) for search in candidates]
        for search, figure in zip(candidates, figures):
            shown = ", ".join(f"{option} {value:g}" for option, value in search.items())
            print(f"{shown}: validation {self.score_name} {metrics.format_interval(figure)}", flush=True)
        best = max if self.maximize else min
        return best(zip(figures, candidates), key=lambda pair: pair[0]["value"])

    def single(self, learning_rate, seed):
        """The same experiment with one learning rate and one seed."""
        return self.changed(learning_rate=learning_rate, seed=seed)


def run(experiment):
    """Make the run that the options ask for; of several learning rates or seeds make and compare all.

    The learning rate with the best validation score is the one that is tested.
    """
    distinct = {name: list(dict.fromkeys(getattr(experiment.args, name))) for name in SEVERAL}
    experiment = experiment.changed(**distinct)
    args = experiment.args
    if len(args.learning_rate) > 1:
        best = compare(experiment)["best"]["learning_rate"]
        if args.skip_test:
            return
        name = args.run_name and f"{args.run_name}, {LABELS['learning_rate']} {decimal(best)}"  # as `compare` names it
        experiment = experiment.changed(learning_rate=[best], resume="auto", run_name=name)
    if len(args.seed) > 1:
        compare(experiment)
    else:
        train_and_test(experiment.single(experiment.args.learning_rate[0], args.seed[0]))


def train_and_test(experiment):
    """Train the network of the options, test its best weights once, draw, write and print; returns the result."""
    args, data = experiment.args, experiment.data
    folder = experiment.folder()
    device = utils.configure_torch(args.seed, args.device, args.threads, experiment.max_threads)
    with runs.open_run(folder, experiment.config(), args.resume) as run:
        model = experiment.build().to(device)
        result = run.result
        if result is None:
            n_params = models.get_number_trainable_params(model)
            print(f"{utils.data_title(data)}: {n_params:,} trainable parameters, {device}", flush=True)
            result = train(experiment, model, run, device) | {"n_params": n_params}
            run.finish(result)  # a test that is cut short need not train again
        else:
            run.checkpoint()  # mends the history's file
        if result["test"] is None and not args.skip_test:
            runs.load_weights(model, folder / runs.BEST)
            result |= experiment.test(model, folder) | {"peak_memory_mb": utils.peak_memory_mb()}
            run.finish(result)
        if result["test"] is not None and experiment.search_again(model, result, folder):
            run.finish(result)
    experiment.report(result)
    print(f"written to {folder}")
    return result


def train(experiment, model, run, device):
    """Fit the model, draw the training; returns what the result says of it."""
    args, data = experiment.args, experiment.data
    batches = experiment.batches(device)
    history = utils.fit(
        utils.Optimization(model, args, args.epochs * len(batches)),
        batches,
        experiment.batch_loss,
        experiment.evaluate,
        run,
        args.epochs,
        seed=args.seed,
        score=experiment.score,
        maximize=experiment.maximize,
        extra=experiment.extra(),
        patience=experiment.patience,
    )
    experiment.draw(model, history, run.folder)
    best = utils.best_epoch(history, experiment.score, experiment.maximize)
    return {
        "title": data.title,
        "bundled": data.bundled,
        **experiment.facts(),
        "best_epoch": best["epoch"],
        "train_loss": best["train_loss"],
        experiment.score: experiment.validated(model),
        "history": history,
        "seconds": sum(line["seconds"] for line in history),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "test": None,
    }


def compare(experiment):
    """Make one run of each learning rate and seed as processes side by side; write, draw and print the comparison.

    Learning rates are compared on validation, and the test set is left alone; seeds of one learning rate are tested. A run that
    fails does not take the others down. Returns the result of the comparison.
    """
    args, data, score = experiment.args, experiment.data, experiment.score
    over = [name for name in SEVERAL if len(getattr(args, name)) > 1]
    tests = over == ["seed"] and not args.skip_test
    children = {}
    for values in itertools.product(*(getattr(args, name) for name in SEVERAL)):
        label = ", ".join(f"{LABELS[name]} {decimal(value)}" for name, value in zip(SEVERAL, values) if name in over)
        children[label] = experiment.single(*values).changed(
            skip_test=not tests, resume=args.resume and "auto", run_name=args.run_name and f"{args.run_name}, {label}"
        )
    folder = experiment.folder("comparison")
    commands = {label: runs.this_script(*command_line(child.args)) for label, child in children.items()}
    jobs = max(1, runs.n_cpus() // (args.threads or experiment.max_threads))
    errors = runs.run_side_by_side(commands, jobs)

    entries, histories = [], {}
    for label, child in children.items():
        entry = {name: getattr(child.args, name) for name in SEVERAL} | {"run": child.folder().name}
        entry |= {"error": errors[label], score: None, "test": None}
        if entry["error"] is None:
            result = runs.read_json(child.folder() / runs.RESULT, of=dict)
            last = result["history"][-1]
            entry |= {score: result[score], "last": last[score], "last_train_loss": last["train_loss"]}
            entry["test"] = experiment.test_figure(result) if result["test"] else None
            histories[label] = result["history"]
        entries.append(entry)
    finished = [entry for entry in entries if entry["error"] is None]
    if not finished:
        raise UserError(f"no run could be made: {entries[0]['error'].split(': error: ')[-1]}")
    rates = dict.fromkeys(entry["learning_rate"] for entry in finished)
    of_rate = {rate: [entry for entry in finished if entry["learning_rate"] == rate] for rate in rates}
    values = [{"learning_rate": rate} | spread([e[score] for e in of_rate[rate]]) for rate in rates]
    best = (max if experiment.maximize else min)(values, key=lambda value: value["mean"])
    result = {
        "question": experiment.question,
        "title": data.title,
        "bundled": data.bundled,
        **experiment.facts(),
        "over": over,
        "score": score,
        "entries": entries,
        "values": values,
        "best": of_rate[best["learning_rate"]][0],
        "test": spread([entry["test"] for entry in finished]) if tests else None,
        "pooled": experiment.pooled(list(children.values())) if tests and len(finished) == len(entries) else {},
    }
    with runs.open_run(folder, experiment.config("comparison"), args.resume and "auto") as run:
        for figure, ylabel in (("train_loss", "Training loss"), (score, f"Validation {experiment.score_name}")):
            curves = {label: [line[figure] for line in history] for label, history in histories.items()}
            utils.plot_curves(folder / f"{figure}.pdf", curves, ylabel, utils.data_title(data))
        run.finish(result)
    report_comparison(experiment, result)
    print(f"written to {folder}")
    return result


def decimal(number):
    """A number without an exponent: 0.00001 and not 1e-05."""
    return np.format_float_positional(number, trim="-") if isinstance(number, float) else str(number)


def spread(figures):
    """The mean and the range of the values of some figures."""
    values = [figure["value"] for figure in figures]
    return {"n": len(values), "mean": statistics.fmean(values), "low": min(values), "high": max(values)}


def report_comparison(experiment, result):
    """Print each run of a comparison, and what it says of the learning rates or of the seeds."""
    name, bundled = experiment.score_name, " (bundled data)" if result["bundled"] else ""
    for entry in result["entries"]:
        label = ", ".join(f"{LABELS[option]} {decimal(entry[option])}" for option in result["over"])
        shown = entry["error"] or f"validation {name} {entry[result['score']]['value']:.4f}"
        shown += f", test {entry['test']['value']:.4f}" if entry["test"] else ""
        print(f"{label}: {shown}{bundled}")
    for kind, figure in [("validation", value) for value in result["values"]] + [("test", result["test"])]:
        if figure is not None and figure["n"] > 1:
            rate = f"learning rate {decimal(figure['learning_rate'])}, " if "learning_rate" in figure else ""
            span = f"{figure['mean']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"
            print(f"{rate}{kind} {name}, mean and range of {figure['n']} seeds: {span}{bundled}")
    for label, figure in result["pooled"].items():
        print(f"{label}, {len(result['entries'])} seeds: {metrics.format_interval(figure, sign='+')}{bundled}")
    if "learning_rate" in result["over"]:
        print(f"best on validation: learning rate {decimal(result['best']['learning_rate'])}{bundled}")


def latest(question, args, defaults, ignored=()):
    """The latest trained run whose options are those that were given, to use its weights again: a `runs.Found`.

    A switch that was not given is off; another option that was not given may be anything, and those of `ignored` do not
    matter. Raises `UserError` if there is no such run.
    """
    ignored = (*runs.WHERE, *ignored)
    given = {k: v for k, v in vars(args).items() if (v != getattr(defaults, k) or v is False) and k not in ignored}
    given |= {name: given[name][0] for name in SEVERAL if name in given}
    kinds = {"auto": (True, False), "real": (False,), "bundled": (True,)}[args.data]
    found = runs.find(args.runs_dir, question, **given)
    found = [run for run in found if run.bundled in kinds and args.run_name in (None, run.folder.name)]
    if not found:
        command = " ".join([f"python hw2-{question}.py", *map(str, command_line(argparse.Namespace(**given)))])
        raise UserError(f"no trained run with these options is in {args.runs_dir / question}; train one: {command}")
    return found[0]
