"""Question 2: image classification with a convolutional network, in the three editions of the homework.

$ python hw2-q2.py -learning_rate 0.0005                                  # 2022-23, Kuzushiji-MNIST
$ python hw2-q2.py                                                        # its three learning rates, compared
$ python hw2-q2.py -dataset octmnist                                      # 2023-24
$ python hw2-q2.py -dataset octmnist -no_maxpool                          # strided convolutions in place of pooling
$ python hw2-q2.py -dataset fashion_mnist -learning_rate 0.001 0.01 0.1   # 2021-22

For the conceptual questions of 2021-22 and 2022-23:
$ python hw2-q2.py -network mlp                                           # without convolutions
$ python hw2-q2.py -shuffle_pixels                                        # sensors without spatial structure
"""

import argparse
import sys
from pathlib import Path

import options
from editions import BATCH_SIZE, DEFAULT_EDITION, EDITIONS

# torch takes seconds to import: every function imports what it needs of it, so that --help and a wrong option answer at once.

PLAIN = {"no_maxpool": False, "network": "cnn", "shuffle_pixels": False}  # variants take the best rate of this one
FALLBACK_RATE = 0.01  # of -no_maxpool, where no comparison tells the best
QUICK_EPOCHS = 10
RECIPE = ("epochs", "dropout", "optimizer")  # options whose default is the edition's
NOT_COMPARED = ("skip_test", "conv_1_name", "conv_2_name")  # do not matter to what is trained
MAX_THREADS = 1  # a batch of 8 small images is slower on several
EVAL_BATCH_SIZE = 500
SHIFTS = range(5)  # pixels; the test images are also tested so far to the right
EQUIVARIANCE_EXAMPLES = 100
N_COLUMNS = 4  # of pictures, where the network does not say how many
SHOWN_UNITS = 16  # of a network without convolutions, in place of filters
TEST_NAMES = {"official": "the official set", "course_529": "the course's subset"}
SHOWN_EXAMPLE = 0  # the training example in original_example.pdf and activation_maps.pdf


def parse_args(argv=None):
    parser = options.Parser("Train and test the CNN of Question 2.", prog="hw2-q2.py")
    parser.add_option("dataset", default=DEFAULT_EDITION, help=f"{', '.join(EDITIONS)}, or the path of an .npz file")
    parser.add_option("edition", choices=EDITIONS, help="network and recipe for an .npz file given by its path")
    parser.add_option("epochs", type=options.positive_int, help="passes over the training set (default: the edition's)")
    parser.add_option("batch_size", type=options.positive_int, default=BATCH_SIZE, help="default: %(default)s")
    parser.add_option(
        "learning_rate",
        type=options.positive_float,
        nargs="+",
        help="one, or several to compare on validation (default: the edition's three; for a variant the best of them)",
    )
    parser.add_option("l2_decay", type=options.non_negative_float, default=0.0, help="weight decay (default: 0)")
    parser.add_option("dropout", type=options.probability, help="dropout probability (default: the edition's)")
    parser.add_option("optimizer", choices=["sgd", "adam"], help="default: the edition's")
    parser.add_option("no_maxpool", action="store_true", help="strided convolutions in place of max pooling")
    # Beyond the handout, all off by default.
    parser.add_option("network", choices=["cnn", "mlp"], default="cnn", help="mlp: without convolutions (default: cnn)")
    parser.add_option("shuffle_pixels", action="store_true", help="put the pixels of all images in one random order")
    parser.add_option("momentum", type=options.probability, default=0.0, help="of SGD (default: 0)")
    parser.add_option("schedule", choices=["constant", "cosine"], default="constant", help="of the learning rate")
    parser.add_option("shift", type=options.whole(0, 27), default=0, help="random shifts, pixels (default: 0)")
    parser.add_option("flip", action="store_true", help="random mirror images, left to right")
    parser.add_option("ema_decay", type=options.probability, default=0.0, help="test the moving average of the weights")
    parser.add_option("conv_1_name", "convlayer1", default="conv1", help="layer whose filters and maps are drawn")
    parser.add_option("conv_2_name", "convlayer2", default="conv2", help="second layer whose filters are drawn")
    parser.add_option("skip_test", action="store_true", help="train and validate only, leave the test set alone")
    options.add_data_options(parser)
    options.add_run_options(parser)
    args = parser.parse_args(argv)
    if args.edition and args.dataset in EDITIONS:
        parser.error("-edition goes with -dataset PATH only")
    if args.no_maxpool and args.network == "mlp":
        parser.error("-no_maxpool goes with -network cnn only")
    if args.scale == "quick" and args.epochs is None:
        args.epochs = QUICK_EPOCHS
    return args


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    from data import images

    data = images.load(args.dataset, args.data, args.data_dir, args.edition, args.scale == "quick", args.shuffle_pixels)
    with_recipe(args, data.edition)
    if args.momentum and args.optimizer != "sgd":
        raise options.UserError(f"-momentum is not for {args.optimizer}; add -optimizer sgd, or leave it out")
    is_plain = all(getattr(args, name) == value for name, value in PLAIN.items())
    rates = args.learning_rate or (EDITIONS[data.edition].learning_rates if is_plain else [best_plain_rate(args, data)])
    rates = list(dict.fromkeys(rates))
    if len(rates) > 1:
        args.learning_rate, args.resume = compare_rates(args, data, rates, argv), True
    else:
        args.learning_rate = rates[0]
    train_and_test(args, data)


def with_recipe(args, edition):
    """`args` with the edition's own values of the options that were not given."""
    for name in RECIPE:
        if getattr(args, name) is None:
            setattr(args, name, getattr(EDITIONS[edition], name))
    return args


def run_folder(args, data, **changed):
    """The folder of the run with these options, some of them changed; its name holds those that are not the edition's."""
    import runs

    base = args.dataset if args.dataset in EDITIONS else f"file_{Path(args.dataset).stem}"
    base += "-bundled" if data.bundled else ""
    defaults = with_recipe(parse_args(["-scale", args.scale]), data.edition)
    ignored = ("dataset", *NOT_COMPARED)
    return runs.run_folder("q2", base, argparse.Namespace(**vars(args) | changed), defaults, ignored)


def compare_rates(args, data, rates, argv):
    """Train with each learning rate, as processes side by side; returns the one with the best validation accuracy."""
    import runs
    import utils

    is_handouts = set(rates) == set(EDITIONS[data.edition].learning_rates)
    folder = run_folder(args, data, learning_rate=None if is_handouts else ",".join(map(str, rates)))
    commands, folders = {}, {}
    for rate in rates:
        label = f"[{rate}]"
        folders[rate] = run_folder(args, data, learning_rate=rate)
        if args.run_name:
            folders[rate] = folder.with_name(f"{folder.name}-learning_rate={rate}")
        child = ["-learning_rate", rate, "-run_name", folders[rate].name, "-skip_test"]
        commands[label] = runs.this_script(*argv, *child)
    jobs = max(1, runs.n_cpus() // (args.threads or MAX_THREADS))
    outcomes = runs.run_side_by_side(commands, jobs)

    y = data.y["val"]
    most_frequent = y.bincount().max().item() / len(y)  # what a network reaches that always answers the same
    entries, histories = [], {}
    for rate in rates:
        error = outcomes[f"[{rate}]"]
        entry = {"learning_rate": rate, "run": folders[rate].name, "error": error}
        if error is None:
            result = runs.read_json(folders[rate] / runs.RESULT)
            entry["val_acc"] = result["val_acc"]
            entry["learned"] = entry["val_acc"]["low"] > most_frequent
            histories[f"{rate}"] = result["history"]
        entries.append(entry)
    finished = [entry for entry in entries if entry["error"] is None]
    if not finished:
        raise options.UserError(f"no learning rate could be trained: {entries[0]['error'].split(': error: ')[-1]}")
    best = max(finished, key=lambda entry: entry["val_acc"]["value"])
    for figure, label in (("train_loss", "Training loss"), ("val_acc", "Validation accuracy")):
        curves = {f"lr {rate}": [line[figure] for line in history] for rate, history in histories.items()}
        utils.plot_curves(folder / f"{figure}.pdf", curves, label, utils.data_title(data))
    runs.write_json(
        folder / runs.RESULT,
        {"dataset": data.edition, "title": data.title, "bundled": data.bundled, "rates": entries, "best": best},
    )
    for entry in entries:
        shown = entry["error"] or f"validation accuracy {entry['val_acc']['value']:.4f}"
        print(f"learning rate {entry['learning_rate']}: {shown}")
    print(f"best on validation: learning rate {best['learning_rate']}")
    args.run_name = best["run"]
    return best["learning_rate"]


def best_plain_rate(args, data):
    """The best rate of a finished comparison of the plain network on the plain images, as the handouts ask; else a fallback."""
    import runs

    folder = run_folder(args, data, learning_rate=None, run_name=None, **PLAIN)
    if (folder / runs.RESULT).exists():
        rate = runs.read_json(folder / runs.RESULT, "best", "learning_rate")
        print(f"learning rate {rate:g}, the best of the comparison in {folder}")
        return rate
    rate = FALLBACK_RATE if args.no_maxpool else sorted(EDITIONS[data.edition].learning_rates)[1]
    print(f"learning rate {rate:g}: no comparison of the network with pooling is in {folder}")
    return rate


def train_and_test(args, data):
    """Train one network, then test its best weights once, draw the figures and write the result."""
    import torch

    import metrics
    import models
    import runs
    import utils

    device = utils.configure_torch(args.seed, args.device, args.threads, MAX_THREADS)
    folder = run_folder(args, data)
    config = runs.make_config("q2", args, data, NOT_COMPARED)
    with runs.open_run(folder, config, args.resume) as run:
        if args.network == "mlp":
            model = models.MLP(args.dropout, data.edition, len(data.class_names))
            layers = []
        else:
            model = models.CNN(args.dropout, args.no_maxpool, data.edition, len(data.class_names))
            layers = [find_layer(model, name) for name in (args.conv_1_name, args.conv_2_name)]
        model = model.to(device, memory_format=torch.channels_last)
        n_params = models.get_number_trainable_params(model)
        result = run.result
        if result is None:
            print(
                f"{utils.data_title(data)}: {n_params:,} trainable parameters, learning rate {args.learning_rate:g}",
                flush=True,
            )
            history = train(args, data, model, run, device)
            best = utils.best_epoch(history, "val_acc")
            n_val = len(data.y["val"])
            result = {
                "dataset": data.edition,
                "title": data.title,
                "bundled": data.bundled,
                "class_names": data.class_names,
                "learning_rate": args.learning_rate,
                "n_params": n_params,
                "best_epoch": best["epoch"],
                "train_loss": best["train_loss"],
                "val_acc": metrics.proportion(round(best["val_acc"] * n_val), n_val),
                "history": history,
                "seconds": sum(line["seconds"] for line in history),
                "threads": torch.get_num_threads(),
                "test": None,
            }
            draw_training(folder, data, model, layers, history)
            run.finish(result)
        if result["test"] is None and not args.skip_test:
            runs.load_weights(model, folder / runs.BEST)
            result |= test(args, data, model, folder, device) | {"peak_memory_mb": utils.peak_memory_mb()}
            run.finish(result)
    report(result, folder)


def find_layer(model, name):
    """The convolution called `name`, as Python writes it: `conv1`, or `convblock1[0]` inside an `nn.Sequential`."""
    from torch import nn

    path = name.replace("[", ".").replace("]", "")
    layer = dict(model.named_modules()).get(path)
    if not isinstance(layer, nn.Conv2d):
        there = ", ".join(key for key, module in model.named_modules() if isinstance(module, nn.Conv2d))
        raise options.UserError(f"the network has no convolution called {name}; it has {there}")
    return layer


def train(args, data, model, run, device):
    """Fit the network with the options' recipe; returns the history."""
    import torch
    import torch.nn.functional as F

    import utils
    from data import images

    X, y = ({split: part[split].to(device) for split in ("train", "val")} for part in (data.X, data.y))
    distort = images.random_distortion(args.shift, args.flip)
    batches = utils.TensorBatches(
        X["train"],
        y["train"],
        batch_size=args.batch_size,
        transform=lambda X, y: (images.to_pixels(distort(X)), y),
    )

    def batch_loss(model, batch):
        X, y = batch
        return F.nll_loss(model(X), y), len(y)

    def validate(model):
        log_probs = predict(model, X["val"])
        hits = (log_probs.argmax(dim=-1) == y["val"]).sum().item()
        return {"val_loss": F.nll_loss(log_probs, y["val"]).item(), "val_acc": hits / len(log_probs)}

    kwargs = {"lr": args.learning_rate, "weight_decay": args.l2_decay, "fused": device.type != "mps"}
    if args.optimizer == "adam":
        optimizer = torch.optim.Adam(model.parameters(), **kwargs)
    else:
        optimizer = torch.optim.SGD(model.parameters(), momentum=args.momentum, **kwargs)
    scheduler = None
    if args.schedule == "cosine":
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs * len(batches))
    averaged = utils.average_weights(model, args.ema_decay) if args.ema_decay else None
    return utils.fit(
        model, optimizer, batches, batch_loss, validate, run, args.epochs,
        seed=args.seed, score="val_acc", scheduler=scheduler, averaged=averaged,
    )  # fmt: skip


def predict(model, X):
    """Log-probabilities (n_examples, n_classes) of uint8 images, with dropout off."""
    import torch

    from data import images

    model.eval()
    with torch.no_grad():
        return torch.cat([model(images.to_pixels(batch)) for batch in X.split(EVAL_BATCH_SIZE)])


def test(args, data, model, folder, device):
    """Figures of the test sets, with the best weights; also what a comparison with another network needs."""
    import numpy as np

    import metrics
    import runs
    import utils
    from data import images

    log_probs = predict(model, data.X["test"].to(device)).cpu()
    y = data.y["test"]
    y_hat = log_probs.argmax(dim=-1)
    result = {
        "test": {},
        "baselines": images.baselines(data),
        "shifted_acc": [{"pixels": k, "acc": shifted_acc(data, model, device, k)} for k in SHIFTS],
    }
    if args.network == "cnn":
        result["equivariance"] = equivariance(model.conv1, data.X["test"][:EQUIVARIANCE_EXAMPLES].to(device))
    for name, indices in images.test_subsets(data).items():
        result["test"][name] = metrics.classification(y[indices], log_probs[indices])
    with runs.atomic_path(folder / "test_predictions.npz") as path, open(path, "wb") as file:
        np.savez(file, y=y.numpy(), y_hat=y_hat.numpy())
    utils.plot_confusion(
        folder / "confusion.pdf", result["test"]["official"]["confusion"], data.class_names, utils.data_title(data)
    )
    utils.plot_intervals(
        folder / "shifted.pdf",
        {point["pixels"]: point["acc"] for point in result["shifted_acc"]},
        "Shift to the right (pixels)",
        "Test accuracy",
        utils.data_title(data),
    )
    if args.no_maxpool:
        result["pooled"] = compare_with_pooled(args, data, y == y_hat)
    return result


def shifted_acc(data, model, device, pixels):
    """Accuracy on the test images shifted to the right by some pixels."""
    import metrics
    from data import images

    y_hat = predict(model, images.shifted(data, "test", pixels).to(device)).argmax(dim=-1).cpu()
    return metrics.proportion((y_hat == data.y["test"]).sum().item(), len(y_hat))


def equivariance(conv, X):
    """How far `conv` is from commuting with a shift and with a quarter turn (2021-22, Question 2.1).

    conv(T x) - T conv(x), the largest difference over the largest value, away from the border, where pixels leave the
    image; uint8 images X (n_examples, 1, 28, 28). Returns {"shift", "rotation"}: 0 is equivariance.
    """
    import torch

    from data import images

    x = images.to_pixels(X)
    stride, border = conv.stride[0], conv.kernel_size[0]
    transforms = {  # each for the image, and for the map, whose cells are `stride` pixels apart
        "shift": (lambda x: x.roll(stride, dims=-1), lambda maps: maps.roll(1, dims=-1)),
        "rotation": (lambda x: x.rot90(dims=(-2, -1)),) * 2,
    }
    result = {}
    with torch.no_grad():
        maps = conv(x)
        for name, (transform_image, transform_maps) in transforms.items():
            difference = (conv(transform_image(x)) - transform_maps(maps))[..., border:-border, border:-border]
            result[name] = (difference.abs().max() / maps.abs().max()).item()
    return result


def compare_with_pooled(args, data, correct):
    """McNemar's test of this strided network against the pooled one with the same options, or None if that is missing."""
    import numpy as np

    import metrics
    import runs

    folder = run_folder(args, data, no_maxpool=False, run_name=None)
    is_tested = (folder / "test_predictions.npz").exists() and (folder / runs.RESULT).exists()
    if not is_tested or runs.read_json(folder / runs.CONFIG, "data", "fingerprint") != data.fingerprint:
        print(f"no test of the network with pooling on these images is in {folder}: the two cannot be compared")
        return None
    with np.load(folder / "test_predictions.npz") as npz:
        pooled_correct = npz["y"] == npz["y_hat"]
    return metrics.mcnemar(pooled_correct, correct) | {
        "run": folder.name,
        "acc": runs.read_json(folder / runs.RESULT, "test", "official", "acc"),
    }


def draw_training(folder, data, model, layers, history):
    """The figures that need no test set: curves, one training example, its activation maps, filters of two layers."""
    import torch

    import utils
    from data import images

    for figure, label in (("train_loss", "Training loss"), ("val_acc", "Validation accuracy")):
        utils.plot_curves(
            folder / f"{figure}.pdf", {label: [line[figure] for line in history]}, label, utils.data_title(data)
        )
    x = data.X["train"][SHOWN_EXAMPLE : SHOWN_EXAMPLE + 1]
    name = data.class_names[data.y["train"][SHOWN_EXAMPLE]]
    utils.plot_tiles(folder / "original_example.pdf", x[0], title=f"{utils.data_title(data)}: {name}")
    if not layers:  # the first hidden units of a network without convolutions, over the image
        units = model.fc1.weight[:SHOWN_UNITS].detach().cpu().reshape(-1, *x.shape[2:])
        utils.plot_tiles(folder / "filters_1.pdf", units, title=utils.data_title(data))
        return
    maps = []
    hook = layers[0].register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.no_grad():
        model(images.to_pixels(x).to(next(model.parameters()).device))
    hook.remove()
    channels = [f"channel {i}" for i in range(maps[0].shape[1])]
    utils.plot_tiles(folder / "activation_maps.pdf", maps[0][0].cpu(), channels, f"{utils.data_title(data)}: {name}")
    for i, layer in enumerate(layers, start=1):
        kernels = layer.weight.detach().cpu().transpose(0, 1)  # a row of pictures for each input channel
        n_columns = kernels.shape[1] if len(kernels) > 1 else N_COLUMNS
        utils.plot_tiles(folder / f"filters_{i}.pdf", kernels.flatten(0, 1), None, utils.data_title(data), n_columns)


def report(result, folder):
    """Print the figures of a finished run."""
    from metrics import format_interval

    bundled = " (bundled data)" if result["bundled"] else ""
    print(f"Trainable parameters: {result['n_params']:,}")
    print(f"Best validation acc: {format_interval(result['val_acc'])} in epoch {result['best_epoch']}{bundled}")
    for name, figures in (result["test"] or {}).items():
        n = figures["acc"]["n"]
        label = "Final Test acc" if len(result["test"]) == 1 else f"Final Test acc, {TEST_NAMES[name]}, {n} images"
        print(f"{label}: {format_interval(figures['acc'])}{bundled}")
        pairs = zip(result["class_names"], figures["per_class_acc"], strict=True)
        print("  by class: " + ", ".join(f"{name} {acc:.4f}" for name, acc in pairs if acc is not None))
        if figures["macro_auc"] is not None:
            print(f"  macro one-vs-rest AUC: {figures['macro_auc']:.4f}")
    if result["test"]:
        names = {"majority": "the most frequent class", "nearest_centroid": "the nearest class mean"}
        shown = ", ".join(f"{names[name]} {acc:.4f}" for name, acc in result["baselines"].items())
        print(f"For comparison, test acc of {shown}{bundled}")
        shown = ", ".join(f"{point['acc']['value']:.4f}" for point in result["shifted_acc"])
        print(f"Test acc after a shift of {SHIFTS[0]} to {SHIFTS[-1]} pixels: {shown}{bundled}")
    if result.get("equivariance"):
        shown = ", ".join(f"{name} {error:.1e}" for name, error in result["equivariance"].items())
        print(f"Relative error of the equivariance of conv1: {shown}")
    if result.get("pooled"):
        pooled = result["pooled"]
        print(
            f"pooled minus strided: {format_interval(pooled['difference'], sign='+')}; right only with pooling "
            f"{pooled['only_a']}, only without {pooled['only_b']}, McNemar p = {pooled['p_value']:.2g}"
        )
    print(f"written to {folder}")


if __name__ == "__main__":
    options.run_script(main, options.RESUMABLE)
