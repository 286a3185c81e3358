"""download_tatoeba.py against a local server and on local files: what it writes, and what it refuses."""

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from argparse import Namespace

import pytest
from conftest import assert_user_error, finish, one_line_error, start, start_impatient
from hypothesis import given, settings
from hypothesis import strategies as st

import files
import options
from data import translation
from data.fetch import tatoeba

SCRIPT = "download_tatoeba.py"
N_PAIRS = 60
OLD_CONTENT = b"what the user had before"
LICENCE = "CC-BY 2.0 (France) Attribution: tatoeba.org #1 (a) & #2 (b)"


def letters(i):
    """A word for a number: digits do not survive the normal form."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(i))


# As upstream packages it: capitals, accents, a licence column, CRLF in one place, a sentence that is too long.
CORPUS = "".join(f"Word {letters(i)}.\t¡Años {letters(i)}!\t{LICENCE}\n" for i in range(N_PAIRS))
CORPUS += "Go!\tVete.\r\n" + f"This sentence is too long.\tEsta frase es demasiado larga.\t{LICENCE}\n"
CORPUS_BYTES = CORPUS.encode()
ALL_SHORT = {("go !", "vete .")} | {(f"word {letters(i)} .", f"anos {letters(i)} !") for i in range(N_PAIRS)}


def zip_bytes(members):
    """A zip archive of a dict from name to content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as zip_file:
        for name, content in members.items():
            zip_file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


ARCHIVE = zip_bytes({"_about.txt": b"about", "spa.txt": CORPUS_BYTES})
FILES = {tatoeba.ARCHIVE_NAME: ARCHIVE}


@pytest.fixture(autouse=True)
def few_pairs_are_enough(monkeypatch):
    monkeypatch.setattr(tatoeba, "MIN_PAIRS", N_PAIRS)


def install(data_dir, source=None, url=None, force=False):
    tatoeba.install(Namespace(source=source, data_dir=data_dir, url=url, force=force))


def write(path, content):
    path.write_bytes(content)
    return path


def assert_installed(data_dir):
    assert os.listdir(data_dir) == [translation.CORPUS_NAME]
    assert (data_dir / translation.CORPUS_NAME).read_bytes() == CORPUS_BYTES
    splits = translation.load("real", data_dir).pairs
    assert sum(map(len, splits.values())) == N_PAIRS + 1
    assert set().union(*splits.values()) == ALL_SHORT
    for split, pairs in splits.items():
        assert {translation.split_of(spanish) for _, spanish in pairs} == {split}


def test_the_fetched_corpus_is_kept_and_split(server, tmp_path, capsys):
    server.requests.clear()
    install(tmp_path, url=server.url + "flaky/")  # the first transfer is cut
    assert_installed(tmp_path)
    assert [path for path, _ in server.requests] == [f"/flaky/{tatoeba.ARCHIVE_NAME}"] * 2
    assert all("deep-learning-homework-2" in user_agent for _, user_agent in server.requests)
    stdout = capsys.readouterr().out
    for content in (ARCHIVE, CORPUS_BYTES):
        assert f"SHA-256 {hashlib.sha256(content).hexdigest()}" in stdout
    pairs = translation.load("real", tmp_path).pairs
    assert f"{len(pairs['train'])} train, {len(pairs['val'])} val, {len(pairs['test'])} test" in stdout


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("spa.txt", CORPUS_BYTES),
        ("my.ZIP", ARCHIVE),
        ("archive", ARCHIVE),
        ("tensorflows.zip", zip_bytes({"spa-eng/_about.txt": b"about", "spa-eng/spa.txt": CORPUS_BYTES})),
    ],
)
def test_a_local_copy_is_as_good(tmp_path, name, content, run_here):
    source = write(tmp_path / name, content)
    data_dir = tmp_path / "new" / "data"
    process = run_here(SCRIPT, "--source", source, "-data_dir", data_dir)
    assert (process.returncode, process.stderr) == (0, "")
    assert f"{data_dir / translation.CORPUS_NAME}: {N_PAIRS + 2} pairs, SHA-256" in process.stdout
    assert_installed(data_dir)


@pytest.mark.parametrize(("name", "content"), [("spa.txt", CORPUS_BYTES), ("spa-eng.zip", ARCHIVE)])
def test_a_corpus_that_was_cut_is_refused(tmp_path, name, content, run_here, monkeypatch):
    monkeypatch.setattr(tatoeba, "MIN_PAIRS", N_PAIRS + 3)
    source = write(tmp_path / name, content)
    process = run_here(SCRIPT, "--source", source, "-data_dir", tmp_path / "data")
    assert_user_error(process, str(source), f"{N_PAIRS + 2} sentence pairs", f"{N_PAIRS + 3}", "cut")
    assert os.listdir(tmp_path / "data") == []


def test_a_source_that_is_the_file_itself_is_read(tmp_path, capsys):
    install(tmp_path, source=write(tmp_path / "spa.txt", CORPUS_BYTES))
    assert_installed(tmp_path)
    assert "spa.txt is there and was read" in capsys.readouterr().out


def test_a_file_that_is_there_stays_without_force(tmp_path, capsys):
    source = write(tmp_path / "corpus.txt", CORPUS_BYTES)
    path = tmp_path / "data" / "spa.txt"
    path.parent.mkdir()
    path.write_bytes(b"hi .\thola .\n")
    install(path.parent, source=source)
    assert "-force would replace it" in capsys.readouterr().out
    assert path.read_bytes() == b"hi .\thola .\n"
    install(path.parent, source=source, force=True)
    assert_installed(path.parent)


def test_files_that_are_read_in_its_place_are_told(tmp_path, capsys):
    for name in translation.FILE_NAMES.values():
        write(tmp_path / name, b"hi .\thola .\n")
    install(tmp_path, source=write(tmp_path / "corpus.txt", CORPUS_BYTES))
    assert translation.load("real", tmp_path).pairs["train"] == [("hi .", "hola .")]
    warning = capsys.readouterr().err
    assert "train-eng-spa.txt, val-eng-spa.txt, test-eng-spa.txt" in warning and "course-eng-spa" in warning


def with_method(method):
    """The archive with another number where its directory says how spa.txt is compressed."""
    place = ARCHIVE.rindex(b"PK\x01\x02") + 10
    return ARCHIVE[:place] + bytes([method]) + ARCHIVE[place + 1 :]


HTML = b"<html><body>Not Acceptable!</body></html>\n"
BAD_ENCODING = CORPUS_BYTES + "Año.\tYear.\n".encode("latin-1")
BAD_TEXTS = {
    "empty": (b"", "no sentence pair"),
    "web page": (HTML, "line 1: no tab"),
    "without tabs": (CORPUS_BYTES + b"Go. Ve.\n", f"line {N_PAIRS + 3}: no tab"),
    "not UTF-8": (BAD_ENCODING, f"line {N_PAIRS + 3}: not UTF-8"),
    "binary": (bytes(range(256)), "not UTF-8"),
    "one pair": (b"Go.\tVe.\n", "1 sentence pairs, fewer than"),
}
BAD_ARCHIVES = {
    "empty": (b"", "not a zip file"),
    "web page": (HTML, "not a zip file"),
    "truncated": (ARCHIVE[:-30], "not a zip file"),
    "damaged": (
        ARCHIVE.replace(CORPUS_BYTES[:4], b"xxxx").replace(b"PK\x01\x02", b"PK\x01\x09", 1),
        "central directory",
    ),
    "compressed as bz2, it says": (with_method(12), "does not unpack"),
    "compressed as lzma, it says": (with_method(14), "lzma"),
    "a start before the file": (ARCHIVE[:-6] + bytes([0, 0, 0, 64]) + ARCHIVE[-2:], "does not unpack"),
    "another language": (zip_bytes({"por.txt": CORPUS_BYTES}), "0 files spa.txt"),
    "two of them": (zip_bytes({"a/spa.txt": CORPUS_BYTES, "b/spa.txt": CORPUS_BYTES}), "2 files spa.txt"),
    "without tabs": (zip_bytes({"spa.txt": HTML}), "line 1: no tab"),
    "not UTF-8": (zip_bytes({"spa.txt": BAD_ENCODING}), "not UTF-8"),
}
BAD_SOURCES = {f"{fault}.txt": case for fault, case in BAD_TEXTS.items()}
BAD_SOURCES |= {f"{fault}.zip": case for fault, case in BAD_ARCHIVES.items()}


@pytest.mark.parametrize("name", BAD_SOURCES)
def test_a_bad_source_is_refused(tmp_path, name):
    content, complaint = BAD_SOURCES[name]
    source = write(tmp_path / name, content)
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    old = write(data_dir / "spa.txt", OLD_CONTENT)
    with one_line_error(str(source), complaint):
        install(data_dir, source=source, force=True)
    assert sorted(tmp_path.rglob("*")) == sorted([source, data_dir, old])
    assert old.read_bytes() == OLD_CONTENT


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_UNPACKED", len(b"about" + CORPUS_BYTES))
    install(tmp_path / "fits", source=write(tmp_path / "spa-eng.zip", ARCHIVE))
    larger = b"about\n" + CORPUS_BYTES
    with one_line_error("larger.zip", f"more than {files.MAX_UNPACKED:,} bytes"):
        install(tmp_path / "data", source=write(tmp_path / "larger.zip", zip_bytes({"spa.txt": larger})))


@pytest.mark.parametrize(
    "archive", [HTML, BAD_ARCHIVES["damaged"][0], ARCHIVE], ids=["web page", "damaged", "few pairs"]
)
def test_what_a_server_gives_is_verified(server, tmp_path, monkeypatch, archive):
    monkeypatch.setattr(tatoeba, "MIN_PAIRS", N_PAIRS + 3)
    monkeypatch.setitem(FILES, tatoeba.ARCHIVE_NAME, archive)
    with one_line_error(tatoeba.ARCHIVE_NAME, "-source PATH"):
        install(tmp_path, url=server.url + "good/")
    assert not any(tmp_path.iterdir())


BAD_SERVERS = {
    "404": "error 404",
    "cut": "the transfer broke off",
    "slow": "no answer within 0.5 s",
    "wrong": "not a zip file",
    "redirect": "no valid URL, proxy or answer",
    "refused": "no connection",
}


@pytest.fixture(scope="module")
def on_bad_servers(server, tmp_path_factory):
    """(data folder, process) by the server's behaviour; started together, for there is a wait between the tries."""
    processes = {}
    for behaviour in BAD_SERVERS:
        data_dir = tmp_path_factory.mktemp(behaviour)
        (data_dir / "spa.txt").write_bytes(OLD_CONTENT)
        url = "http://127.0.0.1:1" if behaviour == "refused" else server.url + behaviour
        begin = start_impatient if behaviour == "slow" else start  # the others answer in their time
        processes[behaviour] = data_dir, begin(SCRIPT, "-url", url, "-data_dir", data_dir, "-force")
    yield processes
    for _, process in processes.values():
        process.kill()


@pytest.mark.parametrize("behaviour", BAD_SERVERS)
def test_a_bad_server_costs_one_line_and_no_file(on_bad_servers, behaviour):
    data_dir, process = on_bad_servers[behaviour]
    code, _, stderr = finish(process)
    assert code == options.USER_ERROR
    assert stderr.startswith(f"{SCRIPT}: error: ")
    assert stderr.count("\n") == 1
    assert BAD_SERVERS[behaviour] in stderr
    assert "-source PATH" in stderr
    assert os.listdir(data_dir) == ["spa.txt"]
    assert (data_dir / "spa.txt").read_bytes() == OLD_CONTENT


def test_sources_and_folders_that_cannot_be_used(tmp_path):
    for source in (tmp_path / "nothing", tmp_path):
        with one_line_error(str(source), "-source takes"):
            install(tmp_path / "data", source=source)
    source = write(tmp_path / "spa.txt", CORPUS_BYTES)
    with one_line_error("cannot write", "-data_dir DIR"):
        install(source / "data", source=source)  # a folder inside a file


@pytest.mark.parametrize("name", ["spa-eng.rar", "spa.txt.gz", "spa-eng.tar.xz"])
def test_another_archive_is_no_text(tmp_path, name):
    with one_line_error(name, "no tab"):
        install(tmp_path / "data", source=write(tmp_path / name, b"whatever is in it"))


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_archive_gives_one_line_or_the_right_pairs(tmp_path_factory, data):
    content = bytearray(ARCHIVE)
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    folder = tmp_path_factory.mktemp("damaged")
    try:
        install(folder / "data", source=write(folder / "spa-eng.zip", bytes(content)))
    except options.UserError as error:
        assert "\n" not in str(error)
        assert "cannot write" not in str(error)  # the disk is not to blame
        assert not any((folder / "data").iterdir())
    else:
        assert_installed(folder / "data")


def test_torch_is_never_imported_nor_anything_heavy_for_help(tmp_path):
    source = write(tmp_path / "spa.txt", CORPUS_BYTES)
    for args, heavy in (
        (["--help"], {"numpy", "requests", "torch"}),
        (["-source", source, "-data_dir", tmp_path / "data"], {"requests", "torch"}),
    ):
        command = [sys.executable, "-X", "importtime", options.ROOT / SCRIPT, *args]
        process = subprocess.run(command, capture_output=True, text=True)
        assert "Traceback" not in process.stderr and ("cut" in process.stderr) == (args[0] != "--help")
        imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
        assert "options" in imported
        assert not imported & heavy
