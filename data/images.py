"""Image sets of Question 2: an .npz file, real or bundled, to tensors."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from data import sources
from data.bundled import images as bundled_images
from data.fetch import download, image_sets
from editions import DEFAULT_EDITION, EDITIONS
from options import DATA_DIR, UserError

# The course's own file of Kuzushiji-MNIST, which users may have already.
OTHER_FILE_NAMES = {"kuzushiji_mnist": ("Kuzushiji-MNIST.npz",)}
# The course's OCTMNIST test set: the first images of each class, as many as make the training set's class mix.
COURSE_OCTMNIST_COUNTS = (182, 55, 42, 250)
QUICK_SIZES = {"train": 4000, "val": 1000, "test": 1000}
MAX_PIXEL = 255
PIXEL_ORDER_SEED = 7  # belongs to the definition of the shuffled images, so it is no option


@dataclass(frozen=True)
class Images:
    """An image set.

    Attributes:
        title: name to show; `bundled` says whether it is the generated twin.
        edition: key of `EDITIONS`, the network and recipe that go with it.
        class_names: in the order of the labels.
        X, y: dicts from split to images (n_examples, 1, 28, 28), uint8, and labels (n_examples), int64.
        fingerprint: SHA-256 of the content, before the pixels were shuffled.
        pixel_order: the permutation of the pixels (784) that was applied to every image, or None.
    """

    title: str
    bundled: bool
    edition: str
    class_names: tuple[str, ...]
    X: dict
    y: dict
    fingerprint: str
    pixel_order: torch.Tensor | None = None


def load(dataset, mode="auto", data_dir=DATA_DIR, edition=None, quick=False, shuffle_pixels=False):
    """The image set called `dataset`, or the .npz file at that path.

    Args:
        dataset: a key of `EDITIONS`, or a path to an .npz in MedMNIST's layout or the course's.
        mode: "auto", "real" or "bundled"; a path is real.
        data_dir: where the real files are.
        edition: the edition whose network a file at a path is for.
        quick: only the first few thousand images of each split.
        shuffle_pixels: put the pixels of every image in the same random order (2022-23, Question 2.3).

    Raises `UserError` for a file that is missing, damaged or of another layout.
    """
    path = find_file(dataset, mode, data_dir)
    if path is not None:
        arrays = read_file(path)
    else:
        arrays = sources.cached_arrays(
            f"bundled-{dataset}", lambda: bundled_images.generate(dataset), bundled_images.__file__
        )
    edition = dataset if dataset in EDITIONS else edition or DEFAULT_EDITION
    class_names = check_labels(arrays, EDITIONS[edition].class_names, path, named=dataset in EDITIONS)
    fingerprint = sources.fingerprint(arrays)
    X, y = {}, {}
    for split in image_sets.SPLITS:
        n = QUICK_SIZES[split] if quick else None
        X[split] = torch.from_numpy(arrays[f"{split}_images"][:n]).unsqueeze(1)
        y[split] = torch.from_numpy(arrays[f"{split}_labels"][:n].astype(np.int64)).reshape(-1)
    title = EDITIONS[edition].title if dataset in EDITIONS else Path(dataset).name
    loaded = Images(title, path is None, edition, class_names, X, y, fingerprint)
    return with_shuffled_pixels(loaded) if shuffle_pixels else loaded


def find_file(dataset, mode, data_dir):
    """The .npz of `dataset`, or None if the bundled twin is to be used."""
    if dataset not in EDITIONS:
        if not os.path.isfile(dataset):
            raise UserError(
                f"{dataset} does not exist; -dataset takes {', '.join(EDITIONS)} or the path of an .npz file"
            )
        return Path(dataset)
    names = (f"{dataset}.npz", *OTHER_FILE_NAMES.get(dataset, ()))
    candidates = [(data_dir / name,) for name in names]
    found = sources.choose(mode, candidates, EDITIONS[dataset].title, f"python download_{dataset}.py")
    return found and found[0]


def read_file(path):
    """Arrays under MedMNIST's keys from a file in that layout or the course's; raises `UserError`."""
    try:
        arrays = image_sets.read_npz(path)
    except (*download.DAMAGED, OSError) as error:
        reason = download.one_line(error)
        raise UserError(
            f"{path} is not an image set ({reason}); it needs train_, val_ and test_images (n, 28, 28) and labels, "
            "download it again or name another with -dataset PATH"
        ) from error
    for split in image_sets.SPLITS:
        n_images, n_labels = len(arrays[f"{split}_images"]), len(arrays[f"{split}_labels"])
        if n_images != n_labels or n_images == 0:
            raise UserError(
                f"{path} has {n_images} {split} images of 28x28 and {n_labels} {split} labels; "
                "it needs as many of each, and at least one"
            )
    return arrays


def check_labels(arrays, class_names, path, named):
    """The class names that fit the labels; raises `UserError` for a named set whose labels pass its classes."""
    n_classes = 1 + max(int(arrays[f"{split}_labels"].max()) for split in image_sets.SPLITS)
    if n_classes <= len(class_names) and (named or n_classes == len(class_names)):
        return class_names
    if named:
        raise UserError(
            f"{path} has labels up to {n_classes - 1}, but this set has {len(class_names)} classes; download it again"
        )
    return tuple(map(str, range(n_classes)))


def with_shuffled_pixels(images):
    """The same images as sensors without spatial structure would give them: in one random order of the pixels."""
    n_pixels = images.X["train"][0].numel()
    order = torch.from_numpy(np.random.default_rng(PIXEL_ORDER_SEED).permutation(n_pixels))
    X = {split: reorder(part, order) for split, part in images.X.items()}
    return replace(images, title=f"{images.title}, shuffled pixels", X=X, pixel_order=order)


def reorder(X, order):
    """Images whose pixel i is pixel `order[i]` of X, in row-major order."""
    return X.flatten(1)[:, order].reshape(X.shape)


def shifted(images, split, pixels):
    """The images of a split shifted to the right, black where they left; shuffled pixels are shuffled after the shift."""
    X = images.X[split]
    if images.pixel_order is not None:
        X = reorder(X, images.pixel_order.argsort())
    X = F.pad(X, (pixels, 0))[..., : X.shape[-1]]
    return X if images.pixel_order is None else reorder(X, images.pixel_order)


def baselines(images):
    """Test accuracy of always the most frequent class, and of the class whose mean training image is the nearest."""
    X, y = images.X, images.y
    classes = y["train"].unique()
    means = torch.stack([X["train"][y["train"] == label].flatten(1).float().mean(dim=0) for label in classes])
    nearest = classes[torch.cdist(X["test"].flatten(1).float(), means).argmin(dim=1)]
    guesses = {"majority": y["train"].mode().values, "nearest_centroid": nearest}
    return {name: (guess == y["test"]).double().mean().item() for name, guess in guesses.items()}


def test_subsets(images):
    """The test sets to report: a dict from name to the indices of its images.

    OCTMNIST is reported on the official balanced test set and on the course's cut of it, 529 images in the training
    set's class mix; the others have one.
    """
    y = images.y["test"]
    subsets = {"official": torch.arange(len(y))}
    if images.edition == "octmnist":
        first = [(y == label).nonzero().flatten()[:n] for label, n in enumerate(COURSE_OCTMNIST_COUNTS)]
        if [len(indices) for indices in first] == list(COURSE_OCTMNIST_COUNTS):
            subsets["course_529"] = torch.cat(first).sort().values
    return subsets


def to_pixels(X):
    """uint8 images as the network reads them: floats from 0 to 1."""
    return X.float().div_(MAX_PIXEL)


def gatherer(X, y, transform):
    """A function from a list of row tensors to batches: images as the network reads them, and their labels.

    The pixels of the whole list are transformed and converted at once, which costs each batch little.

    Args:
        X, y: uint8 images (n_examples, 1, 28, 28) and labels (n_examples), on the device.
        transform: of `random_distortion`.
    """

    def gather(batches):
        rows, sizes = torch.cat(list(batches)).to(X.device), [len(batch) for batch in batches]
        yield from zip(to_pixels(transform(X[rows])).split(sizes), y[rows].split(sizes), strict=True)

    return gather


def random_distortion(shift=0, flip=False):
    """A function that shifts each image of a batch by up to `shift` pixels a side and mirrors every other one.

    What enters at the border is black. With neither asked for it returns its argument.
    """

    def distort(X):
        n, side, device = len(X), X.shape[-1], X.device
        rows = torch.arange(side, device=device).expand(n, side)
        columns = rows
        if flip:
            mirrored = torch.rand(n, 1, device=device) < 0.5
            columns = torch.where(mirrored, side - 1 - columns, columns)
        offsets = torch.randint(0, 2 * shift + 1, (2, n, 1), device=device)
        padded = F.pad(X, (shift, shift, shift, shift))[:, 0]
        rows, columns = (rows + offsets[0]).unsqueeze(2), (columns + offsets[1]).unsqueeze(1)
        example = torch.arange(n, device=device).reshape(-1, 1, 1)
        return padded[example, rows, columns].unsqueeze(1)

    return distort if shift or flip else lambda X: X
