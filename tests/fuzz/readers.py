"""The readers of the project with valid files for each, how these are damaged, and what is then read.

A reader works in the folder of its input, which lies alone in a folder of its own; the caches of the data modules are put there
too. Sizes are tiny; limits that only a published set could meet are lowered.
"""

import argparse
import bz2
import functools
import io
import json
import os
import struct
import tarfile
import zipfile
from dataclasses import dataclass
from unittest import mock

import numpy as np
import soundfile
import torch
from hypothesis import strategies as st
from PIL import Image

import encoders
import models
import runs
import utils
from data import captions, images, sources, speech, text, translation
from data.fetch import download, image_sets, ljspeech, rs_captions, tatoeba
from tests.fuzz import damage

SEED = 0  # of the valid files


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        share: its part of all inputs, relative to the others.
        make: writes the valid files into a folder.
        damage: called with a `random.Random` and a copy of that folder.
        read: reads the files of a folder.
        strategy, place: hypothesis's values, and the file of the folder that holds one as JSON.
    """

    name: str
    share: int
    make: callable
    damage: callable
    read: callable
    strategy: st.SearchStrategy | None = None
    place: str | None = None


READERS = []


def reader(name, share, make, damage, strategy=None, place=None):
    """Put the decorated function, which reads a folder, among the readers."""

    def add(read):
        READERS.append(Reader(name, share, make, damage, read, strategy, place))
        return read

    return add


def in_file(name, how):
    """The damage `how` of a file, or of a random one of several."""
    names = name if isinstance(name, tuple) else (name,)
    return lambda rng, folder: how(rng, folder / rng.choice(names))


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
any_json = st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def like(value):
    """Values of hypothesis in the form of a JSON value, of which any part may be anything."""
    if isinstance(value, dict):
        return st.fixed_dictionaries({key: like(inner) for key, inner in value.items()}) | any_json
    if isinstance(value, list):
        return st.lists(st.one_of([like(inner) for inner in value[:3]]), max_size=3) | any_json if value else any_json
    return st.just(value) | plain


# Checkpoints


def small_model():
    torch.manual_seed(SEED)
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh(), torch.nn.Linear(3, 1))


ARGS = {
    "optimizer": "adam",
    "learning_rate": 0.1,
    "l2_decay": 0.0,
    "momentum": 0.0,
    "max_grad_norm": None,
    "amp": False,
}
ARGS |= {"schedule": "cosine", "warmup": 0.0, "ema_decay": 0.9, "accumulate": 1}
N_STEPS = 4
HISTORY = [{"epoch": 1, "lr": 0.1, "train_loss": 0.5, "val_acc": 0.5, "seconds": 0.1}]


def trained():
    """A small model with its optimisation, after one step."""
    model = small_model()
    optimization = utils.Optimization(model, argparse.Namespace(**ARGS), N_STEPS)
    step(model, optimization)
    return model, optimization


def step(model, optimization):
    optimization.zero_grad()
    model(torch.ones(4, 2)).sum().backward()
    optimization.step()


def best_state():
    model, _ = trained()
    words = {"chars": ["abc", " .ab"], "words": ["a", "boat"], "encoder_digest": "random-0"}
    calibration = {"mean": torch.zeros(4), "std": torch.ones(4), "1.running_mean": torch.zeros(4)}
    return {"weights": model.state_dict(), "epoch": 1, **words, "calibration": calibration}


def last_state():
    _, optimization = trained()
    states = {name: part.state_dict() for name, part in optimization.parts.items()}
    random = {"cpu": torch.get_rng_state()}
    place = {"lr": 0.1, "order": torch.Generator().get_state(), "step": 1, "loss": torch.tensor(2.0), "n_terms": 3}
    place |= {"seconds": 0.5, "drawn": [random]}
    return states | {"order": place["order"], "random": [random], "place": place, "history": HISTORY}


def make_best(folder):
    runs.save_checkpoint(folder / runs.BEST, best_state())


@functools.cache
def kept(state):
    """The state that `state()` makes, once: damage copies what it changes."""
    return state()


def damage_best(rng, folder):
    damage.save_hostile_checkpoint(rng, folder / runs.BEST, kept(best_state))


@reader("checkpoint: load_checkpoint", 6, make_best, damage_best)
def _(folder):
    return runs.load_checkpoint(folder / runs.BEST)


@reader("checkpoint: load_weights", 6, make_best, damage_best)
def _(folder):
    model = small_model()
    runs.load_weights(model, folder / runs.BEST)
    return model(torch.ones(1, 2))


@reader("checkpoint: parts", 5, make_best, damage_best)
def _(folder):
    vocabs = [text.Vocabulary(chars) for chars in runs.part_of_checkpoint(folder / runs.BEST, "chars", of=(str, str))]
    words = text.WordVocabulary(runs.part_of_checkpoint(folder / runs.BEST, "words", of=[str]))
    return [vocab.decode(vocab.encode("ab")) for vocab in vocabs], len(words)


# Run folders

CONFIG = {
    "question": "q3",
    "kind": "run",
    "options": {"seed": 42, "use_attn": True, "learning_rate": 0.1, "dropout": None, "run_name": "a"},
    "changed": {"learning_rate": 0.1},
    "data": {"name": "Some", "bundled": True, "fingerprint": "0" * 64, "origin": None},
    "versions": {"python": "3", "torch": "2"},
    "hardware": {"cpu": "x", "n_cpus": 2},
}
RESULT = {
    "title": "Some",
    "bundled": True,
    "n_params": 3,
    "best_epoch": 1,
    "history": HISTORY,
    "test": {"greedy": {"err_rate": {"value": 0.5, "low": 0.25, "high": 0.75}}, "beam": None},
}
COLUMNS = ("source", "reference", "prediction")
TABLE = "test_predictions.tsv"


def make_run(folder):
    for name in ("a", "b"):
        run = folder / "q3" / name
        runs.write_json(run / runs.CONFIG, CONFIG)
        runs.write_json(run / runs.RESULT, RESULT)
        runs.write_table(run / TABLE, COLUMNS, [("a b", "c", "d"), ("e", "f", "g é")])
        (run / "val.pdf").write_bytes(b"%PDF")


def damage_run(rng, folder):
    run = folder / "q3" / "a"
    damage.damage_json(rng, run / rng.choice((runs.CONFIG, runs.CONFIG, runs.RESULT)))
    if rng.random() < 0.3:
        damage.damage_text(rng, run / TABLE)


@reader("run folder: find, Found", 8, make_run, damage_run, like(CONFIG), f"q3/a/{runs.CONFIG}")
def _(folder):
    found = runs.find(folder, "q3", use_attn=True)
    for run in found:
        assert isinstance(run.config["data"]["fingerprint"], str)
        assert all(isinstance(part, dict) for part in (run.options, run.changed, run.result))
        assert run.is_finished and run.bundled in (True, False) and isinstance(run.figures, list)
    return [runs.different(run.folder, CONFIG) for run in found], runs.folder_of(CONFIG, folder, "a")


@reader("run folder: read_result", 4, make_run, damage_run, like(RESULT), f"q3/a/{runs.RESULT}")
def _(folder):
    return runs.read_result(folder / "q3" / "a")


def damage_table(rng, folder):
    damage.damage_text(rng, folder / "q3" / "a" / TABLE)


@reader("run folder: read_table", 3, make_run, damage_table)
def _(folder):
    return runs.read_table(folder / "q3" / "a" / TABLE, COLUMNS)


def make_resumed(folder):
    make_run(folder)
    runs.save_checkpoint(folder / "q3" / "a" / runs.LAST, last_state())


def damage_last(rng, folder):
    run = folder / "q3" / "a"
    if rng.random() < 0.9:
        damage.save_hostile_checkpoint(rng, run / runs.LAST, kept(last_state))
    else:
        damage.damage_json(rng, run / rng.choice((runs.CONFIG, runs.RESULT)))


@reader("run folder: resume", 6, make_resumed, damage_last)
def _(folder):
    model = small_model()
    optimization = utils.Optimization(model, argparse.Namespace(**ARGS), N_STEPS)
    with runs.open_run(folder / "q3" / "a", CONFIG, "must") as run:
        history, place = utils._restore(run.checkpoint(), optimization.parts, torch.Generator())
        utils.best_epoch([*history, HISTORY[0]], "val_acc")  # as after the next epoch
        step(model, optimization)
        return run.result, float(place.loss / place.n_terms) if place else None


def make_replaced(folder):
    """The folder of a run that another one was replacing when it was killed."""
    make_run(folder)
    run = folder / "q3" / "a"
    names = [runs.CONFIG, runs.LAST, runs.BEST]
    for name in names:
        (run / f"{runs.NEW}{name}").write_text("{}", encoding="utf-8")
        (run / name).write_text("{}", encoding="utf-8")
    runs.write_json(run / runs.REPLACING, names)


def damage_replaced(rng, folder):
    run = folder / "q3" / "a"
    marker = run / runs.REPLACING
    if rng.random() < 0.5:
        damage.damage_json(rng, marker)
    else:
        outside = str(folder.parent / "made.txt")
        name = rng.choice(
            (outside, f"../../../{damage.OUTSIDE}", "../b/config.json", f"x/../../../../{damage.OUTSIDE}", "sub/file")
        )
        new = run / f"{runs.NEW}{name}"
        os.makedirs(os.path.join(run, runs.NEW + name.partition("/")[0]), exist_ok=True)
        os.makedirs(os.path.dirname(new), exist_ok=True)
        if os.path.realpath(new).startswith(str(folder) + "/"):
            new.write_bytes(b"hostile")
        marker.write_text(json.dumps([name, runs.CONFIG]), encoding="utf-8")
    if rng.random() < 0.3:
        victim = run / rng.choice(
            (runs.CONFIG, runs.RESULT, runs.BEST, f"{runs.NEW}{runs.BEST}", ".x.tmp", runs.LOCK, "f.pdf", ".replacing")
        )
        victim.unlink(missing_ok=True)
        kind = rng.randrange(3)
        if kind == 0:
            (victim / "inner").mkdir(parents=True)
        elif kind == 1:
            victim.symlink_to(f"../../../{damage.OUTSIDE}")
        else:
            victim.symlink_to("nowhere")


@reader("run folder: finish_replacing", 4, make_replaced, damage_replaced)
def _(folder):
    with runs.open_run(folder / "q3" / "a", CONFIG) as run:
        return run.result


# Arrays


def npz(path, arrays, compress=False):
    (np.savez_compressed if compress else np.savez)(path, **arrays)


def some_images(n=(6, 3, 3)):
    rng = np.random.default_rng(SEED)
    arrays = {}
    for split, size in zip(image_sets.SPLITS, n):
        arrays[f"{split}_images"] = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(size, dtype=np.uint8) % 3
    return arrays


def make_images(folder):
    arrays = some_images()
    npz(folder / "medmnist.npz", arrays, compress=True)
    course = {key: arrays[medmnist] for key, medmnist in zip(image_sets.COURSE_KEYS, image_sets.MEDMNIST_KEYS)}
    npz(folder / "course.npz", {k: v.reshape(len(v), -1) / 256 if k.startswith("X") else v for k, v in course.items()})


def damage_npz(rng, path):
    damage.damage_zip(rng, path, damage.damaged_array)


@reader("npz: images.load", 8, make_images, in_file(("medmnist.npz", "course.npz"), damage_npz))
def _(folder):
    return [images.load(str(folder / name)) for name in ("medmnist.npz", "course.npz")]


SMALL_SET = image_sets.ImageSet(
    "kuzushiji_mnist", "", (), dict.fromkeys(image_sets.KUZUSHIJI_MNIST.files), sizes=(6, 3, 3), balanced=False
)


def make_idx(folder):
    arrays = image_sets.join_official(some_images(), "images"), image_sets.join_official(some_images(), "labels")
    arrays = (*arrays, some_images()["test_images"], some_images()["test_labels"])
    import gzip

    for i, (name, values) in enumerate(zip(SMALL_SET.files, arrays)):
        header = struct.pack(f">HBB{values.ndim}I", 0, image_sets.IDX_UNSIGNED_BYTE, values.ndim, *values.shape)
        content = header + values.tobytes()
        packed = i % 2 == 0
        (folder / (name if packed else name.removesuffix(".gz"))).write_bytes(
            gzip.compress(content) if packed else content
        )


def damage_idx(rng, folder):
    path = rng.choice(sorted(folder.iterdir()))
    if path.suffix == ".gz" and rng.random() < 0.5:
        import gzip

        path.write_bytes(gzip.compress(damage.damaged_bytes(rng, gzip.decompress(path.read_bytes())), 1))
    else:
        damage.damage_file(rng, path)


@reader("IDX: image_sets.load", 5, make_idx, damage_idx)
def _(folder):
    return image_sets.load(SMALL_SET, image_sets.find_files(SMALL_SET, folder), "get it again")


def in_cache(read):
    """The reader `read` with its caches inside the folder."""

    @functools.wraps(read)
    def inside(folder):
        with mock.patch.object(sources, "CACHE_DIR", folder / "cache"):
            return read(folder)

    return inside


def with_cache(make_source, read):
    """What makes the valid files: those of `make_source`, and the cache that reading them writes."""

    def make(folder):
        make_source(folder)
        read(folder)
        assert list((folder / "cache").iterdir())

    return make


def damage_cache(rng, folder):
    path = rng.choice(sorted((folder / "cache").glob("*.npz")) * 4 + sorted((folder / "cache").iterdir()))
    (damage_npz if path.suffix == ".npz" else damage.damage_file)(rng, path)


@in_cache
def read_bundled(folder):
    with (
        mock.patch.object(images.bundled_images, "generate", lambda dataset: some_images()),
        mock.patch(
            "data.bundled.translation.generate", lambda n: [("go .", "ve ."), ("i am here .", "estoy aqui .")] * 60
        ),
    ):
        return images.load("kuzushiji_mnist", "bundled"), translation._bundled_pairs(20)


reader("npz: caches of bundled data", 5, with_cache(lambda folder: None, read_bundled), damage_cache)(read_bundled)


# Captioned images


class TinyEncoder(torch.nn.Module):
    """Stands for the networks of `encoders`: their weights take minutes for so many inputs."""

    N_CHANNELS = 4

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, self.N_CHANNELS, 32, stride=32)
        self.bn = torch.nn.BatchNorm2d(self.N_CHANNELS)

    def forward(self, x):
        return self.bn(self.conv(x))


encoders.NETWORKS["tiny"] = TinyEncoder
encoders.TITLES["tiny"] = "Tiny"
SIDE = 9  # pixels of an image
N_IMAGES = 5


def picture(i=0, dtype=np.uint8, shape=(SIDE, SIDE + 1, 3)):
    return np.random.default_rng(SEED + i).integers(0, 256, shape).astype(dtype)


def caption_json():
    sentence = {"tokens": ["a", "boat", "on", "water"], "raw": "a boat on water ."}
    splits = ("train", "train", "train", "val", "test")
    return {
        "images": [
            {"filename": f"{i}.png", "split": split, "sentences": [sentence, {"raw": "two boats"}]}
            for i, split in enumerate(splits)
        ]
    }


def make_captions(folder):
    (folder / "set" / "images").mkdir(parents=True)
    for i in range(N_IMAGES):
        Image.fromarray(picture(i)).save(folder / "set" / "images" / f"{i}.png")
    runs.write_json(folder / "set" / captions.JSON_NAME, caption_json())


@reader(
    "JSON: captions.load",
    8,
    make_captions,
    in_file("set/dataset.json", damage.damage_json),
    like(caption_json()),
    "set/dataset.json",
)
def _(folder):
    data = captions.load(str(folder / "set"), "real")
    vocab = captions.vocabulary(data)
    assert all(encode for encode in ("\n".join(map(" ".join, data.refs("train"))) + "".join(data.filenames)).encode())
    return captions.to_tensor(data["train"], vocab), [data.open_image(name) for name in data.filenames]


def make_pictures(folder):
    rgb = Image.fromarray(picture())
    rgb.save(folder / "a.png")
    rgb.save(folder / "a.jpg", quality=90)
    rgb.save(folder / "a.tif")
    rgb.convert("P").save(folder / "p.png")
    for compression in ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "group4"):
        (rgb.convert("1") if compression == "group4" else rgb).save(
            folder / f"{compression}.tif", compression=compression
        )
    Image.fromarray(picture(1, np.uint16, (SIDE, SIDE))).save(folder / "grey16.tif")
    Image.fromarray(picture(1, np.float32, (SIDE, SIDE))).save(folder / "float.tif")
    Image.fromarray(picture(1, np.uint16, (SIDE, SIDE))).save(folder / "grey16.png")
    rgb.convert("RGBA").save(folder / "rgba.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n(../executed) (w) file closefile\nshowpage\n"
OTHER_IMAGES = (
    POSTSCRIPT,
    b"P6 60000 60000 255\n",
    b"P6 20 20 255\n" + bytes(1200),
    b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;",
    b"BM" + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
    b"II*\0\x08\0\0\0",
    b"\xff\xd8\xff\xc0\0\x11\x08"
    + struct.pack(">HH", 65500, 65500)
    + b"\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xd9",
)


def damage_picture(rng, folder):
    paths = sorted(folder.iterdir())
    path = rng.choice(paths)
    kind = rng.random()
    if kind < 0.05:
        path.write_bytes(rng.choice(OTHER_IMAGES))
    elif kind < 0.07:
        size = [rng.choice((30, 3000, 8000, 13_000))] * 2
        file = io.BytesIO()
        Image.new("1", size).save(file, rng.choice(("TIFF", "PNG")), compression="group4")
        content = file.getvalue()
        path.write_bytes(content if rng.random() < 0.5 else damage.damaged_bytes(rng, content))
    elif kind < 0.4:
        damage.damage_png(rng, path)
    else:
        damage.damage_file(rng, path, rng.choice(paths).read_bytes())
    if os.path.lexists(path):
        path.rename(folder / "read")


@reader("image: captions.read_image", 12, make_pictures, damage_picture)
def _(folder):
    read = folder / "read"
    return [captions.read_image(path) for path in ([read] if os.path.lexists(read) else sorted(folder.iterdir()))]


@in_cache
def read_features(folder):
    data = captions.load(str(folder / "set"), "real")
    encoder = encoders.Encoder("tiny", "random")
    encoded = encoders.encode(data, encoder)
    encoder.build()
    return encoded.regions["test"].float() @ torch.ones(TinyEncoder.N_CHANNELS)


reader("npz: cache of features", 4, with_cache(make_captions, read_features), damage_cache)(read_features)


def make_encoder(folder):
    torch.manual_seed(SEED)
    state = TinyEncoder().state_dict()
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)


@functools.cache
def encoder_state():
    torch.manual_seed(SEED)
    return TinyEncoder().state_dict()


def damage_encoder(rng, folder):
    legacy = rng.random() < 0.5
    damage.save_hostile_checkpoint(rng, folder / ("legacy.pth" if legacy else "zip.pth"), encoder_state(), legacy)


@reader("encoder weights", 6, make_encoder, damage_encoder)
def _(folder):
    for name in ("zip.pth", "legacy.pth"):
        encoders.Encoder("tiny", str(folder / name)).build()


def make_generated(folder):
    rows = [{"image": f"{i}.png", "greedy": "a boat", "references": ["a boat", "two boats"]} for i in range(3)]
    runs.write_json(folder / captions.GENERATED_NAMES[True], {"title": "Some", "captions": rows})


GENERATED = {"title": "Some", "captions": [{"image": "1.png", "greedy": "a boat", "references": ["a boat"]}]}


@reader(
    "JSON: read_generated", 3, make_generated, in_file(captions.GENERATED_NAMES[True], damage.damage_json),
    like(GENERATED), captions.GENERATED_NAMES[True],
)  # fmt: skip
def _(folder):
    return {name: " ".join(texts) for name, texts in captions.read_generated(folder, True).items()}


# Texts

PAIRS = "".join(f"Go {x}.\t¡Vé {x}!\tCC\n" for x in "abcdefghijklmnopqrstuvwxyz")


def make_pairs(folder):
    for name in (*translation.FILE_NAMES.values(), translation.CORPUS_NAME):
        (folder / name).write_text(PAIRS, encoding="utf-8")


@reader("text: translation.load", 7, make_pairs, in_file(tuple(translation.FILE_NAMES.values()), damage.damage_text))
def _(folder):
    return translation.load("real", folder), list(text.read_lines([str(folder / translation.CORPUS_NAME)]))


@reader("text: read_lines", 3, make_pairs, in_file(translation.CORPUS_NAME, damage.damage_text))
def _(folder):
    return [text.normalize(line) for line in text.read_lines([str(folder / translation.CORPUS_NAME)])]


def tone(seconds=0.1, rate=speech.SAMPLE_RATE, n_channels=1):
    times = np.arange(round(seconds * rate)) / rate
    return np.repeat(0.5 * np.sin(2 * np.pi * 440 * times)[:, None], n_channels, axis=1)


def make_clips(folder):
    (folder / speech.FOLDER_NAME / speech.WAVS).mkdir(parents=True)
    ids = [f"LJ001-{i:04}" for i in range(1, 5)]
    for i, id in enumerate(ids):
        soundfile.write(
            folder / speech.FOLDER_NAME / speech.WAVS / f"{id}.wav", tone(0.1 + 0.01 * i), speech.SAMPLE_RATE, "PCM_16"
        )
    lines = [f"{id}|Some text {id}.|some text.\n" for id in ids]
    (folder / speech.FOLDER_NAME / speech.METADATA).write_text("".join(lines), encoding="utf-8")


METADATA_PATH = f"{speech.FOLDER_NAME}/{speech.METADATA}"


@reader("text: metadata.csv", 4, make_clips, in_file(METADATA_PATH, damage.damage_text))
def _(folder):
    inner = folder / speech.FOLDER_NAME
    clips, *_ = speech.usable(speech.read_metadata(inner / speech.METADATA), inner)
    return speech.split(clips, None, inner), [speech.encode(words, 20) for _, words in clips]


# Sound


def make_sounds(folder):
    soundfile.write(folder / "a.wav", tone(), speech.SAMPLE_RATE, "PCM_16")
    soundfile.write(folder / "b.wav", tone(0.06, 8000, 2), 8000, "PCM_24", format="WAVEX")
    soundfile.write(folder / "c.flac", tone(), speech.SAMPLE_RATE, "PCM_16")
    soundfile.write(folder / "d.flac", tone(0.06, 44_100, 2), 44_100, "PCM_24")
    others = (
        ("aiff", "PCM_16"),
        ("caf", "PCM_16"),
        ("w64", "PCM_16"),
        ("rf64", "PCM_16"),
        ("au", "PCM_16"),
        ("ogg", "VORBIS"),
    )
    for suffix, subtype in (*others, ("nist", "PCM_16"), ("voc", "PCM_16"), ("mat4", "PCM_16"), ("sds", "PCM_16")):
        soundfile.write(folder / f"e.{suffix}", tone(0.06), speech.SAMPLE_RATE, subtype, format=suffix.upper())


def wav_header(rng):
    """A WAV that says of itself what a small file cannot be."""
    n_channels, rate, bits = (
        rng.choice((0, 1, 2, 1024, 65535)),
        rng.choice((0, 1, 8000, 22_050, 2**31 - 1)),
        rng.choice((8, 16, 24, 32, 64)),
    )
    n_bytes = rng.choice((0, 10, 10**6, 2**31, 2**32 - 1))
    form = struct.pack("<HHIIHH", rng.choice((1, 3, 0xFFFE)), n_channels, rate, 0, n_channels * bits // 8 % 65536, bits)
    body = (
        b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", n_bytes)
        + bytes(rng.choice((0, 3000, 200_000)))
    )
    return b"RIFF" + struct.pack("<I", rng.choice((len(body), 2**32 - 1))) + body


def flac_header(rng, content):
    """A FLAC whose header claims another rate, other channels or other numbers of samples."""
    claim = rng.choice((22_050, 44_100, 655_350, 0)) << 44 | rng.randrange(8) << 41 | rng.choice((7, 15, 23)) << 36
    claim |= rng.choice((0, 1, 2205, 600_000, 2**36 - 1))
    return content[:18] + struct.pack(">Q", claim) + content[26:]


def damage_sound(rng, folder):
    paths = sorted(folder.iterdir())
    path = rng.choice([*paths, *[path for path in paths if path.suffix in (".wav", ".flac")] * 3])
    kind = rng.random()
    if kind < 0.1:
        path.write_bytes(wav_header(rng))
    elif kind < 0.2 and path.suffix == ".flac":
        path.write_bytes(flac_header(rng, path.read_bytes()))
    elif kind > 0.25:
        damage.damage_file(rng, path, rng.choice(paths).read_bytes())
    if os.path.lexists(path):
        path.rename(folder / f"read{rng.choice(('.wav', '.flac', path.suffix, '.raw', ''))}")


@reader("sound: read_sound", 12, make_sounds, damage_sound)
def _(folder):
    paths = sorted(folder.glob("read*")) or sorted(folder.glob("[a-d].*"))
    return [speech.log_mel(speech.read_sound(path, any_rate=True)) for path in paths]


@in_cache
def read_clips(folder):
    data = speech.load("real", folder)
    return [[data.mels(row) for row in data.rows[split]] for split in speech.SPLITS]


def damage_clips(rng, folder):
    wavs = sorted((folder / speech.FOLDER_NAME / speech.WAVS).iterdir())
    damage_cache(rng, folder) if rng.random() < 0.7 else damage.damage_file(rng, rng.choice(wavs))


reader("npz: cache of spectrograms", 5, with_cache(make_clips, read_clips), damage_clips)(read_clips)


# Archives


def make_pairs_zip(folder):
    with zipfile.ZipFile(folder / tatoeba.ARCHIVE_NAME, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_about.txt", "about")
        archive.writestr(translation.CORPUS_NAME, PAIRS)
    (folder / "data").mkdir()


def damaged_content(rng, _, content):
    return damage.damaged_bytes(rng, content)


def damage_archive(rng, path):
    damage.damage_zip(rng, path, damaged_content)


@reader("zip: tatoeba", 6, make_pairs_zip, in_file(tatoeba.ARCHIVE_NAME, damage_archive))
def _(folder):
    args = argparse.Namespace(source=folder / tatoeba.ARCHIVE_NAME, data_dir=folder / "data", force=False)
    with mock.patch.object(tatoeba, "MIN_PAIRS", 20):
        return tatoeba.install(args)


def make_captions_zip(folder):
    make_captions(folder)
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / "set").rglob("*.*")):
            archive.write(path, path.relative_to(folder))
    (folder / "data").mkdir()


def damage_captions_zip(rng, folder):
    damage.damage_zip(rng, folder / "set.zip", damaged_content)


@reader("zip: rs_captions", 6, make_captions_zip, damage_captions_zip)
def _(folder):
    args = argparse.Namespace(source=folder / "set.zip", data_dir=folder / "data", force=False)
    with mock.patch.object(rs_captions, "SIZES", {"ucm": {"train": 3, "val": 1, "test": 1}}):
        return rs_captions.install(args)


def make_tar(folder):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name in ("set/a.txt", "set/sub/b.txt"):
            member = tarfile.TarInfo(name)
            member.size = 700
            tar.addfile(member, io.BytesIO(bytes(700)))
    (folder / "set.tar").write_bytes(bz2.compress(content.getvalue()))
    (folder / "data").mkdir()


@reader("tar: untar", 7, make_tar, in_file("set.tar", damage.damage_tar))
def _(folder):
    with download.workspace(folder / "data") as new:
        return download.untar(folder / "set.tar", new, r"set/(sub/)?\w+\.txt", 4, 10_000)


@reader("folder: ljspeech.check", 2, make_clips, in_file(METADATA_PATH, damage.damage_text))
def _(folder):
    with mock.patch.object(ljspeech, "N_CLIPS", 4):
        return ljspeech.check(folder / speech.FOLDER_NAME, "fetch it again")


assert models  # the networks are imported before the reader's process is measured
