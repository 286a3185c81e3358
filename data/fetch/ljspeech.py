"""LJ Speech 1.1, the recordings of Question 3 of 2023-24: where they are, how they are verified and stored.

13,100 clips of one reader, about 24 hours, by Keith Ito and Linda Johnson (public domain).
"""

import os
import shutil

from data.fetch import download
from options import UserError

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
METADATA, WAVS = "metadata.csv", "wavs"
PARTIAL_NAME = f"{ARCHIVE_NAME}.part"  # the part of the archive that has been fetched, in the data folder

SOURCE_HELP = f"the published {ARCHIVE_NAME}; an unpacked {FOLDER_NAME}, whole or a part, needs no download script"
ADVICE = f"get {ARCHIVE_NAME} by hand from {HOMEPAGE} and give it with -source PATH"


def install(args):
    """Put the whole set at `<data_dir>/LJSpeech-1.1`; `args` of `download.parse_args`.

    A folder that is there is only counted, unless `args.force`. Raises `UserError`, and then leaves it as it was.
    """
    path = args.data_dir / FOLDER_NAME
    if os.path.lexists(path) and not args.force:
        n_bytes = check(path, download.REPLACING)
        print(f"{TITLE} is there; -force would replace it")
    else:
        partial = args.data_dir / PARTIAL_NAME
        with download.workspace(args.data_dir) as folder:
            archive = args.source or partial
            if args.source is None:
                fetch(partial, args.url or BASE_URL)
            else:
                verify(args.source, args.data_dir)
            print(f"unpacking {archive.name}, which takes some minutes", flush=True)
            download.untar(archive, folder)
            n_bytes = check(folder / FOLDER_NAME, ADVICE)
            download.put_in_place(folder / FOLDER_NAME, path, folder / "old")
            if args.source is None:
                partial.unlink()
    print(f"{path}: {N_CLIPS:,} clips, {n_bytes / 1e9:.1f} GB")


def fetch(partial, base_url):
    """Download what is missing of the archive to the path `partial`, and verify it."""
    there = download.file_size(partial)
    missing = max(ARCHIVE_BYTES - there, 0)
    require_space(partial.parent, missing)
    if missing:
        print(f"fetching from {base_url}" + (f", after {there:,} bytes that are there" if there else ""), flush=True)
    try:
        download.fetch(base_url + ARCHIVE_NAME, partial, f"sha256:{ARCHIVE_SHA256}", ARCHIVE_BYTES)
    except download.FetchError as error:
        kept = "the same command goes on where it stopped, or " if partial.exists() else ""
        raise UserError(f"{TITLE} did not come: {error}; {kept}{ADVICE}") from error


def verify(source, data_dir):
    """Raise `UserError` unless `source` is the published archive."""
    if not (os.path.isfile(source) and os.access(source, os.R_OK)):
        raise UserError(f"{source} is not a file that can be read; -source takes {SOURCE_HELP}")
    require_space(data_dir)
    digest = download.file_hash(source)
    if digest != ARCHIVE_SHA256:
        what = f"{source} is not the published {ARCHIVE_NAME}: its SHA-256 is {digest}, not {ARCHIVE_SHA256}"
        raise UserError(f"{what}; fetch it again from {HOMEPAGE}")


def require_space(data_dir, n_missing=0):
    """Say how much space the set and `n_missing` bytes of its archive need; raises `UserError` if it is not free."""
    n_bytes = UNPACKED_BYTES + n_missing
    archive = f", of these {n_missing / 1e9:.1f} GB for the archive until it is unpacked" if n_missing else ""
    print(f"{TITLE} needs {n_bytes / 1e9:.1f} GB in {data_dir}{archive}", flush=True)
    free = shutil.disk_usage(data_dir).free
    if free < n_bytes:
        what = f"{data_dir} has {free / 1e9:.1f} GB free, {n_bytes / 1e9:.1f} GB are needed"
        raise UserError(f"{what}; free some space there or name another folder with -data_dir DIR")


def check(folder, advice):
    """The size of all clips; raises `UserError` with this `advice` unless metadata.csv and all clips are there."""
    try:
        n_lines = len((folder / METADATA).read_bytes().splitlines())
        sizes = [path.stat().st_size for path in (folder / WAVS).iterdir() if path.suffix == ".wav"]
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        raise UserError(f"{folder} is not {TITLE} ({reason}); {advice}") from error
    n_clips = sum(size > 0 for size in sizes)
    if (n_lines, n_clips) != (N_CLIPS, N_CLIPS):
        found = f"{n_lines:,} lines in {METADATA} and {n_clips:,} WAV files"
        raise UserError(f"{folder} has {found}, not {N_CLIPS:,}; {advice}")
    return sum(sizes)
