"""Which data a script reads: the real set if it is there, otherwise the bundled data, with a warning."""

import functools
import hashlib
import os
from pathlib import Path

import files
from options import DATA_DIR, UserError, warn

CACHE_DIR = DATA_DIR / "cache"


def choose(mode, data_dir, candidates, title, fetch_command):
    """The first of `candidates` (tuples of files) that is complete, or None for the bundled data.

    Args:
        mode, data_dir: the options `-data` and `-data_dir`.
        candidates: each a tuple of paths in that folder, which together are the real data.
        title, fetch_command: the data's name and what brings them, for messages.

    Raises `UserError` if there is no such folder, in mode "real" if the data are missing, and in mode "auto" if they
    are incomplete. A warning says that the bundled data are used.
    """
    if mode == "bundled":
        return None
    if not os.path.isdir(data_dir):
        raise UserError(f"there is no folder {data_dir}; name one that is there with -data_dir, or use -data bundled")
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
    warn(f"bundled data, not {title}; get it: {fetch_command}")


def fingerprint(arrays):
    """SHA-256 of a dict of arrays: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def key_of(*parts):
    """A short hash for the name of a cache file; it changes when one of the parts changes.

    parts: all that the cached data are made of: files as a `Path`, whose content counts, code as well; other values.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else repr(part).encode())
    return digest.hexdigest()[:12]


def cached_arrays(name, make, is_whole=lambda arrays: True):
    """Arrays that `make()` computes, kept in `data/cache/` as `name`.npz.

    A cache file that is damaged is made again. Where the cache cannot be written the arrays are computed each time.

    Args:
        name: has to hold the `key_of` all code and data that the arrays are made of; else an old cache would be taken.
        is_whole: whether another file that belongs to the arrays is as it was; it may raise `OSError`.
    """
    path = CACHE_DIR / f"{name}.npz"
    try:
        arrays = files.read_arrays(path)
        if not is_whole(arrays):
            raise ValueError("another file that belongs to it is not whole")
        return arrays
    except (*files.DAMAGED, OSError) as error:
        if os.path.exists(path):
            warn(f"{path} is damaged ({files.reason_of(error)}), making it again")
    arrays = make()
    try:
        files.write_arrays(path, arrays)
    except UserError as error:
        warn(f"{error}; going on without a cache")
    return arrays


def open_files(paths, suffixes, read):
    """Yield (name, `read(path)`) of files, and of each file in a folder that has one of the suffixes, by name.

    Raises `UserError` for a folder that cannot be read, or without such a file.
    """
    for path in paths:
        members = [path]
        if path.is_dir():
            try:
                members = sorted(member for member in path.iterdir() if member.suffix.lower() in suffixes)
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
            if not members:
                raise UserError(f"{path} holds no file {', '.join(suffixes)}; name another folder")
        for member in members:
            yield member.name, read(member)
