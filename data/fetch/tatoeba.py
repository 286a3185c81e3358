"""The published sentence pairs of Question 3 of 2022-23: where they are, how they are verified and how they are stored.

Tatoeba's sentences (https://tatoeba.org, CC BY 2.0 FR) as https://www.manythings.org/anki packages them. The package
grows every few months, so there is no hash to expect: its structure is verified, and its SHA-256 printed.
"""

import os
import zipfile

import files
from data import text, translation
from data.fetch import download
from options import UserError, warn

HOMEPAGE = "https://www.manythings.org/anki/"
ARCHIVE_NAME = "spa-eng.zip"
SOURCE_HELP = f"{ARCHIVE_NAME} or a text file of english<TAB>spanish lines"
ADVICE = f"get {ARCHIVE_NAME} by hand from {HOMEPAGE} and give it with -source PATH"
MIN_PAIRS = 100_000  # every package since 2018 has more


def install(args):
    """Write `spa.txt` into `args.data_dir`; `args` of `download.parse_args`.

    A file that is there is only read, unless `args.force`. Raises `UserError`, and then leaves it as it was.
    """
    corpus = args.data_dir / translation.CORPUS_NAME
    if os.path.exists(corpus) and not args.force:  # False, and no exception, in a closed folder
        pairs = translation.read_pairs(corpus)
        print(f"{corpus.name} is there and was read; -force would replace it")
    else:
        with download.workspace(args.data_dir) as folder:
            content, pairs = read_source(args.source) if args.source else fetch(folder, args.url)
            if len(pairs) < MIN_PAIRS:
                found = f"{args.source or ARCHIVE_NAME} has {len(pairs):,} sentence pairs"
                expected = f"fewer than the {MIN_PAIRS:,} of any published {ARCHIVE_NAME}"
                raise UserError(f"{found}, {expected}: it was cut; {ADVICE}")
            files.write_bytes(corpus, content)
    print(f"{corpus}: {len(pairs):,} pairs, SHA-256 {download.file_hash(corpus)}")
    sizes = ", ".join(f"{len(members):,} {split}" for split, members in translation.split_pairs(pairs).items())
    print(f"under {text.EVAL_MAX_LENGTH} characters: {sizes}")
    if before := [name for name in translation.FILE_NAMES.values() if (args.data_dir / name).exists()]:
        advice = f"move them away, those of the course to {args.data_dir / translation.COURSE_FOLDER}"
        warn(f"{', '.join(before)} in {args.data_dir} are read in place of {corpus.name}; {advice}")


def fetch(folder, url):
    """Fetch the archive from the base URL `url` (None: the homepage): the bytes of its `spa.txt`, and the pairs."""
    base_url = url or HOMEPAGE
    try:
        (archive,) = download.fetch_files([base_url], {ARCHIVE_NAME: None}, folder)
        return unpack(archive, origin=base_url + ARCHIVE_NAME)
    except UserError as error:
        raise UserError(f"{translation.TITLE} did not come: {error}; {ADVICE}") from error


def read_source(source):
    """The bytes of a local text file, or of the `spa.txt` in a local archive, and its pairs."""
    if not (os.path.isfile(source) and os.access(source, os.R_OK)):
        raise UserError(f"{source} is not a file that can be read; -source takes {SOURCE_HELP}")
    if source.suffix.lower() == ".zip" or zipfile.is_zipfile(source):
        return unpack(source, origin=source)
    content = source.read_bytes()
    return content, translation.parse_pairs(content, source)


def unpack(archive, origin):
    """The bytes of the `spa.txt` in an archive, in whatever folder it lies there, and its pairs.

    origin: names the archive in messages.
    """
    name = translation.CORPUS_NAME
    try:
        with zipfile.ZipFile(archive) as zip_file:
            found = [member for member in zip_file.infolist() if member.filename.rpartition("/")[2] == name]
            if len(found) != 1:
                raise ValueError(f"it has {len(found)} files {name}")
            files.check_zip(zip_file)
            content = zip_file.read(found[0])
    except (*files.DAMAGED, OSError) as error:
        raise UserError(f"{origin} does not unpack to {name} ({files.reason_of(error)}); fetch it again") from error
    print(f"{ARCHIVE_NAME}: SHA-256 {download.file_hash(archive)}")
    return content, translation.parse_pairs(content, f"{name} of {origin}")
