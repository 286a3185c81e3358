"""The folder of a run: what is replaced and what stays, one writer, resuming, damaged files, finding a run again."""

import builtins
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, one_line_error
from test_fit import CONFIG, train

import files
import runs
from options import UserError


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != runs.LOCK}


def test_a_new_run_keeps_the_old_files_until_its_first_checkpoint(tmp_path, capsys):
    train(tmp_path, 2)
    before = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 2, stop_after=0)
    assert contents(tmp_path) == before
    assert "replacing the run" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 2, stop_after=1)
    assert set(contents(tmp_path)) == {runs.LAST, runs.BEST, runs.CONFIG, runs.HISTORY}


def test_a_run_deletes_nothing_of_the_users_own(tmp_path):
    mine = {"lecture-notes.pdf": b"%PDF", "my-sketch.png": b"PNG", "notes.md": b"#", "test_predictions.txt": b"x"}
    for name, content in mine.items():
        (tmp_path / name).write_bytes(content)
    train(tmp_path, 1)
    train(tmp_path, 2)  # replaces the first
    assert {name: contents(tmp_path)[name] for name in mine} == mine


def test_a_second_writer_is_refused(tmp_path):
    with runs.open_run(tmp_path, CONFIG), pytest.raises(UserError, match="another process"):
        with runs.open_run(tmp_path, CONFIG):
            pass


def test_weights_in_a_changed_models_py_are_told(tmp_path, monkeypatch, capsys):
    networks = tmp_path / "models.py"
    monkeypatch.setattr(runs, "NETWORKS", networks)
    for text, n_epochs, is_told in (("a", 1, False), ("a", 2, False), ("b", 3, True), ("b", 4, True)):
        networks.write_text(text)
        config = CONFIG | {"networks": runs.plain(networks)}
        train(tmp_path / "run", n_epochs, resume="auto", config=config)
        assert ("models.py has changed since" in capsys.readouterr().err) == is_told
    with runs.open_run(tmp_path / "run", config, "auto") as run:
        run.add(test=None)  # as a search does with weights of before
    networks.write_text("a")
    first = runs.plain(networks)
    assert files.read_json(tmp_path / "run" / runs.CONFIG, "networks", of=str) == first != config["networks"]
    capsys.readouterr()
    runs.warn_of_other_networks(tmp_path, config | {"options": {"models": "my.py-01234567"}})  # it has its own classes
    runs.warn_of_other_networks(tmp_path, CONFIG)  # of a version without this key
    assert capsys.readouterr().err == ""


def test_resuming_with_other_options_or_data_is_refused(tmp_path):
    train(tmp_path, 1)
    for config, word in (
        (CONFIG | {"options": {"learning_rate": 0.2}}, "learning_rate"),
        (CONFIG | {"data": {"fingerprint": "g"}}, "data"),
    ):
        with pytest.raises(UserError, match=word):
            train(tmp_path, 2, resume="must", config=config)


def test_an_option_that_a_config_lacks_is_none(tmp_path):
    train(tmp_path, 1)
    more = [CONFIG | {"options": CONFIG["options"] | {"flip": value}} for value in (None, True)]
    for config, expected in zip(more, ([], ["flip"])):
        assert runs.differences(config, CONFIG) == runs.differences(CONFIG, config) == expected
    train(tmp_path, 2, resume="must", config=more[0])
    with pytest.raises(UserError, match="other flip"):
        train(tmp_path, 2, resume="must", config=more[1])


def test_resuming_what_is_no_checkpoint_or_anothers(tmp_path):
    train(tmp_path, 1)
    good = (tmp_path / runs.LAST).read_bytes()
    for content in (b"", b"no checkpoint", b"a text file\n", b"PK\x03\x04", good[: len(good) // 2]):
        (tmp_path / runs.LAST).write_bytes(content)
        with one_line_error("last.pt", "run again without -resume"):
            train(tmp_path, 2, resume="must")
    torch.save({"model": {"other.weight": torch.zeros(2)}, "history": []}, tmp_path / runs.LAST)
    with one_line_error("another network"):
        train(tmp_path, 2, resume="must")


@pytest.mark.parametrize("content", ["{}", "[]", "[" * 200_000, "{", '{"kind": "run", "options": []}', "\0"])
def test_a_config_of_another_form_is_named_in_one_line(content, tmp_path):
    path = tmp_path / "q2" / "run" / runs.CONFIG
    path.parent.mkdir(parents=True)
    path.write_text(content)
    (path.parent / runs.RESULT).write_text("{}")
    (path.parent / runs.LAST).write_bytes(b"")
    with one_line_error("config.json"):
        runs.find(tmp_path, "q2", learning_rate=0.1)
    with one_line_error("config.json"):
        runs.Run(path.parent, CONFIG, "must")


class Evil:
    """What pickle would run."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_no_code_runs_from_a_checkpoint(tmp_path, capsys):
    torch.save({"model": Evil()}, tmp_path / "last.pt")
    with one_line_error("last.pt"):
        runs.read_checkpoint(tmp_path / "last.pt")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("value", [0, 255])
def test_a_checkpoint_with_a_hole_in_it_is_refused(value, tmp_path):
    files.write_state(tmp_path / "best.pt", {"weights": {"w": torch.randn(300, 300)}})
    content = bytearray((tmp_path / "best.pt").read_bytes())
    content[100_000:164_000] = bytes([value]) * 64_000
    (tmp_path / "best.pt").write_bytes(content)
    with one_line_error("best.pt", "checksum"):
        runs.read_checkpoint(tmp_path / "best.pt")


@pytest.mark.parametrize("moment", ["best", "last", "config", "put in place"])
def test_a_full_disk_or_a_kill_while_a_run_is_replaced_leaves_the_old_one(moment, tmp_path, monkeypatch):
    """At the moment that the new files are put in place the new run is whole, and the old one gives way."""
    train(tmp_path, 2)
    old = contents(tmp_path)
    names = {"best": runs.BEST, "last": runs.LAST, "config": runs.CONFIG, "put in place": runs.HISTORY}
    write = files.write_bytes

    def killed(path, content):
        if path.name.removeprefix(runs.NEW) == names[moment]:
            raise SystemExit("killed")
        write(path, content)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(files, "write_bytes", killed)
        train(tmp_path, 1, lr=0.2)
    with runs.open_run(tmp_path, CONFIG, "auto") as run:
        there = contents(tmp_path)
        if moment != "put in place":
            assert there == old
        else:
            assert len(run.checkpoint()["history"]) == 1
            assert run.result is None and there[runs.BEST] != old[runs.BEST]


def test_a_full_disk_leaves_the_finished_run_and_says_so_in_one_line(tmp_path):
    """The size limit of a file stands for the full disk: both end a write in the middle."""
    train(tmp_path, 2)
    before = contents(tmp_path)
    code = (
        "import resource, signal, sys, torch, runs\n"
        "from pathlib import Path\n"
        "from options import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"with runs.open_run(Path({str(tmp_path)!r}), {CONFIG!r}) as run:\n"
        "    try:\n"
        "        run.save_epoch({'model': torch.zeros(100_000), 'history': [{'epoch': 1}]}, {'weights': {}})\n"
        "    except UserError as error:\n"
        "        sys.exit(str(error))\n"
    )
    process = subprocess.run([sys.executable, "-B", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1 and process.stderr.startswith("cannot write"), process.stderr
    assert process.stderr.count("\n") == 1
    with runs.open_run(tmp_path, CONFIG):
        assert contents(tmp_path) == before


def test_runs_are_found_by_their_config_and_not_by_their_name(tmp_path):
    def write(name, **changes):
        options = {"use_attn": False, "seed": 42, "scale": "full"} | changes.pop("options", {})
        data = {"bundled": False, "fingerprint": "f"}
        config = {"kind": "run", "options": options, "changed": {}, "data": data} | changes
        files.write_json(tmp_path / "q3" / name / runs.CONFIG, config)
        files.write_json(tmp_path / "q3" / name / runs.RESULT, {"test": None})

    write("use_attn-seed=43")  # a name of the user's own choice that says something else
    write("b", options={"use_attn": True})
    write("c", kind="comparison")
    write("d", options={"seed": 43})
    (tmp_path / "q3" / "unfinished").mkdir()
    assert {run.folder.name for run in runs.find(tmp_path, "q3")} == {"use_attn-seed=43", "b", "d"}
    assert [run.folder.name for run in runs.find(tmp_path, "q3", use_attn=True)] == ["b"]
    assert [run.folder.name for run in runs.find(tmp_path, "q3", seed=43)] == ["d"]
    assert [run.folder.name for run in runs.find(tmp_path, "q3", kind="comparison")] == ["c"]
    assert runs.find(tmp_path, "q2") == []


def test_a_folder_is_left_to_other_data_and_long_names_are_cut(tmp_path):
    def config(fingerprint, **changed):
        options = {"seed": 42, "scale": "full"} | changed
        data = {"bundled": True, "fingerprint": fingerprint}
        return {"question": "q2", "kind": "run", "options": options, "changed": changed, "data": data}

    first = runs.folder_of(config("f", dropout=0.5), tmp_path, "octmnist")
    assert first == tmp_path / "q2" / "octmnist-bundled-dropout=0.5"
    files.write_json(first / runs.CONFIG, config("f", dropout=0.5))
    assert runs.folder_of(config("f", dropout=0.5), tmp_path, "octmnist") == first
    other = runs.folder_of(config("g", dropout=0.5), tmp_path, "octmnist")
    assert other != first and other.name.startswith(first.name)
    names = {runs.folder_of(config("f", **{"a" * 90: i}), tmp_path, "octmnist").name for i in range(3)}
    assert len(names) == 3 and max(map(len, names)) < 90
    assert runs.folder_of(config("g"), tmp_path, "octmnist", "mine") == tmp_path / "q2" / "mine"


@pytest.fixture
def unreadable(tmp_path, monkeypatch):
    """A folder of a finished run that its user may not read; patched, since root may read everything."""
    folder = tmp_path / "q2" / "mine"
    train(folder, 1)

    def refusing(function):
        def refuse(path, *args, **kwargs):
            if isinstance(path, str | os.PathLike) and folder in Path(path).parents:
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *args, **kwargs)

        return refuse

    for module, name in ((os, "stat"), (os, "scandir"), (os, "open"), (io, "open"), (builtins, "open")):
        monkeypatch.setattr(module, name, refusing(getattr(module, name)))
    return folder


@pytest.mark.parametrize("resume", [None, "auto", "must"])
def test_a_folder_without_read_permission_is_named_in_one_line(resume, unreadable):
    with one_line_error(str(unreadable), "Permission denied"):
        train(unreadable, 1, resume=resume)


def test_a_folder_without_read_permission_does_not_hide_the_other_runs(unreadable, tmp_path):
    train(tmp_path / "q2" / "other", 1)
    assert [run.folder.name for run in runs.find(tmp_path, "q2")] == ["other"]
    assert not runs.Found(unreadable).is_finished


@pytest.mark.parametrize("name", [runs.LAST, runs.BEST, runs.CONFIG, runs.RESULT])
def test_a_file_of_a_run_without_read_permission_is_named_in_one_line(name, tmp_path, monkeypatch):
    train(tmp_path, 1)
    usual = io.open

    def refuse(path, *args, **kwargs):
        if isinstance(path, str | os.PathLike) and Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path, *args, **kwargs)

    for module in (io, builtins):
        monkeypatch.setattr(module, "open", refuse)
    with one_line_error(name):
        train(tmp_path, 2, resume="must")
