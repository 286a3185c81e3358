"""The published image sets of Question 2: where their files are, how they are verified and how they are stored."""

import gzip
import hashlib
import math
import os
import struct
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

import files
from data.fetch import download
from data.images import IMAGE_SHAPE, SIZES, SPLITS, read_npz, split_official
from editions import DATASETS
from options import UserError

IDX_UNSIGNED_BYTE = 8


@dataclass(frozen=True)
class ImageSet:
    """Where an image set comes from, and what its arrays must be.

    Attributes:
        name: its key in `editions.DATASETS`; the result is `<data_dir>/<name>.npz`.
        homepage: where a person finds the files.
        mirrors: base URLs ending in "/", tried in this order.
        files: file name -> hash, such as "md5:..."; either the published `<name>.npz`, which is kept as it is, or
            four IDX files: training images, training labels, test images, test labels.
        sizes: number of images in train, val and test.
        content_hashes: of the official training set and of the test set, as `hash_content` computes them; empty where
            only the hash of the file is known.
    """

    name: str
    homepage: str
    mirrors: tuple[str, ...]
    files: dict[str, str]
    sizes: tuple[int, int, int]
    content_hashes: dict[str, str] = field(default_factory=dict)

    @property
    def title(self):
        return DATASETS[self.name].title

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
    sizes=SIZES["kuzushiji_mnist"],
    content_hashes={
        "train": "6b0c8cc0c589559b69c5a03a0e130e1bc2fb442bf2f5d7d9ac6e47d4aa35692a",
        "test": "6a35d796a90b658b7bfdcd062a5d01c03e92174de967a72193405eebeb14a12d",
    },
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
    sizes=SIZES["fashion_mnist"],
    content_hashes={
        "train": "56016b2341e99c383df5cc0ed736f4afb12a6c90855d9f3d69981b294a0159ad",
        "test": "b73438e78d64c9f337edad19c3eea888b49d646dbe27b46e4e3177218f3581e7",
    },
)
OCTMNIST = ImageSet(
    name="octmnist",
    homepage="https://zenodo.org/records/10519652",
    mirrors=("https://zenodo.org/records/10519652/files/",),
    files={"octmnist.npz": "md5:c68d92d5b585d8d81f7112f81e2d0842"},
    sizes=SIZES["octmnist"],
)


def install(image_set, args):
    """Write `<data_dir>/<name>.npz`, verified, from `args.source` or from the network; `args` of `download.parse_args`.

    A file that is there is only verified, unless `args.force`. Raises `UserError`, and then leaves it as it was.
    """
    path = args.data_dir / f"{image_set.name}.npz"
    if os.path.exists(path) and not args.force:  # False, and no exception, in a closed folder
        arrays = load(image_set, [path], download.REPLACING)
        print(f"{image_set.title} is there and verified")
    else:
        with download.workspace(args.data_dir) as folder:
            if args.source is not None:
                paths = find_files(image_set, args.source)
                advice = "-source takes the published data only, hw2-q2.py -dataset PATH any .npz with the same keys"
                arrays = load(image_set, paths, advice)
            else:
                arrays, paths = fetch(image_set, folder, args.url)
            if image_set.published_hash:
                files.write_bytes(path, paths[0].read_bytes())
            else:
                files.write_arrays(path, arrays, compress=True)
    counts = ", ".join(f"{len(arrays[f'{split}_labels']):,} {split}" for split in SPLITS)
    print(f"{path}: {counts} images\nSHA-256 {download.file_hash(path)}")


def fetch(image_set, folder, url):
    """Arrays from `url`, or else the mirrors, and the files in `folder` that they came in."""
    mirrors = image_set.mirrors if url is None else (url,)
    advice = f"get the files by hand, see {image_set.homepage}, and give their folder with -source PATH"
    try:
        paths = download.fetch_files(mirrors, image_set.files, folder)
        return load(image_set, paths, advice), paths
    except download.FetchError as error:
        raise UserError(f"{image_set.title} did not come: {error}; {advice}") from error


def find_files(image_set, source):
    """The published files in the folder `source`, IDX files also unpacked; or [source] if it is a file."""
    if not os.path.exists(source):
        raise UserError(f"{source} does not exist; -source takes the published files, a folder or an .npz")
    if not source.is_dir():
        return [source]
    paths = []
    for name in image_set.files:
        candidates = [source / name, source / name.removesuffix(".gz")]
        paths += [path for path in candidates if path.is_file()][:1]
    if len(paths) < len(image_set.files):
        raise UserError(f"{source} lacks some of {', '.join(image_set.files)}; see {image_set.homepage}")
    return paths


@contextmanager
def refusing(image_set, origin, advice):
    """Turn what a damaged or wrong file raises into one line: where it came from, what is wrong, what to do."""
    try:
        with warnings.catch_warnings(action="ignore"):  # numpy and scikit-learn warn before they raise
            yield
    except (*files.DAMAGED, OSError) as error:
        reason = files.reason_of(error)
        raise UserError(f"{origin} does not give {image_set.title}: {reason}; {advice}") from error


def load(image_set, paths, advice):
    """Verified arrays under MedMNIST's keys, from one .npz or the four IDX files; a `UserError` ends in `advice`."""
    n_train, n_val, n_test = image_set.sizes
    shapes = [(n, *rest) for n in (n_train + n_val, n_test) for rest in (IMAGE_SHAPE, ())]  # in the order of the files
    contents, is_published = [], True
    for path, shape in zip(paths, shapes, strict=False):  # an .npz is one path
        with refusing(image_set, path, advice):
            algorithm, _, digest = (image_set.published_hash or image_set.files.get(path.name, "")).partition(":")
            is_published &= bool(algorithm) and download.file_hash(path, algorithm) == digest
            if not is_published and not image_set.content_hashes:
                raise ValueError(f"its {algorithm.upper()} is not that of the published file")
            contents.append(read_npz(path) if len(paths) == 1 else read_idx(path, shape))
    arrays = contents[0] if len(paths) == 1 else split_official(*contents, n_train)
    with refusing(image_set, paths[0] if len(paths) == 1 else paths[0].parent, advice):
        check_arrays(image_set, arrays, is_published)
    return arrays


def read_idx(path, shape):
    """A uint8 array of that shape from an IDX file, gzipped if its name ends in .gz.

    IDX is the format of MNIST (http://yann.lecun.com/exdb/mnist): two zero bytes, the type, the number of dimensions,
    each size as a big-endian uint32, then the values. Raises `OSError` or one of `files.DAMAGED` for all else.
    """
    size = math.prod(shape)
    header = struct.pack(f">HBB{len(shape)}I", 0, IDX_UNSIGNED_BYTE, len(shape), *shape)
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        if file.read(len(header)) != header:
            raise ValueError(f"it is not an IDX file of unsigned bytes of shape {shape}")
        values = file.read(size + 1)  # one more shows whether the file is longer; nothing beyond it is unpacked
    if len(values) != size:
        raise ValueError(f"it has {'fewer' if len(values) < size else 'more'} than the {size:,} values of its header")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def check_arrays(image_set, arrays, is_published):
    """Raises `ValueError` unless shapes, labels and, if the files are not the published ones, the content are right."""
    n_classes = DATASETS[image_set.name].n_classes
    for split, size in zip(SPLITS, image_set.sizes, strict=True):
        X, y = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        if X.shape != (size, *IMAGE_SHAPE) or y.shape != (size,):
            raise ValueError(f"its {split} set has {len(X):,} images and {len(y):,} labels, not {size:,}")
        if y.max() >= n_classes:
            raise ValueError(f"its {split} labels go up to {y.max()}, not {n_classes - 1}")
    if not is_published:
        for part, splits in (("train", ("train", "val")), ("test", ("test",))):
            if hash_content(arrays, splits) != image_set.content_hashes[part]:
                raise ValueError(f"its {' and '.join(splits)} images are not the published ones with their labels")


def hash_content(arrays, splits):
    """SHA-256 of the images of some splits together, each after its label, in sorted order.

    So neither the order of the images nor their split into train and val matters, which are this project's in the files
    that it writes and may be others in a user's file.
    """
    pairs = [pair for split in splits for pair in zip(arrays[f"{split}_labels"], arrays[f"{split}_images"])]
    return hashlib.sha256(b"".join(sorted(label.tobytes() + image.tobytes() for label, image in pairs))).hexdigest()
