"""Sentence pairs of Question 3 of 2022-23 (Spanish to English): files to texts, texts to tensors.

There are two sets. A line of their files is one pair, `english<TAB>spanish[<TAB>anything]`:

    course-eng-spa/train-eng-spa.txt, val-eng-spa.txt, test-eng-spa.txt    what the course handed out
    spa.txt                                                                Tatoeba's, by `download_tatoeba.py`

Three files without the folder are read before `spa.txt`: an earlier `download_tatoeba.py` wrote them, and users have
put the course's there. Validation and test do not depend on `max_length`, so that results stay comparable: one above
the handout's only lets longer sentences into the training split.

torch is imported where tensors are made, so that the download needs not wait for it.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from data import sources, text
from data.text import EOS_IDX, EVAL_MAX_LENGTH, SOS_IDX, at_equal_distances, normalize, pad, shorter_than
from options import DATA_DIR, UserError, typed, warn

SPLITS = ("train", "val", "test")
FILE_NAMES = {split: f"{split}-eng-spa.txt" for split in SPLITS}
CORPUS_NAME = "spa.txt"
COURSE_FOLDER = "course-eng-spa"
COURSE_FINGERPRINT = "7a34f9086a761b38067585e711e292fe06729ed6a376b66745bf092f6fafc929"  # of the course's own files
DOWNLOAD_COMMAND = "python download_tatoeba.py"
TITLE = "Tatoeba, Spanish to English"
COURSE_TITLE = "The course's own files, Spanish to English"
TITLES = {"course": f"{COURSE_FOLDER}, Spanish to English", "tatoeba": TITLE}  # of other files in the places of these
QUICK_SIZES = {"train": 6000, "val": 500, "test": 500}


def split_of(spanish):
    """The split of every pair with this Spanish side (normalised): a tenth test, a tenth validation, the rest training.

    The Spanish side decides alone, so that the translations of one sentence never stand on two sides of a split.
    """
    digest = hashlib.sha256(spanish.encode()).hexdigest()
    return {0: "test", 1: "val"}.get(int(digest, 16) % 10, "train")


def read_pairs(path):
    """The pairs of a file as a list of (english, spanish), both normalised, in the file's order.

    Raises `UserError` if the file cannot be read, and as `parse_pairs` does.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run {DOWNLOAD_COMMAND}, or put the course's file there") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the file and its permissions") from None
    return parse_pairs(content, path)


def parse_pairs(content, name):
    """The pairs in the bytes of a file; `name` stands in the messages.

    A byte order mark, CRLF and blank lines are fine. A pair with a side that normalises to nothing is left out, and a
    warning tells of such pairs. Raises `UserError` if the content is not UTF-8, has a line without a tab, or no pair.
    """
    pairs, n_lines = [], 0
    # Not splitlines(): it also breaks at characters that may stand inside a sentence, such as U+2028.
    for number, line in enumerate(_decode(content, name).split("\n"), start=1):
        line = line.rstrip("\r")
        if not line.strip(" "):
            continue
        english, tab, rest = line.partition("\t")
        if not tab:
            raise UserError(f"{name}, line {number}: no tab; a line must be english<TAB>spanish")
        pair = normalize(english), normalize(rest.partition("\t")[0])
        n_lines += 1
        if all(pair):
            pairs.append(pair)
    if len(pairs) < n_lines:
        warn(f"{name}: left out {n_lines - len(pairs):,} pairs with a side without any letter or . ! ?")
    if not pairs:
        raise UserError(f"{name} holds no sentence pair; each line must be english<TAB>spanish")
    return pairs


def _decode(content, name):
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name}, line {line}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None


def split_pairs(pairs, max_length=EVAL_MAX_LENGTH):
    """Deal normalised pairs out to a dict of train, val and test by `split_of`, each pair once, in the order given.

    Training takes pairs with both sides shorter than `max_length`; validation and test stay under `EVAL_MAX_LENGTH`.
    """
    splits = {split: [] for split in SPLITS}
    for pair in dict.fromkeys(pairs):
        splits[split_of(pair[1])].append(pair)
    return limited(splits, max_length)


def limited(splits, max_length):
    """The pairs of the splits that are short enough, as `split_pairs` says."""
    limits = dict.fromkeys(SPLITS, EVAL_MAX_LENGTH) | {"train": max_length}
    return {split: shorter_than(members, limits[split]) for split, members in splits.items()}


def fingerprint(splits):
    """SHA-256 of the three splits: their names, their pairs and the order of these."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"{split}\n".encode())
        digest.update("".join(f"{english}\t{spanish}\n" for english, spanish in splits[split]).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class SentencePairs:
    """The three splits.

    Attributes:
        title: name to show; `bundled` says whether the pairs were generated by this project.
        pairs: dict from split to a list of (english, spanish), normalised.
        fingerprint: SHA-256 of the content.
        dataset: "course" or "tatoeba", by the place of the files.
    """

    title: str
    bundled: bool
    pairs: dict
    fingerprint: str
    dataset: str = "tatoeba"


def load(mode="auto", data_dir=DATA_DIR, max_length=EVAL_MAX_LENGTH, quick=False, dataset="auto"):
    """The sentence pairs: the three files of a set, or `spa.txt` split by `split_of`, or the bundled pairs.

    Args:
        mode: "auto", "real" or "bundled".
        max_length: training pairs have both sides shorter than this; validation and test pairs are always shorter than
            the handout's 20 characters.
        quick: only a few thousand pairs of each split.
        dataset: "course", "tatoeba", or "auto", the course's if they are there.

    Raises `UserError` for a file that is damaged, or a split in which no pair is left.
    """
    dataset, found = find_files(dataset, mode, Path(data_dir))
    title = TITLE
    if found is not None and len(found) == len(SPLITS):
        splits = {split: read_pairs(path) for split, path in zip(SPLITS, found)}
        # The course's own files are known wherever they lie.
        title = COURSE_TITLE if fingerprint(splits) == COURSE_FINGERPRINT else TITLES[dataset]
        if max_length > EVAL_MAX_LENGTH and shorter_than(splits["train"], EVAL_MAX_LENGTH) == splits["train"]:
            advice = f"{DOWNLOAD_COMMAND} brings some, for a data folder without {found[0].name}"
            raise UserError(f"-max_length {max_length} needs longer pairs, and {found[0]} has none; {advice}")
        splits = limited(splits, max_length)
    else:
        pairs = _bundled_pairs(max(max_length, EVAL_MAX_LENGTH)) if found is None else read_pairs(found[0])
        splits = split_pairs(pairs, max_length)
    for split, pairs in splits.items():
        if not pairs:
            limit = max_length if split == "train" else EVAL_MAX_LENGTH
            short = split == "train" and max_length < EVAL_MAX_LENGTH
            advice = "give a larger -max_length" if short else f"use other files, or run {DOWNLOAD_COMMAND}"
            names = ", ".join(path.name for path in found or ()) or "the bundled pairs"
            raise UserError(f"{names}: no {split} pair has both sides shorter than {limit} characters; {advice}")
    content = fingerprint(splits)
    if quick:
        splits = {split: at_equal_distances(pairs, QUICK_SIZES[split]) for split, pairs in splits.items()}
    return SentencePairs(title, found is None, splits, content, dataset)


def find_files(dataset, mode, data_dir):
    """The set that `dataset` means, and its three files, or `spa.txt` alone, or None for the bundled pairs."""
    folder = data_dir / COURSE_FOLDER
    is_asked_for = dataset != "auto"
    if not is_asked_for:
        dataset = "course" if mode != "bundled" and folder.is_dir() else "tatoeba"
    paths = tuple((folder if dataset == "course" else data_dir) / name for name in FILE_NAMES.values())
    if dataset == "tatoeba" or mode == "bundled":
        found = sources.choose(mode, data_dir, [paths, (data_dir / CORPUS_NAME,)], TITLE, DOWNLOAD_COMMAND)
        if found is None and mode == "auto" and not is_asked_for:
            warn(f"the course's own files, if you have them, belong in {typed(folder)}")
        return dataset, found
    for path in paths:
        if not path.exists():
            advice = "put the course's file there (docs/data.md says where it is from), or use -dataset tatoeba"
            raise UserError(f"{path} is missing; {advice}")
    return dataset, paths


def _bundled_pairs(max_length):
    """The bundled pairs, from the cache if they are there."""

    def generate():
        import numpy as np

        from data.bundled import translation as bundled_translation

        return {"pairs": np.array(bundled_translation.generate(max_length))}

    code = [*sorted(Path(__file__).parent.glob("bundled/translation*.py")), Path(text.__file__)]
    name = f"bundled-translation-{max_length}-{sources.key_of(*code)}"
    return [tuple(pair) for pair in sources.cached_arrays(name, generate)["pairs"].tolist()]


def to_tensors(pairs, src_vocab, tgt_vocab):
    """The Spanish characters, and SOS, the English characters, EOS, both filled up with PAD.

    Shapes: returns src (n_pairs, max_src_len), tgt (n_pairs, max_tgt_len)
    """
    src = pad([src_vocab.encode(spanish) for _, spanish in pairs])
    tgt = pad([[SOS_IDX, *tgt_vocab.encode(english), EOS_IDX] for english, _ in pairs])
    return src, tgt


def gatherer(src, tgt, src_lengths, tgt_lengths):
    """A function from row indices (batch_size) to a batch, cut to its own longest source and target.

    Args:
        src, tgt: padded tensors on the device (n_pairs, max_len).
        src_lengths, tgt_lengths: of their rows (n_pairs), on the CPU.

    The batch is src (batch_size, max_src_len), src_lengths (batch_size) on the CPU, tgt (batch_size, max_tgt_len).
    src_lengths is None where all sources have one length, so that `graphs` can record the step: nothing is on the CPU.
    """

    def gather(rows):
        lengths, on_device = src_lengths[rows], rows.to(src.device, non_blocking=True)
        batch_src, batch_tgt = src[on_device, : lengths.max()], tgt[on_device, : tgt_lengths[rows].max()]
        return batch_src, None if lengths.min() == lengths.max() else lengths, batch_tgt

    return gather
