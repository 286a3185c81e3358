"""Files: written whole or not at all, and read without trusting them.

A reader sees the old file or the new one, never a part of it. A damaged file ends in one line. No code ever runs from a
file, and an archive that would fill the memory is refused by its declared size.
numpy and torch are imported where they are used, so that scripts without them need not wait.
"""

import io
import json
import lzma
import os
import struct
import tarfile
import tokenize
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

from options import UserError

MAX_UNPACKED = 2**30  # bytes; the course's Kuzushiji-MNIST.npz, 70,000 x 784 float64, has 440 MB
RETRAIN = "run again without -resume"  # advice for a damaged file of a run

# What damaged files make gzip, tarfile, zipfile and numpy (which parses a header as Python) raise, besides `OSError`.
DAMAGED = (
    EOFError, IndexError, KeyError, MemoryError, OverflowError, RuntimeError, SyntaxError, TypeError, ValueError,
    lzma.LZMAError, struct.error, tarfile.TarError, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def reason_of(error):
    """Why a file could not be read or written, in a few words on one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split()) or type(error).__name__


@contextmanager
def writing(path):
    """Turn an `OSError` of the block into a `UserError` that says that `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path} ({reason_of(error)}); name another folder or make room there") from error


@contextmanager
def atomic_path(path):
    """A temporary path beside `path`; it is flushed to the disk and renamed onto `path` if the block succeeds.

    Raises `UserError` where the folder cannot be written. What the block itself raises passes as it is.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path):  # an error shows before the work of the block
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
        yield temporary
        with writing(path):
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # a folder that is missing or read-only, where there is nothing to remove
            temporary.unlink(missing_ok=True)


def write_bytes(path, content):
    """Write the whole content of a file, atomically."""
    with atomic_path(path) as new_path, writing(path):
        new_path.write_bytes(content)


def write_json(path, value):
    """Write `value` as JSON, atomically; nan and infinity are refused, since JSON has neither."""
    write_bytes(path, json.dumps(value, indent=2, allow_nan=False).encode() + b"\n")


def write_table(path, header, rows):
    """Write a text file of columns separated by tabs, atomically."""
    write_bytes(path, "".join("\t".join(map(str, row)) + "\n" for row in (header, *rows)).encode())


def write_arrays(path, arrays, compress=False):
    """Write a dict of arrays as .npz, atomically; to compress large arrays of floats takes long and gains little."""
    import numpy as np

    content = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(content, **arrays)
    write_bytes(path, content.getvalue())


def write_state(path, state):
    """Write tensors and plain values for `read_state`, atomically."""
    import torch

    content = io.BytesIO()  # torch's own writer raises a RuntimeError on a full disk
    torch.save(state, content)
    # getvalue copies nothing; where an error keeps a view of getbuffer, Python 3.12.1 crashes.
    write_bytes(path, content.getvalue())


def read_json(path, *keys, of=object):
    """The value of a JSON file that a run wrote, or the one inside it that `keys` lead to.

    Raises `UserError` if the file is no JSON, has no such value, or if the value is not of the type `of`.
    """
    try:
        value = json.loads(Path(path).read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}); {RETRAIN}") from error
    try:
        for key in keys:
            value = value[key]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path} has no {'.'.join(map(str, keys))}; {RETRAIN}") from error
    if not isinstance(value, of):
        raise UserError(f"{path}: {'.'.join(map(str, keys)) or 'it'} is no {of.__name__}; {RETRAIN}")
    return value


def read_table(path, header):
    """The rows that `write_table` wrote, a dict from column to text each; raises `UserError` for another file."""
    try:
        first, *lines = Path(path).read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n")[:-1]
        rows = [dict(zip(header, line.split("\t"), strict=True)) for line in lines]
        if first.split("\t") != list(header):
            raise ValueError("it has other columns")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)}); {RETRAIN}") from error
    return rows


def check_zip(archive, allowed=0):
    """Raise `ValueError` for a `zipfile.ZipFile` that unpacks to more than `MAX_UNPACKED` bytes, or than `allowed`."""
    limit = max(MAX_UNPACKED, allowed)
    if sum(member.file_size for member in archive.infolist()) > limit:
        raise ValueError(f"it unpacks to more than {limit:,} bytes")


def read_arrays(path):
    """The arrays of an .npz file, a dict by name; nothing is unpickled.

    They may have `MAX_UNPACKED` bytes together, or as many as the file. Raises `OSError` or one of `DAMAGED`.
    """
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        check_zip(archive, os.path.getsize(path))
    with np.load(path, allow_pickle=False) as npz:
        arrays = dict(npz)
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("it holds a file that is no array")
    return arrays


def read_state(path, map_location="cpu"):
    """What `torch.save` wrote of tensors and plain values; nothing else is unpickled.

    Raises what a damaged file makes torch raise, and `ValueError` if a checksum is wrong, which torch does not look at.
    """
    import torch

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_zip(archive, os.path.getsize(path))
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} is wrong")
    return torch.load(path, map_location=map_location, weights_only=True)
