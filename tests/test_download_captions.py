"""download_rs_captions.py: a copy is checked and put in its place, or refused with one line and nothing changed."""

import errno
import os
import shutil

import pytest
from conftest import assert_user_error

from data import captions
from data.bundled import captions as bundled_captions
from data.fetch import rs_captions

N = 12
SIZES = {"train": 10, "val": 1, "test": 1}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy") / "UCM_captions"
    bundled_captions.write(folder, bundled_captions.generate("ucm", N))
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(rs_captions, "SIZES", {"sydney": {"train": 1, "val": 1, "test": 1}, "ucm": SIZES})


def test_a_copy_is_put_in_its_place(copy, tmp_path, run_here):
    data_dir = tmp_path / "data"
    process = run_here("download_rs_captions.py", "-source", copy, "-data_dir", data_dir)
    assert process.returncode == 0, process.stderr
    assert f"{N} images (10 training, 1 validation, 1 test)" in process.stdout
    assert captions.load("ucm", "auto", data_dir).examples == captions.load(str(copy)).examples
    assert [path.name for path in data_dir.iterdir()] == ["ucm"]
    assert_user_error(run_here("download_rs_captions.py", "-source", copy, "-data_dir", data_dir), "-force")
    process = run_here("download_rs_captions.py", "-source", copy, "-data_dir", data_dir, "-force")
    assert process.returncode == 0, process.stderr


def test_what_is_no_whole_copy_is_refused_and_nothing_changes(copy, tmp_path, run_here):
    data_dir = tmp_path / "data"

    def refused(source, *words):
        process = run_here("download_rs_captions.py", "-source", source, "-data_dir", data_dir)
        assert_user_error(process, *words)
        assert not data_dir.exists() or not any(data_dir.iterdir())

    broken = shutil.copytree(copy, tmp_path / "broken")
    name = captions.load(str(copy)).filenames[2]
    image = broken / "images" / name
    image.write_bytes(image.read_bytes()[:3000])
    refused(broken, name, "cannot be read as an image")
    image.unlink()
    refused(broken, f"1 of the {N} images", name)
    shutil.rmtree(broken / "images")
    json_path = broken / "dataset.json"
    json_path.write_text(json_path.read_text()[:-30])
    refused(broken, "cut short")
    json_path.unlink()
    refused(broken, "no dataset.json")
    refused(tmp_path / "absent", "no dataset.json")
    archive = tmp_path / "UCM_captions.zip"
    archive.write_bytes(b"PK")
    refused(archive, "UCM_captions.zip", "the unpacked folder")
    other = tmp_path / "other"
    bundled_captions.write(other, bundled_captions.generate("ucm", 5))
    refused(other, "not a published set")


def test_what_was_there_stays_when_the_last_step_fails(copy, tmp_path, run_here, monkeypatch):
    data_dir = tmp_path / "data"
    arguments = ("-source", copy, "-data_dir", data_dir)
    assert run_here("download_rs_captions.py", *arguments).returncode == 0
    (data_dir / "ucm" / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in data_dir.rglob("*") if path.is_file()}
    replace, calls = os.replace, []

    def second_time_fails(*paths):
        calls.append(paths)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        replace(*paths)

    monkeypatch.setattr(os, "replace", second_time_fails)
    assert_user_error(run_here("download_rs_captions.py", *arguments, "-force"), "Input/output error")
    assert {path: path.read_bytes() for path in data_dir.rglob("*") if path.is_file()} == before
