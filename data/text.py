"""What the sentences of all questions share: special symbols, normal forms, vocabularies, padding.

torch is imported where tensors are made, so that the download needs not wait for it.
"""

import os
import re
import sys
import unicodedata
from contextlib import nullcontext

from options import UserError

EVAL_MAX_LENGTH = 20  # the handout's sentence pairs: both sides are shorter than this many characters
FILE_NAME = re.compile(r".*\.txt|\S+\.[a-z0-9]{2,4}", re.IGNORECASE)  # such an argument is taken for the name of a file
SPECIALS = ("<pad>", "<sos>", "<eos>", "<unk>")
PAD_IDX, SOS_IDX, EOS_IDX, UNK_IDX = range(len(SPECIALS))
# The same as `decoding` takes them.
SYMBOLS = {"sos": SOS_IDX, "eos": EOS_IDX, "pad": PAD_IDX, "forbidden": (PAD_IDX, SOS_IDX, UNK_IDX)}

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


def shorter_than(pairs, max_length):
    """The pairs with both sides shorter than `max_length` characters."""
    return [pair for pair in pairs if max(map(len, pair)) < max_length]


def at_equal_distances(items, n_items):
    """`n_items` of the list, or all if it has fewer; files are sorted by length, so the first ones are no sample."""
    n_items = min(n_items, len(items))
    return [items[i * len(items) // n_items] for i in range(n_items)]


class Vocabulary:
    """The characters of one language; index 0 to 3 are the special symbols.

    Args:
        chars: a string without repetition, or any text: its distinct characters are taken in alphabetical order.
    """

    separator = ""

    def __init__(self, chars):
        self.symbols = sorted(set(chars))
        self.index = {symbol: i for i, symbol in enumerate(self.symbols, start=len(SPECIALS))}

    @property
    def chars(self):
        return "".join(self.symbols)

    def __len__(self):
        return len(SPECIALS) + len(self.symbols)

    def encode(self, text):
        """Indices of the symbols; one that training has not seen is UNK."""
        return [self.index.get(symbol, UNK_IDX) for symbol in text]

    def decode(self, indices):
        """The text up to the first EOS; other special symbols are left out."""
        symbols = []
        for i in indices:
            if i == EOS_IDX:
                break
            if i >= len(SPECIALS):
                symbols.append(self.symbols[i - len(SPECIALS)])
        return self.separator.join(symbols)


class WordVocabulary(Vocabulary):
    """The same for words: `encode` takes a list of words, `decode` returns them with blanks between."""

    separator = " "


def pad(sequences):
    """Lists of indices as one tensor (n_sequences, max_len), filled up with PAD."""
    import torch

    length = max(map(len, sequences))
    return torch.tensor([sequence + [PAD_IDX] * (length - len(sequence)) for sequence in sequences])


def read_lines(texts):
    """The given sentences; for a text that names a file the lines of that file, for `-` those of the standard input.

    Raises `UserError` for a text that looks like the name of a file but is none, and for a file that is not UTF-8 text.
    """
    for text in texts:
        if text == "-" or os.path.exists(text):
            yield from _lines_of(text)
        elif FILE_NAME.fullmatch(text):
            raise UserError(f"there is no file {text}; name one that is there, or give a sentence")
        else:
            yield text


def _lines_of(name):
    if name != "-" and not os.path.isfile(name):
        raise UserError(f"{name} is not a text file; name a file with a sentence on each line")
    try:
        with nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield line.decode("utf-8-sig").rstrip("\r\n")
                except UnicodeDecodeError:
                    raise UserError(f"{name}, line {number}: not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror}); name another file") from None
