"""Captioned aerial images of Question 3 of 2021-22: `dataset.json` and `images/` to words, and words to tensors.

A set is a folder in the layout of Qu et al. (2016), in which Sydney-Captions and UCM-Captions are published:

    <set>/dataset.json    images[i].filename, .split, .sentences[j].tokens and .raw
    <set>/images/         TIFF, PNG or JPEG

The tokens are taken in lower case, as the course has them. A sentence without tokens is split at its blanks. Images of
the split "restval" of Karpathy's files are training images. `encoders` turns the images into features.
"""

import hashlib
import json
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import files
from data import photos, sources
from data.fetch import download
from data.text import EOS_IDX, PAD_IDX, SOS_IDX, WordVocabulary, at_equal_distances
from options import DATA_DIR, UserError

SPLITS = ("train", "val", "test")
# In Karpathy's files "restval" are images that were left over from validation. They are used for training.
SPLIT_OF = {"train": "train", "restval": "train", "val": "val", "test": "test"}
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}
TITLES = {"sydney": "Sydney-Captions", "ucm": "UCM-Captions"}
JSON_NAME, IMAGES_NAME = "dataset.json", "images"
# The course's own names, without attention and with it.
GENERATED_NAMES = {False: "caps_generated_enc_dec.json", True: "caps_generated_enc_dec_w_attention.json"}
DOWNLOAD_COMMAND = "python download_rs_captions.py -source PATH"
QUICK_SIZES = {"train": 240, "val": 58, "test": 58}
MEAN_BATCH_SIZE = 64  # images whose regions are turned into floats at once


@dataclass(frozen=True)
class Example:
    """An image with its reference captions, each a tuple of words."""

    filename: str
    captions: tuple


@dataclass(frozen=True)
class CaptionedImages:
    """A set of captioned images.

    Attributes:
        title: name to show; `bundled` says whether this project drew the images.
        examples: dict from split to a list of `Example`.
        fingerprint: SHA-256 of the captions and of the images.
        digests: dict from a file's name to the SHA-256 of what it shows.
        open_image: a function from a file's name to its pixels, as `photos.read` returns them.
        regions: dict from split to the features of its images (n_images, n_regions, n_channels), of `encoders.encode`.
    """

    title: str
    bundled: bool
    examples: dict
    fingerprint: str
    digests: dict
    open_image: callable
    regions: dict | None = None

    def __getitem__(self, split):
        return self.examples[split]

    def refs(self, split):
        """The captions of a split as strings, a list for each image."""
        return [[" ".join(words) for words in example.captions] for example in self[split]]

    @property
    def filenames(self):
        """Of all images, split by split."""
        return [example.filename for split in SPLITS for example in self.examples[split]]


def load(dataset, mode="auto", data_dir=DATA_DIR, quick=False):
    """The captioned images called `dataset`, or those in the folder at that path.

    Args:
        dataset: "sydney", "ucm", or the path of a folder with `dataset.json` and `images/`.
        mode: "auto", "real" or "bundled"; a path is real.
        quick: only some hundred images.

    Raises `UserError` for a file that is missing or damaged, and for a split without images.
    """
    folder = find_folder(dataset, mode, data_dir)
    loaded = _bundled(dataset) if folder is None else read_folder(folder, TITLES.get(dataset) or folder.resolve().name)
    if quick:
        examples = {split: at_equal_distances(part, QUICK_SIZES[split]) for split, part in loaded.examples.items()}
        loaded = replace(loaded, examples=examples)
    return loaded


def find_folder(dataset, mode, data_dir):
    """The folder of a set, or None for the bundled one."""
    if dataset not in TITLES:
        if not os.path.isfile(Path(dataset) / JSON_NAME):
            named = f"{', '.join(TITLES)} or a folder with {JSON_NAME} and {IMAGES_NAME}/"
            raise UserError(f"{dataset} has no {JSON_NAME}; -dataset takes {named}")
        return Path(dataset)
    folder = Path(data_dir) / dataset
    paths = folder / JSON_NAME, folder / IMAGES_NAME
    found = sources.choose(mode, data_dir, [paths], TITLES[dataset], DOWNLOAD_COMMAND)
    return found and folder


def read_folder(folder, title):
    """The set in a folder; raises `UserError` unless every image that the JSON names is there."""
    examples = read_json(folder / JSON_NAME)
    if empty := [SPLIT_NAMES[split] for split in SPLITS if not examples[split]]:
        raise UserError(f"{folder / JSON_NAME} has no {' and no '.join(empty)} images; each split needs some")
    images = folder / IMAGES_NAME
    names = [example.filename for part in examples.values() for example in part]
    digests = {name: _digest_of(images / name) for name in names}
    if missing := [name for name, digest in digests.items() if digest is None]:
        what = f"{len(missing):,} of the {len(digests):,} images of {folder / JSON_NAME} cannot be read in {images}"
        raise UserError(f"{what}, such as {missing[0]}; bring them, or take them out of {JSON_NAME}")
    fingerprint = _fingerprint(examples, digests)
    return CaptionedImages(title, False, examples, fingerprint, digests, lambda name: photos.read(images / name))


def read_json(path):
    """The examples of a `dataset.json`: a dict from split to a list of `Example`, in the file's order.

    Raises `UserError` for a file that is no JSON, an image without a name, a known split or captions, and a caption
    without words.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the file and its permissions") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON, or was cut short ({error}); mend the file or get it again") from None
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise UserError(f"{path} has no list of images; it needs images[i].filename, .split and .sentences[j].tokens")
    examples = {split: [] for split in SPLITS}
    for number, image in enumerate(images):
        try:
            split, example = _read_example(image)
        except ValueError as error:
            raise UserError(f"{path}, image {number}: {error}; mend the file") from None
        examples[split].append(example)
    for name, n in Counter(e.filename for part in examples.values() for e in part).most_common(1):
        if n > 1:
            raise UserError(f"{path} names {name} twice; each image may stand there once")
    return examples


def _read_example(image):
    """(split, `Example`) of an image in the JSON; raises `ValueError` for what is missing or wrong."""
    image = image if isinstance(image, dict) else {}
    name, split, sentences = (image.get(key) for key in ("filename", "split", "sentences"))
    if not isinstance(name, str) or Path(name).name != name or not name.isprintable() or name in ("", "..", "."):
        raise ValueError(f"its filename {name!r} is not the name of a file")
    if not isinstance(split, str) or split not in SPLIT_OF:
        raise ValueError(f"the split of {name} is {split!r}, not one of {', '.join(SPLIT_OF)}")
    if not isinstance(sentences, list) or not sentences:
        raise ValueError(f"{name} has no sentences")
    captions = tuple(map(_words_of, sentences))
    if () in captions:
        raise ValueError(f"{name}: its caption {captions.index(())} has no words")
    return SPLIT_OF[split], Example(name, captions)


def _words_of(sentence):
    """The lower-case words of a caption: its tokens or, without tokens, its text split at blanks; () without either."""
    sentence = sentence if isinstance(sentence, dict) else {}
    tokens = sentence.get("tokens") or sentence.get("raw")
    tokens = [tokens] if isinstance(tokens, str) else tokens
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return ()
    return tuple(word for token in tokens for word in token.lower().split())


def open_images(arguments, dataset, mode, data_dir):
    """Yield (name, pixels) of the images that a user names: an image file, every image of a folder, or one of the set.

    Raises `UserError` for an image that cannot be read.
    """
    data = None
    for argument in arguments:
        path = Path(argument)
        if os.path.exists(path) or path.name != argument:
            yield from sources.open_files([path], photos.SUFFIXES, photos.read)
        else:
            data = data or load(dataset, mode, data_dir)
            if argument not in data.digests:
                what = f"{data.title} has no image {argument}, and there is no such file"
                raise UserError(f"{what}; name one that is there")
            yield argument, data.open_image(argument)


def vocabulary(data):
    """The words of the training captions."""
    return WordVocabulary(
        word for example in data.examples["train"] for caption in example.captions for word in caption
    )


def write_generated(folder, use_attention, data, hyps):
    """Write the captions of the test images, a list for each search, with the references of each image, as JSON."""
    rows = []
    for i, (example, refs) in enumerate(zip(data["test"], data.refs("test"), strict=True)):
        found = {name: captions[i] for name, captions in hyps.items()}
        rows.append({"image": example.filename, **found, "references": refs})
    content = {"title": data.title, "bundled": data.bundled, "captions": rows}
    files.write_json(folder / GENERATED_NAMES[use_attention], content)


def read_generated(folder, use_attention, n_images):
    """The greedy captions of so many images that `write_generated` wrote, a list."""
    path = folder / GENERATED_NAMES[use_attention]
    rows = files.read_json(path, "captions", of=list)
    hyps = [row.get("greedy") if isinstance(row, dict) else None for row in rows]
    if len(hyps) != n_images or not all(isinstance(hyp, str) for hyp in hyps):
        raise UserError(f"{path} is not what the test wrote; {files.RETRAIN}")
    return hyps


def training_tensor(examples, vocab, one_by_one):
    """The captions that training reads as a tensor (n_rows, n_captions, max_len), and for each row that of its image.

    A row is an image with all its captions as `to_tensor` has them or, with `one_by_one`, a single caption.
    """
    import torch

    tensor = to_tensor(examples, vocab)
    if not one_by_one:
        return tensor, torch.arange(len(tensor))
    images, places = (tensor[..., 0] != PAD_IDX).nonzero(as_tuple=True)
    return tensor[images, places].unsqueeze(1), images


def to_tensor(examples, vocab):
    """The captions of images as one tensor (n_images, n_captions, max_len), each SOS, its words, EOS.

    The captions of an image come sorted by length, the longest first. Short ones are filled up with PAD, and so is the
    place of a caption where an image has fewer.
    """
    import torch

    rows = [
        sorted(([SOS_IDX, *vocab.encode(caption), EOS_IDX] for caption in example.captions), key=len, reverse=True)
        for example in examples
    ]
    n_captions, max_len = max(map(len, rows)), max(len(row[0]) for row in rows)
    captions = torch.full((len(rows), n_captions, max_len), PAD_IDX)
    for i, row in enumerate(rows):
        for j, caption in enumerate(row):
            captions[i, j, : len(caption)] = torch.tensor(caption)
    return captions


def gatherer(regions, captions, images, device="cpu"):
    """A function from row indices (batch_size) to a batch: regions (batch_size, n_regions, n_channels) and captions.

    A batch is cut to its own longest caption and sorted by the longest caption of each row, the longest first.

    Args:
        regions: of all images, in half precision.
        captions, images: of `training_tensor`.
    """
    lengths = (captions != PAD_IDX).sum(dim=2).amax(dim=1)

    def gather(rows):
        rows = rows[lengths[rows].argsort(descending=True, stable=True)]
        return regions[images[rows]].to(device).float(), captions[rows, :, : lengths[rows[0]]].to(device)

    return gather


def mean_regions(regions):
    """The mean region of each image (n_images, n_channels) in single precision, without a copy of all regions in it."""
    import torch

    return torch.cat([part.mean(dim=1, dtype=torch.float32) for part in regions.split(MEAN_BATCH_SIZE)])


def _digest_of(path):
    """SHA-256 of a file; None if it is not there or may not be read."""
    try:
        return download.file_hash(path)
    except OSError:
        return None


def _fingerprint(examples, digests):
    """SHA-256 of the captions, the splits and the images."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for example in examples[split]:
            line = [split, example.filename, digests.get(example.filename), example.captions]
            digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()


def _bundled(dataset):
    from data.bundled import captions as bundled_captions

    scenes = bundled_captions.generate(dataset)
    code = download.file_hash(bundled_captions.__file__)
    examples = {split: [] for split in SPLITS}
    for filename, (split, scene) in scenes.items():
        examples[split].append(Example(filename, scene.captions))
    digests = {name: hashlib.sha256(f"{code} {dataset} {name}".encode()).hexdigest() for name in scenes}

    def draw(name):
        return bundled_captions.draw(scenes[name][1])

    return CaptionedImages(TITLES[dataset], True, examples, _fingerprint(examples, {}), digests, draw)
