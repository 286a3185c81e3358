"""The protocol of every training script: train with validation, test the best weights once, draw, write, print.

A script describes its question as a subclass of `Experiment` and calls `run`. Where an option has several values (learning
rates, seeds), `run` makes one run of each, side by side as processes, and compares them.
"""

import argparse
import copy
import functools
import itertools
import statistics
import sys
from pathlib import Path

import numpy as np
import torch

import metrics
import models
import options
import parallel
import runs
import utils
from data import text
from metrics import format_interval
from options import SEVERAL, UserError, command_line

LABELS = {"learning_rate": "lr", "seed": "seed"}  # of the compared options, on screen and in figures
PREDICTIONS = "test_predictions.txt"
PREDICTION_COLUMNS = ("source", "reference", "prediction", "distance")
N_EXAMPLES = 8  # of the test set, listed in the result
SEARCH_NAMES = {"greedy": "greedy", "beam": "beam of {beam_size}", "mbr": "minimum risk of {n_samples} samples"}


class Experiment:
    """One question with its options and its data; a subclass says what is the question's own.

    Attributes:
        question: the folder of its runs; base_name: what the name of a run's folder begins with.
        score: the validation figure that chooses the best epoch, and among the compared values; `score_name` on screen.
        maximize: whether a higher score is better.
        decoding_options: options that do not change what is trained.
        max_threads: more CPU threads do not pay.
        onednn: whether oneDNN multiplies faster than MKL, as it does where large products have few shapes; see `utils.use_onednn`.
        patience: training stops after so many epochs without a better score; None: never.
        args, defaults: the parsed options, and what they are if none is given.
        data: has title, bundled and fingerprint.
    """

    question, base_name, score, score_name = None, None, None, None
    maximize = True
    decoding_options = ()
    max_threads = 1
    onednn = False
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
        """Validation figures, a dict with `score` among them, or empty without validation examples."""
        raise NotImplementedError

    def validated(self, model):
        """The score of the best weights on validation, with its interval; None without validation examples."""
        raise NotImplementedError

    def facts(self):
        """What the result says besides, known before the training; also what the network needs to be used again."""
        return {}

    def extra(self):
        """Plain values that the weights are useless without, kept with them."""
        return None

    @classmethod
    def restored(cls, args, path):
        """The experiment of a trained run without its data, from the run's options and its `best.pt`."""
        return cls(args, None, None)

    def draw(self, model, history, folder):
        """The figures that need no test set."""

    def test(self, model, folder):
        """What the best weights reach on the test set, added to the result: "test" and what belongs to it."""
        raise NotImplementedError

    def searches(self):
        """Further ways in which the options ask to test the weights; if there are any, `search_again` does it."""
        return {}

    def report(self, result):
        """Print the test figures of a finished run; those of its training have been printed."""
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

    def finished(self, kind="run"):
        """The finished runs or comparisons with these options on these data, wherever they lie, the newest first."""
        wanted = runs.compared(self.config(kind))["options"]
        found = runs.find(self.args.runs_dir, self.question, kind, **wanted)
        return [run for run in found if run.config["data"]["fingerprint"] == self.data.fingerprint]

    def counterpart(self, **options):
        """The newest tested run of the same data whose options differ in these alone, a `runs.Found`; None if there is none."""
        for run in self.changed(**options).finished():
            if runs.read_result(run.folder)["test"]:
                return run
        shown = ", ".join(f"{name} {value}" for name, value in options.items())
        print(f"no test of the network with {shown} on these data was found: the two cannot be compared")
        return None

    def changed(self, **options):
        """The same experiment with some options changed."""
        other = copy.copy(self)
        other.args = argparse.Namespace(**vars(self.args) | options)
        return other

    def single(self, learning_rate, seed):
        """The same experiment with one learning rate and one seed."""
        return self.changed(learning_rate=learning_rate, seed=seed)


class SequenceExperiment(Experiment):
    """A question whose network writes texts: greedy decoding, and what else `options.add_search_options` asks for.

    A subclass says how inputs become texts (`write`) and how texts are judged.

    Attributes:
        judged: the name of the figure by which texts are judged, among those of `figures`.
        loss_options: options whose values weigh something that the training loss has in it and the validation loss has not.
    """

    judged = None
    loss_options = ("label_smoothing",)

    def loss_extras(self):
        """The `loss_options` and their values, by the names that a figure shows."""
        return {name.replace("_", " "): getattr(self.args, name) for name in self.loss_options}

    def inputs(self, split):
        """The inputs of a split, a list of what `write` reads."""
        raise NotImplementedError

    def write(self, model, inputs, **search):
        """The texts that `decoding.search` finds for some inputs, in their order."""
        raise NotImplementedError

    def decode(self, model, split, **search):
        """The texts for all inputs of a split, in their order; of several processes each writes its share."""
        return parallel.whole(parallel.call(self, "decode_share", model, split, **search))

    def decode_share(self, model, split, **search):
        return self.write(model, parallel.share(self.inputs(split)), **search)

    def loss(self, model, split):
        """The mean loss of the symbols of a split, without label smoothing."""
        losses, counts = zip(*parallel.call(self, "loss_share", model, split))
        return sum(losses) / sum(counts)

    def loss_share(self, model, split):
        batches = self.batches(next(model.parameters()).device, split)
        return utils.loss_sum(model, batches, self.batch_loss)

    def judge(self, hyps, split):
        """The figure by which texts for the inputs of a split are judged, with its interval."""
        raise NotImplementedError

    def difference(self, hyps_a, hyps_b):
        """The paired difference a - b of that figure between two lists of texts for the test set."""
        raise NotImplementedError

    def differences(self, hyps_a, hyps_b):
        """The paired differences a - b of all figures that have one, a dict."""
        return {self.judged: self.difference(hyps_a, hyps_b)}

    def figures(self, hyps):
        """All figures of texts for the test set."""
        raise NotImplementedError

    def figure_lines(self, figures):
        """Those figures as lines for the screen."""
        raise NotImplementedError

    def validated(self, model, **search):
        return self.judge(self.decode(model, "val", **search), "val")

    def test_figure(self, result):
        return result["test"]["greedy"][self.judged]

    def tested(self, sources, refs, hyps, folder):
        """What the result says of greedy texts for the test set; all of them are written to a file, the worst last."""
        rows = list(zip(sources, refs, hyps, metrics.distances(hyps, refs)))
        runs.write_table(folder / PREDICTIONS, PREDICTION_COLUMNS, sorted(rows, key=lambda row: row[3] / len(row[1])))
        examples = text.at_equal_distances(list(enumerate(rows)), N_EXAMPLES)
        return {
            "test": {"greedy": self.figures(hyps), "beam": None, "mbr": None},
            "examples": [{"row": i, "src": source, "ref": ref, "hyp": hyp} for i, (source, ref, hyp, _) in examples],
        }

    def against(self, sources, hyps, folder, **options):
        """The run whose options differ in these alone minus this one, paired, on the test set; None without such a run.

        sources, hyps: the inputs of the test set and this run's texts. Draws the validation score of both by epoch.
        """
        run = self.counterpart(**options)
        if run is None:
            return None
        (name,) = options
        histories = {getattr(self.args, name): runs.read_json(folder / runs.RESULT, "history", of=list)}
        histories |= {options[name]: run.result["history"]}
        if all(self.score in lines[0] for lines in histories.values()):
            curves = {label: [line[self.score] for line in lines] for label, lines in histories.items()}
            utils.plot_curves(folder / "both.pdf", curves, f"Validation {self.score_name}", utils.data_title(self.data))
        rows = {
            row["source"]: row["prediction"] for row in runs.read_table(run.folder / PREDICTIONS, PREDICTION_COLUMNS)
        }
        theirs = [rows[source] for source in sources]
        return {"run": run.folder.name, **options, **self.differences(theirs, hyps)}

    def searches(self):
        """The searches that the options ask for beside the greedy one: a dict from name to the settings to choose from."""
        args, searches = self.args, {}
        if args.beam_size > 1:
            searches["beam"] = [{"beam_size": args.beam_size, "length_penalty": alpha} for alpha in args.length_penalty]
        if args.n_samples is not None:
            searches["mbr"] = [{"n_samples": args.n_samples, "seed": args.seed}]
        return searches

    def search_again(self, model, result, folder):
        """Beam search and minimum-risk decoding with the weights of this run; validation chooses their settings."""
        tested = {"greedy": self.decode(model, "test")}
        for name, candidates in self.searches().items():
            figure, search = self.best_search(model, candidates)
            hyps = self.decode(model, "test", **search)
            result["test"][name] = self.figures(hyps) | search | {self.score: figure} | self.compared(hyps, tested)
            for example in result["examples"]:
                example[name] = hyps[example["row"]]
            tested[name] = hyps
        self.keep(tested, folder)

    def best_search(self, model, candidates):
        """Of some settings of a search the best on validation: its figure and the setting; without validation None and the first."""
        figures = [self.validated(model, **search) for search in candidates]
        if figures[0] is None:
            return None, candidates[0]
        for search, figure in zip(candidates, figures):
            shown = ", ".join(f"{option} {value:g}" for option, value in search.items())
            print(f"{shown}: validation {self.score_name} {format_interval(figure)}", flush=True)
        best = max if self.maximize else min
        return best(zip(figures, candidates), key=lambda pair: pair[0]["value"])

    def compared(self, hyps, tested):
        """The paired differences of the texts of a search from those that were tested before, a dict from a search to its texts."""
        differences = {f"{other} minus this": self.difference(texts, hyps) for other, texts in tested.items()}
        return {"difference": differences["greedy minus this"], "differences": differences}

    def keep(self, tested, folder):
        """Called with the texts of all searches, for files that hold them."""

    def report(self, result):
        """Print the figures of each search on the test set, the baselines, and an example."""
        bundled = " (bundled data)" if result["bundled"] else ""
        for name, figures in result["test"].items():
            if figures is not None:
                how, figure = SEARCH_NAMES[name].format(**figures), format_interval(figures[self.judged])
                print(f"Final Test {self.score_name}, {how}: {figure}{bundled}", *self.figure_lines(figures), sep="\n")
                for label, difference in figures.get("differences", {}).items():
                    print(f"  {label}, paired: {format_interval(difference, sign='+')}")
        for name, figure in result["baselines"].items():
            print(f"Baseline, {name}: {format_interval(figure)}{bundled}")
        example = result["examples"][0]
        print(f"For example: {example['src']} -> {example['hyp']} (reference: {example['ref']})")


def run(experiment):
    """Make the run that the options ask for; of several learning rates or seeds make and compare all.

    The learning rate with the best validation score is the one that is tested.
    """
    distinct = {name: list(dict.fromkeys(getattr(experiment.args, name))) for name in SEVERAL}
    experiment = experiment.changed(**distinct)
    args = experiment.args
    if options.world_size() > 1 and max(len(args.learning_rate), len(args.seed)) > 1:
        raise UserError("several processes train one network: give one -learning_rate and one -seed")
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
    """Train the network of the options, test its best weights once, draw, write and print; returns the result.

    Several processes train together; then rank 0 leads, and the others decode their shares for it.
    """
    args, data = experiment.args, experiment.data
    device = utils.configure_torch(args.seed, args.device, args.threads, experiment.max_threads, experiment.onednn)
    with runs.open_run(experiment.folder(), experiment.config(), args.resume) as run:
        model = experiment.build().to(device)
        result, history = parallel.broadcast(run.result), None
        if result is None:
            n_params = models.get_number_trainable_params(model)
            print(f"{utils.data_title(data)}: {n_params:,} trainable parameters, {device}", flush=True)
            history = train(experiment, model, run, device)
        elif (result["test"] is None and not args.skip_test) or experiment.searches():
            run.load_best(model)
            parallel.synchronize(model)
        work = functools.partial(conclude, experiment, model, run, result, history)
        result = parallel.lead(work, functools.partial(parallel.serve, experiment, model))
    parallel.stop()
    return result


def train(experiment, model, run, device):
    """Fit the model; returns its history."""
    args = experiment.args
    if run.is_new and args.init is not None:
        start_from(experiment, model, args.init)
    batches = experiment.batches(device)

    def evaluate(model):
        work = functools.partial(experiment.evaluate, model)
        return parallel.lead(work, functools.partial(parallel.serve, experiment, model))

    return utils.fit(
        utils.Optimization(model, args, args.epochs * len(batches)),
        batches,
        experiment.batch_loss,
        evaluate,
        run,
        args.epochs,
        seed=args.seed,
        score=experiment.score,
        maximize=experiment.maximize,
        extra=experiment.extra(),
        patience=experiment.patience,
    )


def conclude(experiment, model, run, result, history):
    """What follows the training: draw, validate and test the best weights, write and print; returns the result."""
    args = experiment.args
    if history is None:
        run.checkpoint()  # mends the history's file
    else:
        result = describe(experiment, model, history)
        experiment.draw(model, history, run.folder)
        run.finish(result)  # a test that is cut short need not train again
    if result["test"] is None and not args.skip_test:
        result |= experiment.test(model, run.folder) | {"peak_memory_mb": utils.peak_memory_mb()}
        run.finish(result)
    if result["test"] is not None and experiment.searches():
        experiment.search_again(model, result, run.folder)
        run.finish(result)
    report_training(experiment, result)
    if result["test"]:
        experiment.report(result)
    print(f"written to {run.folder}")
    return result


def describe(experiment, model, history):
    """What the result says of a finished training."""
    best = utils.best_epoch(history, experiment.score, experiment.maximize)
    return {
        "title": experiment.data.title,
        "bundled": experiment.data.bundled,
        **experiment.facts(),
        "best_epoch": best["epoch"],
        "train_loss": best["train_loss"],
        experiment.score: experiment.validated(model),
        "history": history,
        "seconds": sum(line["seconds"] for line in history),
        "threads": torch.get_num_threads(),
        "n_processes": options.world_size(),
        "device": str(next(model.parameters()).device),
        "n_params": models.get_number_trainable_params(model),
        "test": None,
    }


def report_training(experiment, result):
    print(f"Trainable parameters: {result['n_params']:,}")
    figure, bundled = result[experiment.score], " (bundled data)" if result["bundled"] else ""
    if figure is not None:
        shown = f"{format_interval(figure)} in epoch {result['best_epoch']}"
        print(f"Best validation {experiment.score_name}: {shown}{bundled}")


def start_from(experiment, model, init):
    """Load the best weights of the run `init`, its folder or the folder's name; raises `UserError` if they do not fit."""
    folder = init if init.is_dir() else experiment.args.runs_dir / experiment.question / init
    if not (folder / runs.BEST).is_file():
        raise UserError(f"-init: {init} is no folder of a trained run; name one of {folder.parent}")
    for name, value in (experiment.extra() or {}).items():
        if not is_same(runs.part_of_checkpoint(folder / runs.BEST, name), value):
            raise UserError(f"-init: the run in {folder} has other {name}; give one that was trained on these data")
    runs.load_weights(model, folder / runs.BEST)


def is_same(a, b):
    """Whether two plain values are equal; in dicts there may also be tensors."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(is_same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and not isinstance(a, torch.Tensor) and a == b


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


def restore(kind, args, defaults):
    """The experiment, of the class `kind`, and the network of the latest trained run of the options, to use its weights again.

    Raises `UserError` if there is no such run.
    """
    found = latest(kind.question, args, defaults, kind.decoding_options)
    path = found.folder / runs.BEST
    print(f"weights of {path}", file=sys.stderr)
    device = utils.configure_torch(args.seed[0], args.device, args.threads, kind.max_threads, kind.onednn)
    try:
        experiment = kind.restored(argparse.Namespace(**found.options), path)
        model = experiment.build().to(device)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{found.folder / runs.CONFIG}: its options make no network; delete its folder and train again"
        ) from error
    runs.load_weights(model, path)
    return experiment, model


def latest(question, args, defaults, ignored=()):
    """The latest trained run whose options are those that were given, to use its weights again: a `runs.Found`.

    A switch that was not given is off; another option that was not given may be anything, and those of `ignored` do not
    matter. Raises `UserError` if there is no such run.
    """
    ignored = (*runs.WHERE, *ignored)
    given = {k: v for k, v in vars(args).items() if (v != getattr(defaults, k) or v is False) and k not in ignored}
    given |= {name: given[name][0] for name in SEVERAL if name in given}
    given = {
        name: str(value) if isinstance(value, Path) else value for name, value in given.items()
    }  # as in the config
    kinds = {"auto": (True, False), "real": (False,), "bundled": (True,)}[args.data]
    found = runs.find(args.runs_dir, question, **given)
    found = [run for run in found if run.bundled in kinds and args.run_name in (None, run.folder.name)]
    if not found:
        command = " ".join([f"python hw2-{question}.py", *map(str, command_line(argparse.Namespace(**given)))])
        raise UserError(f"no trained run with these options is in {args.runs_dir / question}; train one: {command}")
    return found[0]
