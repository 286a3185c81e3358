"""Fetch files, check them, unpack them within limits: what every `download_*.py` script needs.

pooch, requests, tqdm and filelock are imported where they are used, so that `--help` answers at once.
"""

import argparse
import errno
import hashlib
import io
import math
import os
import re
import shutil
import sys
import tarfile
import tempfile
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import options
import safe_io

USER_AGENT = "deep-learning-homework-2 (download script of a university course; python-pooch)"
# identity: requests would unpack a .gz file that a server declares as gzip-encoded
HEADERS = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
RETRIES = 2  # after a failure that may pass: a lost connection, a cut transfer, wrong bytes, an error of the server
TIMEOUT = 10.0  # seconds to wait for a connection and for each part of an answer
RETRY_WAIT = 1.0  # seconds until a cut transfer goes on
CHUNK_BYTES = 2**16
MAX_DOWNLOAD = 200 * 2**20  # bytes of one file; the largest image set, octmnist.npz, has 55 MB
MAX_ATTRIBUTES = 2**16  # bytes of a long name, or of the other attributes of a member
MAX_OTHER = 2**26  # bytes of files that are not wanted, which are unpacked all the same
ATTRIBUTES = (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE)
PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
COPY_BYTES = 2**20  # at a time; each part that tarfile gives costs it a copy of what it has decompressed

# Of an `OSError` from a damaged archive: bz2 gives none, a seek to nowhere EINVAL.
DAMAGED_ERRNOS = (None, errno.EINVAL)


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
    parser.add_option("force", action="store_true", help="replace what is there")
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


@contextmanager
def one_process(path):
    """Only one process at a time works on `path`, a file or folder; the next one gets a `UserError`."""
    import filelock

    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise options.UserError(f"another process is fetching {path}; wait for it") from error
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def require_space(folder, n_bytes):
    """Raise `UserError` unless `n_bytes` are free where `folder` is."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise options.UserError(
            f"{folder} has {gigabytes(free)} free, {gigabytes(n_bytes)} are needed; "
            "free some space there or name another folder with -data_dir DIR"
        )


def require_time(deadline):
    """Raise `FetchError` after the deadline, a time of `time.monotonic`."""
    if time.monotonic() > deadline:
        raise FetchError("it took too long")


def gigabytes(n_bytes):
    """A size in words, in units of 10^9 bytes."""
    return f"{n_bytes / 1e9:.1f} GB"


def put_in_place(new, path, spare):
    """Move the folder `new` to `path`. What is at `path` moves into the folder `spare`, or stays where it is on a failure."""
    old = spare / f"old-{path.name}"
    try:
        if os.path.lexists(path):
            os.replace(path, old)
        os.replace(new, path)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.replace(old, path)
        raise


def one_line(error):
    """The message of an exception without line breaks; its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def file_hash(path, algorithm="sha256"):
    """Hexadecimal digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


class LimitedFile(io.BufferedWriter):
    """A file that never grows past `max_bytes`, so that neither a server nor an archive can fill the disk.

    It is new, or goes on after the first `keep` bytes of the file that is there. After the `deadline`, a time of
    `time.monotonic`, nothing is written any more.
    """

    def __init__(self, path, max_bytes, keep=0, deadline=math.inf):
        super().__init__(io.FileIO(path, "r+" if keep else "w"))
        self.seek(keep)
        self.truncate()
        self.room, self.deadline = max_bytes - keep, deadline

    def write(self, content):
        require_time(self.deadline)
        self.room -= len(content)
        if self.room < 0:
            raise TooLargeError("more bytes than expected")
        return super().write(content)


def fetch_files(mirrors, files, folder, timeout=TIMEOUT, max_bytes=MAX_DOWNLOAD, deadline=math.inf):
    """Download all of `files` from the first of `mirrors` that gives them, and say which it is.

    Args:
        mirrors: base URLs ending in "/".
        files: file name -> hash as pooch writes it ("md5:..."), or None where upstream changes its file.
        folder: where they go.
        timeout: seconds to wait for a connection and for each part of an answer.
        max_bytes: limit of one file.
        deadline: a time of `time.monotonic`; a transfer that goes on then is given up at its next part.

    Returns the paths in the order of `files`. Raises `FetchError`, one clause a mirror, if none gives them all.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    reasons = []
    for base_url in mirrors:
        print(f"fetching from {base_url}", flush=True)
        fetcher = pooch.create(path=folder, base_url=base_url, registry=files, retry_if_failed=RETRIES)
        try:
            return [_fetch(fetcher, name, timeout, max_bytes, deadline) for name in files]
        except FetchError as error:
            reasons.append(str(error))
    raise FetchError(", ".join(reasons))


def _judge(error, timeout):
    """What went wrong, in a few words (the messages of requests run over lines), and whether it may pass."""
    import requests

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


def _fetch(fetcher, name, timeout, max_bytes, deadline):
    """Path of one file of a `pooch.Pooch`, downloaded and verified; raises `FetchError` with the URL and a few words."""
    import pooch
    import requests

    http = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), chunk_size=CHUNK_BYTES, timeout=timeout, headers=HEADERS
    )

    def download(url, output_path, _):
        require_time(deadline)  # before another try
        try:
            with LimitedFile(output_path, max_bytes, deadline=deadline) as file:
                http(url, file, fetcher)
        except requests.RequestException as error:
            reason, may_pass = _judge(error, timeout)
            if may_pass:
                raise  # pooch tries again
            raise FetchError(reason) from error

    try:
        return Path(fetcher.fetch(name, downloader=download))
    except (FetchError, ValueError, requests.RequestException) as error:
        reason = error if isinstance(error, FetchError) else _judge(error, timeout)[0]
        raise FetchError(f"{fetcher.get_url(name)}: {reason}") from error


def fetch_large(url, path, n_bytes, sha256, timeout=TIMEOUT):
    """Download one file of `n_bytes` to `path`, and go on after what an earlier call left there.

    A transfer that breaks off goes on where it stopped as long as each try brings something, and `RETRIES` times more. A
    server that does not know ranges (RFC 9110, section 14) sends the file from its start, which replaces what was there.

    Raises `FetchError`. What came stays in `path` for the next call, unless it is not the published file.
    """
    import requests

    most, n_failures = file_size(path), 0
    try:
        while file_size(path) < n_bytes:
            try:
                _fetch_rest(url, path, n_bytes, timeout)
            except requests.RequestException as error:
                reason, may_pass = _judge(error, timeout)
                n_failures = 0 if file_size(path) > most else n_failures + 1
                most = max(most, file_size(path))
                if not may_pass or n_failures > RETRIES:
                    raise FetchError(reason) from error
                time.sleep(RETRY_WAIT)
        print(f"verifying {path.name}", flush=True)
        if file_hash(path) != sha256:
            path.unlink()
            raise FetchError("not the published bytes (the hash differs), and they were deleted")
    except FetchError as error:
        raise FetchError(f"{url}: {error}") from error


def file_size(path):
    """Bytes of a file, 0 if it is not there."""
    return os.path.getsize(path) if os.path.exists(path) else 0


def _fetch_rest(url, path, n_bytes, timeout):
    """Ask for what `path` lacks of its `n_bytes`, and write what comes."""
    import requests
    from tqdm import tqdm

    size = file_size(path)
    headers = HEADERS | ({"Range": f"bytes={size}-"} if size else {})
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        response.raise_for_status()
        start, total = _extent(response)
        # Before the first byte is written: an error page must not replace what has come.
        if total != n_bytes or start > size:
            raise FetchError(f"not the published file of {n_bytes:,} bytes")
        bar = tqdm(total=n_bytes, initial=start, unit="B", unit_scale=True, disable=not sys.stderr.isatty())
        with LimitedFile(path, n_bytes, keep=start) as file, bar:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
    if file_size(path) < n_bytes:  # urllib3 1 does not tell
        raise requests.exceptions.ChunkedEncodingError


def _extent(response):
    """(first byte of an answer, bytes of the whole file) as its headers say; `FetchError` if they do not."""
    import requests

    if response.status_code == requests.codes.partial_content:
        match = re.match(r"bytes (\d+)-\d+/(\d+)$", response.headers.get("Content-Range", ""))
    else:
        match = re.match(r"()(\d+)$", response.headers.get("Content-Length", ""))
    if match is None:
        raise FetchError("no valid answer")
    return int(match[1] or 0), int(match[2])


@contextmanager
def unpacking(origin, what):
    """What a damaged or hostile archive raises becomes a `UserError` that names its origin; trouble with the disk passes."""
    try:
        yield
    except (*safe_io.DAMAGED, OSError, TooLargeError) as error:
        if isinstance(error, OSError) and error.errno not in DAMAGED_ERRNOS:
            raise
        raise options.UserError(f"{origin} does not unpack to {what} ({one_line(error)}); fetch it again") from error


def unzip_member(archive, name, path, max_bytes=safe_io.MAX_UNPACKED, origin=None):
    """Unpack the one file `name` of a zip archive to `path`: the archive chooses neither where nor how much is written.

    Raises `UserError` if the archive is damaged, lacks that file, fails `safe_io.check_zip`, or if the file has more than
    `max_bytes`; it names the archive by its `origin`, or else by its path.
    """
    try:
        with unpacking(origin or archive, name), zipfile.ZipFile(archive) as zip_file:
            safe_io.check_zip(zip_file)
            with zip_file.open(name) as member, LimitedFile(path, max_bytes) as file:
                shutil.copyfileobj(member, file)
    except options.UserError:
        Path(path).unlink(missing_ok=True)
        raise


class PlainMember(tarfile.TarInfo):
    """A member of a tar archive, refused before tarfile reads on from its header if it is neither a file nor a folder.

    A long name or other attributes come as a member of their own, which tarfile reads into memory whatever its size. A sparse
    file counts as a regular one there, and may claim a size that takes ages to skip.
    """

    @classmethod
    def frombuf(cls, *args):
        member = super().frombuf(*args)
        is_attribute = member.type in ATTRIBUTES and 0 <= member.size <= MAX_ATTRIBUTES
        if not (is_attribute or member.type in PLAIN):
            raise ValueError(f"it has {member.name!r}, a link, a device or a name of {member.size:,} bytes")
        return member


def untar(archive, folder, wanted, max_files, max_bytes):
    """Unpack the files of a compressed tar archive whose whole names match the pattern `wanted` into `folder`.

    Plain files of other names are left out. Raises `UserError` if the archive is damaged, has a link, a device or a path out
    of its folder, more than `max_files` such files or `max_bytes` in them, or more than `MAX_OTHER` bytes in others.
    """
    from tqdm import tqdm

    safe_io.require_regular(archive)
    n_files, room, other_room = 0, max_bytes, MAX_OTHER
    hidden = not sys.stderr.isatty()
    # "r|*" only reads forwards: a step backwards would decompress the archive again from its start. The files are written
    # here and not by tarfile, whose filter="data" is missing in Python 3.11.0 to 3.11.3 and allows more than this.
    with (
        open(archive, "rb") as packed,
        tqdm.wrapattr(packed, "read", total=file_size(archive), desc="unpacking", disable=hidden) as watched,
        unpacking(archive, "files"),
        tarfile.open(fileobj=watched, mode="r|*", tarinfo=PlainMember) as tar,
    ):
        for member in tar:
            if safe_io.leaves_folder(member.name) or member.size < 0:
                raise ValueError(
                    f"it has {member.name!r} of {member.size:,} bytes, a path out of its folder or no size"
                )
            is_wanted = member.isreg() and re.fullmatch(wanted, member.name)
            if is_wanted:
                n_files, room = n_files + 1, room - member.size
            else:
                other_room -= tarfile.BLOCKSIZE + member.size
            if n_files > max_files or room < 0 or other_room < 0:
                raise TooLargeError(f"it has more than {max_files:,} files or {max_bytes:,} bytes")
            if not is_wanted:
                continue
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with tar.extractfile(member) as content, open(path, "wb") as file:
                shutil.copyfileobj(content, file, COPY_BYTES)
