"""Sentence pairs of Question 3 of 2022-23 (Spanish to English): files to texts.

The course's three files stand in the data folder, one pair a line, `english<TAB>spanish[<TAB>anything]`:

    train-eng-spa.txt    val-eng-spa.txt    test-eng-spa.txt

`download_tatoeba.py` writes them and keeps the whole corpus beside them as `spa.txt`. Validation and test are always those
two files, so that results stay comparable; a `max_length` above theirs only lets longer sentences of `spa.txt` into the
training split.
"""

import hashlib
import re
import sys
import unicodedata
from pathlib import Path

import runs
from options import UserError

EVAL_MAX_LENGTH = 20  # the handout's data: both sides are shorter than this many characters
SPLITS = ("train", "val", "test")
FILE_NAMES = {split: f"{split}-eng-spa.txt" for split in SPLITS}
CORPUS_NAME = "spa.txt"
DOWNLOAD_COMMAND = "python download_tatoeba.py"

_PUNCTUATION = re.compile(r"([.!?])")
_OTHER_CHARACTERS = re.compile(r"[^a-z.!?]+")


def normalize(text):
    """The course's normal form: lower-case ASCII letters, `. ! ?` each after a space, one space for anything else.

    Accents go first (NFD, combining marks dropped), so that "¿Dónde está?" becomes "donde esta ?". Idempotent.
    """
    text = text.lower()
    if not text.isascii():
        text = "".join(char for char in unicodedata.normalize("NFD", text) if unicodedata.category(char) != "Mn")
    text = _PUNCTUATION.sub(r" \1", text)
    return _OTHER_CHARACTERS.sub(" ", text).strip()


def split_of(spanish):
    """The split of every pair with this Spanish side (normalised): a tenth test, a tenth validation, the rest training.

    The Spanish side decides alone, so that the translations of one sentence never stand on two sides of a split.
    """
    digest = hashlib.sha256(spanish.encode()).hexdigest()
    return {0: "test", 1: "val"}.get(int(digest, 16) % 10, "train")


def read_pairs(path):
    """The pairs of a file as a list of (english, spanish), both normalised, in the file's order.

    A byte order mark, CRLF and blank lines are fine. A pair with a side that normalises to nothing is left out, with one
    warning for the file. Raises `UserError` if the file cannot be read, is not UTF-8, has a line without a tab, or
    leaves no pair.
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
    """`read_pairs` for the bytes of a file; `name` stands in the messages."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name}, line {line}: not UTF-8 at byte {error.start}; save the file as UTF-8") from None

    pairs, n_empty = [], 0
    # Not splitlines(): it also breaks at characters that may stand inside a sentence, such as U+2028.
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        if not line.strip(" "):
            continue
        english, tab, rest = line.partition("\t")
        if not tab:
            raise UserError(f"{name}, line {number}: no tab; a line must be english<TAB>spanish")
        pair = normalize(english), normalize(rest.partition("\t")[0])
        if all(pair):
            pairs.append(pair)
        else:
            n_empty += 1
    if n_empty:
        print(f"warning: {name}: left out {n_empty} pairs with a side without any letter or . ! ?", file=sys.stderr)
    if not pairs:
        raise UserError(f"{name} holds no sentence pair; each line must be english<TAB>spanish")
    return pairs


def shorter_than(pairs, max_length):
    """The pairs with both sides shorter than `max_length` characters."""
    return [pair for pair in pairs if max(map(len, pair)) < max_length]


def split_pairs(pairs, max_length=EVAL_MAX_LENGTH):
    """Deal normalised pairs out to a dict of train, val and test by `split_of`, each pair once, in the order given.

    Training takes pairs with both sides shorter than `max_length`; validation and test stay under `EVAL_MAX_LENGTH`.
    """
    splits = {split: [] for split in SPLITS}
    for pair in dict.fromkeys(pairs):
        splits[split_of(pair[1])].append(pair)
    return {
        split: shorter_than(members, max_length if split == "train" else EVAL_MAX_LENGTH)
        for split, members in splits.items()
    }


def write_split(splits, folder):
    """Write the course's three files into `folder` (made if need be), each complete or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        with runs.atomic_path(folder / FILE_NAMES[split]) as path:
            lines = [f"{english}\t{spanish}\n" for english, spanish in splits[split]]
            Path(path).write_bytes("".join(lines).encode())  # bytes: the same line ends on every system


def fingerprint(splits):
    """SHA-256 of the three splits: their names, their pairs and the order of these."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"{split}\n".encode())
        digest.update("".join(f"{english}\t{spanish}\n" for english, spanish in splits[split]).encode())
    return digest.hexdigest()
