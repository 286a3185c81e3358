"""The download scripts against a local server, and what they refuse."""

import dataclasses
import errno
import gzip
import hashlib
import io
import os
import struct
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from conftest import finish, one_line_error, start, start_impatient
from hypothesis import given, settings
from hypothesis import strategies as st

import files
import options
from data import images
from data.fetch import download, image_sets

SCRIPTS = ("download_kuzushiji_mnist.py", "download_octmnist.py", "download_fashion_mnist.py")
SIZES = (20, 10, 10)
N_CLASSES = 10
OLD_CONTENT = b"what the user had before"

# A set with all that the real ones have, in the IDX files that its server gives.
rng = np.random.default_rng(0)
OFFICIAL = {
    "train_images": rng.integers(256, size=(30, 28, 28), dtype=np.uint8),
    "train_labels": rng.permutation(np.arange(30, dtype=np.uint8) % N_CLASSES),
    "test_images": rng.integers(256, size=(10, 28, 28), dtype=np.uint8),
    "test_labels": rng.permutation(np.arange(10, dtype=np.uint8)),
}


def idx_bytes(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


FILES = {  # what the server of conftest.py gives
    name: gzip.compress(idx_bytes(array), mtime=0)
    for name, array in zip(image_sets.FASHION_MNIST.files, OFFICIAL.values(), strict=True)
}


def sorted_hash(part):
    """What `content_hashes` hold: SHA-256 of the pairs of a label and an image, sorted as bytes."""
    rows = [bytes([label]) + image.tobytes() for label, image in zip(*(OFFICIAL[f"{part}_{k}"] for k in KINDS))]
    return hashlib.sha256(b"".join(sorted(rows))).hexdigest()


KINDS = ("labels", "images")
SMALL = dataclasses.replace(
    image_sets.FASHION_MNIST,
    files={name: f"md5:{hashlib.md5(content).hexdigest()}" for name, content in FILES.items()},
    sizes=SIZES,
    content_hashes={part: sorted_hash(part) for part in ("train", "test")},
)
ARRAYS = images.split_official(*OFFICIAL.values(), SIZES[0])
SPLIT_ROWS = {"train": slice(0, SIZES[0]), "val": slice(SIZES[0], None)}


def npz_bytes(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.fixture
def small_script(tmp_path):
    """The path of a download script for the small set."""
    path = tmp_path / "download_small.py"
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(options.ROOT)!r})\n"
        "import options\nfrom data.fetch import download, image_sets\n"
        f"SMALL = image_sets.{SMALL!r}\n"
        "options.run_script(lambda: image_sets.install(SMALL, download.parse_args('A small set.', '')))\n"
    )
    return path


def install(image_set, data_dir, source=None, url=None, force=False):
    image_sets.install(image_set, Namespace(source=source, data_dir=data_dir, url=url, force=force))


def assert_arrays_equal(arrays, expected):
    assert list(arrays) == list(expected)
    for key in expected:
        np.testing.assert_array_equal(arrays[key], expected[key], err_msg=key, strict=True)


def test_a_fetched_set_is_verified_split_and_put_in_place(server, small_script, tmp_path):
    server.requests.clear()
    path = tmp_path / "data" / "fashion_mnist.npz"
    arguments = ("-url", server.url + "good", "--data_dir", path.parent)
    code, stdout, stderr = finish(start(small_script, *arguments))
    assert (code, stderr) == (0, "")  # no progress bar either: this is no terminal
    assert f"fetching from {server.url}good/" in stdout
    assert f"{path}: 20 train, 10 val, 10 test images" in stdout
    assert f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in stdout
    assert [request for request, _ in server.requests] == [f"/good/{name}" for name in FILES]
    assert all("deep-learning-homework-2" in user_agent for _, user_agent in server.requests)
    assert os.listdir(path.parent) == [path.name]

    order = np.random.default_rng(42).permutation(30)
    expected = {
        "train_images": OFFICIAL["train_images"][order[:20]],
        "train_labels": OFFICIAL["train_labels"][order[:20]],
        "val_images": OFFICIAL["train_images"][order[20:]],
        "val_labels": OFFICIAL["train_labels"][order[20:]],
        "test_images": OFFICIAL["test_images"],
        "test_labels": OFFICIAL["test_labels"],
    }
    with np.load(path, allow_pickle=False) as npz:
        assert_arrays_equal(dict(npz), expected)

    server.requests.clear()
    code, stdout, _ = finish(start(small_script, *arguments))
    assert code == 0
    assert "is there and verified" in stdout
    assert not server.requests


def test_a_damaged_file_is_reported_and_replaced_only_with_force(server, tmp_path):
    path = tmp_path / "fashion_mnist.npz"
    path.write_bytes(OLD_CONTENT)
    with one_line_error(str(path), "-force"):
        install(SMALL, tmp_path, url=server.url + "good/")
    assert path.read_bytes() == OLD_CONTENT
    install(SMALL, tmp_path, url=server.url + "good/", force=True)
    assert_arrays_equal(images.read_npz(path), ARRAYS)


BAD_SERVERS = {
    "404": "error 404",
    "503": "error 503",
    "cut": "the transfer broke off",
    "slow": "no answer within 0.5 s",
    "wrong": "not the published bytes",
    "redirect": "no valid URL, proxy or answer",
    "refused": "no connection",
}


@pytest.fixture(scope="module")
def on_bad_servers(server, tmp_path_factory):
    """(script, data folder, process) by the server's behaviour; started together, for there are waits."""
    processes = {}
    for i, behaviour in enumerate(BAD_SERVERS):
        data_dir = tmp_path_factory.mktemp(behaviour)
        script = SCRIPTS[i % len(SCRIPTS)]
        (data_dir / script.removeprefix("download_").replace(".py", ".npz")).write_bytes(OLD_CONTENT)
        url = "http://127.0.0.1:1" if behaviour == "refused" else server.url + behaviour
        begin = start_impatient if behaviour == "slow" else start  # the others answer in their time
        process = begin(script, "-url", url, "-data_dir", data_dir, "-force")
        processes[behaviour] = script, data_dir, process
    yield processes
    for _, _, process in processes.values():
        process.kill()


@pytest.mark.parametrize("behaviour", BAD_SERVERS)
def test_a_bad_server_costs_one_line_and_no_file(on_bad_servers, behaviour):
    script, data_dir, process = on_bad_servers[behaviour]
    code, _, stderr = finish(process)
    assert code == options.USER_ERROR
    assert stderr.startswith(f"{script}: error: ")
    assert stderr.count("\n") == 1
    assert BAD_SERVERS[behaviour] in stderr
    assert "-source PATH" in stderr
    (path,) = data_dir.iterdir()
    assert path.read_bytes() == OLD_CONTENT


def test_a_cut_transfer_is_tried_again(server, tmp_path):
    name = "t10k-labels-idx1-ubyte.gz"
    (path,) = download.fetch_files([server.url + "flaky/"], {name: SMALL.files[name]}, tmp_path)
    assert path.read_bytes() == FILES[name]
    assert [request for request, _ in server.requests].count(f"/flaky/{name}") == 2


def test_the_next_mirror_is_asked_and_each_is_named(server, tmp_path, capsys):
    mirrors = [server.url + "404/", server.url + "good/"]
    paths = download.fetch_files(mirrors, SMALL.files, tmp_path)
    assert [path.read_bytes() for path in paths] == list(FILES.values())
    assert capsys.readouterr().out.splitlines() == [f"fetching from {mirror}" for mirror in mirrors]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("http_proxy", "http://127.0.0.1:1", "the proxy does not answer"),
        ("http_proxy", "bogus://host:1", "Proxy URL had unsupported scheme"),
        ("http_proxy", "http://" + "x" * 300, "proxy"),
        ("REQUESTS_CA_BUNDLE", "/no/such/file", "/no/such/file"),
    ],
)
def test_wrong_settings_of_the_network_are_not_taken_for_a_full_disk(tmp_path, monkeypatch, name, value, complaint):
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setattr(download, "RETRY_WAIT", 0)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv(name, value)
    url = "https://127.0.0.1:1/" if name == "REQUESTS_CA_BUNDLE" else "http://127.0.0.1:1/"
    for fetch in (
        lambda folder: download.fetch_files([url], {"a": None}, folder),
        lambda folder: download.fetch(f"{url}a", folder / "a", None),
    ):
        with one_line_error(f"{url}a", complaint), download.workspace(tmp_path) as folder:
            fetch(folder)


def test_trouble_in_the_data_folder_is_told_as_such(tmp_path):
    data_dir = tmp_path / "data"
    with one_line_error(f"cannot write in {data_dir}", "-data_dir"), download.workspace(data_dir) as folder:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder / "a"))


@pytest.mark.parametrize("n_steps", [1, 2])  # the step that fails; three would be one too many
def test_what_was_in_a_place_comes_back_on_a_failure(n_steps, tmp_path, monkeypatch):
    new, path, replace, calls = tmp_path / "new", tmp_path / "a", os.replace, []
    new.write_text("new")
    path.write_text("old")

    def one_fails(*paths):
        calls.append(paths)
        if len(calls) == n_steps:
            raise OSError(errno.EIO, "Input/output error")
        replace(*paths)

    monkeypatch.setattr(os, "replace", one_fails)
    with pytest.raises(OSError, match="Input/output error"):
        download.put_in_place(new, path, tmp_path / "spare")
    assert (new.read_text(), path.read_text()) == ("new", "old")
    calls += [None, None]
    download.put_in_place(new, path, tmp_path / "spare")
    assert path.read_text() == "new"


def write_source(folder, layout):
    """The small set as a user may have it already; the path that -source gets."""
    course_arrays = {
        course_key: ARRAYS[key].reshape(len(ARRAYS[key]), -1) / 256 if key.endswith("images") else ARRAYS[key]
        for key, course_key in zip(images.MEDMNIST_KEYS, images.COURSE_KEYS, strict=True)
    }
    if layout == "gz":
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
        return folder
    if layout == "idx":
        for name, content in FILES.items():
            (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
        return folder
    path = folder / f"{layout}.npz"
    if layout == "medmnist":
        column_labels = {key: array[:, None] for key, array in ARRAYS.items() if key.endswith("labels")}
        path.write_bytes(npz_bytes(**ARRAYS | column_labels))
    else:
        path.write_bytes(npz_bytes(**course_arrays))
    return path


@pytest.mark.parametrize("layout", ["gz", "idx", "medmnist", "course"])
def test_every_layout_that_users_have_gives_the_same_arrays(tmp_path, layout):
    source = write_source(tmp_path, layout)
    install(SMALL, tmp_path / "data", source=source)
    assert_arrays_equal(images.read_npz(tmp_path / "data" / "fashion_mnist.npz"), ARRAYS)


@pytest.mark.parametrize("layout", ["npz", "gz"])
def test_a_file_that_was_compressed_again_is_taken(tmp_path, layout):
    source = write_source(tmp_path, "gz")
    if layout == "npz":
        source = tmp_path / "again.npz"
        np.savez_compressed(source, **ARRAYS)
    else:
        for name, content in FILES.items():
            again = gzip.compress(gzip.decompress(content), compresslevel=1, mtime=1)
            assert again != content
            (tmp_path / name).write_bytes(again)
    install(SMALL, tmp_path / "data", source=source)
    assert_arrays_equal(images.read_npz(tmp_path / "data" / "fashion_mnist.npz"), ARRAYS)


def test_another_split_of_the_published_images_is_taken_as_it_is(tmp_path):
    order = np.random.default_rng(1).permutation(30)
    official = [OFFICIAL[f"train_{kind}"][order] for kind in KINDS]
    other = {f"{split}_{k}": a[rows] for k, a in zip(KINDS, official) for split, rows in SPLIT_ROWS.items()}
    np.savez(tmp_path / "source.npz", **ARRAYS | other)
    install(SMALL, tmp_path / "data", source=tmp_path / "source.npz")
    assert_arrays_equal(images.read_npz(tmp_path / "data" / "fashion_mnist.npz"), ARRAYS | other)


def test_a_source_that_is_the_destination_may_be_replaced(tmp_path):
    path = write_source(tmp_path, "course").rename(tmp_path / "fashion_mnist.npz")
    install(SMALL, tmp_path, source=path, force=True)
    with np.load(path) as npz:
        assert list(npz) == list(images.MEDMNIST_KEYS)


ONE_PIXEL = np.zeros_like(ARRAYS["val_images"])
ONE_PIXEL[3, 5, 7] = 1
LABELS_TOO_LARGE = ARRAYS["val_labels"] + N_CLASSES
BAD_NPZ = {
    "empty": (b"", "not a zip file"),
    "text": (b"Not Found", "not a zip file"),
    "truncated": (npz_bytes(**ARRAYS)[:-100], "not a zip file"),
    "pickle": (npz_bytes(**ARRAYS | {"val_labels": np.array([None])}), "allow_pickle=False"),
    "other keys": (npz_bytes(x=ARRAYS["val_images"]), "train_images"),
    "floats": (npz_bytes(**ARRAYS | {"val_images": ARRAYS["val_images"] / 2}), "whole numbers from 0 to 255"),
    "text labels": (npz_bytes(**ARRAYS | {"val_labels": np.array(["a"])}), "whole numbers from 0 to 255"),
    "another size": (npz_bytes(**ARRAYS | {"val_labels": ARRAYS["val_labels"][1:]}), "10 images and 9 labels"),
    "another class": (npz_bytes(**ARRAYS | {"val_labels": LABELS_TOO_LARGE}), "not 9"),
    "swapped": (npz_bytes(**ARRAYS | {"test_images": ARRAYS["test_images"][::-1]}), "its test images"),
    "other labels": (npz_bytes(**ARRAYS | {"test_labels": ARRAYS["test_labels"] * 0}), "its test images"),
    "one pixel": (npz_bytes(**ARRAYS | {"val_images": ARRAYS["val_images"] ^ ONE_PIXEL}), "its train and val images"),
}


@pytest.mark.parametrize("fault", BAD_NPZ)
def test_a_bad_npz_is_refused(tmp_path, fault):
    content, complaint = BAD_NPZ[fault]
    source = tmp_path / "source.npz"
    source.write_bytes(content)
    path = tmp_path / "data" / "fashion_mnist.npz"
    path.parent.mkdir()
    path.write_bytes(OLD_CONTENT)
    with one_line_error(str(source), complaint, "-dataset PATH"):
        install(SMALL, path.parent, source=source, force=True)
    assert sorted(os.listdir(tmp_path)) == ["data", source.name]
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == OLD_CONTENT


def test_an_npz_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_UNPACKED", 10_000)
    source = tmp_path / "source.npz"
    np.savez_compressed(source, **{name: np.zeros_like(array) for name, array in ARRAYS.items()})
    with one_line_error("unpacks to more than 10,000 bytes"):
        install(SMALL, tmp_path, source=source)


def test_a_source_that_is_not_there_or_incomplete(tmp_path):
    with one_line_error("does not exist", "-source takes"):
        install(SMALL, tmp_path, source=tmp_path / "nothing")
    source = write_source(tmp_path, "gz")
    (source / "t10k-labels-idx1-ubyte.gz").unlink()
    with one_line_error("t10k-labels-idx1-ubyte.gz", SMALL.homepage):
        install(SMALL, tmp_path, source=source)


@pytest.mark.parametrize("name", ["images.zip", "images.rar", "images.tar.gz", "images.7Z"])
def test_an_archive_of_images_is_no_image_set(tmp_path, name):
    (tmp_path / name).write_bytes(b"whatever is in it")
    with one_line_error(name, "-source takes the published data"):
        install(SMALL, tmp_path / "data", source=tmp_path / name)
    with one_line_error(f"{name} is not an image set", "-dataset"):
        images.load(str(tmp_path / name))


VALUES = bytes(range(6))
HEADER = struct.pack(">HBBII", 0, 8, 2, 2, 3)
BAD_IDX = {
    "empty": b"",
    "a short header": HEADER[:-1],
    "another type": struct.pack(">HBBII", 0, 0x0D, 2, 2, 3) + VALUES,
    "another number of dimensions": struct.pack(">HBBI", 0, 8, 1, 6) + VALUES,
    "another size": struct.pack(">HBBII", 0, 8, 2, 3, 2) + VALUES,
    "too short": HEADER + VALUES[:-1],
    "too long": HEADER + VALUES + b"\0",
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_and_checked(tmp_path, suffix):
    path = tmp_path / f"idx{suffix}"
    pack = gzip.compress if suffix else bytes
    path.write_bytes(pack(HEADER + VALUES))
    np.testing.assert_array_equal(image_sets.read_idx(path, (2, 3)), [[0, 1, 2], [3, 4, 5]])
    for content in BAD_IDX.values():
        path.write_bytes(pack(content))
        with pytest.raises(ValueError, match="IDX file|values of its header"):
            image_sets.read_idx(path, (2, 3))
    path.write_bytes(gzip.compress(HEADER + VALUES)[:-9])  # the values, without gzip's checksum
    with pytest.raises((EOFError, ValueError)):
        image_sets.read_idx(path, (2, 3))


@settings(max_examples=200)
@given(st.sampled_from(["idx", "gz", "npz"]), st.data())
def test_a_damaged_file_gives_one_line_or_the_right_arrays(tmp_path_factory, kind, data):
    folder = tmp_path_factory.mktemp("damaged")
    if kind == "npz":
        source = victim = write_source(folder, "medmnist")
    else:
        source = write_source(folder, kind)
        victim = data.draw(st.sampled_from(sorted(source.iterdir())))
    content = bytearray(victim.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    victim.write_bytes(content)
    try:
        arrays = image_sets.load(SMALL, image_sets.find_files(SMALL, source), "advice")
    except options.UserError as error:
        assert "\n" not in str(error)
    else:
        assert_arrays_equal(arrays, ARRAYS)


def test_octmnist_is_kept_as_published(server, tmp_path, monkeypatch):
    n_classes = 4
    arrays = {key: array % n_classes if key.endswith("labels") else array for key, array in ARRAYS.items()}
    content = npz_bytes(**arrays)
    monkeypatch.setitem(FILES, "octmnist.npz", content)
    known_hash = f"md5:{hashlib.md5(content).hexdigest()}"
    small = dataclasses.replace(image_sets.OCTMNIST, files={"octmnist.npz": known_hash}, sizes=SIZES)
    install(small, tmp_path, url=server.url + "good/")
    path = tmp_path / "octmnist.npz"
    assert path.read_bytes() == content
    install(small, tmp_path / "again", source=path)
    assert (tmp_path / "again" / "octmnist.npz").read_bytes() == content
    path.write_bytes(npz_bytes(**arrays | {"note": np.zeros(1)}))
    with one_line_error("its MD5 is not that of the published file"):
        install(small, tmp_path / "third", source=path)


def test_a_disk_that_is_full_or_closed(tmp_path, monkeypatch):
    source = write_source(tmp_path, "medmnist")
    with one_line_error("cannot write"):
        install(SMALL, source / "data", source=source)  # a folder inside a file

    data_dir = tmp_path / "data"
    data_dir.mkdir()
    path = data_dir / "fashion_mnist.npz"
    path.write_bytes(OLD_CONTENT)

    def write_half(path, content):
        with open(path, "wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_half)
    with one_line_error("cannot write", "No space left on device"):
        install(SMALL, data_dir, source=source, force=True)
    assert os.listdir(data_dir) == [path.name]
    assert path.read_bytes() == OLD_CONTENT


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_imports_nothing_heavy(script):
    process = subprocess.run(
        [sys.executable, "-X", "importtime", str(options.ROOT / script), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert "options" in imported
    assert not imported & {"numpy", "requests", "sklearn", "torch"}
    assert "-source PATH" in process.stdout


@pytest.mark.parametrize("args", [["-url", "ftp://host/"], ["-url", "http://host/", "-source", "."]])
def test_wrong_options_are_one_line(args):
    code, _, stderr = finish(start(SCRIPTS[0], *args))
    assert code == options.USER_ERROR
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("image_set", [image_sets.KUZUSHIJI_MNIST, image_sets.FASHION_MNIST])
def test_the_official_training_set_is_split_as_documented(image_set):
    n_official = 60_000
    rows = np.arange(n_official)
    arrays = images.split_official(rows, rows, rows[:10_000], rows[:10_000], image_set.sizes[0])
    order = np.random.default_rng(42).permutation(n_official)
    np.testing.assert_array_equal(arrays["train_images"], order[:50_000])
    np.testing.assert_array_equal(arrays["val_labels"], order[50_000:])
    np.testing.assert_array_equal(arrays["test_images"], rows[:10_000])
    # A new numpy may draw other numbers from the same seed; users' files and every figure rest on these.
    assert order[:3].tolist() == [3493, 57546, 8815]
    assert order[-3:].tolist() == [5668, 22113, 9864]


# SHA-256 of the official arrays in published order: training images and labels, test images and labels.
PUBLISHED = {
    "kuzushiji_mnist": (
        "a739bf427aa2dfc5c56d12f608684bc6db28276246c1b912b0416ba34349a7ca",
        "691c5342313eaef4a0b4d33645442ae1b98f13bd2066e67b551fdd4972ef71ea",
        "dc10e73c6e83fb3fb3586eafece217ab6602e7825fa7d49399359bde3fc66f07",
        "77d83a49ca5434c5da77399edc7143065cb3a7b0834e2898ea3094e8c2b21a3c",
    ),
    "fashion_mnist": (
        "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
        "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_content_hashes_are_those_of_the_published_arrays(name):
    path = options.DATA_DIR / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"needs python download_{name}.py")
    arrays = image_sets.load(getattr(image_sets, name.upper()), [path], "advice")
    order = np.random.default_rng(42).permutation(60_000)
    train = {}
    for kind in ("images", "labels"):
        shuffled = np.concatenate([arrays[f"{split}_{kind}"] for split in ("train", "val")])
        train[kind] = np.empty_like(shuffled)
        train[kind][order] = shuffled
    official = train["images"], train["labels"], arrays["test_images"], arrays["test_labels"]
    assert tuple(hashlib.sha256(array).hexdigest() for array in official) == PUBLISHED[name]
