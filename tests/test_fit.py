"""The training loop and the run folder: best and last, resuming, kills, locks, a loss that is not finite."""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from conftest import ROOT, one_line_error, terminate
from torch import nn

import experiment
import options
import runs
import utils
from options import Interrupted, UserError

CONFIG = {"question": "q2", "kind": "run", "options": {"learning_rate": 0.1}, "data": {"fingerprint": "f"}}
RECIPE = {"optimizer": "adam"}


def optimization(model, lr=0.1, n_steps=100, **changes):
    parser = options.Parser("")
    options.add_training_options(parser, learning_rate=lr, **RECIPE)
    return utils.Optimization(model, argparse.Namespace(**vars(parser.parse_args([])) | changes), n_steps)


def gather(*tensors):
    """The rows of tensors, one batch after the other."""
    return lambda batches: (tuple(tensor[rows] for tensor in tensors) for rows in batches)


def squared_error(model, batch):
    X, y = batch
    return nn.functional.mse_loss(model(X), y, reduction="sum"), len(y)


def train(folder, n_epochs, resume=None, lr=0.1, ema_decay=0.0, stop_after=None, config=CONFIG):
    """A small regression with dropout; returns history and weights. `stop_after` epochs it is interrupted in the next."""
    torch.manual_seed(3)
    X = torch.randn(23, 4)
    y = X @ torch.randn(4, 1)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 1))
    n_calls = 0

    def batch_loss(model, batch):
        nonlocal n_calls
        n_calls += 1
        if stop_after is not None and n_calls > stop_after * 6 + 2:  # 6 batches an epoch
            raise KeyboardInterrupt
        return squared_error(model, batch)

    def evaluate(model):
        with torch.no_grad():
            return {"val_loss": nn.functional.mse_loss(model(X), y).item()}

    with runs.open_run(folder, config, resume) as run:
        history = utils.fit(
            optimization(model, lr, schedule="cosine", ema_decay=ema_decay, max_grad_norm=1.0),
            utils.Batches(len(X), 4, gather(X, y)),
            batch_loss,
            evaluate,
            run,
            n_epochs,
            seed=5,
            score="val_loss",
            maximize=False,
        )
        run.finish({"done": True})
    return history, model.state_dict()


def without_seconds(history):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in history]


def assert_same_run(a, b):
    assert without_seconds(a[0]) == without_seconds(b[0])
    for name, weight in a[1].items():
        assert torch.equal(weight, b[1][name]), name


def test_the_same_seed_gives_the_same_bits(tmp_path):
    assert_same_run(train(tmp_path / "a", 3), train(tmp_path / "b", 3))


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_run_interrupted_within_an_epoch_and_resumed_equals_one_that_was_not(tmp_path, ema_decay):
    whole = train(tmp_path / "whole", 5, ema_decay=ema_decay)
    with pytest.raises(Interrupted, match="-resume goes on from the last finished epoch"):
        train(tmp_path / "cut", 5, ema_decay=ema_decay, stop_after=2)
    assert len((tmp_path / "cut" / runs.HISTORY).read_text().splitlines()) == 2
    assert_same_run(whole, train(tmp_path / "cut", 5, resume="must", ema_decay=ema_decay))


def test_an_interrupt_before_the_first_checkpoint_promises_nothing(tmp_path):
    with pytest.raises(Interrupted, match="no epoch was finished"):
        train(tmp_path, 2, stop_after=0)


def test_the_history_is_mended_from_the_checkpoint(tmp_path):
    """What a kill between `last.pt` and `metrics.jsonl` leaves, and a file of rubbish."""
    train(tmp_path, 2)
    whole = (tmp_path / runs.HISTORY).read_text()
    for left in (whole.splitlines(keepends=True)[0], "rubbish", ""):
        (tmp_path / runs.HISTORY).write_text(left)
        train(tmp_path, 2, resume="must")
        assert (tmp_path / runs.HISTORY).read_text() == whole


def test_a_history_that_cannot_be_mended_does_not_hide_the_run(tmp_path, monkeypatch, capsys):
    train(tmp_path, 2)
    (tmp_path / runs.HISTORY).write_text("")

    def refuse(*args):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(runs, "load_checkpoint", lambda path: {"history": [{"epoch": 1}]})
    run = runs.Run(tmp_path, CONFIG)
    run.is_new = False
    assert run.checkpoint()["history"] == [{"epoch": 1}]
    assert "warning: cannot write" in capsys.readouterr().err


def test_resuming_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no run to resume"):
        train(tmp_path / "a", 1, resume="must")
    assert_same_run(train(tmp_path / "b", 2), train(tmp_path / "c", 2, resume="auto"))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_optimizer_is_torchs_own(name):
    """Without the decorators for torch.compile; same weights bit for bit, same state."""
    classes = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    models = []
    for ours in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        if ours:
            optimizer = optimization(model, 0.1, optimizer=name, l2_decay=0.01).optimizer
        else:
            optimizer = classes[name](model.parameters(), lr=0.1, weight_decay=0.01, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
        models.append(
            model.state_dict() | {f"state{i}": torch.tensor(len(s)) for i, s in optimizer.state_dict()["state"].items()}
        )
    assert models[0].keys() == models[1].keys() and all(torch.equal(models[0][k], models[1][k]) for k in models[0])


def test_training_does_not_import_the_compiler():
    code = (
        "import sys, torch, options, utils\n"
        "parser = options.Parser('')\n"
        f"options.add_training_options(parser, learning_rate=0.1, **{RECIPE!r})\n"
        "args = parser.parse_args([])\n"
        "model = torch.nn.Linear(2, 1)\n"
        "optimization = utils.Optimization(model, args, 1)\n"
        "optimization.zero_grad(); model(torch.ones(1, 2)).sum().backward(); optimization.step()\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_best_weights_are_those_of_the_best_epoch(tmp_path):
    history, weights = train(tmp_path / "run", 6, lr=0.5)
    best = utils.best_epoch(history, "val_loss", maximize=False)["epoch"]
    assert best < 6, "choose a learning rate whose last epoch is not the best"
    _, weights_then = train(tmp_path / "shorter", best, lr=0.5)
    assert all(torch.equal(weights[name], weights_then[name]) for name in weights)


def test_training_loss_is_the_mean_over_examples_of_that_epoch(tmp_path):
    X, y = torch.arange(7.0).unsqueeze(1), torch.zeros(7, 1)
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    with runs.open_run(tmp_path, CONFIG) as run:
        history = utils.fit(
            optimization(model, lr=1e-30, optimizer="sgd"),
            utils.Batches(len(X), 3, gather(X, y)),  # the last batch has one example: weights matter
            squared_error,
            lambda model: {"val": 0.0},
            run,
            2,
            seed=0,
            score="val",
        )
    assert [line["train_loss"] for line in history] == pytest.approx([13.0, 13.0])  # mean of 0, 1, 4, 9, 16, 25, 36


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was(tmp_path):
    train(tmp_path, 2)
    with pytest.raises(UserError, match="not finite.*between steps 1 and 6 of epoch 1"):
        train(tmp_path, 2, lr=1e30)
    assert json.loads((tmp_path / runs.RESULT).read_text()) == {"done": True}


def identity(batches):
    return batches


def test_batches_are_a_permutation():
    batches = utils.Batches(10, 4, identity)
    generator = torch.Generator().manual_seed(0)
    first, second = (list(batches.epoch(generator)) for _ in range(2))
    assert [len(batch) for batch in first] == [4, 4, 2] and len(batches) == 3
    assert sorted(torch.cat(first).tolist()) == list(range(10))
    assert torch.cat(first).tolist() != torch.cat(second).tolist()


def test_gather_sees_many_batches_at_once_and_every_row_once():
    seen = []

    def gather(batches):
        seen.append(len(batches))
        return (10 * rows for rows in batches)

    n = utils.Batches.CHUNK * 2 + 5  # a chunk of batches of two, then three batches
    batches = utils.Batches(n, 2, gather)
    found = list(batches.epoch(torch.Generator().manual_seed(0)))
    assert seen == [utils.Batches.CHUNK, 3] and len(found) == len(batches)
    assert sorted(torch.cat(found).tolist()) == list(range(0, 10 * n, 10))


def random_lengths(n_examples):
    return list(torch.randint(1, 8, (2, n_examples), generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("max_elements", [None, 30, 1])
def test_length_batches_hold_every_row_once_and_rows_of_like_length(max_elements):
    n = 200
    lengths = random_lengths(n)
    batches = utils.Batches(n, 16, identity, lengths, noise=3, max_elements=max_elements)
    found = batches.rows(torch.Generator().manual_seed(0))
    assert sorted(torch.cat(found).tolist()) == list(range(n))
    for rows in found:
        first = lengths[0][rows]
        assert first.max() - first.min() <= 1
        assert len(rows) <= 16 and (max_elements is None or len(rows) * first.max() <= max_elements or len(rows) == 1)
    assert max(map(len, found)) == {None: 16, 30: 16, 1: 1}[max_elements]
    if max_elements is None:
        assert len(found) == len(batches)


def test_a_single_length_gets_noise_too():
    lengths = torch.arange(100)
    batches = utils.Batches(100, 10, identity, [lengths], noise=20)
    found = [sorted(rows.tolist()) for rows in batches.rows(torch.Generator().manual_seed(0))]
    spreads = [rows[-1] - rows[0] for rows in found]
    assert max(spreads) > 9 and max(spreads) < 40  # neighbours, but not always the same ones


def test_length_batches_are_mixed_anew_each_epoch_and_alike_for_a_seed():
    batches = utils.Batches(200, 16, identity, random_lengths(200), noise=3)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    a, b, c = ([rows.tolist() for rows in batches.rows(generator)] for generator in generators)
    assert a == b != c
    assert sorted(map(sorted, a)) != sorted(map(sorted, c))  # not only the order of the batches
    assert [rows.tolist() for rows in batches.rows(generators[0])] != a


def test_length_batches_put_second_lengths_of_about_one_size_together():
    _, second = lengths = random_lengths(2000)
    shares = []
    for rows in utils.Batches(2000, 16, identity, lengths, noise=3).rows(torch.Generator()):
        shares.append((second[rows] / second[rows].max()).mean().item())
    assert 1 - sum(shares) / len(shares) < 0.3  # at random it is more than 0.4


def test_a_new_run_keeps_the_old_files_until_its_first_checkpoint(tmp_path, capsys):
    train(tmp_path, 2)
    (tmp_path / "old.pdf").write_text("a figure")
    (tmp_path / "notes.md").write_text("the user's own")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != runs.LOCK}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 2, stop_after=0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != runs.LOCK} == before
    assert "replacing the run" in capsys.readouterr().out
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 2, stop_after=1)
    assert not (tmp_path / "old.pdf").exists() and not (tmp_path / runs.RESULT).exists()
    assert (tmp_path / "notes.md").exists()


def test_a_second_writer_is_refused(tmp_path):
    with runs.open_run(tmp_path, CONFIG), pytest.raises(UserError, match="another process"):
        with runs.open_run(tmp_path, CONFIG):
            pass


def test_resuming_with_other_options_or_data_is_refused(tmp_path):
    train(tmp_path, 1)
    for config, word in (
        (CONFIG | {"options": {"learning_rate": 0.2}}, "learning_rate"),
        (CONFIG | {"data": {"fingerprint": "g"}}, "data"),
    ):
        with pytest.raises(UserError, match=word):
            train(tmp_path, 2, resume="must", config=config)


def test_resuming_what_is_no_checkpoint_or_anothers(tmp_path):
    train(tmp_path, 1)
    good = (tmp_path / runs.LAST).read_bytes()
    for content in (b"", b"no checkpoint", b"a text file\n", b"PK\x03\x04", good[: len(good) // 2]):
        (tmp_path / runs.LAST).write_bytes(content)
        with pytest.raises(UserError, match="not a checkpoint"):
            train(tmp_path, 2, resume="must")
    torch.save({"model": {"other.weight": torch.zeros(2)}}, tmp_path / runs.LAST)
    with pytest.raises(UserError, match="another model"):
        train(tmp_path, 2, resume="must")


def test_a_config_that_is_none_is_named(tmp_path):
    train(tmp_path, 1)
    (tmp_path / runs.CONFIG).write_text("{}")
    with pytest.raises(UserError, match="config.json has no kind"):
        train(tmp_path, 2, resume="must")


def test_nothing_is_unpickled(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("unpickled",))

    torch.save({"model": Evil()}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="not a checkpoint"):
        runs.load_checkpoint(tmp_path / "last.pt")


def test_a_process_killed_while_it_writes_leaves_the_old_file_and_the_next_run_clears_up(tmp_path):
    path = tmp_path / "last.pt"
    path.write_bytes(b"old")
    code = (
        "import os, runs\n"
        f"with runs.atomic_path({str(path)!r}) as new:\n"
        "    new.write_bytes(b'half a checkpo')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    with runs.open_run(tmp_path, CONFIG):
        assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("file", [runs.LAST, runs.BEST, runs.CONFIG, runs.REPLACING])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_while_a_run_is_replaced_leaves_one_whole_run(file, moment, tmp_path):
    """Whatever file of the new run's first checkpoint is being written: the old run is there, or the new one."""
    train(tmp_path, 2)
    (tmp_path / "old.pdf").write_text("a figure")
    old, real = {path.name: path.read_bytes() for path in tmp_path.iterdir()}, runs.atomic_path

    @contextmanager
    def killed(path):
        is_moment = file in path.name
        if is_moment and moment == "before":
            raise SystemExit("killed")
        with real(path) as new_path:
            yield new_path
        if is_moment:
            raise SystemExit("killed")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(runs, "atomic_path", killed)
        train(tmp_path, 1, lr=0.2)
    with runs.open_run(tmp_path, CONFIG):
        there = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    if file == runs.REPLACING and moment == "after":
        assert set(there) == {runs.LAST, runs.BEST, runs.CONFIG, runs.LOCK}
        assert len(runs.load_checkpoint(tmp_path / runs.LAST)["history"]) == 1
        assert there[runs.BEST] != old[runs.BEST]
    else:
        assert there == old


def test_replacing_that_was_cut_off_is_completed(tmp_path):
    train(tmp_path, 2)
    (tmp_path / ".new-last.pt").write_bytes(b"new")  # best.pt has taken its place already
    (tmp_path / runs.BEST).write_bytes(b"new best")
    runs.write_json(tmp_path / runs.REPLACING, [runs.CONFIG, runs.LAST, runs.BEST])
    runs.finish_replacing(tmp_path)
    assert (tmp_path / runs.LAST).read_bytes() == b"new" and (tmp_path / runs.BEST).read_bytes() == b"new best"
    assert not (tmp_path / runs.RESULT).exists() and not list(tmp_path.glob(".new-*"))


@pytest.mark.parametrize("value", [0, 255])
def test_a_checkpoint_with_damage_inside_is_refused(value, tmp_path):
    runs.save_checkpoint(tmp_path / "best.pt", {"weights": {"w": torch.randn(300, 300)}})
    content = bytearray((tmp_path / "best.pt").read_bytes())
    content[100_000:164_000] = bytes([value]) * 64_000
    (tmp_path / "best.pt").write_bytes(content)
    with pytest.raises(UserError, match="not a checkpoint .*checksum"):
        runs.load_checkpoint(tmp_path / "best.pt")


def test_a_full_disk_leaves_the_finished_run_and_says_so_in_one_line(tmp_path):
    """The size limit of a file stands for the full disk: both end a write in the middle."""
    train(tmp_path, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != runs.LOCK}
    code = (
        "import resource, signal, sys, torch, runs\n"
        "from pathlib import Path\n"
        "from options import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"with runs.open_run(Path({str(tmp_path)!r}), {CONFIG!r}) as run:\n"
        "    try:\n"
        "        run.save_epoch({'model': torch.zeros(100_000)}, [{'epoch': 1}], {'weights': {}})\n"
        "    except UserError as error:\n"
        "        sys.exit(str(error))\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1 and process.stderr.startswith("cannot write"), process.stderr
    assert process.stderr.count("\n") == 1
    with runs.open_run(tmp_path, CONFIG):
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != runs.LOCK} == before


@pytest.mark.parametrize("content", ["{}", "[]", "[" * 200_000, "{", '{"kind": "run", "options": []}', "\0"])
def test_json_of_another_form_is_named_in_one_line(content, tmp_path):
    path = tmp_path / "q2" / "run" / runs.CONFIG
    path.parent.mkdir(parents=True)
    path.write_text(content)
    (path.parent / runs.RESULT).write_text("{}")
    with one_line_error("config.json"):
        runs.find(tmp_path, "q2", learning_rate=0.1)
    with one_line_error("config.json"):
        runs.different(path.parent, CONFIG)


def test_runs_are_found_by_their_config_and_not_by_their_name(tmp_path):
    def write(name, **changes):
        options = {"use_attn": False, "seed": 42, "scale": "full"} | changes.pop("options", {})
        config = {"kind": "run", "options": options, "data": {"bundled": False, "fingerprint": "f"}} | changes
        runs.write_json(tmp_path / "q3" / name / runs.CONFIG, config)
        runs.write_json(tmp_path / "q3" / name / runs.RESULT, {"test": None})

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
    runs.write_json(first / runs.CONFIG, config("f", dropout=0.5))
    assert runs.folder_of(config("f", dropout=0.5), tmp_path, "octmnist") == first
    other = runs.folder_of(config("g", dropout=0.5), tmp_path, "octmnist")
    assert other != first and other.name.startswith(first.name)
    names = {runs.folder_of(config("f", **{"a" * 90: i}), tmp_path, "octmnist").name for i in range(3)}
    assert len(names) == 3 and max(map(len, names)) < 90
    assert runs.folder_of(config("g"), tmp_path, "octmnist", "mine") == tmp_path / "q2" / "mine"


def test_side_by_side_processes_and_their_errors(capsys):
    commands = {
        "[a]": [sys.executable, "-c", "print('one line')"],
        "[b]": [sys.executable, "-c", "import sys; sys.exit('what is wrong')"],
    }
    assert runs.run_side_by_side(commands, jobs=1) == {"[a]": None, "[b]": "what is wrong"}
    assert "[a]  one line" in capsys.readouterr().out


def test_a_reader_that_goes_away_ends_the_processes_quietly(run_script):
    """`hw2-q2.py -learning_rate ... | head -1`: no traceback, and no process is left."""
    code = (
        "import sys, options, runs\n"
        "child = [sys.executable, '-c', \"import time\\nfor i in range(600): print('line', i, flush=True); time.sleep(0.05)\"]\n"
        "options.run_script(lambda: runs.run_side_by_side({'[a]': child, '[b]': child}, 2))\n"
    )
    command = f'{sys.executable} -c "$CODE" | head -1'
    process = subprocess.run(
        command, shell=True, cwd=ROOT, env=os.environ | {"CODE": code}, capture_output=True, text=True, timeout=20
    )
    assert process.stdout.count("\n") == 1 and process.stderr == ""


def test_sigterm_ends_the_processes_and_says_how_to_go_on(tmp_path):
    code = (
        "import sys, options, runs\n"
        "child = [sys.executable, '-c', \"import os, time; print(os.getpid(), flush=True); time.sleep(60)\"]\n"
        "options.run_script(lambda: runs.run_side_by_side({'[a]': child}, 1))\n"
    )
    message = "terminated; the same command with -resume goes on where each run stopped\n"
    assert terminate(code) == (143, message, True)


def noisy_gather(at_once, *tensors):
    """The rows of tensors with noise on the first, drawn for all batches at once or for one after the other."""

    def gather(batches):
        sizes = [len(rows) for rows in batches]
        noise = torch.rand(sum(sizes)).split(sizes) if at_once else (torch.rand(size) for size in sizes)
        for rows, drawn in zip(batches, noise):
            first, *others = (tensor[rows] for tensor in tensors)
            yield first + drawn.unsqueeze(1), *others

    return gather


def train_until(folder, resume=None, *, at_once=True, signals=(), signal_in="step", n_parts=1):
    """Three epochs of 7 batches, chunks of 4; each of `signals` is sent when it is due: (call of the loss or evaluation, signal)."""
    torch.manual_seed(3)
    X = torch.randn(27, 4)
    y = X @ torch.randn(4, 1)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 1))
    n_calls = {"step": 0, "evaluation": 0}

    def count(place):
        n_calls[place] += 1
        for call, number in signals:
            if (place, call) == (signal_in, n_calls[place]):
                os.kill(os.getpid(), number)

    def batch_loss(model, batch):
        count("step")
        return squared_error(model, batch)

    def evaluate(model):
        count("evaluation")
        with torch.no_grad():
            return {"val_loss": nn.functional.mse_loss(model(X), y).item()}

    class Batches(utils.Batches):
        CHUNK = 4

    with runs.open_run(folder, CONFIG, resume) as run:
        history = utils.fit(
            optimization(model, schedule="cosine", ema_decay=0.9, accumulate=n_parts),
            Batches(len(X), 4, noisy_gather(at_once, X, y), lengths=[torch.arange(27.0)], noise=3.0),
            batch_loss,
            evaluate,
            run,
            3,
            seed=5,
            score="val_loss",
            maximize=False,
        )
    return history, model.state_dict()


@pytest.fixture
def raising_sigterm(monkeypatch):
    """SIGTERM as the scripts handle it."""
    previous = signal.signal(signal.SIGTERM, options._on_sigterm)
    yield
    signal.signal(signal.SIGTERM, previous)


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("call", [1, 2, 4, 7, 13])
def test_an_interrupted_step_is_finished_and_the_epoch_goes_on_after_it(tmp_path, raising_sigterm, at_once, call):
    """With random numbers in `gather`, drawn for a chunk of batches at once or for each batch."""
    whole = train_until(tmp_path / "whole", at_once=at_once)
    number = signal.SIGTERM if call % 2 else signal.SIGINT
    with pytest.raises(
        Interrupted, match=f"-resume goes on from epoch {1 + (call - 1) // 7}, step {1 + (call - 1) % 7}"
    ):
        train_until(tmp_path / "cut", at_once=at_once, signals=[(call, number)])
    place = runs.load_checkpoint(tmp_path / "cut" / runs.LAST)["place"]
    assert place["step"] == 1 + (call - 1) % 7
    assert_same_run(whole, train_until(tmp_path / "cut", "must", at_once=at_once))


def test_an_epoch_that_is_interrupted_again_and_again_is_the_same(tmp_path):
    whole = train_until(tmp_path / "whole")
    for _ in range(20):
        with pytest.raises(Interrupted):
            train_until(tmp_path / "cut", "auto", signals=[(1, signal.SIGINT)])
    assert_same_run(whole, train_until(tmp_path / "cut", "must"))


def test_an_interrupt_within_a_step_of_several_parts_waits_for_all_of_them(tmp_path):
    whole = train_until(tmp_path / "whole", n_parts=3)
    with pytest.raises(Interrupted, match="epoch 1, step 2"):
        train_until(tmp_path / "cut", n_parts=3, signals=[(4, signal.SIGINT)])
    assert_same_run(whole, train_until(tmp_path / "cut", "must", n_parts=3))


def test_an_interrupted_evaluation_is_made_again_without_training_again(tmp_path):
    whole = train_until(tmp_path / "whole")
    with pytest.raises(Interrupted, match="epoch 2, step 7"):
        train_until(tmp_path / "cut", signals=[(2, signal.SIGINT)], signal_in="evaluation")
    assert_same_run(whole, train_until(tmp_path / "cut", "must"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_ends_at_once_and_keeps_the_checkpoint_before(tmp_path, raising_sigterm, number):
    whole = train_until(tmp_path / "whole")
    with pytest.raises(Interrupted, match="-resume goes on from the last finished epoch"):
        train_until(tmp_path / "cut", signals=[(9, number), (9, number)])
    assert runs.load_checkpoint(tmp_path / "cut" / runs.LAST)["place"] is None
    assert_same_run(whole, train_until(tmp_path / "cut", "must"))


def test_an_interrupted_first_epoch_does_not_take_the_place_of_a_finished_run(tmp_path):
    train_until(tmp_path)
    before = (tmp_path / runs.LAST).read_bytes()
    with pytest.raises(Interrupted, match="nothing was changed"):
        train_until(tmp_path, signals=[(3, signal.SIGINT)])
    assert (tmp_path / runs.LAST).read_bytes() == before


def test_plain_values_with_tensors_are_compared():
    """As `-init` compares what belongs to the weights of two runs."""
    ours = {"words": ["a", "b"], "statistics": {"mean": torch.tensor([1.0, 2.0]), "digest": "x"}}
    same = {"words": ["a", "b"], "statistics": {"mean": torch.tensor([1.0, 2.0]), "digest": "x"}}
    assert experiment.is_same(ours, same)
    assert not experiment.is_same(ours, same | {"words": ["a"]})
    for other in (torch.tensor([1.0, 3.0]), torch.tensor([1, 2]), torch.tensor([1.0]), [1.0, 2.0], None):
        assert not experiment.is_same(ours, same | {"statistics": {"mean": other, "digest": "x"}})
    assert not experiment.is_same(ours, {"words": ["a", "b"]})


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library gives memory back by itself")
def test_memory_that_lies_free_is_given_back_when_it_is_much(monkeypatch):
    """Small blocks, some of which stay: nothing is given back by itself."""
    monkeypatch.setattr(utils, "LOOK_SECONDS", 0)
    watch = utils.MemoryWatch(max_growth=60e6)
    start = watch.least

    def fill(n_blocks):
        """So many blocks of 60 kB, of which every hundredth is kept; returns the kept ones."""
        return [torch.ones(15_000) for _ in range(n_blocks)][99::100]

    kept = fill(500)
    watch.look()
    assert utils.resident_bytes() > start + 20e6  # 30 MB lie free, which is not much
    kept += fill(2500)
    assert utils.resident_bytes() > start + 100e6
    watch.look()
    assert utils.resident_bytes() < start + 20e6 and len(kept) == 30


@pytest.fixture
def products():
    """The setting of the products and what is known of oneDNN, restored after the test."""
    yield torch.backends.mkldnn.matmul
    utils.onednn_is_precise.cache_clear()
    utils.use_onednn(False)


@pytest.mark.parametrize("is_wanted", [True, False])
def test_products_have_the_precision_of_float32_with_onednn_too(products, is_wanted):
    utils.use_onednn(is_wanted)
    A, B = torch.randn(300, 200), torch.randn(200, 100)
    assert (A @ B - A.double() @ B.double()).abs().max() < 1e-4
    if not is_wanted:
        assert products.fp32_precision == "ieee"


@pytest.mark.parametrize("rounds", [True, False])
def test_onednn_is_not_used_where_it_rounds_the_factors(products, monkeypatch, rounds):
    multiply = torch.Tensor.__matmul__

    def matmul(A, B):
        if rounds and A.dtype == torch.float32 and products.fp32_precision == "bf16":
            A, B = A.bfloat16().float(), B.bfloat16().float()
        return multiply(A.double(), B.double()).to(A.dtype)

    monkeypatch.setattr(torch.Tensor, "__matmul__", matmul)
    utils.onednn_is_precise.cache_clear()
    utils.use_onednn(True)
    assert products.fp32_precision == ("ieee" if rounds else "bf16")
