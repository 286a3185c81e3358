"""What the questions share: seeds, devices and threads, batches, the one training loop, and the look of the figures."""

import logging
import math
import sys
import time

import matplotlib

matplotlib.use("Agg")  # no display is needed, and none is tried
import matplotlib.pyplot as plt
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

import runs
from options import UserError

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of the dates in matplotlib's own fonts

CHECK_EVERY = 50  # steps between two looks at whether the loss is finite; each look waits for the device
COLUMN_WIDTH, COLUMN_HEIGHT = 3.35, 2.3  # inches; a column of a two-column page is 8.5 cm
MIN_ATTENTION_CELLS = 12  # short sentences are not drawn larger than one of so many characters
ATTENTION_MARGIN = 0.6  # inches, for the labels
GAP_COLOR = "lightsteelblue"
TILE_HEADING = 0.2  # inches, for a line of text over a small picture
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
    "pdf.fonttype": 42,
}


def configure_torch(seed, device, threads=None, max_threads=1):
    """Seed every generator, make the kernels deterministic, set the CPU threads; returns the `torch.device`.

    Args:
        device: "auto" takes an accelerator if there is one.
        threads: None is torch's own choice, but at most `max_threads`, where more do not pay.

    Raises `UserError` for a device that is not there.
    """
    torch.set_num_threads(threads or min(torch.get_num_threads(), max_threads))
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, is_there in available.items() if is_there)
    if not available[device]:
        there = ", ".join(name for name, is_there in available.items() if is_there)
        raise UserError(f"this machine has no device {device}; use -device {there} or auto")
    return torch.device(device)


def peak_memory_mb():
    """The largest resident size of this process so far in megabytes, or None where the system does not tell."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


class TensorBatches:
    """The shuffled batches of a data set that lives on the device as tensors; no worker, no per-example collation.

    Args:
        tensors: of equal length.
        batch_size: the last batch of an epoch may be smaller.
        transform: called with the tensors of `CHUNK` batches at once, returns what the loss gets, batch by batch.
    """

    CHUNK = 64  # batches; what is done to many at once costs each of them little, and the memory stays small

    def __init__(self, *tensors, batch_size, transform=None):
        self.tensors = tensors
        self.batch_size = batch_size
        self.transform = transform

    def __len__(self):
        return math.ceil(len(self.tensors[0]) / self.batch_size)

    def epoch(self, generator):
        """The batches of one epoch, in an order drawn from `generator`."""
        order = torch.randperm(len(self.tensors[0]), generator=generator).to(self.tensors[0].device)
        for rows in order.split(self.CHUNK * self.batch_size):
            chunk = [tensor[rows] for tensor in self.tensors]
            if self.transform:
                chunk = self.transform(*chunk)
            yield from zip(*(tensor.split(self.batch_size) for tensor in chunk), strict=True)


class LengthBatches:
    """The shuffled batches of sequence pairs, each of sources of one length, so that no source is padded.

    Args:
        src: (n_examples, max_src_len), filled up with `pad`.
        tgt: (n_examples, max_tgt_len), filled up with `pad`.
        batch_size: the last batch of a length may be smaller.
        pad: the symbol that fills up.
    """

    TGT_NOISE = 3  # symbols; of one source length those with targets of about one length go together

    def __init__(self, src, tgt, batch_size, pad):
        self.src, self.tgt = src, tgt
        self.batch_size = batch_size
        self.src_lengths = (src != pad).sum(dim=1).cpu()
        self.tgt_lengths = (tgt != pad).sum(dim=1).cpu()
        self.n_of_length = self.src_lengths.unique(return_counts=True)[1].tolist()

    def __len__(self):
        return sum(math.ceil(n / self.batch_size) for n in self.n_of_length)

    def epoch(self, generator):
        """The batches of one epoch: src (batch_size, src_len), src_lengths, tgt (batch_size, max_tgt_len)."""
        noisy_tgt = self.tgt_lengths + self.TGT_NOISE * torch.rand(len(self.src), generator=generator)
        below_one = noisy_tgt / (self.tgt_lengths.max() + self.TGT_NOISE + 1)
        of_lengths = (self.src_lengths + below_one).argsort().split(self.n_of_length)
        batches = [rows for of_length in of_lengths for rows in of_length.split(self.batch_size)]
        for i in torch.randperm(len(batches), generator=generator).tolist():
            rows = batches[i]
            src_lengths = self.src_lengths[rows]
            src, tgt = (part[rows.to(part.device)] for part in (self.src, self.tgt))
            yield src[:, : src_lengths[0]], src_lengths, tgt[:, : self.tgt_lengths[rows].max()]


def average_weights(model, decay):
    """A copy of `model` whose weights are the exponential moving average of those that training passes through."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def fit(
    model,
    optimizer,
    batches,
    batch_loss,
    evaluate,
    run,
    n_epochs,
    *,
    seed,
    score,
    maximize=True,
    scheduler=None,
    averaged=None,
    max_grad_norm=None,
    extra=None,
):
    """Train `model`, keep its best and its last checkpoint in `run`, and leave it with the best weights.

    A run that has a checkpoint goes on from it and ends with the same numbers, bit for bit, as if it had never stopped.

    Args:
        batches: has `epoch(generator)`, the batches of one epoch.
        batch_loss: `batch_loss(model, batch)` -> the mean loss of a batch and the number of terms it is the mean of.
        evaluate: `evaluate(model)` -> a dict of validation figures.
        run: a `runs.Run`.
        seed: of the order of the examples, which has a generator of its own.
        score: the validation figure that says which epoch is best.
        maximize: whether a higher score is better; the earliest of equals wins.
        scheduler: stepped after every batch.
        averaged: from `average_weights`; it is then what is evaluated and kept.
        max_grad_norm: the gradient's norm is clipped to it.
        extra: a dict of plain values that the weights are useless without; it travels in the checkpoint with them.

    Returns the history: a dict an epoch with epoch, lr, train_loss, seconds and the validation figures.
    Raises `UserError` as soon as the loss is seen not to be finite; the checkpoints of the epochs before stay.
    """
    device = next(model.parameters()).device
    order = torch.Generator().manual_seed(seed)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "averaged": averaged}
    parts = {name: part for name, part in parts.items() if part is not None}
    history = _restore(run.checkpoint(), parts, order, device)
    evaluated = averaged.module if averaged is not None else model

    for epoch in range(len(history) + 1, n_epochs + 1):
        start = time.perf_counter()
        lr = optimizer.param_groups[0]["lr"]
        train_loss = train_epoch(
            model, optimizer, batches, batch_loss, order, epoch, scheduler, averaged, max_grad_norm
        )
        model.eval()
        figures = evaluate(evaluated)
        for value in figures.values():
            _stop_unless_finite(value, epoch, len(batches))
        seconds = time.perf_counter() - start
        history.append({"epoch": epoch, "lr": lr, "train_loss": train_loss, **figures, "seconds": seconds})

        is_best = best_epoch(history, score, maximize)["epoch"] == epoch
        state = {name: part.state_dict() for name, part in parts.items()}
        state |= {"order": order.get_state(), "rng": torch.get_rng_state()}
        if device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(device)
        best = {"weights": evaluated.state_dict(), **(extra or {})} if is_best else None
        run.save_epoch(state, history, best)
        shown = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in figures.items())
        print(f"Epoch {epoch}/{n_epochs}  train loss {train_loss:.4f}  {shown}  ({seconds:.1f}s)", flush=True)

    runs.load_weights(model, run.folder / runs.BEST)
    model.eval()
    return history


def train_epoch(
    model, optimizer, batches, batch_loss, order, epoch=1, scheduler=None, averaged=None, max_grad_norm=None
):
    """One pass over the training set, with the arguments of `fit`; `order` is the generator of the examples' order.

    Returns the mean loss over the epoch's terms. Raises `UserError` as soon as the loss is seen not to be finite.
    """
    model.train()
    params = [param for param in model.parameters() if param.requires_grad]
    total_loss, n_terms = torch.zeros((), device=params[0].device), 0
    steps = tqdm(
        batches.epoch(order),
        total=len(batches),
        desc=f"epoch {epoch}",
        leave=False,
        disable=not sys.stderr.isatty(),
    )
    for step, batch in enumerate(steps, start=1):
        for param in params:
            param.grad = None
        loss, n = batch_loss(model, batch)
        loss.backward()
        if max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(params, max_grad_norm)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        if averaged is not None:
            averaged.update_parameters(model)
        total_loss += loss.detach() * n  # stays on the device; nan and infinity stay in the sum
        n_terms += n
        if step % CHECK_EVERY == 0:
            _stop_unless_finite(total_loss.item(), epoch, step)
    train_loss = float(total_loss / n_terms)
    _stop_unless_finite(train_loss, epoch, step)
    return train_loss


def _restore(checkpoint, parts, order, device):
    """Put a checkpoint back where it came from; returns its history, empty for a run that starts."""
    if checkpoint is None:
        return []
    try:
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
        order.set_state(checkpoint["order"])
        torch.set_rng_state(checkpoint["rng"])
        if device.type == "cuda" and "cuda_rng" in checkpoint:
            torch.cuda.set_rng_state(checkpoint["cuda_rng"], device)
        return checkpoint["history"]
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError("last.pt is the checkpoint of another model; start anew without -resume") from error


def _stop_unless_finite(value, epoch, step):
    if not math.isfinite(value):
        raise UserError(
            f"the loss is not finite any more at step {step} of epoch {epoch}; try a smaller -learning_rate "
            "(the epochs before are kept)"
        )


def best_epoch(history, score, maximize=True):
    """The line of `history` with the best score, the earliest of equals."""
    return (max if maximize else min)(history, key=lambda line: line[score])


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
    ax.set(xlabel="Epoch", ylabel=ylabel, title=title)
    if len(curves) > 1:
        ax.legend()
    save_figure(fig, path)


def plot_intervals(path, points, xlabel, ylabel, title=None):
    """A figure of values with their 95 % intervals; `points`: dict from x to a figure of `metrics`."""
    fig, ax = new_figure()
    values, lows, highs = ([point[key] for point in points.values()] for key in ("value", "low", "high"))
    below = [value - low for value, low in zip(values, lows)]
    above = [high - value for value, high in zip(values, highs)]
    ax.errorbar(list(points), values, yerr=[below, above], marker="o", capsize=2)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    save_figure(fig, path)


def plot_tiles(path, tiles, titles=None, title=None, n_columns=4):
    """A figure of small grey pictures side by side, each on a grey scale of its own; drawn as one image, which is fast.

    Args:
        tiles: (n_tiles, height, width).
        titles: one for each.
    """
    n_tiles, height, width = tiles.shape
    n_columns = min(n_columns, n_tiles)
    n_rows = math.ceil(n_tiles / n_columns)
    side = COLUMN_WIDTH / max(n_columns, 1.5)  # inches of a tile with its gap; one alone does not fill the column
    gap = max(1, width // 14)  # pixels
    heading = gap + (round(TILE_HEADING / side * width) if titles else 0)

    lows, highs = tiles.flatten(1).aminmax(dim=1, keepdim=True)
    grey = (tiles.flatten(1) - lows) / (highs - lows).clamp_min(1e-12)
    canvas = torch.full((n_rows * n_columns, heading + height, width + gap), math.nan)  # nan is the gap
    canvas[:n_tiles, heading:, :width] = grey.view(tiles.shape)
    canvas = canvas.view(n_rows, n_columns, heading + height, width + gap).transpose(1, 2).flatten(2).flatten(0, 1)
    canvas = canvas[gap:, :-gap]

    shape = side * n_columns, side * n_columns * canvas.shape[0] / canvas.shape[1] + TILE_HEADING
    fig, ax = new_figure(*shape)
    # Without headings only the colour of the gap tells where one picture ends and the next begins.
    cmap = plt.get_cmap("gray").with_extremes(bad="white" if titles or n_tiles == 1 else GAP_COLOR)
    ax.imshow(canvas, interpolation="nearest", vmin=0, vmax=1, cmap=cmap)
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
    fig, ax = new_figure(side * len(src) + ATTENTION_MARGIN, side * len(tgt) + ATTENTION_MARGIN)
    ax.imshow(alpha, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(len(src)), src, family="monospace")
    ax.set_yticks(range(len(tgt)), tgt, family="monospace")
    ax.grid(False)
    ax.set(xlabel="Source", ylabel="Translation", title=title)
    save_figure(fig, path)
