"""The published image sets of Question 2: where their files are, how they are verified, and what becomes of them."""

import gzip
import hashlib
import math
import os
import shutil
import socket
import struct
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException

import numpy as np

import options
import runs
import safe_io
from data.fetch import download
from editions import EDITIONS

IMAGE_SHAPE = (28, 28)
ACCEPTED_SHAPES = (IMAGE_SHAPE, (1, 28, 28), (28, 28, 1), (28 * 28,))  # of one image in a file
SPLIT_SEED = 42  # belongs to the definition of the split of the official training images, so it is no option
SPLITS = ("train", "val", "test")
MEDMNIST_KEYS = tuple(f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels"))
COURSE_KEYS = ("Xtrain", "ytrain", "Xdev", "ydev", "Xtest", "ytest")
COURSE_SCALE = 256  # the course divides its pixels by 256
IDX_UNSIGNED_BYTE = 8
OPENML_TIMEOUT = 60.0  # seconds; OpenML prepares its answer before it sends the first byte

SOURCE_HELP = (
    "a folder with the published files, or an .npz with the keys train_images, train_labels, val_..., test_..."
)


@dataclass(frozen=True)
class ImageSet:
    """Where an image set comes from, and what its arrays must be.

    Attributes:
        name: its key in `EDITIONS`; the result is `<data_dir>/<name>.npz`.
        homepage: where a person finds the files.
        mirrors: base URLs ending in "/", tried in this order.
        files: file name -> hash as pooch writes it; either the published `<name>.npz`, which is kept as it is, or
            four IDX files: training images, training labels, test images, test labels.
        sizes: number of images in train, val and test.
        array_hashes: name of an official array -> SHA-256 of its uint8 bytes; `train_images` and `train_labels` are
            meant as published, before the split into train and val.
        balanced: whether every class has equally many images, in train and val together as in test.
        openml: name on OpenML, which is asked when no mirror answers.
    """

    name: str
    homepage: str
    mirrors: tuple[str, ...]
    files: dict[str, str]
    sizes: tuple[int, int, int]
    array_hashes: dict[str, str] = field(default_factory=dict)
    balanced: bool = False
    openml: str | None = None

    @property
    def title(self):
        return EDITIONS[self.name].title

    @property
    def published_hash(self):
        """Hash of the published .npz; None where IDX files are published."""
        return self.files.get(f"{self.name}.npz")


def _idx_files(*md5s):
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return {f"{name}-ubyte.gz": f"md5:{md5}" for name, md5 in zip(names, md5s, strict=True)}


KUZUSHIJI_MNIST = ImageSet(
    name="kuzushiji_mnist",
    homepage="https://github.com/rois-codh/kmnist",
    mirrors=("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    files=_idx_files(
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
    sizes=(50_000, 10_000, 10_000),
    array_hashes={"test_images": "dc10e73c6e83fb3fb3586eafece217ab6602e7825fa7d49399359bde3fc66f07"},
    balanced=True,
    openml="Kuzushiji-MNIST",
)
FASHION_MNIST = ImageSet(
    name="fashion_mnist",
    homepage="https://github.com/zalandoresearch/fashion-mnist",
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    files=_idx_files(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    sizes=(50_000, 10_000, 10_000),
    array_hashes={
        "train_images": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "train_labels": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "test_images": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "test_labels": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    },
    balanced=True,
)
OCTMNIST = ImageSet(
    name="octmnist",
    homepage="https://zenodo.org/records/10519652",
    mirrors=("https://zenodo.org/records/10519652/files/",),
    files={"octmnist.npz": "md5:c68d92d5b585d8d81f7112f81e2d0842"},
    sizes=(97_477, 10_832, 1_000),
)
IMAGE_SETS = {image_set.name: image_set for image_set in (KUZUSHIJI_MNIST, OCTMNIST, FASHION_MNIST)}


def install(image_set, args):
    """Write `<data_dir>/<name>.npz`, verified, from `args.source` or from the network; `args` of `download.parse_args`.

    A file that is there is only verified, unless `args.force`. Raises `UserError`, and then leaves it as it was.
    """
    path = args.data_dir / f"{image_set.name}.npz"
    if os.path.exists(path) and not args.force:  # False, and no exception, in a closed folder
        arrays = load(image_set, [path], "-force replaces it")
        print(f"{image_set.title} is there and verified")
    else:
        with download.workspace(args.data_dir) as folder:
            if args.source is not None:
                files = find_files(image_set, args.source)
                advice = "-source takes the published data only, hw2-q2.py -dataset PATH any .npz with the same keys"
                arrays = load(image_set, files, advice)
            else:
                arrays, files = fetch(image_set, folder, args.url, args.timeout)
            with runs.atomic_path(path) as new_path, open(new_path, "wb") as file:
                if image_set.published_hash:
                    with open(files[0], "rb") as published:
                        shutil.copyfileobj(published, file)
                else:
                    np.savez_compressed(file, **arrays)
    counts = ", ".join(f"{len(arrays[f'{split}_labels']):,} {split}" for split in SPLITS)
    print(f"{path}: {counts} images\nSHA-256 {download.file_hash(path)}")


def fetch(image_set, folder, url, timeout):
    """Arrays from `url`, or else the mirrors, or else OpenML, and the files in `folder` that they came in."""
    mirrors = image_set.mirrors if url is None else (url,)
    advice = f"get the files by hand, see {image_set.homepage}, and give their folder with -source PATH"
    try:
        files = download.fetch_files(mirrors, image_set.files, folder, timeout)
        return load(image_set, files, advice), files
    except download.FetchError as error:
        if image_set.openml is None or url is not None:
            raise options.UserError(f"{image_set.title} did not come: {error}; {advice}") from error
        print(f"{error}; fetching {image_set.title} from OpenML in place of it, which takes a few minutes", flush=True)
    return load_openml(image_set, folder, advice), []


def find_files(image_set, source):
    """The published files in the folder `source`, IDX files also unpacked; or [source] if it is a file."""
    if not os.path.exists(source):
        raise options.UserError(f"{source} does not exist; -source takes {SOURCE_HELP}")
    if not source.is_dir():
        return [source]
    paths = []
    for name in image_set.files:
        candidates = [source / name, source / name.removesuffix(".gz")]
        paths += [path for path in candidates if path.is_file()][:1]
    if len(paths) < len(image_set.files):
        raise options.UserError(f"{source} lacks some of {', '.join(image_set.files)}; see {image_set.homepage}")
    return paths


@contextmanager
def refusing(image_set, origin, advice):
    """What a damaged, hostile or wrong file raises becomes one line: where it came from, what is wrong, what to do."""
    try:
        with warnings.catch_warnings(action="ignore"):  # numpy and scikit-learn warn before they raise
            yield
    except (*safe_io.DAMAGED, OSError) as error:
        raise options.UserError(
            f"{origin} does not give {image_set.title}: {download.one_line(error)}; {advice}"
        ) from error


def load(image_set, paths, advice):
    """Verified arrays under MedMNIST's keys, from one .npz or from the four IDX files; a `UserError` ends in `advice`."""
    n_train, n_val, n_test = image_set.sizes
    shapes = [(n, *rest) for n in (n_train + n_val, n_test) for rest in (IMAGE_SHAPE, ())]  # in the order of the files
    contents = []
    for path, shape in zip(paths, shapes, strict=False):  # an .npz is one path
        with refusing(image_set, path, advice):
            known_hash = image_set.published_hash or image_set.files.get(path.name)
            if known_hash is not None:
                algorithm, digest = known_hash.split(":")
                if download.file_hash(path, algorithm) != digest:
                    raise ValueError(f"its {algorithm.upper()} is not that of the published file")
            contents.append(read_npz(path) if len(paths) == 1 else read_idx(path, shape))
    arrays = contents[0] if len(paths) == 1 else split_official(*contents, n_train)
    with refusing(image_set, paths[0] if len(paths) == 1 else paths[0].parent, advice):
        check_arrays(image_set, arrays)
    return arrays


def load_openml(image_set, folder, advice):
    """Verified arrays from OpenML, whose rows are the training images and then the test images, in official order."""
    from sklearn.datasets import fetch_openml  # slow to import, and rarely needed

    n_official = sum(image_set.sizes[:2])
    socket.setdefaulttimeout(OPENML_TIMEOUT)  # fetch_openml sets none
    with refusing(image_set, "OpenML", advice):
        try:
            # liac-arff needs no pandas
            bunch = fetch_openml(image_set.openml, version=1, as_frame=False, parser="liac-arff", data_home=folder)
        except HTTPException as error:  # a cut transfer; no OSError
            raise OSError("the transfer broke off") from error
        finally:
            socket.setdefaulttimeout(None)
        images = to_uint8(bunch.data).reshape(-1, *IMAGE_SHAPE)
        labels = to_uint8(np.asarray(bunch.target).astype(float))  # OpenML gives classes as text
        arrays = split_official(
            images[:n_official], labels[:n_official], images[n_official:], labels[n_official:], image_set.sizes[0]
        )
        check_arrays(image_set, arrays)
    return arrays


def read_idx(path, shape):
    """A uint8 array of that shape from an IDX file, gzipped if its name ends in .gz.

    IDX is the format of MNIST (http://yann.lecun.com/exdb/mnist): two zero bytes, the type, the number of dimensions,
    each size as a big-endian uint32, then the values. Raises `OSError` or one of `safe_io.DAMAGED` for all else.
    """
    safe_io.require_regular(path)
    size = math.prod(shape)
    header = struct.pack(f">HBB{len(shape)}I", 0, IDX_UNSIGNED_BYTE, len(shape), *shape)
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        if file.read(len(header)) != header:
            raise ValueError(f"it is not an IDX file of unsigned bytes of shape {shape}")
        values = file.read(size + 1)  # one more tells whether the file goes on; a bomb unpacks no further
    if len(values) != size:
        raise ValueError(f"it has {'fewer' if len(values) < size else 'more'} than the {size:,} values of its header")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def read_npz(path):
    """uint8 images (n, 28, 28) and labels (n,) under MedMNIST's keys, from an .npz in that layout or the course's.

    Raises `OSError` or one of `safe_io.DAMAGED` for all else; nothing is unpickled.
    """
    npz = safe_io.read_arrays(path)
    arrays = {}
    is_course = COURSE_KEYS[0] in npz
    for key, npz_key in zip(MEDMNIST_KEYS, COURSE_KEYS if is_course else MEDMNIST_KEYS, strict=True):
        values = npz.pop(npz_key)  # the memory of one is free before the next is converted
        if key.endswith("labels"):
            arrays[key] = to_uint8(values).reshape(-1)
        else:
            if values.shape[1:] not in ACCEPTED_SHAPES:
                raise ValueError(f"its {npz_key} have the shape {values.shape}")
            arrays[key] = to_uint8(values, COURSE_SCALE if is_course else 1).reshape(-1, *IMAGE_SHAPE)
    return arrays


def fits(arrays):
    """Whether arrays are images and labels as `read_npz` returns them, as many of each and at least one in every split."""
    parts = [(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in SPLITS]
    shapes = all(X.shape == (len(y), *IMAGE_SHAPE) and y.ndim == 1 and len(y) > 0 for X, y in parts)
    return shapes and set(arrays) == set(MEDMNIST_KEYS) and all(a.dtype == np.uint8 for part in parts for a in part)


def to_uint8(values, scale=1):
    """`scale` times `values` as uint8; raises `ValueError` unless all of that is whole and from 0 to 255."""
    if values.dtype.kind in "uif":
        with np.errstate(invalid="ignore", over="ignore"):  # nan and what is too large are told from the comparison
            scaled = values if scale == 1 else values * scale
            pixels = scaled.astype(np.uint8, order="C")  # OpenML's columns are not in that order, and the hash needs it
        if np.array_equal(pixels, scaled):
            return pixels
    raise ValueError("its values are not whole numbers from 0 to 255" + (f" divided by {scale}" if scale > 1 else ""))


def _split_order(n_official):
    return np.random.default_rng(SPLIT_SEED).permutation(n_official)


def split_official(train_images, train_labels, test_images, test_labels, n_train):
    """Arrays under MedMNIST's keys: the official training set shuffled and cut after `n_train`, the test set as it is."""
    order = _split_order(len(train_images))
    train, val = order[:n_train], order[n_train:]
    parts = (train_images[train], train_labels[train], train_images[val], train_labels[val], test_images, test_labels)
    return dict(zip(MEDMNIST_KEYS, parts, strict=True))


def join_official(arrays, kind):
    """The official training "images" or "labels" in published order, from train and val; undoes `split_official`."""
    shuffled = np.concatenate([arrays[f"train_{kind}"], arrays[f"val_{kind}"]])
    official = np.empty_like(shuffled)
    official[_split_order(len(shuffled))] = shuffled
    return official


def check_arrays(image_set, arrays):
    """Raises `ValueError` unless shapes, labels, class balance and every known SHA-256 are those of the image set."""
    n_classes = EDITIONS[image_set.name].n_classes
    for split, size in zip(SPLITS, image_set.sizes, strict=True):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if images.shape != (size, *IMAGE_SHAPE) or labels.shape != (size,):
            raise ValueError(f"its {split} set has {len(images):,} images and {len(labels):,} labels, not {size:,}")
        if labels.max() >= n_classes:
            raise ValueError(f"its {split} labels go up to {labels.max()}, not {n_classes - 1}")
    official = arrays | {f"train_{kind}": join_official(arrays, kind) for kind in ("images", "labels")}
    for name in ("train_labels", "test_labels") if image_set.balanced else ():
        if len(set(np.bincount(official[name], minlength=n_classes))) > 1:
            raise ValueError(f"its {name} are not the published ones (the classes differ in size)")
    for name, sha256 in image_set.array_hashes.items():
        if hashlib.sha256(official[name]).hexdigest() != sha256:
            raise ValueError(f"its {name} are not the published ones (SHA-256), or not in this project's order")
