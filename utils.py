"""What the questions share: seeds, devices, threads, batches, the one training loop, and (from `plots`) the figures."""

import functools
import inspect
import math
import os
import time
from contextlib import nullcontext

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import graphs
import parallel
from options import UserError, progress, say, world_size
from plots import (
    data_title,
    plot_activation_maps,
    plot_attention,
    plot_captioned,
    plot_confusion,
    plot_curves,
    plot_examples,
    plot_filters,
    plot_log_mel,
    plot_losses,
    plot_over_time,
    plot_scores,
)

RANK_SEEDS = 1_000_003  # between the seeds of two processes
CHECK_EVERY = 50  # steps between two looks at whether the loss is finite; each look waits for the device


def configure_torch(seed, device, threads=None, max_threads=1, warn_only=False):
    """Seed every generator, make the kernels deterministic, set the CPU threads; returns the `torch.device`.

    Args:
        device: "auto" takes a CUDA GPU if there is one.
        threads: None means `max_threads`, or fewer where torch has fewer.
        warn_only: warn of a kernel that is not deterministic, which a student's layer may need, and do not stop.

    Raises `UserError` for a device that is not there.
    """
    torch.set_num_threads(threads or min(torch.get_num_threads(), max_threads))
    torch.manual_seed((seed + RANK_SEEDS * parallel.rank()) % 2**64)  # the dropout of two processes differs
    available = [*accelerators(), "cpu"]
    if device == "auto":
        device = "cuda" if "cuda" in available else "cpu"
    if device not in available:
        raise UserError(f"this machine has no device {device}; use -device {' or '.join(available)}")
    if device == "cuda":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS repeats its results only so, LSTMs among them
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.conv.fp32_precision = torch.backends.cudnn.rnn.fp32_precision = "ieee"  # not TF32
        torch.use_deterministic_algorithms(True, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = False  # it costs a kernel for each tensor
        torch.autograd.set_multithreading_enabled(False)  # two threads add up gradients in an order that changes
    return torch.device(device, parallel.start(device))


class Batches:
    """The shuffled batches of a split.

    Without `lengths` an epoch is a permutation of the rows, cut into batches. With them the rows are sorted by length,
    and each batch holds rows of about one length, so that little is padded; the batches then come in a random order.

    Args:
        n_examples: how many rows there are.
        batch_size: rows of a batch; the last batch may be smaller.
        gather: `gather(rows)` of a tensor of row indices returns what the loss reads; it reads, pads and masks.
        lengths: tensors (n_examples), the most important one first: ties of the first are sorted by the second.
        noise: uniform random lengths up to this are added to the last of `lengths`, so that the batches change.
    """

    def __init__(self, n_examples, batch_size, gather, lengths=(), noise=0.0):
        self.n_examples = n_examples
        self.batch_size = batch_size
        self.gather = gather
        self.lengths = lengths
        self.noise = noise

    def __len__(self):
        """The number of batches of an epoch."""
        return math.ceil(self.n_examples / self.batch_size)

    def epoch(self, generator):
        """The batches of one epoch, in an order drawn from `generator`; each process has its share of a batch."""
        for rows in self.rows(generator):
            yield self.gather(parallel.share(rows))

    def rows(self, generator):
        """The row indices of each batch of one epoch, a sequence of tensors."""
        if not self.lengths:
            return torch.randperm(self.n_examples, generator=generator).split(self.batch_size)
        order = self._sort_keys(torch.rand(self.n_examples, generator=generator)).argsort()
        batches = order.split(self.batch_size)
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def _sort_keys(self, uniform):
        """One number a row that sorts by the first length, then by the second, and so on."""
        *others, last = self.lengths
        keys, bound = last + self.noise * uniform, last.max() + self.noise + 1
        for lengths in reversed(others):
            keys, bound = lengths + keys / bound, lengths.max() + 1
        return keys


class Optimization:
    """What changes the weights after a batch: optimizer, schedule of the learning rate, clipping, moving average.

    Args:
        model: whose parameters are trained.
        args: of `options.add_training_options`.
        n_steps: of the whole training, for the schedule.
        is_recordable: whether the loss asks the device for no number, so that a CUDA graph can hold the step.
    """

    def __init__(self, model, args, n_steps, is_recordable=False):
        self.model = model
        self.params = [param for param in model.parameters() if param.requires_grad]
        self.device = self.params[0].device
        kwargs = {"lr": args.learning_rate, "weight_decay": args.l2_decay, "fused": self.device.type != "mps"}
        classes = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        self.optimizer = without_compiler(classes[args.optimizer])(self.params, **kwargs)
        self.max_grad_norm, self.clip_value = args.max_grad_norm, args.clip_value
        self.scheduler = self.averaged = None
        if args.schedule == "cosine":
            self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, n_steps)
        elif args.schedule == "linear":
            factor = functools.partial(linear_schedule, n_steps=n_steps, n_warmup=round(args.warmup * n_steps))
            self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        if args.ema_decay:
            average = get_ema_multi_avg_fn(args.ema_decay)
            self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
            self.averaged.to(self.device)  # the copied LSTMs' weights get one place in memory again, which cuDNN wants
        self.evaluated = model if self.averaged is None else self.averaged.module  # the weights that count
        # Several processes add up their gradients in the middle of a step, which no graph can hold.
        has_graphs = is_recordable and self.device.type == "cuda" and world_size() == 1
        self.graphs = graphs.StepGraphs(self.device) if has_graphs else None

    @property
    def learning_rate(self):
        return self.optimizer.param_groups[0]["lr"]

    @property
    def parts(self):
        """What a checkpoint holds, by name."""
        parts = {"model": self.model, "optimizer": self.optimizer}
        parts |= {"scheduler": self.scheduler, "averaged": self.averaged}
        return {name: part for name, part in parts.items() if part is not None}

    def zero_grad(self):
        self.optimizer.zero_grad()

    def step(self):
        """Change the weights by their gradients."""
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.params, self.max_grad_norm)
        if self.clip_value:
            torch.nn.utils.clip_grad_value_(self.params, self.clip_value)
        with nullcontext() if self.graphs is None else self.graphs.rate_on_device(self.optimizer):
            self.optimizer.step()
        if self.graphs is None or not self.graphs.is_recording:
            self.advance()

    def advance(self):
        """What follows the change of the weights; it is not part of a recorded step."""
        if self.scheduler is not None:
            self.scheduler.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)


def linear_schedule(step, n_steps, n_warmup):
    """The factor of the learning rate at a step from 0: a rise for `n_warmup` steps, then an even fall to 0."""
    if step < n_warmup:
        return (step + 1) / n_warmup
    return max(0.0, (n_steps - step) / max(1, n_steps - n_warmup))


def without_compiler(optimizer_class):
    """`optimizer_class` without its decorators for `torch.compile`, which take a second to import the compiler."""
    names = ("add_param_group", "state_dict", "load_state_dict", "zero_grad", "step")
    methods = {name: inspect.unwrap(getattr(optimizer_class, name)) for name in names}
    methods["step"] = torch.no_grad()(methods["step"])
    return type(optimizer_class.__name__, (optimizer_class,), methods)


def fit(task, model, run):
    """Train the model of a task, keep its best and its last checkpoint in a run, and leave it with the best weights.

    A run that has a checkpoint goes on from it and ends with the same numbers, bit for bit, as if it had never stopped.
    Of several processes all train, and rank 0 alone evaluates, writes and prints. The epoch whose validation score
    `task.score` is best is kept, the first of equals.

    Args:
        task: an `experiment.Task`; its `args`, `batches`, `batch_loss`, `evaluate`, `score`, `maximize`, `settings` and
            `is_recordable` are read.
        model: on the device where it is trained.
        run: a `runs.Run`.

    Returns the history: a dict an epoch with epoch, lr, train_loss, seconds and the validation scores.
    Raises `UserError` as soon as the loss is seen not to be finite; the checkpoints of the epochs before stay.
    """
    args, batches = task.args, task.batches(next(model.parameters()).device)
    is_recordable = task.is_recordable and not args.models  # a student's step may ask the device for a number
    optimization = Optimization(model, args, args.epochs * len(batches), is_recordable)
    order = torch.Generator().manual_seed(args.seed)
    history = resume_from(parallel.broadcast(run.checkpoint()), optimization, order)
    parallel.synchronize(model)
    while len(history) < args.epochs:
        start, epoch = time.perf_counter(), len(history) + 1
        line = {"epoch": epoch, "lr": optimization.learning_rate}
        line["train_loss"] = train_epoch(optimization, batches, task.batch_loss, order, epoch)
        model.eval()
        scores = numbers(task.evaluate(optimization.evaluated), epoch) if parallel.is_main() else None
        line |= parallel.broadcast(scores)
        history.append(line | {"seconds": time.perf_counter() - start})
        state = checkpoint(optimization, order, history)
        is_best = best_line(history, task.score, task.maximize)["epoch"] == epoch
        if parallel.is_main():
            best = {"weights": optimization.evaluated.state_dict(), **task.settings()} if is_best else None
            run.save_epoch(state, best)
            say(epoch_line(history[-1], args.epochs, task.score))
    run.load_best(model)
    model.eval()
    return history


def train_epoch(optimization, batches, batch_loss, order, epoch=1):
    """One pass over the training set, in an order drawn from the generator `order`.

    Returns the mean loss over the epoch's terms. Raises `UserError` as soon as the loss is seen not to be finite.
    """
    optimization.model.train()
    total, n_total = torch.zeros((), device=optimization.device), 0
    shown = progress(batches.epoch(order), f"epoch {epoch}", len(batches))
    for step, batch in enumerate(shown, start=1):
        loss, n_terms = train_step(optimization, batch_loss, batch)
        total, n_total = total + loss, n_total + n_terms  # they stay on the device, which nothing waits for
        if step % CHECK_EVERY == 0 or step == epoch == 1:
            stop_unless_finite(total.item(), epoch, step)
    total, n_total = parallel.sum_of(total, n_total)
    stop_unless_finite(total.item(), epoch, step)
    return float(total / n_total)


@graphs.replayed
def train_step(optimization, batch_loss, batch):
    """Change the weights by the mean loss over the terms of a batch; returns the losses' sum and number."""
    optimization.zero_grad()
    loss, n_terms = batch_loss(optimization.model, batch)
    (loss / n_terms).backward()
    parallel.average_gradients(optimization.params, n_terms)
    optimization.step()
    return loss.detach(), n_terms


def sequence_loss(logits, tgt_out, padding_idx, label_smoothing=0.0):
    """The cross-entropy of the symbols of a batch, without its padding: its sum, and the number of symbols.

    Shapes:
        logits: (batch_size, max_tgt_len, vocab_size)
        tgt_out: (batch_size, max_tgt_len), the symbols that they predict
    """
    options = {"ignore_index": padding_idx, "label_smoothing": label_smoothing, "reduction": "sum"}
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tgt_out.flatten(), **options)
    return loss, (tgt_out != padding_idx).sum()


@torch.no_grad()
def mean_loss(model, batches, batch_loss):
    """The mean loss over the terms of `batches`, with dropout off."""
    model.eval()
    total, n_total = 0.0, 0
    for rows in progress(batches.rows(torch.Generator()), "loss"):
        loss, n_terms = batch_loss(model, batches.gather(rows))
        total, n_total = total + loss, n_total + n_terms
    return float(total) / int(n_total)


def numbers(scores, epoch):
    """Validation scores as plain numbers; raises `UserError` if one is not finite."""
    values = {name: score["value"] if isinstance(score, dict) else score for name, score in scores.items()}
    for value in values.values():
        stop_unless_finite(value, epoch)
    return values


def epoch_line(line, n_epochs, score):
    """An epoch of the history as a line for the screen: the losses, and the score that chooses the best epoch."""
    names = [name for name in line if name in ("train_loss", "val_loss", score)]
    scores = "  ".join(f"{name.replace('_', ' ')} {line[name]:.4f}" for name in names)
    return f"Epoch {line['epoch']}/{n_epochs}  {scores}  ({line['seconds']:.1f}s)"


def best_line(history, score, maximize=True):
    """The line of `history` with the best score, the earliest of equals; the last line if nothing was validated."""
    validated = [line for line in history if score in line]
    if not validated:
        return history[-1]
    return (max if maximize else min)(validated, key=lambda line: line[score])


def accelerators():
    """The modules of torch for the accelerators that are there, by the name of the device."""
    modules = {"cuda": (torch.cuda, torch.cuda.is_available()), "mps": (torch.mps, torch.backends.mps.is_available())}
    return {name: module for name, (module, is_there) in modules.items() if is_there}


def checkpoint(optimization, order, history):
    """What resuming needs after an epoch; of the random states those of all processes."""
    random = {"cpu": torch.get_rng_state()} | {name: part.get_rng_state() for name, part in accelerators().items()}
    state = {name: part.state_dict() for name, part in optimization.parts.items()}
    return state | {"random": parallel.gather(random), "order": order.get_state(), "history": history}


def resume_from(state, optimization, order):
    """Put a `checkpoint` back where it came from; returns its history, a new list for a run that starts (None)."""
    if state is None:
        return []
    try:
        for name, part in optimization.parts.items():
            part.load_state_dict(state[name])
        order.set_state(state["order"])
        history, random = list(state["history"]), state["random"]
        if parallel.rank() < len(random):  # a process more than the run had keeps the state that it has
            torch.set_rng_state(random[parallel.rank()]["cpu"])
            for name, module in accelerators().items():
                if name in random[parallel.rank()]:  # the run may come from a machine without one
                    module.set_rng_state(random[parallel.rank()][name])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError("last.pt is the checkpoint of another network; start anew without -resume") from error
    return history


def stop_unless_finite(value, epoch, step=None):
    """Raise `UserError` for nan and infinity in the sum of the losses up to a step, or in a validation score."""
    if math.isfinite(value):
        return
    if step == epoch == 1:  # no step has changed the weights yet
        advice = "look at its softmax, its mask and its logarithms; python check.py FILE finds the usual mistakes"
        raise UserError(f"the first loss of the network is not finite, before any step; {advice}")
    kept = "the best weights of the epochs before are kept" if epoch > 1 else "no epoch was finished"
    advice = "try a smaller -learning_rate, or -max_grad_norm 1"
    raise UserError(f"the loss is not finite any more, in epoch {epoch}; {advice} ({kept})")
