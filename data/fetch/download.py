"""Fetch files, check them and unpack them: what every `download_*.py` script needs.

requests and tqdm are imported where they are used, so that `--help` answers at once.
"""

import functools
import hashlib
import os
import sys
import tarfile
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import files
import options
from options import UserError

USER_AGENT = "deep-learning-homework-2 (download script of a university course)"
# identity: requests would unpack a .gz file that a server declares as gzip-encoded
HEADERS = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
RETRIES = 2
TIMEOUT = 10.0  # seconds to wait for a connection and for each part of an answer
RETRY_WAIT = 1.0  # seconds until a cut transfer goes on
CHUNK_BYTES = 2**16
REPLACING = "name another folder with -data_dir; -force would replace what is there"


class FetchError(UserError):
    """A download failed."""


def parse_args(description, source_help, argv=None):
    """The options of a download script; `url` is None or a base URL that ends in a slash."""
    parser = options.Parser(description)
    parser.add_option("source", type=Path, metavar="PATH", help=f"take it from PATH: {source_help}")
    help = "data folder (default: data)"
    parser.add_option("data_dir", type=Path, default=options.DATA_DIR, metavar="DIR", help=help)
    parser.add_option("url", help="fetch the files from this base URL and no other")
    parser.add_option("force", action="store_true", help="replace what is there")
    args = parser.parse_args(argv)
    if args.source is not None and args.url is not None:
        parser.error("-source and -url exclude each other")
    args.url = args.url and args.url.rstrip("/") + "/"
    return args


def script(description, source_help, install):
    """`parse_args` and `main` of a script that fetches a data set, which `install(args)` puts into the data folder."""
    parse = functools.partial(parse_args, description, source_help)
    return parse, lambda argv=None: install(parse(argv))


def image_script(name, source_help):
    """`script` for an image set."""

    def install(args):
        from data.fetch import image_sets  # which imports NumPy

        image_sets.install(getattr(image_sets, name.upper()), args)

    return script(f"Fetch the images, verify them and write data/{name}.npz.", source_help, install)


@contextmanager
def workspace(data_dir):
    """A temporary folder inside `data_dir`, deleted at the end. An error of the disk becomes a `UserError`."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as folder:
            yield Path(folder)
    except OSError as error:
        advice = "free some space there or name another folder with -data_dir DIR"
        raise UserError(f"cannot write in {data_dir} ({files.reason_of(error)}); {advice}") from error


def put_in_place(new, path, spare):
    """Move a file or folder to its place. What was there is moved to the path `spare`, and comes back on a failure."""
    try:
        if os.path.lexists(path):
            os.replace(path, spare)
        os.replace(new, path)
    except BaseException:
        if os.path.lexists(spare) and not os.path.lexists(path):
            os.replace(spare, path)
        raise


def file_hash(path, algorithm="sha256"):
    """Hexadecimal digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fetch_files(mirrors, registry, folder):
    """Download all files of `registry` from the first of `mirrors` that has them, and print its address.

    Args:
        mirrors: base URLs ending in "/".
        registry: file name -> `known_hash` of `fetch`.

    Returns the paths in the order of `registry`. Raises `FetchError`, one clause a mirror, if none gives them all.
    """
    reasons = []
    for base_url in mirrors:
        print(f"fetching from {base_url}", flush=True)
        try:
            for name, known_hash in registry.items():
                fetch(base_url + name, folder / name, known_hash)
            return [folder / name for name in registry]
        except FetchError as error:
            reasons.append(str(error))
    raise FetchError(", ".join(reasons))


def _network_reason(error):
    """What went wrong in a few words, since messages of requests are long; an error of the disk is raised again."""
    import requests

    if isinstance(error, requests.HTTPError):
        return f"error {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the transfer broke off"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not answer (the environment variables http_proxy and https_proxy name it)"
    if isinstance(error, requests.ConnectionError):
        return "no connection, or it was lost"
    # What is left of requests and urllib3 is a wrong URL, proxy or certificate. An error of the disk has a number.
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    return f"no valid URL, proxy or answer ({files.reason_of(error)})"


def fetch(url, path, known_hash, n_bytes=None):
    """Download one file to `path`, and go on after what an earlier call left there.

    A transfer that breaks off goes on where it stopped as long as each try brings something, and `RETRIES` times more.
    A server that does not know ranges (RFC 9110, section 14) sends the file from its start, which replaces what was
    there.

    Args:
        known_hash: such as "md5:...", or None where upstream changes its file.
        n_bytes: the size of the file, if it is known.

    Raises `FetchError`. What came stays in `path` for the next call, unless it is not the published file.
    """
    most, n_failures, is_whole = file_size(path), 0, n_bytes is not None and file_size(path) >= n_bytes
    while not is_whole:
        try:
            _fetch_rest(url, path, n_bytes)
            is_whole = True
        except (OSError, ValueError) as error:
            reason = _network_reason(error)
            n_failures = 0 if file_size(path) > most else n_failures + 1
            most = max(most, file_size(path))
            if n_failures > RETRIES:
                raise FetchError(f"{url}: {reason}") from error
            time.sleep(RETRY_WAIT)
    if known_hash is not None:
        algorithm, digest = known_hash.split(":")
        if file_hash(path, algorithm) != digest:
            path.unlink()
            raise FetchError(f"{url}: not the published bytes (the hash differs), and they were deleted")


def file_size(path):
    """Bytes of a file, 0 if it is not there."""
    return os.path.getsize(path) if os.path.exists(path) else 0


def _fetch_rest(url, path, n_bytes):
    """Request the bytes that `path` does not have yet, and append them; `n_bytes` of `fetch`."""
    import requests
    from tqdm import tqdm

    size = file_size(path)
    headers = HEADERS | ({"Range": f"bytes={size}-"} if size else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        start = size if response.status_code == requests.codes.partial_content else 0
        total = start + int(response.headers.get("Content-Length", 0))
        # Before the first byte is written: an error page must not replace what has come.
        if n_bytes not in (None, total):
            raise FetchError(f"{url}: not the published file of {n_bytes:,} bytes")
        bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, disable=not sys.stderr.isatty())
        with open(path, "rb+" if start else "wb") as file, bar:
            file.seek(start)
            file.truncate()
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
    if file_size(path) < total:  # urllib3 1 raises nothing for a cut transfer
        raise requests.exceptions.ChunkedEncodingError


def untar(archive, folder):
    """Unpack a compressed tar archive, whose hash is known, into `folder`."""
    from tqdm import tqdm

    bar = {"desc": "unpacking", "total": file_size(archive), "disable": not sys.stderr.isatty()}
    # "r|*" only reads forwards: a step backwards would decompress the archive again from its start.
    with (
        open(archive, "rb") as packed,
        tqdm.wrapattr(packed, "read", **bar) as watched,
        tarfile.open(fileobj=watched, mode="r|*") as tar,
    ):
        tar.extractall(folder, filter="data")
