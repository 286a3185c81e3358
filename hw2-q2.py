"""Question 2: image classification with a convolutional network.

$ python hw2-q2.py -learning_rate 0.0005         # 2022-23, Kuzushiji-MNIST
$ python hw2-q2.py                               # its three learning rates, compared
$ python hw2-q2.py -edition 2023-24              # OCTMNIST
$ python hw2-q2.py -edition 2023-24 -no_maxpool  # strided convolutions in place of pooling
$ python hw2-q2.py -edition 2021-22              # Fashion-MNIST
$ python hw2-q2.py -network mlp -shuffle_pixels  # 2022-23, 2.1 and 2.3: no convolutions, no order
$ python hw2-q2.py -classify photo.png           # with the weights of the last run
"""

import inspect
from pathlib import Path

import options
from editions import BATCH_SIZE, DATASETS, DEFAULT_EDITION, EDITIONS

RECIPE = ("epochs", "dropout", "optimizer")  # options whose default is the edition's
# Variants take the best learning rate of this network, trained on the images as they are.
PLAIN = {"no_maxpool": False, "network": "cnn", "shuffle_pixels": False, "shift": 0, "flip": False, "warp": 0.0}
QUICK_EPOCHS, EVAL_BATCH_SIZE = 10, 500
N_GUESSES = 3  # most probable classes that are printed of an image
SHIFTS = range(5)  # pixels; the test images are also tested so far to the right


def parse_args(argv=None):
    parser = options.Parser(__doc__, "hw2-q2.py")
    help = f"{', '.join(EDITIONS)}: network, recipe and data (default: that of -dataset, else {DEFAULT_EDITION})"
    parser.add_option("edition", choices=[*EDITIONS], metavar="YEAR", help=help)
    help = f"{', '.join(DATASETS)}, or the path of an .npz file (default: that of the edition)"
    parser.add_option("dataset", type=options.name_or_path(*DATASETS), help=help)
    options.add_training_options(parser, batch_size=BATCH_SIZE)  # the others have the edition's defaults
    parser.add_option("no_maxpool", action="store_true", help="strided convolutions in place of max pooling")
    parser.add_option("conv_1_name", "convlayer1", default="conv1", help="layer whose filters and maps are drawn")
    parser.add_option("conv_2_name", "convlayer2", default="conv2", help="second layer whose filters are drawn")
    parser.group(options.BEYOND)
    parser.add_option("models", type=options.python_file, metavar="FILE", help="train your own classes, of this file")
    parser.add_option("network", choices=["cnn", "mlp"], default="cnn", help="mlp: without convolutions (default: cnn)")
    parser.add_option("shuffle_pixels", action="store_true", help="put the pixels of all images in one random order")
    parser.add_option("shift", type=options.whole(0, 27), default=0, help="random shifts, pixels (default: 0)")
    parser.add_option("flip", action="store_true", help="mirror training images at random, left to right")
    parser.add_option("warp", type=options.probability, default=0.0, help="random turns, slants, sizes (default: 0)")
    options.add_use_option(parser, "classify", "IMAGE", "image files, or folders of images", type=options.path)
    options.add_data_options(parser)
    options.add_run_options(parser)
    args = parser.parse_args(argv)
    if args.network == "mlp" and (args.no_maxpool or args.models):
        parser.error("-no_maxpool and -models go with -network cnn only")
    edition = EDITIONS[args.edition] if args.edition else DATASETS.get(args.dataset, EDITIONS[DEFAULT_EDITION])
    args.edition = args.defaults["edition"] = edition.year
    args.dataset = args.dataset or edition.dataset
    args.fill(**{name: getattr(edition, name) for name in RECIPE})
    if args.scale == "quick":
        args.fill(epochs=QUICK_EPOCHS)
    return args


if __name__ == "__main__":
    options.before_imports(parse_args, "sklearn")

import torch
import torch.nn.functional as F

import comparisons
import convolutions
import experiment
import metrics
import student
import utils
from data import images, photos, sources


def main(argv=None):
    args = parse_args(argv)
    if args.classify:
        return classify(args)
    task = load(args)
    if args.learning_rate is None:
        task = task.with_options(**rates_to_try(task))
    task = comparisons.single(task)
    if task is None:  # several learning rates or seeds, which are compared and tested
        return None
    with experiment.open_run(task) as run:
        model = task.build().to(run.device)
        history = experiment.train(task, model, run)  # None if the run was finished before
        if history is not None:
            dead = {} if args.models else convolutions.dead_units(model, task.data.X["train"])
            run.add(**experiment.describe(task, model, history), **dead)
        if run.result.get("layers") != task.layer_names:  # nothing is drawn yet, or other layers are asked for
            task.draw(model, run.result["history"], run.folder)
            run.add(layers=task.layer_names)
        if run.result["test"] is None and not args.skip_test:
            run.add(**task.test(model, run.folder))  # the test set, once
        experiment.report(task, run)


def load(args):
    """The task with these options and its images."""
    data = images.load(args.dataset, args.data, args.data_dir, args.edition, args.scale == "quick", args.shuffle_pixels)
    return Classification(args, data)


def rates_to_try(task):
    """The edition's learning rates to compare; of a variant of the network the rate that is best for the plain one."""
    rates = list(EDITIONS[task.args.edition].learning_rates)
    if all(getattr(task.args, name) == value for name, value in PLAIN.items()):
        return {"learning_rate": rates}
    changes = {"learning_rate": rates, "seed": [options.DEFAULT_SEED], "run_name": None, "skip_test": True}
    best = comparisons.best_rate(load(task.with_options(**PLAIN, **changes, resume="auto").args))
    # "auto", since an interrupt may have come before the variant's own run was begun
    return {"learning_rate": [best], "resume": task.args.resume and "auto"}


class Classification(experiment.Task):
    """Images to classes: the network, its loss, its validation and its test."""

    question, score, score_name = "q2", "val_acc", "accuracy"
    free_options, is_recordable = ("conv_1_name", "conv_2_name"), True
    is_ours = property(lambda self: self.args.network == "cnn" and not self.args.models)  # the network of the question
    answers = property(lambda self: EDITIONS[self.args.edition].answers if self.is_ours else ())

    def __init__(self, args, data, settings=None):
        super().__init__(args, data)
        self.class_names = data.class_names if settings is None else settings["class_names"]
        self.layer_names = [args.conv_1_name, args.conv_2_name]  # of the layers that are drawn

    @property
    def base_name(self):
        args, edition = self.args, EDITIONS[self.args.edition]
        if args.dataset not in DATASETS:
            return f"file_{Path(args.dataset).stem}"
        return args.dataset if args.dataset == edition.dataset else f"{args.dataset}-edition={edition.year}"

    def layers(self, model):
        """The layers of a network that are drawn."""
        return [convolutions.find(model, name) for name in self.layer_names]

    def facts(self):
        return {
            "dataset": self.args.dataset,
            "class_names": self.class_names,
            "learning_rate": self.args.learning_rate,
            "n_examples": {split: len(y) for split, y in self.data.y.items()},
            "class_shares": {split: images.class_shares(self.data, split) for split in self.data.y},
        }

    def build(self):
        args, n_classes, models = self.args, len(self.class_names), student.networks(self.args.models)
        if args.network == "mlp":
            return models.MLP(args.dropout, args.edition, n_classes)
        if args.models:  # a student's class knows its own sizes, and may take neither a dropout nor no_maxpool
            given = [args.dropout] if set(inspect.signature(models.CNN).parameters) - {"no_maxpool"} else []
            model = models.CNN(*given, **{"no_maxpool": True} if args.no_maxpool else {})
        else:
            model = models.CNN(args.dropout, args.no_maxpool, args.edition, n_classes)
            model = model.to(memory_format=torch.channels_last)  # faster, but a student's `view` would fail on it
        self.layers(model)  # a wrong name is told before the training
        return model

    def batches(self, device, split="train"):
        X, y = self.data.X[split].to(device), self.data.y[split].to(device)
        distort = images.random_distortion(self.args.shift, self.args.flip, self.args.warp)
        return utils.Batches(len(X), self.args.batch_size, images.gatherer(X, y, distort))

    def batch_loss(self, model, batch):
        X, y = batch
        return F.nll_loss(model(X), y, reduction="sum"), len(y)

    def evaluate(self, model):
        log_probs, y = predict(model, self.data.X["val"]), self.data.y["val"]
        n_right = (log_probs.argmax(dim=-1) == y).sum().item()
        return {"val_loss": F.nll_loss(log_probs, y).item(), "val_acc": metrics.proportion(n_right, len(y))}

    def draw(self, model, history, folder):
        title, best = utils.data_title(self.data), self.best_epoch(history)
        utils.plot_losses(folder / "train_loss.pdf", history, "Loss (nats an image)", title, best)
        utils.plot_scores(folder / "val_acc.pdf", history, {"val_acc": ""}, "Validation accuracy", title, best)
        X, y = self.data.X["train"], self.data.y["train"]
        utils.plot_examples(folder, X, y, self.data.class_names, title)
        if self.args.network == "mlp":
            return utils.plot_filters(folder / "filters_1.pdf", model.fc1.weight.view(-1, *X.shape[1:]), title)
        layers = self.layers(model)
        example, name = images.to_pixels(X[:1]).to(layers[0].weight.device), self.data.class_names[y[0]]
        utils.plot_activation_maps(folder / "activation_maps.pdf", model, layers[0], example, f"{title}: {name}")
        for i, layer in enumerate(layers, start=1):
            utils.plot_filters(folder / f"filters_{i}.pdf", layer.weight, title)

    def test(self, model, folder):
        """Scores on the test sets, and what a comparison with another network needs."""
        data, title = self.data, utils.data_title(self.data)
        log_probs, y = predict(model, data.X["test"]), data.y["test"]
        y_hat = log_probs.argmax(dim=-1)
        images.write_predictions(folder / comparisons.CLASSES, y, y_hat)
        hits = {n: predict(model, images.shifted(data, "test", n)).argmax(dim=-1) == y for n in SHIFTS}
        subsets = images.test_subsets(data)
        result = {
            "test": {name: metrics.classification(y[rows], log_probs[rows]) for name, rows in subsets.items()},
            "baselines": images.baselines(data),
            "shifted_acc": [{"pixels": n} | metrics.kept(hits[0], hits[n]) for n in SHIFTS],
        }
        if self.is_ours:
            result |= convolutions.examine(model, data.X["test"])
        if self.args.no_maxpool:
            result["pooled"] = comparisons.mcnemar(self, y == y_hat, no_maxpool=False)
        utils.plot_confusion(folder / "confusion.pdf", result["test"]["official"]["confusion"], data.class_names, title)
        return result

    def test_score(self, result):
        return result["test"]["official"]["acc"]


def classify(args):
    """Print the most probable classes of each image, by the best weights of the run that the options mean."""
    task, model, _ = experiment.restore(Classification, args)
    for name, X in sources.open_files(args.classify, photos.SUFFIXES, images.read_photo):
        X = images.reorder(X, images.random_order()) if task.args.shuffle_pixels else X
        probs, classes = predict(model, X)[0].exp().topk(min(N_GUESSES, len(task.class_names)))
        print(f"{name}: " + ", ".join(f"{task.class_names[i]} {p:.2f}" for i, p in zip(classes, probs)), flush=True)


@torch.no_grad()
def predict(model, X):
    """Log-probabilities (n_examples, n_classes) of uint8 images, with dropout off."""
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model(images.to_pixels(batch.to(device))) for batch in X.split(EVAL_BATCH_SIZE)]).cpu()


if __name__ == "__main__":
    options.run_script(main)
