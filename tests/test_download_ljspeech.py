"""download_ljspeech.py against a local server and on local files: what it fetches and keeps, and what it refuses."""

import errno
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from argparse import Namespace

import numpy as np
import pytest
from conftest import ROOT, TIMEOUT, assert_user_error, one_line_error
from tqdm import tqdm

import options
from data.fetch import download, ljspeech

SCRIPT = "download_ljspeech.py"
NAME = ljspeech.FOLDER_NAME
N_CLIPS = 3
CLIPS = {f"wavs/LJ001-{i:04d}.wav": np.random.default_rng(i).bytes(9_000 + i) for i in range(1, N_CLIPS + 1)}
LINES = "".join(f"LJ001-{i:04d}|Dr. {i}|Doctor {i}\n" for i in range(1, N_CLIPS + 1)).encode()
SET = {"README": b"about", "metadata.csv": LINES, **CLIPS}
N_BYTES = sum(map(len, SET.values()))


def member(name, content=b"", **attributes):
    """One member of a tar archive, and its content."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for attribute, value in attributes.items():
        setattr(header, attribute, value)
    return header, content


def tar_bytes(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:bz2") as tar:
        for header, content in members:
            tar.addfile(header, io.BytesIO(content))
    return file.getvalue()


MEMBERS = [
    member(NAME, type=tarfile.DIRTYPE, mode=0o755),
    member(f"{NAME}/wavs", type=tarfile.DIRTYPE, mode=0o755),
    *(member(f"{NAME}/{name}", content) for name, content in SET.items()),
]
ARCHIVE = tar_bytes(MEMBERS)
FILES = {ljspeech.ARCHIVE_NAME: ARCHIVE}  # what the server of conftest.py gives
PUBLISHED_BYTES = ljspeech.UNPACKED_BYTES
OLD = {"metadata.csv": b"what the user had before"}


@pytest.fixture(autouse=True)
def small_set(monkeypatch):
    """The constants of the small set, and no wait between the tries."""
    publish(monkeypatch, ARCHIVE)
    monkeypatch.setattr(ljspeech, "N_CLIPS", N_CLIPS)
    monkeypatch.setattr(ljspeech, "UNPACKED_BYTES", N_BYTES)
    monkeypatch.setattr(download, "CHUNK_BYTES", 1_000)
    monkeypatch.setattr(download, "RETRY_WAIT", 0)


def publish(monkeypatch, archive):
    """From here on this is the published archive."""
    monkeypatch.setattr(ljspeech, "ARCHIVE_SHA256", hashlib.sha256(archive).hexdigest())
    monkeypatch.setattr(ljspeech, "ARCHIVE_BYTES", len(archive))
    monkeypatch.setitem(FILES, ljspeech.ARCHIVE_NAME, archive)


@pytest.fixture
def asked(server):
    """The Range headers of what this test asks the server for."""
    server.requests.clear()
    server.ranges.clear()
    return server.ranges


def install(data_dir, source=None, url=None, force=False):
    ljspeech.install(Namespace(source=source, data_dir=data_dir, url=url, force=force))


def write_folder(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_archive(folder):
    (folder / "a.tar.bz2").write_bytes(ARCHIVE)
    return folder / "a.tar.bz2"


def read_folder(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_holds(data_dir, files, *names):
    """The data folder holds LJSpeech-1.1 with these files, beside it `names`, and nothing else."""
    assert sorted(os.listdir(data_dir)) == sorted([NAME, *names])
    assert read_folder(data_dir / NAME) == files


def write_partial(data_dir, content):
    data_dir.mkdir(exist_ok=True)
    path = data_dir / ljspeech.PARTIAL_NAME
    path.write_bytes(content)
    return path


def test_the_fetched_archive_is_verified_unpacked_and_deleted(server, asked, tmp_path, run_here):
    arguments = ("-url", server.url + "good", "-data_dir", tmp_path / "data")
    process = run_here(SCRIPT, *arguments)
    assert (process.returncode, process.stderr) == (0, "")  # no progress bar either: this is no terminal
    assert process.stdout.startswith(f"LJ Speech needs 0.0 GB in {tmp_path / 'data'}, of these")
    assert process.stdout.endswith(f"{tmp_path / 'data' / NAME}: {N_CLIPS} clips, 0.0 GB\n")
    assert_holds(tmp_path / "data", SET)
    assert asked == [None]

    process = run_here(SCRIPT, *arguments)
    assert process.returncode == 0 and "LJ Speech is there" in process.stdout
    assert asked == [None]


def test_a_cut_transfer_asks_for_the_rest_only(server, asked, tmp_path):
    install(tmp_path, url=server.url + "flaky/")
    assert_holds(tmp_path, SET)
    n_kept = len(ARCHIVE) // 2 // download.CHUNK_BYTES * download.CHUNK_BYTES
    assert asked == [None, f"bytes={n_kept}-"]


def test_the_next_call_goes_on_where_this_one_stopped(server, asked, tmp_path, run_here):
    process = run_here(SCRIPT, "-url", server.url + "dying", "-data_dir", tmp_path)
    assert_user_error(process, "error 503", "the same command goes on where it stopped", "-source PATH")
    assert os.listdir(tmp_path) == [ljspeech.PARTIAL_NAME]
    kept = (tmp_path / ljspeech.PARTIAL_NAME).read_bytes()
    assert kept and kept == ARCHIVE[: len(kept)]
    assert len(asked) == 2 + download.RETRIES
    asked.clear()
    process = run_here(SCRIPT, "-url", server.url + "good", "-data_dir", tmp_path)
    assert process.returncode == 0 and f"after {len(kept):,} bytes that are there" in process.stdout
    assert asked == [f"bytes={len(kept)}-"]
    assert_holds(tmp_path, SET)


def test_a_transfer_that_never_gets_further_ends(server, asked, tmp_path):
    with one_line_error("the transfer broke off"):
        install(tmp_path, url=server.url + "cut/")
    assert len(asked) > 1 + download.RETRIES  # each time half of what was left came, down to less than a chunk
    assert len(ARCHIVE) - download.CHUNK_BYTES * 2 < (tmp_path / ljspeech.PARTIAL_NAME).stat().st_size < len(ARCHIVE)


def test_a_server_without_ranges_starts_anew(server, asked, tmp_path):
    write_partial(tmp_path, b"of another file")
    install(tmp_path, url=server.url + "no_ranges/")
    assert asked == ["bytes=15-"]
    assert_holds(tmp_path, SET)


def test_a_wrong_partial_file_is_deleted(server, asked, tmp_path):
    for content in (ARCHIVE[:99] + b"?", ARCHIVE + b"and more"):
        write_partial(tmp_path, content)
        with one_line_error("not the published bytes", "were deleted"):
            install(tmp_path, url=server.url + "good/")
        assert os.listdir(tmp_path) == []
    asked.clear()
    install(tmp_path, url=server.url + "good/")
    assert asked == [None]


def test_a_whole_partial_file_needs_no_server(tmp_path, capsys):
    write_partial(tmp_path, ARCHIVE)
    install(tmp_path, url="http://127.0.0.1:1/")
    assert "fetching" not in capsys.readouterr().out
    assert_holds(tmp_path, SET)


BAD_SERVERS = {
    "404": "error 404",
    "503": "error 503",
    "slow": f"no answer within {TIMEOUT} s",
    "refused": "no connection",
    "redirect": "no valid URL, proxy or answer",
    "shifted": "not the published file",  # other bytes than those asked for
    "no_length": "not the published file",
}


@pytest.mark.parametrize("behaviour", BAD_SERVERS)
def test_a_bad_server_costs_one_line_and_nothing_that_was_there(server, tmp_path, run_here, monkeypatch, behaviour):
    monkeypatch.setattr(download, "RETRIES", 0)
    if behaviour == "slow":  # the others answer in their time
        monkeypatch.setattr(download, "TIMEOUT", TIMEOUT)
    write_folder(tmp_path / NAME, OLD)
    # A server without ranges and a length may send an error page: what has come must outlive that as well.
    partial = write_partial(tmp_path, b"" if behaviour == "no_length" else ARCHIVE[:1_000])
    url = "http://127.0.0.1:1" if behaviour == "refused" else server.url + behaviour
    process = run_here(SCRIPT, "-url", url, "-data_dir", tmp_path, "-force")
    assert_user_error(process, BAD_SERVERS[behaviour], ljspeech.ARCHIVE_NAME, "-source PATH")
    assert_holds(tmp_path, OLD, partial.name)
    assert partial.read_bytes() in (b"", ARCHIVE[:1_000])


def test_another_file_does_not_replace_what_has_come(server, tmp_path, monkeypatch):
    partial = write_partial(tmp_path, ARCHIVE[:1_000])
    monkeypatch.setitem(FILES, ljspeech.ARCHIVE_NAME, b"<html>Sign in to this network</html>")
    with one_line_error(f"not the published file of {len(ARCHIVE):,} bytes"):
        install(tmp_path, url=server.url + "no_ranges/")
    assert partial.read_bytes() == ARCHIVE[:1_000]


def test_wrong_bytes_are_deleted(server, tmp_path):
    write_folder(tmp_path / NAME, OLD)
    with one_line_error("not the published bytes"):
        install(tmp_path, url=server.url + "wrong/", force=True)
    assert_holds(tmp_path, OLD)


INCOMPLETE_ARCHIVES = {
    "a clip less": (tar_bytes(MEMBERS[:-1]), f"{N_CLIPS - 1} WAV files, not {N_CLIPS}"),
    "without metadata": (tar_bytes([m for m in MEMBERS if "csv" not in m[0].name]), "metadata.csv"),
}


@pytest.mark.parametrize("kind", INCOMPLETE_ARCHIVES)
def test_an_archive_that_lacks_something_writes_nothing(tmp_path, monkeypatch, kind):
    archive, complaint = INCOMPLETE_ARCHIVES[kind]
    publish(monkeypatch, archive)
    source = tmp_path / "a.tar.bz2"
    source.write_bytes(archive)
    write_folder(tmp_path / "data" / NAME, OLD)
    with one_line_error(complaint):
        install(tmp_path / "data", source=source, force=True)
    assert_holds(tmp_path / "data", OLD)
    assert sorted(os.listdir(tmp_path)) == ["a.tar.bz2", "data"]


def test_a_local_archive_must_be_the_published_one(tmp_path, run_here):
    source = tmp_path / "copy"
    source.write_bytes(ARCHIVE)
    process = run_here(SCRIPT, "-source", source, "-data_dir", tmp_path / "data")
    assert (process.returncode, process.stderr) == (0, "")
    assert_holds(tmp_path / "data", SET)
    assert source.read_bytes() == ARCHIVE

    other = tar_bytes(MEMBERS[::-1])
    source.write_bytes(other)
    process = run_here(SCRIPT, "-source", source, "-data_dir", tmp_path / "other")
    assert_user_error(process, str(source), "SHA-256", *(hashlib.sha256(a).hexdigest() for a in (ARCHIVE, other)))
    assert os.listdir(tmp_path / "other") == []


def test_an_unpacked_folder_is_to_be_used_where_it_is(tmp_path):
    source = write_folder(tmp_path / NAME, SET)
    with one_line_error(str(source), "LJSpeech-1.1, whole or a part, needs no download script"):
        install(tmp_path / "data", source=source)
    assert read_folder(source) == SET


def without(name):
    return {other: content for other, content in SET.items() if other != name}


INCOMPLETE = {
    "a clip less": (without("wavs/LJ001-0002.wav"), "3 lines in metadata.csv and 2 WAV files, not 3"),
    "an empty clip": (SET | {"wavs/LJ001-0002.wav": b""}, "2 WAV files, not 3"),
    "a line less": (SET | {"metadata.csv": LINES[: LINES.index(b"\n") + 1]}, "1 lines"),
    "a line more": (SET | {"metadata.csv": LINES + b"../x|a|b\n"}, "4 lines"),
    "without metadata": (without("metadata.csv"), "metadata.csv"),
    "without clips": ({"metadata.csv": LINES}, "wavs"),
}


@pytest.mark.parametrize("fault", INCOMPLETE)
def test_an_incomplete_folder_is_told_with_its_counts(tmp_path, fault):
    files, complaint = INCOMPLETE[fault]
    folder = write_folder(tmp_path / NAME, files)
    with one_line_error(str(folder), complaint, "-data_dir", "-force would replace"):
        install(tmp_path)
    assert_holds(tmp_path, files)


def test_a_source_that_is_not_there(tmp_path):
    with one_line_error("nothing", "-source takes"):
        install(tmp_path / "data", source=tmp_path / "nothing")


def test_a_folder_that_is_there_is_replaced_only_with_force(tmp_path, capsys):
    source = write_archive(tmp_path)
    data_dir = tmp_path / "data"
    write_folder(data_dir / NAME, OLD)
    with one_line_error(str(data_dir / NAME), "another folder", "-force would replace what is there"):
        install(data_dir, source=source)
    assert_holds(data_dir, OLD)
    install(data_dir, source=source, force=True)
    assert_holds(data_dir, SET)
    write_folder(data_dir / NAME, {"notes.txt": b"mine"})
    install(data_dir, source=source)
    assert_holds(data_dir, SET | {"notes.txt": b"mine"})  # that the set is there is enough
    assert f"{data_dir / NAME}: {N_CLIPS} clips" in capsys.readouterr().out


def test_force_leaves_the_target_of_a_link_alone(tmp_path):
    elsewhere = write_folder(tmp_path / "elsewhere", OLD)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / NAME).symlink_to(elsewhere)
    install(tmp_path / "data", source=write_archive(tmp_path), force=True)
    assert_holds(tmp_path / "data", SET)
    assert read_folder(elsewhere) == OLD


def test_what_was_there_comes_back_when_the_last_step_fails(tmp_path, monkeypatch):
    source = write_archive(tmp_path)
    write_folder(tmp_path / "data" / NAME, OLD)
    replace, calls = os.replace, []

    def second_time_fails(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        replace(*paths)

    monkeypatch.setattr(os, "replace", second_time_fails)
    with one_line_error("Input/output error"):
        install(tmp_path / "data", source=source, force=True)
    assert len(calls) == 3
    assert_holds(tmp_path / "data", OLD)


def test_a_disk_with_too_little_space_is_told_before_the_fetch(server, asked, tmp_path, monkeypatch):
    missing = len(ARCHIVE) - 1_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Namespace(free=N_BYTES + missing - 1))
    write_partial(tmp_path, ARCHIVE[:1_000])
    with one_line_error("0.0 GB free", "-data_dir DIR"):
        install(tmp_path, url=server.url + "good/")
    assert asked == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Namespace(free=N_BYTES + missing))
    install(tmp_path, url=server.url + "good/")
    assert_holds(tmp_path, SET)


def no_space(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_keeps_the_archive(server, asked, tmp_path, monkeypatch):
    write_folder(tmp_path / NAME, OLD)
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "makefile", no_space)
        with one_line_error("cannot write", "No space left on device"):
            install(tmp_path, url=server.url + "good/", force=True)
    assert_holds(tmp_path, OLD, ljspeech.PARTIAL_NAME)
    with monkeypatch.context() as patch:
        patch.setattr(tqdm, "update", no_space)  # in the loop that writes
        write_partial(tmp_path, ARCHIVE[:1_000])
        with one_line_error("cannot write", "No space left on device"):
            install(tmp_path, url=server.url + "good/", force=True)
    assert_holds(tmp_path, OLD, ljspeech.PARTIAL_NAME)
    install(tmp_path, url=server.url + "good/", force=True)
    assert_holds(tmp_path, SET)


def test_folders_that_cannot_be_written(tmp_path):
    source = tmp_path / "a.tar.bz2"
    source.write_bytes(ARCHIVE)
    with one_line_error("cannot write", "-data_dir DIR"):
        install(source / "data", source=source)  # a folder inside a file
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o555)
    if os.access(data_dir, os.W_OK):
        pytest.skip("this user may write everywhere")
    with one_line_error("cannot write", "Permission denied"):
        install(data_dir, source=source)


def test_ctrl_c_keeps_what_has_come(server, asked, tmp_path):
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[0] = {SCRIPT!r}\n"
        "import options, download_ljspeech; from data.fetch import download, ljspeech\n"
        f"download.CHUNK_BYTES = {download.CHUNK_BYTES}; ljspeech.ARCHIVE_BYTES = {len(ARCHIVE)}\n"
        f"ljspeech.UNPACKED_BYTES = {N_BYTES}; options.run_script(download_ljspeech.main)\n"
    )
    command = [sys.executable, "-c", script, "-url", server.url + "stalled", "-data_dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 20
        while not download.file_size(tmp_path / ljspeech.PARTIAL_NAME) and time.monotonic() < deadline:
            time.sleep(0.02)  # until the first half is here; the second never comes
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (options.INTERRUPTED, "interrupted\n")
    assert os.listdir(tmp_path) == [ljspeech.PARTIAL_NAME]
    kept = (tmp_path / ljspeech.PARTIAL_NAME).read_bytes()
    assert kept and kept == ARCHIVE[: len(kept)]
    asked.clear()
    install(tmp_path, url=server.url + "good/")
    assert asked == [f"bytes={len(kept)}-"]
    assert_holds(tmp_path, SET)


def test_help_answers_at_once_and_says_what_is_needed(run_script):
    process = run_script("-X", "importtime", SCRIPT, "--help")
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert "options" in imported
    assert not imported & {"numpy", "requests", "torch", "tqdm"}
    text = " ".join(process.stdout.split())
    for words in ("2.7 GB", "3.8 GB", "needs no download script", "goes on where it stopped"):
        assert words in text


def test_the_published_set_fits_in_the_space_that_is_asked_for():
    seconds = (23 * 60 + 55) * 60 + 17  # as its README has it
    n_bytes = seconds * 22_050 * 2 + 13_100 * 4_096 // 2  # the last block of a file is half full on average
    assert n_bytes < PUBLISHED_BYTES < 1.02 * n_bytes
