"""The training loop and the run folder: best and last, resuming, kills, locks, a loss that is not finite."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn

import runs
import utils
from options import UserError

CONFIG = {"options": {"learning_rate": 0.1}, "data": {"fingerprint": "f"}}


def train(folder, n_epochs, resume=False, lr=0.1, averaged=False, stop_after=None, config=CONFIG):
    """A small regression with dropout; returns history and weights. `stop_after` epochs it is interrupted in the next."""
    torch.manual_seed(3)
    X = torch.randn(23, 4)
    y = X @ torch.randn(4, 1)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    n_calls = 0

    def batch_loss(model, batch):
        nonlocal n_calls
        n_calls += 1
        if stop_after is not None and n_calls > stop_after * 6 + 2:  # 6 batches an epoch
            raise KeyboardInterrupt
        return nn.functional.mse_loss(model(batch[0]), batch[1]), len(batch[0])

    def evaluate(model):
        with torch.no_grad():
            return {"val_loss": nn.functional.mse_loss(model(X), y).item()}

    with runs.open_run(folder, config, resume) as run:
        history = utils.fit(
            model,
            optimizer,
            utils.TensorBatches(X, y, batch_size=4),
            batch_loss,
            evaluate,
            run,
            n_epochs,
            seed=5,
            score="val_loss",
            maximize=False,
            scheduler=scheduler,
            averaged=utils.average_weights(model, 0.9) if averaged else None,
            max_grad_norm=1.0,
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


@pytest.mark.parametrize("averaged", [False, True])
def test_a_run_interrupted_within_an_epoch_and_resumed_equals_one_that_was_not(tmp_path, averaged):
    whole = train(tmp_path / "whole", 5, averaged=averaged)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", 5, averaged=averaged, stop_after=2)
    assert len((tmp_path / "cut" / runs.HISTORY).read_text().splitlines()) == 2
    assert_same_run(whole, train(tmp_path / "cut", 5, resume=True, averaged=averaged))


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
            model,
            torch.optim.SGD(model.parameters(), lr=0.0),
            utils.TensorBatches(X, y, batch_size=3),  # the last batch has one example: weights matter
            lambda model, batch: (nn.functional.mse_loss(model(batch[0]), batch[1]), len(batch[0])),
            lambda model: {"val": 0.0},
            run,
            2,
            seed=0,
            score="val",
        )
    assert [line["train_loss"] for line in history] == pytest.approx([13.0, 13.0])  # mean of 0, 1, 4, 9, 16, 25, 36


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was(tmp_path):
    train(tmp_path, 2)
    with pytest.raises(UserError, match="not finite.*step 6 of epoch 1"):
        train(tmp_path, 2, lr=1e30)
    assert json.loads((tmp_path / runs.RESULT).read_text()) == {"done": True}


def test_batches_are_a_permutation():
    batches = utils.TensorBatches(torch.arange(10), batch_size=4)
    generator = torch.Generator().manual_seed(0)
    first, second = ([batch for (batch,) in batches.epoch(generator)] for _ in range(2))
    assert [len(batch) for batch in first] == [4, 4, 2] and len(batches) == 3
    assert sorted(torch.cat(first).tolist()) == list(range(10))
    assert torch.cat(first).tolist() != torch.cat(second).tolist()


def test_a_transform_sees_many_batches_at_once_and_every_example_once():
    seen = []

    def transform(X, y):
        seen.append(len(X))
        return X * 10, y

    n = utils.TensorBatches.CHUNK * 2 + 5  # a chunk of batches of two, then three batches
    batches = utils.TensorBatches(torch.arange(n), torch.arange(n), batch_size=2, transform=transform)
    found = list(batches.epoch(torch.Generator().manual_seed(0)))
    assert seen == [n - 5, 5] and len(found) == len(batches)
    X, y = (torch.cat(part) for part in zip(*found, strict=True))
    assert torch.equal(X, y * 10) and sorted(y.tolist()) == list(range(n))


def sequence_pairs(n_pairs=200):
    torch.manual_seed(0)
    src_lengths, tgt_lengths = torch.randint(1, 8, (2, n_pairs))
    number = torch.arange(1, n_pairs + 1).unsqueeze(1)  # each pair is filled with its number
    return [number * (torch.arange(8) < lengths.unsqueeze(1)) for lengths in (src_lengths, tgt_lengths)]


def test_length_batches_hold_every_pair_once_and_no_padded_source():
    src, tgt = sequence_pairs()
    batches = utils.LengthBatches(src, tgt, 16, pad=0)
    found = list(batches.epoch(torch.Generator().manual_seed(0)))
    assert len(found) == len(batches) and max(len(part[0]) for part in found) == 16
    numbers = []
    for src_batch, src_lengths, tgt_batch in found:
        assert src_batch.all() and (src_lengths == src_batch.shape[1]).all()
        assert torch.equal(src_batch[:, 0], tgt_batch[:, 0]) and tgt_batch[:, -1].any()
        for i in src_batch[:, 0].tolist():
            assert (tgt_batch == i).sum() == (tgt == i).sum() and (src_batch == i).sum() == (src == i).sum()
        numbers += src_batch[:, 0].tolist()
    assert sorted(numbers) == list(range(1, len(src) + 1))


def test_length_batches_are_mixed_anew_each_epoch_and_alike_for_a_seed():
    batches = utils.LengthBatches(*sequence_pairs(), 16, pad=0)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    a, b, c = ([part[0][:, 0].tolist() for part in batches.epoch(generator)] for generator in generators)
    assert a == b != c
    assert sorted(map(sorted, a)) != sorted(map(sorted, c))  # not only the order of the batches
    again = [part[0][:, 0].tolist() for part in batches.epoch(generators[0])]
    assert again != a


def test_length_batches_put_targets_of_about_one_length_together():
    src, tgt = sequence_pairs(2000)
    paddings = []
    for src_batch, _, tgt_batch in utils.LengthBatches(src, tgt, 16, pad=0).epoch(torch.Generator().manual_seed(0)):
        assert len(src_batch) <= 16
        paddings.append((tgt_batch == 0).float().mean().item())
    assert sum(paddings) / len(paddings) < 0.3  # at random it is more than 0.4


def test_a_new_run_keeps_the_old_files_until_its_first_checkpoint(tmp_path, capsys):
    train(tmp_path, 2)
    (tmp_path / "old.pdf").write_text("a figure")
    (tmp_path / "notes.md").write_text("the user's own")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, 2, stop_after=0)
    assert (tmp_path / "old.pdf").exists() and (tmp_path / runs.RESULT).exists()
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
            train(tmp_path, 2, resume=True, config=config)


def test_resuming_what_is_no_checkpoint_or_anothers(tmp_path):
    train(tmp_path, 1)
    good = (tmp_path / runs.LAST).read_bytes()
    for content in (b"", b"no checkpoint", b"a text file\n", b"PK\x03\x04", good[: len(good) // 2]):
        (tmp_path / runs.LAST).write_bytes(content)
        with pytest.raises(UserError, match="not a checkpoint"):
            train(tmp_path, 2, resume=True)
    torch.save({"model": {"other.weight": torch.zeros(2)}}, tmp_path / runs.LAST)
    with pytest.raises(UserError, match="another model"):
        train(tmp_path, 2, resume=True)


def test_a_config_that_is_none_is_named(tmp_path):
    train(tmp_path, 1)
    (tmp_path / runs.CONFIG).write_text("{}")
    with pytest.raises(UserError, match="config.json has no options"):
        train(tmp_path, 2, resume=True)


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


def test_side_by_side_processes_and_their_errors(capsys):
    commands = {
        "[a]": [sys.executable, "-c", "print('one line')"],
        "[b]": [sys.executable, "-c", "import sys; sys.exit('what is wrong')"],
    }
    assert runs.run_side_by_side(commands, jobs=1) == {"[a]": None, "[b]": "what is wrong"}
    assert "[a]  one line" in capsys.readouterr().out
