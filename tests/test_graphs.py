"""Recorded training steps: on a GPU they are the steps that Python starts; what is recorded, everywhere."""

import argparse
import os
import signal

import pytest
import torch
from conftest import load_script
from test_fit import gather, recipe
from test_speech_models import make_clips
from torch import nn

import graphs
import models
import utils
from data import translation
from data.bundled import translation as sentences

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
N_STEPS = 50
RECIPE = {"schedule": "linear", "warmup": 0.2, "max_grad_norm": 1.0, "ema_decay": 0.9, "l2_decay": 0.01}


def squared_error(model, batch):
    X, y = batch
    return nn.functional.mse_loss(model(X), y, reduction="sum"), len(y)


def regression(device="cpu", n_steps=N_STEPS, optimizer="adamw"):
    """A small regression with dropout: its optimization, loss, and batches of 4 rows and of 3."""
    torch.manual_seed(3)
    X = torch.randn(23, 4, device=device)
    y = X.sum(dim=1, keepdim=True)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 1)).to(device).train()
    args = recipe(0.05, optimizer=optimizer, **RECIPE)
    optimization = utils.Optimization(model, args, n_steps, is_recordable=True)
    return optimization, squared_error, utils.Batches(len(X), 4, gather(X, y))


def translator(device="cpu", n_steps=N_STEPS, optimizer="adam"):
    script = load_script("hw2-q3.py")
    args = script.parse_args(["--use_attn", "-hidden_size", "12", "-batch_size", "8", "-optimizer", optimizer])
    args = argparse.Namespace(**vars(args) | RECIPE | {"learning_rate": 0.01})
    splits = translation.split_pairs(sentences.generate(n_pairs=300))
    # Two source lengths: most batches have one of them, and few shapes come often.
    splits = {split: [pair for pair in pairs if len(pair[1]) in (14, 15)] for split, pairs in splits.items()}
    task = script.Translation(args, translation.SentencePairs("", True, splits, "f"))
    torch.manual_seed(3)
    model = task.build().to(device).train()
    return utils.Optimization(model, args, n_steps, is_recordable=True), task.batch_loss, task.batches(device)


def recogniser(device="cpu", n_steps=N_STEPS, optimizer="adamw", decoder="transformer"):
    script = load_script("hw2-q3-asr.py")
    options = ["--decoder", decoder, "--hidden_size", "16", "--batch_size", "4", "--guided_attention", "1"]
    args = script.parse_args([*options, "--dropout", "0.1", "-optimizer", optimizer])
    args = argparse.Namespace(**vars(args) | RECIPE | {"learning_rate": 0.001})
    task = script.Recognition(args, make_clips())
    torch.manual_seed(3)
    model = task.build().to(device).train()
    return utils.Optimization(model, args, n_steps, is_recordable=True), task.batch_loss, task.batches(device)


QUESTIONS = {"regression": regression, "translator": translator, "recogniser": recogniser}


def train(optimization, batch_loss, batches, n_steps=N_STEPS):
    """The losses of some steps, and the weights after them, those of the moving average too."""
    torch.manual_seed(5)
    found, order = [], torch.Generator().manual_seed(0)
    while len(found) < n_steps:
        for batch in batches.epoch(order):
            loss, n_terms = utils.train_step(optimization, batch_loss, batch)
            found.append(float(loss / n_terms))
    models_ = optimization.model, optimization.evaluated
    return found, [part.detach().cpu() for model in models_ for part in model.state_dict().values()]


@pytest.fixture
def gpu():
    """A GPU as the scripts configure it; the next test's processor is torch's own again."""
    yield utils.configure_torch(0, "cuda")
    torch.use_deterministic_algorithms(False)


@needs_gpu
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_recorded_steps_have_the_bits_of_steps_that_python_starts(question, optimizer, gpu, monkeypatch):
    recorded = QUESTIONS[question](gpu, optimizer=optimizer)
    right = train(*recorded)
    assert recorded[0].graphs.graphs and isinstance(recorded[0].learning_rate, float)
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "N_EAGER_STEPS", 10 * N_STEPS)
        started = QUESTIONS[question](gpu, optimizer=optimizer)
        losses, weights = train(*started)
    assert not started[0].graphs.graphs and losses == right[0]
    assert all(torch.equal(a, b) for a, b in zip(weights, right[1], strict=True))
    plain = QUESTIONS[question](gpu, optimizer=optimizer)
    plain[0].graphs = None  # the learning rate is then a number of twice the precision
    assert train(*plain)[0] == pytest.approx(right[0], rel=1e-4)


@needs_gpu
def test_a_lone_gpu_step_has_the_losses_of_the_cpu_without_dropout(gpu):
    for question in (translator, recogniser):
        sides = [question(device) for device in ("cpu", gpu)]
        for optimization, _, _ in sides:
            for part in optimization.model.modules():
                if isinstance(part, nn.Dropout):
                    part.p = 0.0
        cpu, cuda = (train(*side, n_steps=5)[0] for side in sides)
        assert cuda == pytest.approx(cpu, rel=1e-3)


@needs_gpu
def test_an_interrupt_while_a_step_is_recorded_is_an_interrupt(gpu):
    optimization, batch_loss, batches = regression(gpu)

    def interrupted(model, batch):
        if torch.cuda.is_current_stream_capturing():
            os.kill(os.getpid(), signal.SIGINT)
        return batch_loss(model, batch)

    with pytest.raises(KeyboardInterrupt):
        train(optimization, interrupted, batches)
    losses, _ = train(*regression(gpu))  # and the device can be used again
    assert len(losses) >= N_STEPS


@needs_gpu
def test_a_batch_of_several_source_lengths_is_not_recorded(gpu):
    """It is packed, with its lengths on the CPU."""
    optimization, batch_loss, batches = translator(gpu)
    train(optimization, batch_loss, batches)
    assert all(shape[1] is None for shape in optimization.graphs.graphs)
    assert not any(n for shape, n in optimization.graphs.n_seen.items() if shape[1] is not None)


class FakeGraph:
    """A graph that does a step of its own when it is replayed."""

    def __init__(self, step):
        self.replay = step


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_each_step_moves_the_schedule_once_and_reads_its_own_batch(optimizer, monkeypatch):
    """On the CPU, with graphs that compute a step in place of replaying it."""
    n_recorded = 0

    def record(self, train_step, optimization, batch_loss, batch):
        nonlocal n_recorded
        n_recorded += 1
        inputs, outputs = [part.clone() for part in batch], [torch.zeros(()), len(batch[0])]

        def replay():
            self.is_recording = True
            outputs[0].copy_(train_step(optimization, batch_loss, inputs)[0])
            self.is_recording = False

        return FakeGraph(replay), inputs, outputs

    monkeypatch.setattr(graphs.StepGraphs, "record", record)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    right = train(*regression(optimizer=optimizer))
    optimization, *rest = regression(optimizer=optimizer)
    assert optimization.graphs is None  # on the CPU
    optimization.graphs = graphs.StepGraphs(torch.device("cpu"))
    losses, weights = train(optimization, *rest)
    assert n_recorded == 2 and set(optimization.graphs.n_seen.values()) == {graphs.N_EAGER_STEPS + 1}
    assert losses == pytest.approx(right[0], rel=1e-4)
    for ours, theirs in zip(weights, right[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    (group,) = optimization.optimizer.param_groups
    assert isinstance(group["lr"], float) and not group.get("capturable")


def test_no_graphs_where_a_step_cannot_be_recorded():
    assert all(question()[0].graphs is None for question in QUESTIONS.values())  # on the CPU


def test_a_sentence_pair_needs_no_lengths_where_none_is_padded():
    """None in place of lengths gives the same output and gradient bits."""
    torch.manual_seed(0)
    encoder = models.Encoder(9, 6, 0, 0.0)
    model = models.Seq2Seq(encoder, models.Decoder(6, 8, models.Attention(6), 0, 0.0))
    src, tgt = torch.randint(1, 9, (3, 5)), torch.randint(1, 8, (3, 4))
    found = []
    for lengths in (torch.full((3,), 5), None):
        model.zero_grad()
        logits, _ = model(src, lengths, tgt)
        logits.square().sum().backward()
        found.append([logits.detach(), *(param.grad for param in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
