"""The published sentence pairs of Question 3 of 2022-23: where they are, how they are verified and how they are stored.

Tatoeba's sentences (https://tatoeba.org, CC BY 2.0 FR) as https://www.manythings.org/anki packages them. The package
grows every few months, so there is no hash to expect: its structure is verified, and its SHA-256 printed.
"""

import os
import zipfile

import files
from data import sources, text, translation
from data.fetch import download
from options import UserError

HOMEPAGE = "https://www.manythings.org/anki/"
ARCHIVE_NAME = "spa-eng.zip"
SOURCE_HELP = f"{ARCHIVE_NAME} or a text file of english<TAB>spanish lines"
ADVICE = f"get {ARCHIVE_NAME} by hand from {HOMEPAGE} and give it with -source PATH"
KNOWN_SIZES = {118_964: "the package of May 2018", 118_334: "the package of May 2018 without 630 short pairs"}  # pairs
MIN_PAIRS = 100_000  # every package since 2018 has more
MAX_CORPUS = 100 * 2**20  # bytes of spa.txt; with its licence column it had about 20 MB in 2024
ZIP_START = b"PK\x03\x04"


def install(args):
    """Write `spa.txt` and the three splits of it into `args.data_dir`; `args` of `download.parse_args`.

    Splits that are there are only read and counted, unless `args.force`: they may be the course's own. Raises
    `UserError`, and then leaves all files as they were.
    """
    paths = {split: args.data_dir / name for split, name in translation.FILE_NAMES.items()}
    if not args.force and all(map(os.path.exists, paths.values())):  # False, and no exception, in a closed folder
        splits = {split: translation.read_pairs(path) for split, path in paths.items()}
        print("the three files are there and were read; -force would replace them")
    else:
        corpus = args.data_dir / translation.CORPUS_NAME
        if not args.force:
            refuse_to_replace([corpus, *paths.values()], args.source)
        splits = write(corpus, args)
    for split, pairs in splits.items():
        print(f"{paths[split]}: {len(pairs):,} pairs")


def refuse_to_replace(paths, source):
    """Raise `UserError` if one of the files is there, unless it is the source itself, which keeps its bytes."""
    for path in filter(os.path.exists, paths):
        if source is None or not os.path.exists(source) or not os.path.samefile(source, path):
            raise UserError(f"{path} is there, but not all that belongs to it; {download.REPLACING}")


def write(corpus, args):
    """Write the whole corpus to the path `corpus`, its splits beside it, and return these."""
    with download.workspace(corpus.parent) as folder:
        if args.source is None:
            content, pairs = fetch(folder, args.url, args.timeout)
        else:
            content, pairs = read_source(args.source)
        origin = args.source or ARCHIVE_NAME
        if len(pairs) < MIN_PAIRS:
            expected = f"fewer than the {MIN_PAIRS:,} of any published {ARCHIVE_NAME}"
            raise UserError(f"{origin} has {len(pairs):,} sentence pairs, {expected}: it was cut; {ADVICE}")
        splits = translation.split_pairs(pairs)
        for split, members in splits.items():
            if not members:
                short = f"with both sides under {text.EVAL_MAX_LENGTH} characters"
                raise UserError(f"{origin} has no {split} pair {short}; -source takes {SOURCE_HELP}")
        files.write_bytes(folder / corpus.name, content)
        translation.write_split(splits, folder)
        names = (corpus.name, *translation.FILE_NAMES.values())
        download.put_in_place([(folder / name, corpus.parent / name) for name in names], folder)
    which = KNOWN_SIZES.get(len(pairs), "not the package of May 2018")
    print(f"{corpus}: {len(pairs):,} pairs ({which}), SHA-256 {download.file_hash(corpus)}")
    return splits


def fetch(folder, url, timeout):
    """Fetch the archive from the base URL `url` (None: the homepage): the bytes of its `spa.txt`, and the pairs."""
    base_url = url or HOMEPAGE
    try:
        (archive,) = download.fetch_files([base_url], {ARCHIVE_NAME: None}, folder, timeout)
        return unpack(archive, origin=base_url + ARCHIVE_NAME)
    except UserError as error:
        raise UserError(f"{translation.TITLE} did not come: {error}; {ADVICE}") from error


def read_source(source):
    """The bytes of a local text file, or of the `spa.txt` in a local archive, and its pairs."""
    if not (os.path.isfile(source) and os.access(source, os.R_OK)):
        raise UserError(f"{source} is not a file that can be read; -source takes {SOURCE_HELP}")
    sources.refuse_archive(source, "-source", is_read=(".zip",))
    with open(source, "rb") as file:
        if source.suffix.lower() == ".zip" or file.read(len(ZIP_START)) == ZIP_START:
            return unpack(source, origin=source)
    if source.stat().st_size > MAX_CORPUS:
        raise UserError(f"{source} has more than {MAX_CORPUS:,} bytes; -source takes {SOURCE_HELP}")
    content = files.read_bytes(source)
    return content, translation.parse_pairs(content, source)


def unpack(archive, origin):
    """The bytes of the `spa.txt` in an archive, in whatever folder it lies there, and its pairs.

    origin: names the archive in messages.
    """
    name = translation.CORPUS_NAME
    with download.unpacking(origin, name), zipfile.ZipFile(archive) as zip_file:
        found = [member for member in zip_file.infolist() if member.filename.rpartition("/")[2] == name]
        if len(found) != 1:
            raise ValueError(f"it has {len(found)} files {name}")
        if found[0].file_size > MAX_CORPUS:
            raise ValueError(f"its {name} has more than {MAX_CORPUS:,} bytes")
        content = zip_file.read(found[0])
    print(f"{ARCHIVE_NAME}: SHA-256 {download.file_hash(archive)}")
    return content, translation.parse_pairs(content, f"{name} of {origin}")
