"""files.py: a file is whole or absent, a damaged one ends in one line, no code runs from it, none fills the memory."""

import errno
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from conftest import one_line_error

import files


class Payload:
    """Makes a folder when it is unpickled by Python."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def rewrite_zip(path, change, method=zipfile.ZIP_STORED):
    """Write the members of a zip anew after `change(members)`, a dict from name to content."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_block_that_fails_leaves_the_old_file_and_raises_its_own_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(PermissionError, match="another file"), files.atomic_path(path) as new:
        new.write_text("half")
        raise PermissionError(errno.EACCES, "Permission denied", "another file")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    with files.atomic_path(path) as new:
        new.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fills_up_is_one_line_and_keeps_the_old_file(step, tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, [1])

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with one_line_error(f"cannot write {path}", "No space left on device"):
        files.write_json(path, [2])
    assert json.loads(path.read_text()) == [1] and os.listdir(tmp_path) == ["a.json"]


def test_a_folder_inside_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with one_line_error("cannot write", str(tmp_path / "file" / "a.npz")):
        files.write_arrays(tmp_path / "file" / "a.npz", {})


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_are_read_back(compress, tmp_path):
    arrays = {"a": np.arange(6).reshape(2, 3), "b": np.array(["x", "yz"]), "none": np.zeros((0, 2), np.float16)}
    files.write_arrays(tmp_path / "folder" / "a.npz", arrays, compress)
    found = files.read_arrays(tmp_path / "folder" / "a.npz")
    assert list(found) == list(arrays)
    for name in arrays:
        np.testing.assert_array_equal(found[name], arrays[name], strict=True)


def test_a_zip_with_a_file_that_is_no_array_is_refused(tmp_path):
    files.write_arrays(tmp_path / "a.npz", {"a": np.zeros(2)})
    rewrite_zip(tmp_path / "a.npz", lambda members: members.update({"b.npy": b"text"}))
    with pytest.raises(ValueError, match="no array"):
        files.read_arrays(tmp_path / "a.npz")


def test_arrays_that_would_fill_the_memory_are_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    files.write_arrays(path, {"a": np.zeros(100_000, np.uint8)}, compress=True)
    monkeypatch.setattr(files, "MAX_UNPACKED", 50_000)
    monkeypatch.setattr(np, "load", lambda *args, **kwargs: pytest.fail("the arrays were read"))
    with pytest.raises(ValueError, match="unpacks to more than 50,000 bytes"):
        files.read_arrays(path)


def test_a_state_is_read_back_whatever_records_another_torch_adds(tmp_path):
    path = tmp_path / "last.pt"
    state = {"weights": torch.arange(5.0), "epoch": 3, "words": ["a", "b"]}
    files.write_state(path, state)
    rewrite_zip(path, lambda members: members.update({"archive/.a_record_of_the_next_torch": b"1"}))
    found = files.read_state(path)
    assert torch.equal(found.pop("weights"), state.pop("weights")) and found == state


def test_a_checkpoint_with_a_hole_in_it_is_refused(tmp_path):
    path = tmp_path / "last.pt"
    files.write_state(path, {"weights": torch.arange(10_000.0)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["weights"].shape == (10_000,)  # torch alone does not notice
    with pytest.raises(ValueError, match="the checksum of .* is wrong"):
        files.read_state(path)


@pytest.mark.parametrize("kind", ["checkpoint", "bare pickle", "arrays"])
def test_no_code_of_a_file_runs(kind, tmp_path):
    made, path = tmp_path / "made", tmp_path / "hostile"
    if kind == "checkpoint":
        files.write_state(path, {})
        rewrite_zip(path, lambda members: members.update({"archive/data.pkl": pickle.dumps(Payload(made), 2)}))
    elif kind == "bare pickle":
        path.write_bytes(pickle.dumps(Payload(made), 2))
    else:
        content = io.BytesIO()
        np.savez(content, a=np.array([Payload(made)], dtype=object))
        path.write_bytes(content.getvalue())
    with pytest.raises((*files.DAMAGED, pickle.UnpicklingError)):
        (files.read_arrays if kind == "arrays" else files.read_state)(path)
    assert not made.exists()


def test_a_folder_in_the_place_of_a_file_is_one_line(tmp_path):
    for read in (files.read_arrays, files.read_state):
        with pytest.raises(IsADirectoryError):
            read(tmp_path)
    with one_line_error(str(tmp_path), "Is a directory"):
        files.read_json(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 200_000])
def test_json_that_is_none_is_one_line(content, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with one_line_error("a.json cannot be read", "run again without -resume"):
        files.read_json(tmp_path / "a.json")


def test_a_value_inside_json_is_found_or_named(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": [{"b": 2}]})
    assert files.read_json(path, "a", 0, "b", of=int) == 2
    for keys, of, words in ((("a", 1), object, "has no a.1"), (("a", 0, "b"), str, "a.0.b is no str")):
        with one_line_error("a.json", words):
            files.read_json(path, *keys, of=of)


def test_a_table_is_read_back_and_another_is_refused(tmp_path):
    path = tmp_path / "a.tsv"
    files.write_table(path, ("x", "y"), [(1, "a b"), (2, "")])
    assert files.read_table(path, ("x", "y")) == [{"x": "1", "y": "a b"}, {"x": "2", "y": ""}]
    with one_line_error("a.tsv cannot be read", "other columns"):
        files.read_table(path, ("x", "z"))
    path.write_text("x\ty\n1\n")
    with one_line_error("a.tsv cannot be read"):
        files.read_table(path, ("x", "y"))
