"""LJ Speech 1.1, the recordings of Question 3 of 2023-24: where they are, how they are verified, what becomes of them.

13,100 clips of one reader, about 24 hours, by Keith Ito and Linda Johnson (public domain).
"""

import os
import shutil
import sys

import files
from data import sources
from data.fetch import download
from options import Interrupted, UserError

TITLE = "LJ Speech"
HOMEPAGE = "https://keithito.com/LJ-Speech-Dataset/"
BASE_URL = "https://data.keithito.com/data/speech/"
FOLDER_NAME = "LJSpeech-1.1"
ARCHIVE_NAME = f"{FOLDER_NAME}.tar.bz2"
ARCHIVE_BYTES = 2_748_572_632
ARCHIVE_SHA256 = "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5"
# 23:55:17 of sound at 22,050 Hz and 16 bits are 3.80 GB; the rest is for the whole blocks of the disk.
UNPACKED_BYTES = 3_840_000_000
N_CLIPS = 13_100
METADATA, README, WAVS = "metadata.csv", "README", "wavs"
PARTIAL_NAME = f"{ARCHIVE_NAME}.part"  # what has come of the archive, in the data folder

SOURCE_HELP = (
    f"the published {ARCHIVE_NAME}, or an unpacked {FOLDER_NAME} with all of its {N_CLIPS:,} clips; "
    "another archive or a part of the clips is refused"
)
ADVICE = f"get {ARCHIVE_NAME} by hand from {HOMEPAGE} and give it with -source PATH"


def install(args):
    """Put the whole set at `<data_dir>/LJSpeech-1.1`; `args` of `download.parse_args`.

    A folder that is there is only counted, unless `args.force`. Raises `UserError`, and then leaves it as it was.
    """
    path = args.data_dir / FOLDER_NAME
    if os.path.lexists(path) and not args.force:
        n_bytes = check(path, download.REPLACING)
        print(f"{TITLE} is there; -force replaces it")
    else:
        partial = args.data_dir / PARTIAL_NAME
        try:
            with download.workspace(args.data_dir) as folder, download.one_process(partial):
                if args.source is None:
                    fetch(partial, folder, args.url or BASE_URL, args.timeout)
                else:
                    take(args.source, folder)
                n_bytes = check(folder / FOLDER_NAME, ADVICE)
                download.put_in_place([(folder / FOLDER_NAME, path)], folder)
                if args.source is None:
                    partial.unlink()
        except KeyboardInterrupt:
            if args.source is not None:
                raise
            raise Interrupted("the same command goes on where it stopped") from None
    print(f"{path}: {N_CLIPS:,} clips, {download.gigabytes(n_bytes)}")


def fetch(partial, folder, base_url, timeout):
    """Download what is missing of the archive to the path `partial`, verify it and unpack it in `folder`."""
    there = download.file_size(partial)
    missing = max(ARCHIVE_BYTES - there, 0)
    need_space(folder, missing)
    if missing:
        print(f"fetching from {base_url}" + (f", after {there:,} bytes that are there" if there else ""), flush=True)
    try:
        download.fetch_large(base_url + ARCHIVE_NAME, partial, ARCHIVE_BYTES, ARCHIVE_SHA256, timeout)
    except download.FetchError as error:
        kept = "the same command goes on where it stopped, or " if partial.exists() else ""
        raise UserError(f"{TITLE} did not come: {error}; {kept}{ADVICE}") from error
    unpack(partial, folder)


def take(source, folder):
    """Unpack the local archive `source` in `folder`, or copy the set from the local folder `source`."""
    if os.path.isdir(source):
        copy(source / FOLDER_NAME if os.path.isdir(source / FOLDER_NAME) else source, folder)
    elif os.path.isfile(source) and os.access(source, os.R_OK):
        sources.refuse_archive(source, "-source", is_read=(".bz2",))
        need_space(folder)
        digest = download.file_hash(source)
        if digest != ARCHIVE_SHA256:
            raise UserError(
                f"{source} is not the published {ARCHIVE_NAME}: its SHA-256 is {digest}, not {ARCHIVE_SHA256}; "
                f"fetch it again from {HOMEPAGE}"
            )
        unpack(source, folder)
    else:
        raise UserError(f"{source} is not a file or folder that can be read; -source takes {SOURCE_HELP}")


def need_space(folder, n_missing=0):
    """Say how much space the set and `n_missing` bytes of its archive need; raises `UserError` if it is not free."""
    n_bytes = UNPACKED_BYTES + n_missing
    archive = f", of these {download.gigabytes(n_missing)} for the archive until it is unpacked" if n_missing else ""
    print(f"{TITLE} needs {download.gigabytes(n_bytes)} in {folder.parent}{archive}", flush=True)
    download.require_space(folder.parent, n_bytes)


def unpack(archive, folder):
    """Unpack the verified archive in `folder`."""
    print(f"unpacking {archive.name}, which takes some minutes", flush=True)
    download.untar(archive, folder, UNPACKED_BYTES)


def copy(source, folder):
    """Copy the set from the folder `source`, if it is whole."""
    from tqdm import tqdm

    check(
        source,
        f"-source takes all of {TITLE}; to train on a part, leave it where it is and name the folder that holds "
        f"{FOLDER_NAME} with the script's -data_dir",
    )
    need_space(folder)
    (folder / FOLDER_NAME / WAVS).mkdir(parents=True)
    sounds = [f"{WAVS}/{name}" for name in sorted(os.listdir(source / WAVS)) if name.endswith(".wav")]
    for name in tqdm([METADATA, README, *sounds], desc="copying", disable=not sys.stderr.isatty()):
        if os.path.isfile(source / name):
            shutil.copyfile(source / name, folder / FOLDER_NAME / name)


def check(folder, advice):
    """Bytes of all clips; raises `UserError`, which ends in `advice`, unless metadata.csv and all clips are there."""
    try:
        lines = files.read_bytes(folder / METADATA).splitlines()
        with os.scandir(folder / WAVS) as entries:
            readable = [entry for entry in entries if entry.is_file() and os.access(entry, os.R_OK)]
            sizes = {entry.name: entry.stat().st_size for entry in readable}
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        raise UserError(f"{folder} is not {TITLE} ({reason}); {advice}") from error
    ids = {line.partition(b"|")[0].decode("ascii", "replace") for line in lines}
    clips = [size for id in ids if (size := sizes.get(f"{id}.wav"))]  # an empty file is no clip
    if (len(lines), len(clips)) != (N_CLIPS, N_CLIPS):
        found = f"{len(lines):,} lines in {METADATA} and the WAV files of {len(clips):,}"
        raise UserError(f"{folder} has {found}, not {N_CLIPS:,}; {advice}")
    return sum(clips)
