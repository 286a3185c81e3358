"""Question 2: image classification with a convolutional network, in the three editions of the homework.

$ python hw2-q2.py -learning_rate 0.0005                                  # 2022-23, Kuzushiji-MNIST
$ python hw2-q2.py                                                        # its three learning rates, compared
$ python hw2-q2.py -dataset octmnist                                      # 2023-24
$ python hw2-q2.py -dataset octmnist -no_maxpool                          # strided convolutions in place of pooling
$ python hw2-q2.py -dataset fashion_mnist -learning_rate 0.001 0.01 0.1   # 2021-22
$ python hw2-q2.py -network mlp                                           # 2022-23, 2.1: without convolutions
$ python hw2-q2.py -shuffle_pixels                                        # 2.3: sensors without spatial structure
"""

from pathlib import Path

import options
from editions import BATCH_SIZE, DEFAULT_EDITION, EDITIONS

RECIPE = ("epochs", "dropout", "optimizer")  # options whose default is the edition's
PLAIN = {"no_maxpool": False, "network": "cnn", "shuffle_pixels": False}  # variants take the best rate of this network
QUICK_EPOCHS = 10
EVAL_BATCH_SIZE = 500
SHIFTS = range(5)  # pixels; the test images are also tested so far to the right
EQUIVARIANCE_EXAMPLES = 100
PREDICTIONS = "test_predictions.npz"
TEST_NAMES = {"official": "the official set", "course_529": "the course's subset"}
BASELINE_NAMES = {"majority": "the most frequent class", "nearest_centroid": "the nearest class mean"}


def parse_args(argv=None):
    parser = options.Parser("Train and test the CNN of Question 2.", prog="hw2-q2.py")
    parser.add_option("dataset", default=DEFAULT_EDITION, help=f"{', '.join(EDITIONS)}, or the path of an .npz file")
    parser.add_option("edition", choices=EDITIONS, help="network and recipe for an .npz file given by its path")
    options.add_training_options(parser, batch_size=BATCH_SIZE)  # the others have the edition's defaults
    parser.add_option("no_maxpool", action="store_true", help="strided convolutions in place of max pooling")
    parser.add_option("conv_1_name", "convlayer1", default="conv1", help="layer whose filters and maps are drawn")
    parser.add_option("conv_2_name", "convlayer2", default="conv2", help="second layer whose filters are drawn")
    # Beyond the handout, all off by default.
    parser.add_option("network", choices=["cnn", "mlp"], default="cnn", help="mlp: without convolutions (default: cnn)")
    parser.add_option("shuffle_pixels", action="store_true", help="put the pixels of all images in one random order")
    parser.add_option("shift", type=options.whole(0, 27), default=0, help="random shifts, pixels (default: 0)")
    parser.add_option("flip", action="store_true", help="mirror training images at random, left to right")
    options.add_data_options(parser)
    options.add_run_options(parser)
    args = parser.parse_args(argv)
    if args.edition and args.dataset in EDITIONS and args.edition != args.dataset:
        parser.error("-edition goes with -dataset PATH only")
    if args.no_maxpool and args.network == "mlp":
        parser.error("-no_maxpool goes with -network cnn only")
    args.edition = args.dataset if args.dataset in EDITIONS else args.edition or DEFAULT_EDITION
    if args.scale == "quick" and args.epochs is None:
        args.epochs = QUICK_EPOCHS
    for name in RECIPE:
        if getattr(args, name) is None:
            setattr(args, name, getattr(EDITIONS[args.edition], name))
    if args.momentum and args.optimizer != "sgd":
        parser.error(f"-momentum is not for {args.optimizer}; add -optimizer sgd, or leave it out")
    return args


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import experiment  # noqa: E402
import metrics  # noqa: E402
import models  # noqa: E402
import parallel  # noqa: E402
import runs  # noqa: E402
import utils  # noqa: E402
from data import images  # noqa: E402
from metrics import format_interval  # noqa: E402
from theory.equivariance import edge_filters, equivariance  # noqa: E402


def main(argv=None):
    args = parse_args(argv)
    classification = load(args)
    if args.learning_rate is None:
        is_plain = all(getattr(args, name) == value for name, value in PLAIN.items())
        rates = list(EDITIONS[args.edition].learning_rates)
        args.learning_rate = rates if is_plain else [classification.best_plain_rate(rates)]
    experiment.run(classification)


def load(args):
    """The experiment of these options with its images."""
    data = images.load(args.dataset, args.data, args.data_dir, args.edition, args.scale == "quick", args.shuffle_pixels)
    defaults = parse_args(["-dataset", args.dataset, "-edition", args.edition, "-scale", args.scale])
    return Classification(args, defaults, data)


class Classification(experiment.Experiment):
    """Images to classes: the network, its loss, its validation and its test."""

    question, score, score_name = "q2", "val_acc", "accuracy"
    decoding_options = ("conv_1_name", "conv_2_name")
    max_threads = 1  # a batch of 8 small images is slower on several

    @property
    def base_name(self):
        return self.args.dataset if self.args.dataset in EDITIONS else f"file_{Path(self.args.dataset).stem}"

    def build(self):
        n_classes = len(self.data.class_names)
        if self.args.network == "mlp":
            return models.MLP(self.args.dropout, self.args.edition, n_classes)
        model = models.CNN(self.args.dropout, self.args.no_maxpool, self.args.edition, n_classes)
        for name in (self.args.conv_1_name, self.args.conv_2_name):
            utils.find_convolution(model, name)  # a wrong name is told before the training
        return model.to(memory_format=torch.channels_last)  # faster

    def batches(self, device):
        X, y = self.data.X["train"].to(device), self.data.y["train"].to(device)
        gather = images.gatherer(X, y, images.random_distortion(self.args.shift, self.args.flip))
        return utils.Batches(len(X), self.args.batch_size, gather)

    def batch_loss(self, model, batch):
        X, y = batch
        return F.nll_loss(model(X), y, reduction="sum"), len(y)

    def evaluate(self, model):
        log_probs, y = self.predict(model, "val"), self.data.y["val"]
        hits = (log_probs.argmax(dim=-1) == y).sum().item()
        return {"val_loss": F.nll_loss(log_probs, y).item(), "val_acc": hits / len(y)}

    def predict(self, model, split):
        """Log-probabilities (n_examples, n_classes) of a split's images; of several processes each computes its share."""
        shares = parallel.call(self, "predict_share", model, split)
        return torch.stack(parallel.whole([list(part) for part in shares]))

    def predict_share(self, model, split):
        return predict(model, parallel.share(self.data.X[split]))

    def validated(self, model):
        n = len(self.data.y["val"])
        return metrics.proportion(round(self.evaluate(model)["val_acc"] * n), n)

    def facts(self):
        return {
            "dataset": self.args.edition,
            "class_names": self.data.class_names,
            "learning_rate": self.args.learning_rate,
            "n_examples": {split: len(y) for split, y in self.data.y.items()},
        }

    def draw(self, model, history, folder):
        title = utils.data_title(self.data)
        utils.plot_losses(folder / "train_loss.pdf", history, "Loss (nats an image)", title)
        utils.plot_scores(folder / "val_acc.pdf", history, {"val_acc": ""}, "Validation accuracy", title)
        X, y = self.data.X["train"], self.data.y["train"]
        utils.plot_examples(folder, X, y, self.data.class_names, title)
        if self.args.network == "mlp":
            utils.plot_filters(folder / "filters_1.pdf", model.fc1.weight.view(-1, *X.shape[1:]), title)
            return
        layers = [utils.find_convolution(model, name) for name in (self.args.conv_1_name, self.args.conv_2_name)]
        example, name = images.to_pixels(X[:1]).to(layers[0].weight.device), self.data.class_names[y[0]]
        utils.plot_activation_maps(folder / "activation_maps.pdf", model, layers[0], example, f"{title}: {name}")
        for i, layer in enumerate(layers, start=1):
            utils.plot_filters(folder / f"filters_{i}.pdf", layer.weight, title)

    def test(self, model, folder):
        """Figures of the test sets, and what a comparison with another network needs."""
        data, title = self.data, utils.data_title(self.data)
        log_probs, y = self.predict(model, "test"), data.y["test"]
        if log_probs.isnan().any():
            raise options.UserError(
                f"{folder / runs.BEST}: the weights are too large; delete its folder and train again"
            )
        y_hat = log_probs.argmax(dim=-1)
        images.write_predictions(folder / PREDICTIONS, y, y_hat)
        result = {
            "test": {
                name: metrics.classification(y[rows], log_probs[rows])
                for name, rows in images.test_subsets(data).items()
            },
            "baselines": images.baselines(data),
            "shifted_acc": [{"pixels": pixels, "acc": self.shifted_acc(model, pixels)} for pixels in SHIFTS],
        }
        if self.args.network == "cnn":
            result["equivariance"] = equivariance(model.conv1, data.X["test"][:EQUIVARIANCE_EXAMPLES])
            result["edges"] = edge_filters(model.conv1.weight)
        if self.args.no_maxpool:
            result["pooled"] = self.compare_with_pooled(y == y_hat)
        confusion = result["test"]["official"]["confusion"]
        utils.plot_confusion(folder / "confusion.pdf", confusion, data.class_names, title)
        points = {point["pixels"]: point["acc"] for point in result["shifted_acc"]}
        utils.plot_intervals(folder / "shifted.pdf", points, "Shift to the right (pixels)", "Test accuracy", title)
        return result

    def shifted_acc(self, model, pixels):
        """Accuracy on the test images shifted to the right by some pixels."""
        y_hat = predict(model, images.shifted(self.data, "test", pixels)).argmax(dim=-1)
        return metrics.proportion((y_hat == self.data.y["test"]).sum().item(), len(y_hat))

    def best_plain_rate(self, rates):
        """The best learning rate of the network with pooling on the plain images; compares them if that is still to do."""
        how = {"learning_rate": rates, "seed": [options.DEFAULT_SEED], "run_name": None, "skip_test": True}
        plain = load(self.changed(**PLAIN, **how, resume="auto").args)
        found = plain.finished("comparison")
        if not found:
            print("the learning rates of the network with pooling are compared first", flush=True)
            experiment.compare(plain)
            found = plain.finished("comparison")
        rate = runs.read_json(found[0].folder / runs.RESULT, "best", "learning_rate", of=float)
        print(f"learning rate {rate:g}, the best of the comparison in {found[0].folder}", flush=True)
        return rate

    def compare_with_pooled(self, correct):
        """McNemar's test of this strided network against the pooled one with the same options; None if there is none."""
        found = self.counterpart(no_maxpool=False)
        if found is None:
            return None
        pooled_correct = images.read_correct(found.folder / PREDICTIONS, len(correct))
        comparison = metrics.mcnemar(pooled_correct, correct)
        return comparison | {"run": found.folder.name, "acc": found.result["test"]["official"]["acc"]}

    def test_figure(self, result):
        return result["test"]["official"]["acc"]

    def report(self, result):
        bundled = " (bundled data)" if result["bundled"] else ""
        for name, figures in result["test"].items():
            which = f", {TEST_NAMES[name]}, {figures['acc']['n']} images" if len(result["test"]) > 1 else ""
            print(f"Final Test acc{which}: {format_interval(figures['acc'])}{bundled}")
            print(*metrics.classification_lines(figures, result["class_names"]), sep="\n")
        shown = ", ".join(f"{BASELINE_NAMES[name]} {acc:.4f}" for name, acc in result["baselines"].items())
        print(f"For comparison, test acc of {shown}{bundled}")
        shown = ", ".join(f"{point['acc']['value']:.4f}" for point in result["shifted_acc"])
        print(f"Test acc after a shift of {SHIFTS[0]} to {SHIFTS[-1]} pixels: {shown}{bundled}")
        if "equivariance" in result:
            shown = ", ".join(f"{name} {error:.1e}" for name, error in result["equivariance"].items())
            print(f"Relative error of the equivariance of conv1: {shown}")
        if result.get("pooled"):
            print(metrics.mcnemar_line(result["pooled"], "pooled", "strided"))


@torch.no_grad()
def predict(model, X):
    """Log-probabilities (n_examples, n_classes) of uint8 images, with dropout off."""
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model(images.to_pixels(batch.to(device))) for batch in X.split(EVAL_BATCH_SIZE)]).cpu()


if __name__ == "__main__":
    options.run_script(main)
