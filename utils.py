"""What the questions share: seeds, devices and threads, batches, the one training loop, and the look of the figures."""

import ctypes
import functools
import inspect
import itertools
import logging
import math
import os
import sys
import textwrap
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")  # no display is needed, and none is tried
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

import parallel
import runs
import safe_io
from options import Interrupted, UserError, deferred_interrupts

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of the dates in matplotlib's own fonts

LOOK_SECONDS = 1  # of training, between two looks at the memory
MAX_GROWTH = 1.5e9  # bytes of memory that may lie free before it is given back
CHECK_EVERY = 50  # steps between two looks at whether the loss is finite; each look waits for the device
N_MULTIPLIED = 256  # rows and columns of a product of numbers from -1 to 1
MAX_PRODUCT_ERROR = 1e-4  # of that product in float32; with factors in bfloat16 it is 0.06
COLUMN_WIDTH, COLUMN_HEIGHT = 3.35, 2.3  # inches; a column of a two-column page is 8.5 cm
MIN_ATTENTION_CELLS = 12  # short sentences are not drawn larger than one of so many characters
ATTENTION_MARGINS = 0.7, 0.5, 0.5, 0.45  # inches on the left, on the right, below and above, for the labels and the bar
TITLE_LETTERS = 60  # of a line over a figure of a column's width
ROW_HEIGHT = 0.11  # inches, of a row with a letter beside it
GAP_COLOR = "dimgray"
LEGEND_COLUMNS = 3
WIDE_COLUMNS = 8  # a figure of more pictures side by side is two columns of a page wide
FILTER_COLUMNS = 4
TILE_PIXELS = 28  # a small picture is drawn with at least so many pixels a side
TILE_HEADING = 0.2  # inches, for a line of text over a small picture
PICTURE_PIXELS, PANEL_PIXELS = 320, 112  # of a photograph in a figure, and of one of many side by side
FULL_HEAT = 0.99  # this quantile of the weights is drawn in full red,
LEAST_HEAT = 2.0  # unless it is less than so many times an equal weight
TITLE_CHARACTERS = 48  # of a line over a figure in the size of a column
LABEL_CHARACTERS = 30  # of a line of a legend
CAPTION_CHARACTERS = 34  # of a line beside an image
LIGHTENED, HEAT_OPACITY, ATTENTION_COLOR = 0.25, 0.75, (0.85, 0.05, 0.05)  # of weights laid over an image
STYLE = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3,
    "image.cmap": "gray",
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 3,  # glyphs as drawings: a figure is written in half the time of an embedded font
}


def configure_torch(seed, device, threads=None, max_threads=1, onednn=False):
    """Seed every generator, make the kernels deterministic, set the CPU threads; returns the `torch.device`.

    Args:
        device: "auto" takes a CUDA GPU if there is one.
        threads: None is torch's own choice, but at most `max_threads`, where more do not pay.
        onednn: see `use_onednn`.

    Raises `UserError` for a device that is not there.
    """
    torch.set_num_threads(threads or min(torch.get_num_threads(), max_threads))
    torch.manual_seed(seed)
    use_onednn(onednn)
    available = [*_accelerators(), "cpu"]
    if device == "auto":
        device = "cuda" if "cuda" in available else "cpu"
    if device not in available:
        raise UserError(f"this machine has no device {device}; use -device {' or '.join(available)}")
    if device == "cuda":
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS repeats its results only so, LSTMs among them
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device(device, parallel.start(device))


def use_onednn(is_wanted):
    """Let oneDNN multiply the float32 matrices on the CPU, or MKL, torch's own choice; oneDNN only where it is as precise.

    On processors of AMD MKL does not use AVX-512, and oneDNN takes half the time. It compiles a kernel for each new shape, which takes
    milliseconds. torch hands products to oneDNN only with the permission to round their factors to bfloat16. oneDNN makes use of
    the permission on processors with AMX, and there MKL stays.
    """
    torch.backends.mkldnn.matmul.fp32_precision = "bf16" if is_wanted and onednn_is_precise() else "ieee"


@functools.cache
def onednn_is_precise():
    """Whether a product by oneDNN has the precision of float32; a small one is made to find out."""
    matmul = torch.backends.mkldnn.matmul
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    A = torch.arange(N_MULTIPLIED**2, dtype=torch.float32).sin().view(N_MULTIPLIED, N_MULTIPLIED)
    error = float((A @ A - A.double() @ A.double()).abs().max())
    matmul.fp32_precision = before
    return error < MAX_PRODUCT_ERROR


def peak_memory_mb():
    """The largest resident size of this process so far in megabytes, or None where the system does not tell."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


def release_memory():
    """Give free memory back to the system: batches of many shapes leave holes, which glibc keeps otherwise.

    Returns the bytes that this process holds then, or None where the system does not tell.
    """
    with suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    return resident_bytes()


def resident_bytes():
    """The bytes of memory that this process holds, or None where the system does not tell: only Linux does."""
    with suppress(OSError):
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class MemoryWatch:
    """Releases memory whenever the process has grown by `max_growth` bytes since the last time; `look` is called after each step.

    Taking the memory again costs the next step up to a tenth of its time, so that it is not released after each step.
    """

    def __init__(self, max_growth=MAX_GROWTH):
        self.max_growth = max_growth
        self.release()

    def release(self):
        self.least, self.looked = release_memory(), time.monotonic()

    def look(self):
        if self.least is None or time.monotonic() < self.looked + LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        if resident_bytes() > self.least + self.max_growth:
            self.release()


class Batches:
    """The shuffled batches of a training set, as row indices; `gather` turns these into what the loss reads.

    Without `lengths` an epoch is a permutation, cut into batches. With them the rows are sorted by length, and each batch holds
    rows of about one length, so that little is padded; the batches then come in a random order.

    Args:
        n_examples: how many rows there are.
        batch_size: rows of a batch; the last batch may be smaller.
        gather: `gather(rows)` of a list of row tensors yields one batch for each of them; it reads, pads and masks.
        lengths: tensors (n_examples), the most important one first: ties of the first are sorted by the second.
        noise: uniform random lengths up to this are added to the last of `lengths`, so that the batches change.
        max_elements: the budget of a batch, the number of its rows times its largest first length.
    """

    CHUNK = 64  # batches for one call of `gather`: what is done to many at once costs each of them little

    def __init__(self, n_examples, batch_size, gather, lengths=(), noise=0.0, max_elements=None):
        self.n_examples = n_examples
        self.batch_size = batch_size
        self.gather = gather
        self.lengths = lengths
        self.noise = noise
        self.max_elements = max_elements
        self.drawn = None

    def __len__(self):
        """The number of batches of an epoch; with a budget it is that of an epoch without noise."""
        if not self.lengths:
            return math.ceil(self.n_examples / self.batch_size)
        return len(self._cut(self._sort_keys(torch.zeros(self.n_examples)).argsort()))

    def epoch(self, generator):
        """The batches of one epoch, in an order drawn from `generator`; of several processes each has its share of a batch."""
        for parts in self.steps(generator):
            yield from parts

    def steps(self, generator, n_parts=1, start=0, drawn=None):
        """The batches of one epoch, each as a list of `n_parts` smaller ones, or fewer if it has fewer rows.

        Args:
            start: so many batches are left out, since the epoch goes on.
            drawn: what `self.drawn` was when the epoch was left: the states of the generators before the rows around `start`
                were gathered. `gather` may draw from them for all the rows that it is given.
        """
        rows = self.rows(generator)
        for first in range(start - start % self.CHUNK, len(rows), self.CHUNK):
            chunk = [parallel.share(batch).chunk(n_parts) for batch in rows[first : first + self.CHUNK]]
            chunk = [[part for part in parts if len(part)] for parts in chunk]
            gathered = iter(self.gather([part for parts in chunk for part in parts]))
            n_done = max(0, start - first)
            now = self.drawn = random_states()
            if n_done and drawn is not None:
                self.drawn = drawn
                set_random_states(drawn)
            for parts in chunk[:n_done]:
                deque(itertools.islice(gathered, len(parts)), maxlen=0)
            if n_done:
                set_random_states(now)
            for parts in chunk[n_done:]:
                yield list(itertools.islice(gathered, len(parts)))

    def rows(self, generator):
        """The row indices of each batch of one epoch, a list of tensors."""
        if not self.lengths:
            return torch.randperm(self.n_examples, generator=generator).split(self.batch_size)
        batches = self._cut(self._sort_keys(torch.rand(self.n_examples, generator=generator)).argsort())
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]

    def _sort_keys(self, uniform):
        """One number a row that sorts by the first length, then by the second, and so on."""
        *others, last = self.lengths
        keys, bound = last + self.noise * uniform, last.max() + self.noise + 1
        for lengths in reversed(others):
            keys, bound = lengths + keys / bound, lengths.max() + 1
        return keys

    def _cut(self, order):
        """The sorted rows as batches."""
        batches = order.split(self.batch_size)
        if self.max_elements is None:
            return batches
        return [part for rows in batches for part in rows.split(self._most_rows(rows))]

    def _most_rows(self, rows):
        """How many of these rows a batch may hold within the budget, at least one."""
        return max(1, int(self.max_elements // self.lengths[0][rows].max()))


class Optimization:
    """What changes the weights after a batch: optimizer, schedule of the learning rate, clipping, moving average.

    Args:
        model: whose parameters are trained.
        args: of `options.add_training_options`.
        n_steps: of the whole training, for the schedule.
    """

    def __init__(self, model, args, n_steps):
        self.params = [param for param in model.parameters() if param.requires_grad]
        kwargs = {"lr": args.learning_rate, "weight_decay": args.l2_decay, "fused": self.params[0].device.type != "mps"}
        if args.optimizer == "sgd":
            kwargs["momentum"] = args.momentum
        classes = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        self.optimizer = without_compiler(classes[args.optimizer])(self.params, **kwargs)
        self.max_grad_norm = args.max_grad_norm
        self.parts = {"model": model, "optimizer": self.optimizer}  # what a checkpoint holds
        self.scheduler = self.averaged = None
        if args.schedule == "cosine":
            self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, n_steps)
        elif args.schedule == "linear":
            factor = functools.partial(linear_schedule, n_steps=n_steps, n_warmup=round(args.warmup * n_steps))
            self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        if self.scheduler is not None:
            self.parts["scheduler"] = self.scheduler
        if args.ema_decay:
            average = get_ema_multi_avg_fn(args.ema_decay)
            self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
            self.parts["averaged"] = self.averaged
        self.n_parts = args.accumulate
        self.autocast = torch.autocast(self.params[0].device.type, torch.bfloat16, enabled=args.amp)
        self.model = model
        self.evaluated = model if self.averaged is None else self.averaged.module  # the weights that count

    @property
    def learning_rate(self):
        return self.optimizer.param_groups[0]["lr"]

    def zero_grad(self):
        self.optimizer.zero_grad()

    def scale_grad(self, factor):
        for param in self.params:
            if param.grad is not None:
                param.grad *= factor

    def step(self):
        """Change the weights by their gradients."""
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.params, self.max_grad_norm)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)


def linear_schedule(step, n_steps, n_warmup):
    """The factor of the learning rate at a step, 0 at first: it rises evenly for `n_warmup` steps, then falls evenly to 0."""
    if step < n_warmup:
        return (step + 1) / n_warmup
    return max(0.0, (n_steps - step) / max(1, n_steps - n_warmup))


def without_compiler(optimizer_class):
    """`optimizer_class` without its decorators for `torch.compile`, which import the compiler and take a second for it."""
    names = ("add_param_group", "state_dict", "load_state_dict", "zero_grad", "step")
    methods = {name: inspect.unwrap(getattr(optimizer_class, name)) for name in names}
    methods["step"] = torch.no_grad()(methods["step"])
    return type(optimizer_class.__name__, (optimizer_class,), methods)


def fit(
    optimization, batches, batch_loss, evaluate, run, n_epochs, *, seed, score, maximize=True, extra=None, patience=None
):
    """Train a model, keep its best and its last checkpoint in `run`, and leave it with the best weights.

    A run that has a checkpoint goes on from it and ends with the same numbers, bit for bit, as if it had never stopped.

    Args:
        optimization: an `Optimization`, which has the model.
        batches: a `Batches`.
        batch_loss: `batch_loss(model, batch)` -> the sum of the losses of a batch's terms, and the number of terms.
        evaluate: `evaluate(model)` -> a dict of validation figures.
        run: a `runs.Run`.
        seed: of the order of the examples, which has a generator of its own.
        score: the validation figure that says which epoch is best.
        maximize: whether a higher score is better; ties: keep the first.
        extra: a dict of plain values that the weights are useless without; the checkpoint keeps them together.
        patience: stop early, after so many epochs without a better score; None: never.

    Returns the history: a dict an epoch with epoch, lr, train_loss, seconds and the validation figures.
    Raises `UserError` as soon as the loss is seen not to be finite; the checkpoints of the epochs before stay.
    """
    model = optimization.model
    order = torch.Generator().manual_seed(seed)
    if parallel.rank() > 0:
        torch.manual_seed(seed + parallel.RANK_SEEDS * parallel.rank())
    history, place = _restore(parallel.broadcast(run.checkpoint()), optimization.parts, order)
    parallel.synchronize(model)
    for epoch in range(len(history) + 1, n_epochs + 1):
        if patience is not None and history and epoch - 1 - best_epoch(history, score, maximize)["epoch"] >= patience:
            print(f"stopped early: no better {score.replace('_', ' ')} in {patience} epochs", flush=True)
            break
        place = place or Place(optimization.learning_rate, order.get_state())
        start = time.perf_counter() - place.seconds
        line = {"epoch": epoch, "lr": place.lr}
        try:
            line["train_loss"] = train_epoch(optimization, batches, batch_loss, order, epoch, place)
        except Interrupted:
            place.seconds = time.perf_counter() - start
            run.save_place(_state(optimization, order, place), history, epoch, place.step)
            raise
        trained = _state(optimization, order, place)
        release_memory()
        model.eval()
        try:
            figures = evaluate(optimization.evaluated)
        except KeyboardInterrupt:
            trained["place"]["seconds"] = time.perf_counter() - start
            run.save_place(trained, history, epoch, place.step)
            raise
        for value in figures.values():
            _stop_unless_finite(value, epoch)
        line |= figures | {"seconds": time.perf_counter() - start}
        history.append(line)

        is_best = best_epoch(history, score, maximize)["epoch"] == epoch
        best = {"weights": optimization.evaluated.state_dict(), **(extra or {})} if is_best else None
        release_memory()
        place, state = None, _state(optimization, order)
        with deferred_interrupts():
            run.save_epoch(state, history, best)
        shown = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.items())
        print(
            f"Epoch {epoch}/{n_epochs}  train loss {line['train_loss']:.4f}  {shown}  ({line['seconds']:.1f}s)",
            flush=True,
        )
    run.load_best(model)
    parallel.synchronize(model)
    model.eval()
    return history


# What changes in the state of an optimizer or a schedule as it trains, or with the device; the rest follows from the options.
CHANGES = ("lr", "_last_lr", "last_epoch", "_step_count", "fused")
OPTIMIZER_STATES = (
    {"momentum_buffer"},
    {"step", "exp_avg", "exp_avg_sq"},
    set(),
)  # of SGD, of Adam and AdamW, of none yet
OPTIMIZER_STATE = set().union(*OPTIMIZER_STATES)


@dataclass
class Place:
    """Where a training stands in an epoch, and what the rest of the epoch needs.

    Attributes:
        lr: the learning rate at the epoch's start.
        order: the state of the order's generator at the epoch's start.
        step: so many steps are done.
        loss, n_terms: the sum of the losses of their terms, and the number of these.
        seconds: that they took.
        drawn: `Batches.drawn`.
    """

    lr: float
    order: torch.Tensor
    step: int = 0
    loss: torch.Tensor | float = 0.0
    n_terms: torch.Tensor | int = 0
    seconds: float = 0.0
    drawn: dict | None = None


def train_epoch(optimization, batches, batch_loss, order, epoch=1, place=None):
    """One pass over the training set, with the arguments of `fit`; `order` is the generator of the examples' order.

    Returns the mean loss over the epoch's terms. Raises `UserError` as soon as the loss is seen not to be finite.
    Ctrl-C and SIGTERM raise `Interrupted` when the step is finished; `place` then says where, and the same call with it goes on.
    """
    optimization.model.train()
    place = place or Place(optimization.learning_rate, None)
    place.loss = torch.as_tensor(place.loss, dtype=torch.float32, device=optimization.params[0].device)
    steps = batches.steps(order, optimization.n_parts, place.step, place.drawn)
    is_hidden, memory = not sys.stderr.isatty(), MemoryWatch()
    with (
        deferred_interrupts() as is_interrupted,
        tqdm(desc=f"epoch {epoch}", total=len(batches), initial=place.step, leave=False, disable=is_hidden) as bar,
    ):
        for parts in steps:
            loss, n_terms, is_stopped = train_step(optimization, batch_loss, parts, is_interrupted)
            place.step += 1
            place.loss = place.loss + loss  # stays on the device; nan and infinity stay in the sum
            place.n_terms = place.n_terms + n_terms
            bar.update()
            if place.step % CHECK_EVERY == 0:
                _stop_unless_finite(place.loss.item(), epoch, place.step)
            memory.look()
            if is_stopped:
                place.drawn = batches.drawn
                raise Interrupted
    train_loss = float(place.loss / place.n_terms)
    _stop_unless_finite(train_loss, epoch, place.step)
    return train_loss


def train_step(optimization, batch_loss, parts, is_interrupted=lambda: False):
    """Change the weights by the mean loss over the terms of a batch, which comes in parts, in each process with its own.

    Returns the sum of the losses, the number of terms, and whether any process was interrupted.
    """
    optimization.zero_grad()
    losses, n_first, n_batch = 0.0, None, 0
    for batch in parts:
        with optimization.autocast:
            loss, n = batch_loss(optimization.model, batch)
        n_first = n if n_first is None else n_first
        n_batch += n
        (loss / n_first).backward()
        losses += loss.detach()
    if parallel.world_size() > 1:
        n_batch, losses, n_interrupted = parallel.sum_gradients(
            optimization.params, n_first or 0, n_batch, losses, is_interrupted()
        )
        optimization.step()
        return losses, n_batch, bool(n_interrupted)
    if len(parts) > 1:  # the gradient of the mean over the whole batch, whose number of terms is known only now
        optimization.scale_grad(n_first / n_batch)
    optimization.step()
    return losses, n_batch, is_interrupted()


def sequence_loss(logits, tgt_out, padding_idx, label_smoothing=0.0):
    """The cross-entropy of the symbols of a batch, without its padding: its sum, and the number of symbols.

    Shapes:
        logits: (batch_size, max_tgt_len, vocab_size)
        tgt_out: (batch_size, max_tgt_len), the symbols that they predict
    """
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1),
        tgt_out.flatten(),
        ignore_index=padding_idx,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return loss, (tgt_out != padding_idx).sum()


def ctc_loss(logits, n_positions, tgt_out, padding_idx):
    """The CTC loss of a batch, summed over its texts (Graves et al., 2006, ICML); 0 for a text too long for its sound.

    Shapes:
        logits: (batch_size, max_positions, vocab_size + 1), the blank last
        n_positions: (batch_size)
        tgt_out: (batch_size, max_tgt_len), each text with a stop symbol, which is not heard, and padding behind it
    """
    log_probs = logits.float().log_softmax(dim=-1).transpose(0, 1)
    n_heard = (tgt_out != padding_idx).sum(dim=1).cpu() - 1
    how = {"blank": logits.shape[2] - 1, "reduction": "sum", "zero_infinity": True}
    return torch.nn.functional.ctc_loss(log_probs, tgt_out, n_positions, n_heard, **how)


def guided_attention_loss(alpha, n_symbols, n_positions, width=0.2):
    """How far attention is from the diagonal of text and sound (Tachibana et al., 2018, ICASSP, Section 4.2).

        sum_n sum_t A_nt W_nt,  W_nt = 1 - exp(-(n / N - t / T)^2 / (2 g^2))

    A_nt is the weight of position t = 1 .. T at symbol n = 1 .. N, the mean over the heads, and g is `width`. The paper takes the
    mean over n and t. Here the weights of a symbol add up to 1, so that with the sum over t each symbol counts from 0 to 1,
    however long its clip is. The sum over n is divided by the number of symbols where that of `sequence_loss` is.

    Shapes:
        alpha: (batch_size, n_heads, max_symbols, max_positions), 0 at the padding of the sound
        n_symbols, n_positions: (batch_size)
    """

    def places(sizes, max_size):
        numbers = torch.arange(1, max_size + 1, device=alpha.device)
        return numbers / sizes.to(alpha.device).unsqueeze(1)  # (batch_size, max_size); above 1 in the padding

    n, t = places(n_symbols, alpha.shape[2]).unsqueeze(2), places(n_positions, alpha.shape[3]).unsqueeze(1)
    W = (1 - torch.exp(-((n - t) ** 2) / (2 * width**2))) * (n <= 1)  # (batch_size, max_symbols, max_positions)
    return (alpha.mean(dim=1) * W).sum()


@torch.no_grad()
def loss_sum(model, batches, batch_loss):
    """The sum of the losses of the terms of `batches`, with dropout off, and the number of terms; of this process's share."""
    model.eval()
    losses, counts = zip((0.0, 0), *(batch_loss(model, batch) for batch in batches.epoch(torch.Generator())))
    return float(sum(losses)), int(sum(counts))


def _accelerators():
    """The modules of torch for the accelerators that are there, by the name of the device."""
    modules = {"cuda": (torch.cuda, torch.cuda.is_available()), "mps": (torch.mps, torch.backends.mps.is_available())}
    return {name: module for name, (module, is_there) in modules.items() if is_there}


def random_states():
    """The states of torch's generators, by device."""
    accelerators = {name: module.get_rng_state() for name, module in _accelerators().items()}
    return {"cpu": torch.get_rng_state(), **accelerators}


def set_random_states(states):
    torch.set_rng_state(states["cpu"])
    for name, module in _accelerators().items():
        module.set_rng_state(states[name])


def _state(optimization, order, place=None):
    """What resuming needs at a `Place` in an epoch, or between two epochs; of several processes rank 0 has all of it."""
    state = {name: part.state_dict() for name, part in optimization.parts.items()}
    state |= {"random": parallel.gather(random_states()), "order": order.get_state(), "place": None}
    if place is not None:
        state["place"] = vars(place) | {"drawn": parallel.gather(place.drawn)}
        state["order"] = place.order
    return state


def _restore(checkpoint, parts, order):
    """Put a checkpoint back where it came from; returns its history, empty for a run that starts, and its `Place` or None."""
    if checkpoint is None:
        return [], None
    try:
        _check_history(checkpoint["history"])
        for name, part in parts.items():
            _check_settings(part, checkpoint[name])
            part.load_state_dict(checkpoint[name])
        order.set_state(checkpoint["order"])
        random, place = checkpoint["random"], checkpoint["place"]
        if not (safe_io.has_form(random, [{str: torch.Tensor}]) and isinstance(place, dict | None)):
            raise ValueError("there are no random states, or no place")
        if place is not None:
            same = len(random) == parallel.world_size()
            place = Place(**place | {"drawn": place["drawn"][parallel.rank()] if same else None})
            _check_place(place)
        if parallel.rank() < len(random):  # a process more than the run had keeps the state that it has
            set_random_states(random[parallel.rank()])
        return checkpoint["history"], place
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise UserError("last.pt is the checkpoint of another model; start anew without -resume") from error


def _check_history(history):
    """Raise `ValueError` unless the lines of a checkpoint's history are those of epochs 1, 2, ...: numbers under the same names."""
    is_number = all(isinstance(value, int | float) for line in history for value in line.values())
    if not is_number or [line["epoch"] for line in history] != list(range(1, len(history) + 1)):
        raise ValueError("the history is not one of epochs")
    if any(line.keys() != history[0].keys() for line in history):
        raise ValueError("the epochs have other figures")


def _check_settings(part, state):
    """Raise `ValueError` for a state that an optimizer or a schedule cannot have: their `load_state_dict` takes anything."""
    if not isinstance(state, dict):
        raise ValueError("the state is no dict")
    if isinstance(part, torch.optim.Optimizer):
        _require_same(part.state_dict()["param_groups"], state["param_groups"])
        params = [param for group in part.param_groups for param in group["params"]]
        if not safe_io.has_form(state["state"], {int: {str: torch.Tensor | None}}):
            raise ValueError("the state is no optimizer's")
        for i, values in state["state"].items():
            shapes = {name: torch.Size() if name == "step" else params[i].shape for name in OPTIMIZER_STATE}
            for name, value in values.items():
                if value is not None and not (value.is_floating_point() and value.shape == shapes[name]):
                    raise ValueError(f"{name} is of another shape")
            if set(values) not in OPTIMIZER_STATES:
                raise ValueError("the state is another optimizer's")
    elif isinstance(part, torch.optim.lr_scheduler.LRScheduler):
        _require_same(part.state_dict(), state)


def _require_same(own, state, name=None):
    """Raise `ValueError` unless two trees have the same names and, but for those that `CHANGES`, the same values."""
    if type(own) is not type(state):
        raise ValueError(f"{name} is of another type")
    if isinstance(own, dict):
        if own.keys() != state.keys():
            raise ValueError(f"{name} has other names")
        for key in own:
            _require_same(own[key], state[key], key)
    elif isinstance(own, list | tuple):
        if len(own) != len(state):
            raise ValueError(f"{name} is of another length")
        for inner, other in zip(own, state):
            _require_same(inner, other, name)
    elif own != state and name not in CHANGES:
        raise ValueError(f"{name} is another")


def _check_place(place):
    """Raise `ValueError`, or what torch raises, for a `Place` from which no epoch can go on."""
    forms = {"lr": float, "step": int, "seconds": float, "loss": torch.Tensor | float, "n_terms": torch.Tensor | int}
    if not all(isinstance(getattr(place, name), form) for name, form in forms.items()) or place.step < 0:
        raise ValueError("this is no place in an epoch")
    if float(place.n_terms) < 0 or float(place.loss) < 0:  # raises for tensors of several numbers
        raise ValueError("the sums of the epoch are negative")
    torch.Generator().set_state(place.order)
    if place.drawn is not None:
        if not safe_io.has_form(place.drawn, {str: torch.Tensor}):
            raise ValueError("there are no random states")
        set_random_states(place.drawn)


def _stop_unless_finite(value, epoch, step=None):
    """Raise `UserError` for nan and infinity: in the sum of the losses up to a step, or in a validation figure without one.

    The message names the steps since the last look, which was `CHECK_EVERY` steps ago or at the epoch's start.
    """
    if math.isfinite(value):
        return
    if step is None:
        where = f"in the validation figures after epoch {epoch}"
    else:
        where = f"between steps {(step - 1) // CHECK_EVERY * CHECK_EVERY + 1} and {step} of epoch {epoch}"
    kept = "the best weights of the epochs before are kept" if epoch > 1 else "no epoch was finished"
    raise UserError(
        f"the loss is not finite any more, {where}; try a smaller -learning_rate, or -max_grad_norm 1 ({kept})"
    )


def best_epoch(history, score, maximize=True):
    """The line of `history` with the best score, the earliest of equals; the last line if nothing was validated."""
    validated = [line for line in history if score in line]
    if not validated:
        return history[-1]
    return (max if maximize else min)(validated, key=lambda line: line[score])


def new_figure(width=COLUMN_WIDTH, height=COLUMN_HEIGHT, **subplots):
    """A figure in the size of a report's column, inches; `subplots` as for `plt.subplots`. Returns fig, axes."""
    plt.rcParams.update(STYLE)
    return plt.subplots(figsize=(width, height), **subplots)


def data_title(data):
    """The data's name as figures and tables show it: bundled data always say so. `data` has title and bundled."""
    return f"{data.title} (bundled)" if data.bundled else data.title


def save_figure(fig, path):
    """Write `fig` as PDF, atomically and without a date, so that the same figure is the same bytes; then close it."""
    with runs.atomic_path(path) as new_path:
        fig.savefig(new_path, format="pdf", metadata={"CreationDate": None})
    plt.close(fig)


def plot_curves(path, curves, ylabel, title=None):
    """A figure of one line a run over the epochs.

    Args:
        curves: dict from label to the values of epochs 1, 2, ...
        ylabel: what they are, with the unit.
        title: says at least whether the data are bundled.
    """
    fig, ax = new_figure()
    for label, values in curves.items():
        ax.plot(range(1, len(values) + 1), values, marker="o", label=label)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="Epoch", ylabel=ylabel, title=title and textwrap.fill(title, TITLE_CHARACTERS))
    if len(curves) > 1:
        fig.legend(loc="outside lower center", ncols=LEGEND_COLUMNS)  # never over a point
    save_figure(fig, path)


def plot_intervals(path, points, xlabel, ylabel, title=None):
    """A figure of shares with their 95 % intervals, from 0 to 1; `points`: dict from x to a figure of `metrics`."""
    fig, ax = new_figure()
    values, lows, highs = ([point[key] for point in points.values()] for key in ("value", "low", "high"))
    below = [value - low for value, low in zip(values, lows)]
    above = [high - value for value, high in zip(values, highs)]
    ax.errorbar(list(points), values, yerr=[below, above], marker="o", capsize=2)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title, ylim=(0, 1))
    save_figure(fig, path)


def plot_tiles(path, tiles, titles=None, title=None, n_columns=4, signed=False):
    """A figure of small pictures side by side on one scale; drawn as one image, which is fast.

    Args:
        tiles: (n_tiles, height, width).
        titles: one for each.
        signed: blue below 0, white at 0, red above, with a bar that tells the values; else grey from 0 to the largest value.
    """
    n_tiles, height, width = tiles.shape
    n_columns = min(n_columns, n_tiles)
    n_rows = math.ceil(n_tiles / n_columns)
    figure_width = COLUMN_WIDTH if n_columns <= WIDE_COLUMNS else 2 * COLUMN_WIDTH  # inches
    side = figure_width / max(n_columns, 1.5)  # of a tile with its gap; one alone does not fill the column
    zoom = math.ceil(TILE_PIXELS / width)  # programs that show the figure may blur what has few pixels
    tiles = tiles.float().repeat_interleave(zoom, dim=1).repeat_interleave(zoom, dim=2)
    height, width = height * zoom, width * zoom
    gap = width // 14
    heading = gap + (round(TILE_HEADING / side * width) if titles else 0)

    canvas = torch.full((n_rows * n_columns, heading + height, width + gap), math.nan)  # nan is the gap
    canvas[:n_tiles, heading:, :width] = tiles
    canvas = canvas.view(n_rows, n_columns, heading + height, width + gap).transpose(1, 2).flatten(2).flatten(0, 1)
    canvas = canvas[gap:, :-gap]

    shape = side * n_columns, side * n_columns * canvas.shape[0] / canvas.shape[1] + TILE_HEADING
    fig, ax = new_figure(*shape)
    largest = max(tiles.abs().max().item(), 1e-12)
    cmap = plt.get_cmap("RdBu_r" if signed else "gray").with_extremes(
        bad="white" if titles or n_tiles == 1 else GAP_COLOR
    )
    image = ax.imshow(canvas.numpy(), interpolation="none", vmin=-largest if signed else 0, vmax=largest, cmap=cmap)
    if signed:
        fig.colorbar(image, ax=ax, shrink=0.8, aspect=30, pad=0.01)
    ax.axis("off")
    for i, name in enumerate(titles or []):
        row, column = divmod(i, n_columns)
        x, y = column * (width + gap) + width / 2, row * (heading + height) + heading - 2 * gap
        ax.text(x, y, name, ha="center", va="bottom", fontsize=7)
    fig.suptitle(title, fontsize=8)
    save_figure(fig, path)


def plot_confusion(path, counts, class_names, title=None):
    """A figure of a confusion matrix (row the true class), shaded by the share of the row, labelled with the counts."""
    side = COLUMN_WIDTH
    fig, ax = new_figure(side, side)
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            ax.text(
                j,
                i,
                count or "",
                ha="center",
                va="center",
                fontsize=6 if len(counts) > 6 else 7,
                color="white" if shares[i][j] > 0.5 else "black",
            )
    ticks = range(len(class_names))
    ax.set_xticks(ticks, class_names, rotation=90)
    ax.set_yticks(ticks, class_names)
    ax.grid(False)
    ax.set(xlabel="Predicted", ylabel="True", title=title)
    save_figure(fig, path)


def plot_attention(path, alpha, src, tgt, title=None):
    """A heat map of attention: a row for each target symbol, a column for each source symbol, labelled with them.

    alpha: (tgt_len, src_len).
    """
    side = COLUMN_WIDTH / max(len(src), len(tgt), MIN_ATTENTION_CELLS)
    map_width, map_height = side * len(src), side * len(tgt)
    left, right, bottom, top = ATTENTION_MARGINS
    width, height = left + map_width + right, bottom + map_height + top
    # The places are known, so that matplotlib need not search for them, which takes as long as the drawing.
    fig, ax = new_figure(width, height, layout="none")
    ax.set_position((left / width, bottom / height, map_width / width, map_height / height))
    image = ax.imshow(alpha.numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    bar = fig.add_axes((1 - right / width * 0.8, bottom / height, 0.1 / width, map_height / height))
    fig.colorbar(image, cax=bar)
    ax.set_xticks(range(len(src)), src, family="monospace")
    ax.set_yticks(range(len(tgt)), tgt, family="monospace")
    ax.grid(False)
    ax.set(xlabel="Source", ylabel="Translation", title=title)
    save_figure(fig, path)


def plot_over_time(path, image, seconds, ylabel, unit, labels=None, title=None, flipped=False):
    """A picture whose columns are evenly spaced in time, such as a spectrogram or attention to a clip.

    Args:
        image: (n_rows, n_columns).
        seconds: of the whole width.
        unit: what the colours stand for.
        labels: symbols of the rows, or None; a blank is drawn as an open box.
        title: long lines are wrapped.
        flipped: the first row is drawn at the bottom.
    """
    title = "\n".join(wrapped for line in (title or "").split("\n") for wrapped in textwrap.wrap(line, TITLE_LETTERS))
    height = max(COLUMN_HEIGHT, ROW_HEIGHT * len(labels or ()))
    fig, ax = new_figure(height=height)
    n_rows = image.shape[0]
    extent = (0, seconds, -0.5, n_rows - 0.5) if flipped else (0, seconds, n_rows - 0.5, -0.5)
    cmap, origin = "Blues" if labels else "viridis", "lower" if flipped else "upper"
    picture = ax.imshow(image.numpy(), cmap=cmap, aspect="auto", origin=origin, extent=extent, interpolation="none")
    fig.colorbar(picture, ax=ax, pad=0.02, label=unit)
    if labels:
        ax.set_yticks(range(n_rows), ["\u2423" if label == " " else label for label in labels], family="monospace")
    ax.grid(False)
    ax.set(xlabel="Time (s)", ylabel=ylabel, title=title)
    save_figure(fig, path)


def plot_log_mel(path, mels, seconds, title=None):
    """A figure of a log-mel spectrogram (n_frames, n_mels)."""
    plot_over_time(path, mels.T, seconds, "Mel channel", "Log-mel", title=title, flipped=True)


def plot_captioned(folder, name, image, words, weights=None, title=None):
    """`plot_caption` and, with the `decoding.Decoded` weights of one image, `plot_attention_over_image`, named by the image."""
    stem = name.rpartition(".")[0] or name
    plot_caption(folder / f"caption_{stem}.pdf", image, name, " ".join(words), title)
    if weights is not None:
        alpha = weights[0, : len(words) + 1].cpu()
        words = [*words, "<end>"][: len(alpha)]
        plot_attention_over_image(folder / f"attention_{stem}.pdf", image, alpha, words, f"{name}; {title}")


def plot_caption(path, image, name, caption, title=None):
    """An image (height, width, 3), uint8, with its caption beside it."""
    fig, ax = new_figure(2 * COLUMN_WIDTH, COLUMN_WIDTH * 0.75, ncols=2, layout="none")
    fig.subplots_adjust(0.01, 0.03, 0.99, 0.9, wspace=0.02)
    ax[0].imshow(_thumbnail(image, PICTURE_PIXELS))
    ax[0].set_anchor("E")
    ax[1].text(0.03, 0.5, textwrap.fill(caption or "(no words)", CAPTION_CHARACTERS), va="center", fontsize=11)
    for part in ax:
        part.axis("off")
    fig.suptitle(f"{name}; {title}", fontsize=8)
    save_figure(fig, path)


def plot_attention_over_image(path, image, alpha, words, title=None, n_columns=6):
    """The image, then for each word the weights that are above those of equal attention, red over the grey image, on one scale.

    Args:
        image: (height, width, 3), uint8.
        alpha: (n_words, n_regions), the regions of a square map row by row.
    """
    small = torch.from_numpy(_thumbnail(image, PANEL_PIXELS).copy()).float() / 255
    height, width, _ = small.shape
    overlaid, equal, full = overlay(small, alpha)
    panels = [small, *overlaid]
    n_rows, heading = math.ceil(len(panels) / n_columns), 3 * TILE_HEADING
    inches = 2 * COLUMN_WIDTH / n_columns
    figure_height = n_rows * (inches * height / width + TILE_HEADING) + heading - TILE_HEADING
    fig, axes = new_figure(2 * COLUMN_WIDTH, figure_height, nrows=n_rows, ncols=n_columns, layout="none", squeeze=False)
    fig.subplots_adjust(0.005, 0.005, 0.995, 1 - heading / figure_height, wspace=0.04, hspace=0.16)
    for ax, panel, word in zip(axes.flat, panels, ["", *words]):
        ax.imshow(panel.numpy())
        ax.set_title(word, pad=2)
    for ax in axes.flat:
        ax.axis("off")
    scale = f"no red: an equal weight ({equal:.3f}) or less, full red: {full:.3f} or more"
    fig.suptitle(f"{title}\n{scale}", fontsize=8, y=1 - 0.2 * TILE_HEADING / figure_height, va="top")
    save_figure(fig, path)


def overlay(image, alpha):
    """The grey image with the weights of each word in red (n_words, height, width, 3), an equal weight, and that of full red.

    image: (height, width, 3), from 0 to 1; alpha: (n_words, n_regions), the regions of a square map row by row.
    """
    height, width, _ = image.shape
    grey = LIGHTENED + (1 - LIGHTENED) * image.mean(dim=2, keepdim=True)
    n_words, side, equal = len(alpha), math.isqrt(alpha.shape[1]), 1 / alpha.shape[1]
    # A single large weight would leave the others pale, and weights that are nearly equal are no heat.
    full = max(alpha.flatten().quantile(FULL_HEAT).item(), LEAST_HEAT * equal)
    heat = ((alpha - equal) / (full - equal)).clamp(0, 1).view(n_words, 1, side, side)
    heat = torch.nn.functional.interpolate(heat, size=(height, width), mode="bilinear")
    red = torch.tensor(ATTENTION_COLOR)
    return (grey + HEAT_OPACITY * heat.view(n_words, height, width, 1) * (red - grey)).clamp(0, 1), equal, full


def _thumbnail(image, side):
    """An image (height, width, 3) with at most `side` pixels a side, for a figure of few kilobytes."""
    from PIL import Image

    small = Image.fromarray(image)
    small.thumbnail((side, side))
    return np.asarray(small)


def plot_scores(path, history, labels, ylabel, title=None):
    """A figure of validation figures by epoch; labels: a dict from a figure's name in `history` to the label of its line."""
    plot_curves(path, {label: [line[name] for line in history] for name, label in labels.items()}, ylabel, title)


def plot_losses(path, history, ylabel, title=None, extras=None):
    """A figure of the training loss, which has the `extras` in it, and the validation loss, which has not, by epoch.

    extras: a dict from a name, such as "label smoothing", to its weight; what has none is not shown.
    """
    shown = ["Training", *(f"{name} {weight:g}" for name, weight in (extras or {}).items() if weight)]
    label = textwrap.fill(", ".join(shown), LABEL_CHARACTERS)
    plot_scores(path, history, {"train_loss": label, "val_loss": "Validation"}, ylabel, title)


def plot_examples(folder, X, y, class_names, title):
    """The first image, and the first image of each class; X: uint8 (n_examples, 1, height, width)."""
    plot_tiles(folder / "original_example.pdf", X[0], title=f"{title}: {class_names[y[0]]}")
    present = y.unique().tolist()
    first = torch.stack([X[(y == label).nonzero()[0, 0], 0] for label in present])
    plot_tiles(folder / "examples.pdf", first, [class_names[label] for label in present], title, n_columns=5)


def find_convolution(model, name):
    """The convolution called `name`, as Python writes it: `conv1`, or `convblock1[0]` inside an `nn.Sequential`."""
    path = name.replace("[", ".").replace("]", "")
    convolutions = {key: module for key, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)}
    if path not in convolutions:
        raise UserError(f"the network has no convolution called {name}; it has {', '.join(convolutions)}")
    return convolutions[path]


def plot_activation_maps(path, model, layer, x, title):
    """What `layer` of `model` computes of one image x (1, channels, height, width), a picture for each channel."""
    maps = []
    hook = layer.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.no_grad():
        model(x)
    hook.remove()
    channels = [f"channel {i}" for i in range(maps[0].shape[1])]
    plot_tiles(path, maps[0][0].cpu(), channels, title, signed=True)


def plot_filters(path, weight, title, most=32):
    """The filters of a layer, a row for each input channel; weight: (out_channels, in_channels, height, width)."""
    kernels = weight.detach().cpu().transpose(0, 1)
    kernels = kernels if len(kernels) > 1 else kernels[:, :most]
    n_columns = kernels.shape[1] if len(kernels) > 1 else FILTER_COLUMNS
    plot_tiles(path, kernels.flatten(0, 1), None, title, n_columns, signed=True)
