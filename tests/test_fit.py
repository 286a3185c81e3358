"""The training loop: best and last weights, resuming, a loss that is not finite, the batches."""

import argparse
import json
import math
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn

import options
import runs
import utils
from options import Interrupted, UserError

CONFIG = {
    "question": "q2",
    "kind": "run",
    "options": {"learning_rate": 0.1},
    "changed": {"learning_rate": 0.1},
    "data": {"fingerprint": "f", "bundled": False},
}


def recipe(lr=0.1, n_epochs=1, **changes):
    """The options of a training."""
    parser = options.Parser("")
    options.add_training_options(parser, learning_rate=lr, optimizer="adam", epochs=n_epochs)
    return argparse.Namespace(**vars(parser.parse_args([])) | {"seed": 5, "models": None} | changes)


def gather(*tensors):
    """The rows of tensors."""
    return lambda rows: tuple(tensor[rows] for tensor in tensors)


def squared_error(model, batch):
    X, y = batch
    return nn.functional.mse_loss(model(X), y, reduction="sum"), len(y)


def task_of(args, batches, batch_loss, evaluate, score="val_loss"):
    """What `fit` reads of a task whose score is better when it is lower."""
    parts = {"batches": lambda device: batches, "batch_loss": batch_loss, "evaluate": evaluate, "settings": dict}
    return argparse.Namespace(args=args, score=score, maximize=False, is_recordable=False, **parts)


def train(
    folder, n_epochs, resume=None, lr=0.1, ema_decay=0.0, stop_after=None, config=CONFIG, schedule="cosine", **more
):
    """A small regression with dropout; returns history and weights. It is interrupted `stop_after` epochs."""
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
        args = recipe(lr, n_epochs, schedule=schedule, ema_decay=ema_decay, max_grad_norm=1.0, **more)
        batches = utils.Batches(len(X), 4, gather(X, y))
        history = utils.fit(task_of(args, batches, batch_loss, evaluate), model, run)
        run.add(done=True, **dict.fromkeys(runs.RESULT_KEYS))
    return history, model.state_dict()


def test_the_linear_schedule_rises_and_falls():
    factors = [utils.linear_schedule(step, 10, 2) for step in range(11)]
    assert factors == pytest.approx([1 / 2, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0])


@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_a_run_has_the_rates_of_the_linear_schedule(warmup, tmp_path):
    history, _ = train(tmp_path / "run", 4, lr=0.1, schedule="linear", warmup=warmup)
    n_steps = 6 * 4
    before = [0.1 * utils.linear_schedule(6 * epoch, n_steps, round(warmup * n_steps)) for epoch in range(4)]
    assert [line["lr"] for line in history] == pytest.approx(before) and len(set(before)) == 4


def without_seconds(history):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in history]


def assert_same_run(a, b):
    assert without_seconds(a[0]) == without_seconds(b[0])
    for name, weight in a[1].items():
        assert torch.equal(weight, b[1][name]), name


def test_the_same_seed_gives_the_same_bits(tmp_path):
    assert_same_run(train(tmp_path / "a", 3), train(tmp_path / "b", 3))


def test_gradients_are_clipped_by_their_norm_or_element_by_element():
    for changes, expected in (({}, [3, -4]), ({"clip_value": 3.5}, [3, -3.5]), ({"max_grad_norm": 1.0}, [0.6, -0.8])):
        model = nn.Linear(2, 1, bias=False)
        optimization = utils.Optimization(model, recipe(1.0, optimizer="sgd", **changes), 1)
        before = model.weight.detach().clone()
        model.weight.grad = torch.tensor([[3.0, -4.0]])
        optimization.step()
        torch.testing.assert_close(before - model.weight.detach(), torch.tensor([expected], dtype=torch.float32))


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


def test_resuming_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no run to resume"):
        train(tmp_path / "a", 1, resume="must")
    assert_same_run(train(tmp_path / "b", 2), train(tmp_path / "c", 2, resume="auto"))


def test_a_run_goes_on_where_there_is_another_accelerator(tmp_path, monkeypatch):
    """Begun without a GPU and resumed beside one, and the other way round."""
    whole = train(tmp_path / "whole", 3)

    class Gpu:
        get_rng_state = staticmethod(lambda: torch.zeros(3, dtype=torch.uint8))

        @staticmethod
        def set_rng_state(state):
            raise AssertionError("a run that began without a GPU has no state for it")

    with pytest.raises(Interrupted):
        train(tmp_path / "to_gpu", 3, stop_after=1)
    with monkeypatch.context() as patch:
        patch.setattr(utils, "accelerators", lambda: {"cuda": Gpu})
        with pytest.raises(Interrupted):
            train(tmp_path / "from_gpu", 3, stop_after=1)
        history, _ = train(tmp_path / "to_gpu", 3, resume="must")
    assert without_seconds(history) == without_seconds(whole[0])
    assert_same_run(whole, train(tmp_path / "from_gpu", 3, resume="must"))


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_optimizer_is_torchs_own(name):
    """Without the decorators for torch.compile; same weights bit for bit, same state."""
    classes = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    models = []
    for ours in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        if ours:
            optimizer = utils.Optimization(model, recipe(optimizer=name, l2_decay=0.01), 100).optimizer
        else:
            optimizer = classes[name](model.parameters(), lr=0.1, weight_decay=0.01, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
        sizes = {f"state{i}": torch.tensor(len(s)) for i, s in optimizer.state_dict()["state"].items()}
        models.append(model.state_dict() | sizes)
    assert models[0].keys() == models[1].keys() and all(torch.equal(models[0][k], models[1][k]) for k in models[0])


def test_training_does_not_import_the_compiler():
    code = (
        "import sys, torch, options, utils\n"
        "parser = options.Parser('')\n"
        "options.add_training_options(parser, learning_rate=0.1, optimizer='adam')\n"
        "args = parser.parse_args([])\n"
        "model = torch.nn.Linear(2, 1)\n"
        "optimization = utils.Optimization(model, args, 1)\n"
        "optimization.zero_grad(); model(torch.ones(1, 2)).sum().backward(); optimization.step()\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_best_weights_are_those_of_the_best_epoch(tmp_path):
    history, weights = train(tmp_path / "run", 6, lr=0.5, schedule="constant")
    best = utils.best_line(history, "val_loss", maximize=False)["epoch"]
    assert best < 6, "choose a learning rate whose last epoch is not the best"
    _, weights_then = train(tmp_path / "shorter", best, lr=0.5, schedule="constant")
    assert all(torch.equal(weights[name], weights_then[name]) for name in weights)


def test_training_loss_is_the_mean_over_examples_of_that_epoch(tmp_path):
    X, y = torch.arange(7.0).unsqueeze(1), torch.zeros(7, 1)
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    batches = utils.Batches(len(X), 3, gather(X, y))  # the last batch has one example: weights matter
    args = recipe(lr=1e-30, n_epochs=2, optimizer="sgd")
    with runs.open_run(tmp_path, CONFIG) as run:
        task = task_of(args, batches, squared_error, lambda model: {"val": 0.0}, "val")
        history = utils.fit(task, model, run)
    assert [line["train_loss"] for line in history] == pytest.approx([13.0, 13.0])  # mean of 0, 1, 4, 9, 16, 25, 36


def test_a_step_is_that_of_the_mean_over_the_terms():
    """Against the gradient written down: loss = mean of (w x - y)^2, so w changes by -lr * 2 mean(x (w x - y))."""
    X, y = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[3.0], [1.0], [0.0]])
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimization = utils.Optimization(model, recipe(lr=0.05, optimizer="sgd"), 1)
    loss, n_terms = utils.train_step(optimization, squared_error, (X, y))
    assert (float(loss), n_terms) == (21.0, 3)  # (1 - 3)^2 + (2 - 1)^2 + 4^2
    assert model.weight.item() == pytest.approx(1 - 0.05 * 2 * (1 * -2 + 2 * 1 + 4 * 4) / 3)


def test_of_equal_epochs_the_first_is_the_best():
    history = [{"epoch": epoch, "val": score} for epoch, score in enumerate([3.0, 1.0, 2.0, 1.0, 3.0], start=1)]
    assert utils.best_line(history, "val", maximize=False)["epoch"] == 2
    assert utils.best_line(history, "val", maximize=True)["epoch"] == 1


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was(tmp_path):
    train(tmp_path, 2)
    with pytest.raises(UserError, match="not finite.*in epoch 1"):
        train(tmp_path, 2, lr=1e30)
    assert json.loads((tmp_path / runs.RESULT).read_text())["done"]


def test_a_validation_score_that_is_not_finite_stops_the_run():
    assert utils.numbers({"a": {"value": 0.5, "low": 0.4}, "b": 2.0}, epoch=3) == {"a": 0.5, "b": 2.0}
    with pytest.raises(UserError, match="in epoch 3"):
        utils.numbers({"a": {"value": math.nan}}, epoch=3)


def identity(rows):
    return rows


def test_batches_are_a_permutation():
    batches = utils.Batches(10, 4, identity)
    generator = torch.Generator().manual_seed(0)
    first, second = (list(batches.epoch(generator)) for _ in range(2))
    assert [len(batch) for batch in first] == [4, 4, 2] and len(batches) == 3
    assert sorted(torch.cat(first).tolist()) == list(range(10))
    assert torch.cat(first).tolist() != torch.cat(second).tolist()


def random_lengths(n_examples):
    return list(torch.randint(1, 8, (2, n_examples), generator=torch.Generator().manual_seed(0)))


def test_length_batches_hold_every_row_once_and_rows_of_like_length():
    n = 200
    lengths = random_lengths(n)
    batches = utils.Batches(n, 16, identity, lengths, noise=3)
    found = batches.rows(torch.Generator().manual_seed(0))
    assert sorted(torch.cat(found).tolist()) == list(range(n))
    for rows in found:
        assert lengths[0][rows].max() - lengths[0][rows].min() <= 1
    assert max(map(len, found)) == 16 and len(found) == len(batches)


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


@pytest.mark.parametrize("n_examples", [6, 300])  # one batch, and more than are looked at together
def test_a_network_that_gives_nan_at_once_is_told_to_look_at_its_softmax_and_not_at_the_rate(n_examples, tmp_path):
    """As a softmax over the wrong dimension, of which some rows are all mask."""
    batches = utils.Batches(n_examples, 6, gather(torch.randn(n_examples, 2), torch.zeros(n_examples, 1)))

    def loss(model, batch):
        return (model(batch[0]) * float("nan")).sum(), len(batch[0])

    with runs.open_run(tmp_path, CONFIG) as run, pytest.raises(UserError, match="softmax.*mask.*check.py") as caught:
        utils.fit(task_of(recipe(), batches, loss, lambda model: {}), nn.Linear(2, 1), run)
    assert "learning_rate" not in str(caught.value)


def test_an_epoch_line_has_the_losses_and_the_score_that_chooses_and_fits_100_columns():
    names = ("train_loss", "plain_train_loss", "val_loss", "val_damerau_levenshtein", "val_wer", "val_cer")
    line = {"epoch": 12, "lr": 0.1, "seconds": 12.34} | dict.fromkeys(names, 1.5)
    shown = utils.epoch_line(line, 15, "val_cer")
    assert shown == "Epoch 12/15  train loss 1.5000  val loss 1.5000  val cer 1.5000  (12.3s)"
    assert len(shown) <= 100


@pytest.mark.parametrize("warn_only", [False, True])
def test_the_kernels_of_a_gpu_are_deterministic_and_a_students_layers_may_warn(warn_only, monkeypatch):
    monkeypatch.setattr(utils, "accelerators", lambda: {"cuda": torch.cuda})
    monkeypatch.setattr(utils.parallel, "start", lambda device: 0)
    try:
        assert utils.configure_torch(0, "auto", 1, warn_only=warn_only) == torch.device("cuda", 0)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only
    finally:
        torch.use_deterministic_algorithms(False)
        torch.autograd.set_multithreading_enabled(True)
