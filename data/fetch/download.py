"""Fetch files, check them, unpack them within limits: what every `download_*.py` script needs.

pooch and requests are imported where they are used, so that `--help` answers at once.
"""

import argparse
import errno
import hashlib
import io
import lzma
import shutil
import sys
import tempfile
import tokenize
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import options

USER_AGENT = "deep-learning-homework-2 (download script of a university course; python-pooch)"
RETRIES = 2  # after a failure that may pass: a lost connection, a cut transfer, wrong bytes, an error of the server
TIMEOUT = 10.0  # seconds to wait for a connection and for each part of an answer
CHUNK_BYTES = 2**16
MAX_DOWNLOAD = 200 * 2**20  # bytes of one file; the largest image set, octmnist.npz, has 55 MB
MAX_UNPACKED = 2**30  # bytes; the course's Kuzushiji-MNIST.npz, 70,000 x 784 float64, has 440 MB

# What gzip, zipfile and numpy (which parses an array's header as Python) raise for a file that is damaged, hostile or
# something else, besides `OSError`.
DAMAGED = (
    EOFError,
    KeyError,
    MemoryError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
DAMAGED_ERRNOS = (None, errno.EINVAL)  # of an `OSError` from a damaged zip: bz2 gives none, a seek to nowhere EINVAL


class FetchError(options.UserError):
    """A server did not give what was asked of it."""


class TooLargeError(FetchError):
    """More bytes than expected came, or would have been unpacked."""


def parse_args(description, source_help, argv=None):
    """The options of a download script; `url` is None or a base URL that ends in a slash."""
    parser = options.Parser(description)
    parser.add_option("source", type=Path, metavar="PATH", help=f"take it from PATH: {source_help}")
    parser.add_option(
        "data_dir", type=Path, default=options.DATA_DIR, metavar="DIR", help="data folder (default: data)"
    )
    parser.add_option("url", type=_base_url, help="fetch the files from this base URL and no other")
    parser.add_option("force", action="store_true", help="replace the file if it is there")
    parser.add_option(
        "timeout",
        type=options.positive_float,
        default=TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for a server (default: %(default)g)",
    )
    args = parser.parse_args(argv)
    if args.source is not None and args.url is not None:
        parser.error("-source and -url exclude each other")
    return args


def _base_url(text):
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"must start with http:// or https://, got {text!r}")
    return text.rstrip("/") + "/"


@contextmanager
def workspace(data_dir):
    """A temporary folder inside `data_dir`, gone at the end. Trouble with the disk becomes a `UserError`."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as folder:
            yield Path(folder)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise options.UserError(
            f"cannot write in {data_dir} ({reason}); free some space there or name another folder with -data_dir DIR"
        ) from error


def one_line(error):
    """The message of an exception without line breaks; its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def file_hash(path, algorithm="sha256"):
    """Hexadecimal digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


class LimitedFile(io.BufferedWriter):
    """A new file that never grows past `max_bytes`, so that neither a server nor an archive can fill the disk."""

    def __init__(self, path, max_bytes):
        super().__init__(io.FileIO(path, "w"))
        self.room = max_bytes

    def write(self, content):
        self.room -= len(content)
        if self.room < 0:
            raise TooLargeError("more bytes than expected")
        return super().write(content)


def fetch_files(mirrors, files, folder, timeout=TIMEOUT, max_bytes=MAX_DOWNLOAD):
    """Download all of `files` from the first of `mirrors` that gives them, and say which it is.

    Args:
        mirrors: base URLs ending in "/".
        files: file name -> hash as pooch writes it ("md5:..."), or None where upstream changes its file.
        folder: where they go.
        timeout: seconds to wait for a connection and for each part of an answer.
        max_bytes: limit of one file.

    Returns the paths in the order of `files`. Raises `FetchError`, one clause a mirror, if none gives them all.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    reasons = []
    for base_url in mirrors:
        print(f"fetching from {base_url}", flush=True)
        fetcher = pooch.create(path=folder, base_url=base_url, registry=files, retry_if_failed=RETRIES)
        try:
            return [_fetch(fetcher, name, timeout, max_bytes) for name in files]
        except FetchError as error:
            reasons.append(str(error))
    raise FetchError(", ".join(reasons))


def _fetch(fetcher, name, timeout, max_bytes):
    """Path of one file of a `pooch.Pooch`, downloaded and verified; raises `FetchError` with the URL and a few words."""
    import pooch
    import requests

    http = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=CHUNK_BYTES,
        timeout=timeout,
        # identity: requests would unpack a .gz file that a server declares as gzip-encoded
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
    )

    def judge(error):
        """What went wrong, in a few words (the messages of requests run over lines), and whether it may pass."""
        if isinstance(error, requests.HTTPError):
            code = error.response.status_code
            return f"error {code}", code >= requests.codes.server_error
        if isinstance(error, requests.Timeout):
            return f"no answer within {timeout:g} s", not isinstance(error, requests.ConnectTimeout)
        if isinstance(error, requests.exceptions.ChunkedEncodingError):
            return "the transfer broke off", True
        if isinstance(error, requests.ConnectionError):
            return "no connection, or it was lost", True
        if isinstance(error, requests.RequestException):
            return "no valid URL or answer", False
        return "not the published bytes (the hash differs)", True  # pooch's ValueError

    def download(url, output_path, _):
        try:
            with LimitedFile(output_path, max_bytes) as file:
                http(url, file, fetcher)
        except requests.RequestException as error:
            reason, may_pass = judge(error)
            if may_pass:
                raise  # pooch tries again
            raise FetchError(reason) from error

    try:
        return Path(fetcher.fetch(name, downloader=download))
    except (FetchError, ValueError, requests.RequestException) as error:
        reason = error if isinstance(error, FetchError) else judge(error)[0]
        raise FetchError(f"{fetcher.get_url(name)}: {reason}") from error


def unzip_member(archive, name, path, max_bytes=MAX_UNPACKED, origin=None):
    """Unpack the one file `name` of a zip archive to `path`: the archive chooses neither where nor how much is written.

    Raises `UserError` if the archive is damaged, lacks that file, or if the file has more than `max_bytes`; it names the
    archive by its `origin`, or else by its path.
    """
    try:
        with zipfile.ZipFile(archive) as zip_file, zip_file.open(name) as member, LimitedFile(path, max_bytes) as file:
            shutil.copyfileobj(member, file)
    except (*DAMAGED, OSError, TooLargeError) as error:
        if isinstance(error, OSError) and error.errno not in DAMAGED_ERRNOS:
            raise  # the disk's fault, not the archive's
        Path(path).unlink(missing_ok=True)
        reason = one_line(error)
        raise options.UserError(f"{origin or archive} does not unpack to {name} ({reason}); fetch it again") from error
