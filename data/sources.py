"""Which data a script reads: the real set if it is there, else the bundled data, and always said."""

import functools
import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

import runs
import safe_io
from options import DATA_DIR, UserError, warn

CACHE_DIR = DATA_DIR / "cache"
BUNDLED = "bundled"


def choose(mode, candidates, title, fetch_command):
    """The first of `candidates` (tuples of files) that is complete, or None for the bundled data.

    Args:
        mode: "auto", "real" or "bundled", the option `-data`.
        candidates: each a tuple of paths that together are the real data.
        title: the data's name for messages.
        fetch_command: what brings the real data.

    Raises `UserError` in mode "real" if the data are missing, and in mode "auto" if they are incomplete. A warning says that
    the bundled data are used.
    """
    if mode == BUNDLED:
        return None
    for paths in candidates:
        if all(os.path.exists(path) for path in paths):
            return paths
    if mode == "real" or any(os.path.exists(path) for paths in candidates for path in paths):
        missing = next(path for path in candidates[0] if not os.path.exists(path))
        raise UserError(f"{missing} is missing; run {fetch_command} first, or use -data bundled")
    warn_of_bundled_data(title, fetch_command)
    return None


@functools.cache  # once, however often the data are loaded
def warn_of_bundled_data(title, fetch_command):
    warn(f"{title} is not here, using the bundled data in its place; {fetch_command} brings the real data")


def fingerprint(arrays):
    """SHA-256 of a dict of arrays: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def key_of(*source_files):
    """A few digits of the SHA-256 of some files, for the name of what is made by them."""
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in source_files)).hexdigest()[:12]


def folder_to_write():
    """`data/cache/` or, where it cannot be written, a temporary folder that goes away with this process."""
    try:
        CACHE_DIR.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=CACHE_DIR):
            return CACHE_DIR
    except OSError:
        return Path(_temporary_folder().name)


@functools.cache  # which also keeps it until the end of the process
def _temporary_folder():
    try:
        return tempfile.TemporaryDirectory(prefix="cache-")
    except OSError as error:
        raise UserError(f"neither {CACHE_DIR} nor a temporary folder can be written; make room there") from error


def cached_arrays(name, make, *source_files, fits, compress=True):
    """Arrays that `make()` computes, kept in `data/cache/` under a key made of `name` and the code in `source_files`.

    A cache file that is damaged is made again. Where the cache cannot be written the arrays are computed each time.

    Args:
        fits: a function that tells whether arrays are what `make()` may return, by their names, types and shapes; for others it
            may raise anything. It also looks whether another file that belongs to the arrays is as it was.
        compress: takes long for large arrays of floats, and gains little.
    """
    path = CACHE_DIR / (f"{name}-{key_of(*source_files)}.npz" if source_files else f"{name}.npz")
    try:
        arrays = safe_io.read_arrays(path)
        if not fits(arrays):
            raise ValueError("it holds other arrays")
        return arrays
    except (FileNotFoundError, NotADirectoryError):
        pass
    except Exception:  # numpy, zipfile and zlib raise whatever a damaged file makes them raise
        warn(f"{path} is damaged, making it again")
    arrays = make()
    try:
        with runs.atomic_path(path) as new_path, open(new_path, "wb") as file:
            (np.savez_compressed if compress else np.savez)(file, **arrays)
    except UserError as error:
        warn(f"{error}; going on without a cache")
    return arrays
