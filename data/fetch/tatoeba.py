"""The published sentence pairs of Question 3 of 2022-23: where they are, how they are verified, what becomes of them.

Tatoeba's sentences (https://tatoeba.org, CC BY 2.0 FR) as https://www.manythings.org/anki packages them. The package
grows every few months, so there is no hash to expect: its structure is verified, and its SHA-256 printed.
"""

import os
import shutil

from data import text, translation
from data.fetch import download
from options import UserError

HOMEPAGE = "https://www.manythings.org/anki/"
ARCHIVE_NAME = "spa-eng.zip"
SOURCE_HELP = f"{ARCHIVE_NAME} or a text file of english<TAB>spanish lines"
ADVICE = f"get {ARCHIVE_NAME} by hand from {HOMEPAGE} and give it with -source PATH"
KNOWN_SIZES = {118_964: "the package of May 2018", 118_334: "the package of May 2018 less 630 short pairs"}  # pairs
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
        print("the three files are there and were read; -force replaces them")
    else:
        corpus = args.data_dir / translation.CORPUS_NAME
        if not args.force:
            refuse_to_replace([corpus, *paths.values()], args.source)
        splits = write(corpus, args)
    for split, pairs in splits.items():
        print(f"{paths[split]}: {len(pairs):,} pairs")


def refuse_to_replace(paths, source):
    """Raise `UserError` if one of the files is there; the source itself may be: it gets its own bytes again."""
    for path in filter(os.path.exists, paths):
        if source is None or not os.path.exists(source) or not os.path.samefile(source, path):
            raise UserError(f"{path} is there, but not all that belongs to it; -force replaces what is there")


def write(corpus, args):
    """Write the whole corpus to the path `corpus`, its splits beside it, and return these."""
    with download.workspace(corpus.parent) as folder:
        new_corpus = folder / corpus.name
        if args.source is None:
            pairs = fetch(new_corpus, args.url, args.timeout)
        else:
            pairs = read_source(args.source, new_corpus)
        if len(pairs) < MIN_PAIRS:
            raise UserError(
                f"{args.source or ARCHIVE_NAME} has {len(pairs):,} sentence pairs, fewer than the {MIN_PAIRS:,} of any "
                f"published {ARCHIVE_NAME}: it was cut; {ADVICE}"
            )
        splits = translation.split_pairs(pairs)
        for split, members in splits.items():
            if not members:
                raise UserError(
                    f"{args.source or ARCHIVE_NAME} has no {split} pair with both sides under "
                    f"{text.EVAL_MAX_LENGTH} characters; -source takes {SOURCE_HELP}"
                )
        translation.write_split(splits, folder)
        for name in (corpus.name, *translation.FILE_NAMES.values()):  # all are whole before the first takes its place
            os.replace(folder / name, corpus.parent / name)
    which = KNOWN_SIZES.get(len(pairs), "not the package of May 2018")
    print(f"{corpus}: {len(pairs):,} pairs ({which}), SHA-256 {download.file_hash(corpus)}")
    print(
        f"of these the distinct ones with both sides, normalised, under {text.EVAL_MAX_LENGTH} characters; "
        "by SHA-256 of the Spanish side, modulo 10: 0 test, 1 validation, else training"
    )
    return splits


def fetch(corpus, url, timeout):
    """Fetch the archive from the base URL `url` (None: the homepage) and write its `spa.txt` to `corpus`: its pairs."""
    base_url = url or HOMEPAGE
    try:
        (archive,) = download.fetch_files([base_url], {ARCHIVE_NAME: None}, corpus.parent, timeout)
        pairs = unpack(archive, corpus, origin=base_url + ARCHIVE_NAME)
    except UserError as error:
        raise UserError(f"{translation.TITLE} did not come: {error}; {ADVICE}") from error
    return pairs


def read_source(source, corpus):
    """Copy a local text file, or the `spa.txt` of a local archive, to `corpus`: its pairs."""
    if not (os.path.isfile(source) and os.access(source, os.R_OK)):
        raise UserError(f"{source} is not a file that can be read; -source takes {SOURCE_HELP}")
    with open(source, "rb") as file:
        if source.suffix.lower() == ".zip" or file.read(len(ZIP_START)) == ZIP_START:
            return unpack(source, corpus, origin=source)
    if source.stat().st_size > MAX_CORPUS:
        raise UserError(f"{source} has more than {MAX_CORPUS:,} bytes; -source takes {SOURCE_HELP}")
    shutil.copyfile(source, corpus)
    return translation.parse_pairs(corpus.read_bytes(), source)


def unpack(archive, corpus, origin):
    """Write the `spa.txt` of an archive to `corpus`: its pairs. `origin` names the archive in messages."""
    download.unzip_member(archive, translation.CORPUS_NAME, corpus, MAX_CORPUS, origin)
    print(f"{ARCHIVE_NAME}: SHA-256 {download.file_hash(archive)}")
    return translation.parse_pairs(corpus.read_bytes(), f"{translation.CORPUS_NAME} of {origin}")
