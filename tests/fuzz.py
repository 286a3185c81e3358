"""Damaged files for every reader of the project: each must end in a value or in a `UserError` of one line.

$ python -m tests.fuzz                                 # make fuzz
$ python -m tests.fuzz -n 2000 -only npz checkpoint    # those readers whose names hold one of the words

An input is a copy of a small valid folder in which one file was damaged: bytes are flipped, overwritten, cut out,
inserted or appended; JSON also gets values of wrong types, and text other lines; the members of a zip are also damaged
inside and packed again with the right checksums. Input i of a reader depends on the seed and on i alone. Findings are

    traceback   an exception that is no `UserError`, or a message or warning that has not one line
    memory      more than `MEMORY` bytes above what the process had
    time        more than `SECONDS` of processor time, or `GRACE` of any time
    crash       another end of the process

The files of a finding are kept in a folder that is printed, and the exit code is 1.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import tempfile
import time
import traceback
import zipfile
from collections import Counter, namedtuple
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image

import files
import options
import runs
import utils
from data import captions, images, photos, sources, speech, text, translation
from data.fetch import image_sets, ljspeech, tatoeba

N_INPUTS = 30_000
SECONDS, GRACE = 5.0, 60
MEMORY = 3 * 2**29  # bytes: what a reader may take by its own limit, 1 GiB unpacked, and half as much again
ADDRESSES = 6 * 2**30  # bytes of address space; what asks for more gets a `MemoryError`, and the machine stays well
MAX_FINDINGS = 10  # of one reader; then it is given up
GOOD = ("value", "user error")
COLUMNS = ("inputs", *GOOD, "findings", "seconds")
NUMBERS = (0, 1, -1, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1, -(2**63))
WORDS = ("", "\0", "\n", "\r\n", "\t", "|", "\x1b[2J", "\u2028", "é" * 50, "a" * 5000, "../a", "..", "/", "nan", "{}")
WRONG = (*NUMBERS, *WORDS, "\ud800", None, True, 0.5, 1e308, float("nan"), float("inf"), 10**400, [], {}, [[]], [None])


# `make(folder)` writes the valid files; those that match `pattern` are damaged; `read(folder)` reads them.
Reader = namedtuple("Reader", ("name", "make", "pattern", "read"))


def damaged_bytes(rng, content):
    """The content after one change or a few, many of them near its start or its end, where headers and tables stand."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        size, length = len(content), rng.choice((1, 2, 4, 8, 100, 1000))
        near = rng.randrange(min(size, 64) + 1)
        place = rng.choice((rng.randrange(size + 1), near, size - near))
        number = (rng.choice(NUMBERS) % 2**64).to_bytes(8, rng.choice(("little", "big")))
        rubbish = rng.choice(
            (rng.randbytes(length), bytes(length), content[:length], number[:length], number[-length:])
        )
        kind = rng.randrange(6)
        if kind == 0 and place < size:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place : place + len(rubbish)] = rubbish
        elif kind == 2:
            content[place:place] = rubbish
        elif kind == 3:
            del content[place : place + length]
        elif kind == 4:
            del content[place:]
        else:
            content += rubbish
    return bytes(content)


def damaged_value(rng, value):
    """A tree of dicts and lists in which one place is missing, renamed or something else."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice((*WRONG, [value], {"a": value}))
    items, kind = value.copy(), rng.randrange(8)
    key = rng.choice(list(items)) if isinstance(items, dict) else rng.randrange(len(items))
    inner = items.pop(key)
    if kind == 1 and isinstance(items, dict):
        items[rng.choice(WORDS)] = inner
    elif kind > 0 and isinstance(items, dict):
        items[key] = damaged_value(rng, inner)
    elif kind > 0:
        items.insert(key, damaged_value(rng, inner))
    return items


def damaged_json(rng, content):
    if rng.random() < 0.02:
        return rng.choice((b"[", b'{"a":', b"9")) * rng.choice((100, 10_000, 100_000))
    return json.dumps(damaged_value(rng, json.loads(content))).encode()


def damaged_text(rng, content):
    lines = content.decode().split("\n")
    i = rng.randrange(len(lines))
    place, char = rng.randrange(len(lines[i]) + 1), rng.choice("\t|abc ")
    inserted = lines[i][:place] + rng.choice(WORDS) + lines[i][place:]
    lines[i] = rng.choice((inserted, lines[i].replace(char, rng.choice(WORDS)), lines[i - 1], lines[i] * 100))
    return "\n".join(lines).encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-16", "latin-1")), "replace")


def damaged_zip(rng, content):
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(packed, "w") as new:
        victim = rng.choice(old.infolist())
        for member in old.infolist():
            inside = old.read(member)
            new.writestr(member, damaged_bytes(rng, inside) if member is victim else inside)
    return packed.getvalue()


def prepare(reader, root, seed, number, folder):
    """Make the input of that number in a folder: a copy of the valid one, in which one file is damaged or replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "valid", folder)
    rng = random.Random(f"{seed} {reader.name} {number}")
    path = rng.choice(sorted(path for path in folder.glob(reader.pattern) if path.is_file()))
    content, kind, change = path.read_bytes(), rng.random(), damaged_bytes
    if kind < 0.03:
        path.unlink()
        rng.choice((path.mkdir, path.touch, bool))()
        return folder
    if kind < 0.6:
        of_suffix = {".json": damaged_json, ".txt": damaged_text, ".csv": damaged_text}
        is_own = path.parent.name == "cache"  # a cache that another program has packed is not expected
        change = damaged_zip if content[:2] == b"PK" and not is_own else of_suffix.get(path.suffix, damaged_bytes)
    path.write_bytes(change(rng, content))
    return folder


def judge(read, folder):
    """What comes of reading a folder: (outcome, description)."""
    said, before, outcome, what = io.StringIO(), peak_memory(), "value", ""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process, and so does the other one
    signal.alarm(GRACE)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(None):
            read(folder)
    except options.UserError as error:
        outcome, what = "user error", str(error)
    except BaseException:
        outcome, what = "traceback", traceback.format_exc()
    if outcome in GOOD and not all(map(str.isprintable, [what, *said.getvalue().split("\n")])):
        outcome, what = "traceback", f"not one line: {what!r} {said.getvalue()!r}"
    if peak_memory() - before > MEMORY:
        outcome, what = "memory", f"{(peak_memory() - before) / 2**30:.1f} GiB; {outcome} {what}"
    return outcome, what


def peak_memory():
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work(reader, root, seed, numbers, report):
    """In a process of its own: judge the inputs of these numbers, and write a line of JSON for each."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where the C libraries complain
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES + size, resource.RLIM_INFINITY))
    lower_limits(root / "input" / "cache")
    if not (root / "valid").exists():
        (root / "input").mkdir(parents=True)
        reader.make(root / "input")
        (root / "input").rename(root / "valid")
    outcome, what = judge(reader.read, shutil.copytree(root / "valid", root / "input", dirs_exist_ok=True))
    if outcome != "value":  # then its damaged copies would show nothing
        print(json.dumps([numbers[0], "crash", f"the valid files give {outcome}: {what}"]), file=report)
        return
    for number in numbers:
        outcome, what = judge(reader.read, prepare(reader, root, seed, number, root / "input"))
        print(json.dumps([number, outcome, what]), file=report, flush=True)
        if outcome == "memory":  # the peak of a process does not fall, so another one goes on
            return


def run(reader, root, seed, n):
    """Feed a reader; returns what came of it, a list of (number, outcome, description)."""
    root.mkdir()
    results = []
    while len(results) < n and sum(outcome not in GOOD for _, outcome, _ in results) < MAX_FINDINGS:
        shutil.rmtree(root / "input", ignore_errors=True)
        with open(root / "report", "w+", encoding="utf-8") as report:
            if (pid := os.fork()) == 0:
                with contextlib.suppress(BaseException):
                    work(reader, root, seed, range(len(results), n), report)
                    report.flush()
                    os._exit(0)
                os._exit(1)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            report.seek(0)
            results += map(json.loads, report)
        if code:
            outcome = "time" if code in (-signal.SIGPROF, -signal.SIGALRM) else "crash"
            results.append([len(results), outcome, f"the process ended with {code}"])
    return results


def fuzz(readers, n, seed=options.DEFAULT_SEED):
    """Feed `n` inputs to some readers and print what came of them; returns the findings, (reader, outcome, folder)."""
    row, total, found = "{:<22}{:>8}{:>8}{:>13}{:>10}{:>9}".format, Counter(), []
    print(row("reader", *COLUMNS), flush=True)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory) as folder:
        for i, reader in enumerate(readers):
            began, root = time.perf_counter(), Path(folder) / str(i)
            results = run(reader, root, seed, len(range(i, n, len(readers))))
            findings = [result for result in results if result[1] not in GOOD]
            counts = Counter(outcome for _, outcome, _ in results)
            counts |= Counter(inputs=len(results), findings=len(findings), seconds=round(time.perf_counter() - began))
            print(row(reader.name, *(counts[column] for column in COLUMNS)), flush=True)
            total += counts
            for number, outcome, what in findings:
                kept = prepare(reader, root, seed, number, Path(tempfile.mkdtemp(prefix="finding-")))
                print(f"{outcome}: {reader.name}, input {number} of seed {seed}, kept in {kept}\n{what}", flush=True)
                found.append((reader.name, outcome, kept))
    print(row("all", *(total[column] for column in COLUMNS)))
    return found


# The readers, with tiny files.

RUN = Path("q3/a")
HISTORY = [{"epoch": 1, "lr": 0.1, "train_loss": 0.5, "val_acc": 0.5, "seconds": 0.1}]
CONFIG = {"question": "q3", "kind": "run", "options": {"seed": 42, "edition": "2022-23"}, "changed": {"seed": 42}}
CONFIG["data"] = {"name": "Some", "bundled": True, "fingerprint": "0" * 64}
RESULT = {"title": "Some", "bundled": True, "n_params": 3, "best_epoch": 1, "history": HISTORY, "test": None}
TABLE = ("source", "reference", "prediction")
ARGS = {
    "optimizer": "adam",
    "learning_rate": 0.1,
    "l2_decay": 0.0,
    "max_grad_norm": None,
    "clip_value": 0.0,
}
PAIRS = "".join(f"Go {x}.\t¡Vé {x}!\tCC\n" for x in "abcdefghijklmnopqrstuvwxyz")
SIZES = {"train": 6, "val": 3, "test": 3}


def tiny():
    """A network whose weights are read."""
    return torch.nn.Linear(2, 3)


def optimization():
    torch.manual_seed(0)
    trained = utils.Optimization(tiny(), argparse.Namespace(**ARGS, schedule="cosine", ema_decay=0.9), 4)
    trained.model(torch.ones(4, 2)).sum().backward()
    trained.step()
    return trained


def make_run(folder):
    trained, run = optimization(), runs.Run(folder / RUN, CONFIG)
    run.save_epoch(utils.checkpoint(trained, torch.Generator(), HISTORY), {"weights": trained.model.state_dict()})
    run.add(**RESULT)
    files.write_table(folder / RUN / "table.txt", TABLE, [("a b", "c", "d"), ("e", "f", "g é")])
    images.write_predictions(folder / RUN / "predictions.npz", torch.arange(5), torch.ones(5))
    rows = [{"image": f"{i}.png", "greedy": "a boat", "references": ["a boat", "two boats"]} for i in range(3)]
    files.write_json(folder / RUN / captions.GENERATED_NAMES[True], {"title": "Some", "captions": rows})


def resume(folder):
    with runs.open_run(folder / RUN, CONFIG, "must") as run:
        trained = optimization()
        history = utils.resume_from(run.checkpoint(), trained, torch.Generator())
        utils.best_line([*history, *HISTORY], "val_acc")  # as after the next epoch
        trained.step()


def find_runs(folder):
    found = runs.find(folder, "q3", seed=42)
    return [(run.result, run.bundled, runs.differences(run.config, CONFIG)) for run in found], runs.read_result(
        folder / RUN
    )


def some_images():
    rng, arrays = np.random.default_rng(0), {}
    for split, n in SIZES.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(n, dtype=np.uint8) % 3
    return arrays


def make_images(folder):
    np.savez_compressed(folder / "medmnist.npz", **some_images())
    values = [v.reshape(len(v), -1) / 256 if v.ndim > 1 else v for v in some_images().values()]
    np.savez(folder / "course.npz", **dict(zip(images.COURSE_KEYS, values)))


def make_idx(folder):
    for name, values in some_images().items():
        header = struct.pack(f">HBB{values.ndim}I", 0, image_sets.IDX_UNSIGNED_BYTE, values.ndim, *values.shape)
        (folder / name).write_bytes(header + values.tobytes())


def read_idx(path):
    with image_sets.refusing(image_sets.KUZUSHIJI_MNIST, path, ""):
        return image_sets.read_idx(path, some_images()[path.name].shape)


def make_captions(folder):
    (folder / "set" / "images").mkdir(parents=True)
    sentences = [{"tokens": ["a", "boat"], "raw": "a boat ."}, {"raw": "two boats"}]
    listed = {"0.png": "train", "1.jpg": "train", "2.tif": "val", "3.png": "test"}
    for i, name in enumerate(listed):
        pixels = np.random.default_rng(i).integers(0, 256, (9, 10, 3)).astype(np.uint8)
        Image.fromarray(pixels if i < 3 else pixels[..., 0].astype(np.uint16) * 9).save(
            folder / "set" / "images" / name
        )
    listed = [{"filename": name, "split": split, "sentences": sentences} for name, split in listed.items()]
    files.write_json(folder / "set" / captions.JSON_NAME, {"images": listed})


def read_captions(folder):
    data = captions.load(str(folder / "set"), "real")
    return captions.to_tensor(data["train"], captions.vocabulary(data)), "".join(data.filenames).encode()


def make_pairs(folder):
    for name in (*translation.FILE_NAMES.values(), translation.CORPUS_NAME):
        (folder / name).write_text(PAIRS, encoding="utf-8")


def make_clips(folder):
    wavs, tone = folder / speech.FOLDER_NAME / speech.WAVS, np.sin(np.arange(2500) / 9) / 2
    wavs.mkdir(parents=True)
    for i in range(4):
        soundfile.write(wavs / f"LJ{i}.wav", tone[i:], speech.SAMPLE_RATE, "PCM_16")
    soundfile.write(folder / "a.flac", np.stack([tone, tone], axis=1), 44_100, "PCM_24")
    lines = [f"LJ{i}|Some text {i}.|some text.\n" for i in range(4)]
    (folder / speech.FOLDER_NAME / speech.METADATA).write_text("".join(lines), encoding="utf-8")


def read_clips(folder):
    data = speech.load("real", folder)
    return [data.mels(row) for split in speech.SPLITS for row in data.rows[split]]


def make_archives(folder):
    (folder / "data").mkdir()
    with zipfile.ZipFile(folder / "pairs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(translation.CORPUS_NAME, PAIRS)


def install(module, name):
    return lambda f: module.install(argparse.Namespace(source=f / name, data_dir=f / "data", force=True))


def each(read, pattern):
    """A reader of every file that matches the pattern."""
    return lambda folder: [read(path) for path in sorted(folder.glob(pattern))]


READERS = [
    Reader("checkpoint best.pt", make_run, "q3/a/b*.pt", each(lambda p: runs.load_weights(tiny(), p), "q3/a/b*.pt")),
    Reader("checkpoint last.pt", make_run, "q3/a/last.pt", resume),
    Reader("run folder", make_run, "q3/a/[cr]*.json", find_runs),
    Reader("table", make_run, "q3/a/table.txt", each(lambda p: files.read_table(p, TABLE), "q3/a/table.txt")),
    Reader("npz predictions", make_run, "q3/a/*.npz", each(lambda p: images.read_correct(p, 5), "q3/a/*.npz")),
    Reader("JSON captions", make_run, "q3/a/caps*", lambda f: captions.read_generated(f / RUN, True, 3)),
    Reader("npz images", make_images, "*.npz", each(lambda p: images.load(str(p)), "*.npz")),
    Reader("IDX images", make_idx, "*", each(read_idx, "*")),
    Reader("JSON dataset.json", make_captions, "set/*.json", read_captions),
    Reader("images", make_captions, "set/images/*", each(photos.read, "set/images/*")),
    Reader("text pairs", make_pairs, "*-eng-spa.txt", lambda f: translation.load("real", f)),
    Reader("text lines", make_pairs, "spa.txt", each(lambda p: list(text.read_lines([str(p)])), "spa.txt")),
    Reader("text metadata.csv", make_clips, "LJSpeech-1.1/*.csv", read_clips),
    Reader("sound", make_clips, "**/*.[wf]*", each(speech.read_sound, "**/*.[wf]*")),
    Reader("cache", lambda f: (make_clips(f), read_clips(f)), "cache/*", read_clips),
    Reader("zip tatoeba", make_archives, "pairs.zip", install(tatoeba, "pairs.zip")),
    Reader("folder LJ Speech", make_clips, "LJ*/*.csv", lambda f: ljspeech.check(f / "LJSpeech-1.1", "advice")),
]


def lower_limits(cache):
    """In the process of a reader: what only a published set could meet is lowered; the cache lies in its folder."""
    sources.CACHE_DIR = cache
    tatoeba.MIN_PAIRS, ljspeech.N_CLIPS = 20, 4


def main(argv=None):
    parser = options.Parser("Feed damaged files to every reader of the project.")
    parser.add_option("n", type=options.positive_int, default=N_INPUTS, help="inputs in all (default: %(default)s)")
    parser.add_option("only", nargs="+", metavar="WORD", default=[""], help="readers whose names hold one of the words")
    parser.add_option("seed", type=options.seed, default=options.DEFAULT_SEED, help="(default: %(default)s)")
    args = parser.parse_args(argv)
    return int(bool(fuzz([r for r in READERS if any(word in r.name for word in args.only)], args.n, args.seed)))


if __name__ == "__main__":
    options.run_script(main)
