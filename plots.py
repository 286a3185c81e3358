"""The figures: their look, and one function for each kind. `utils` offers all of them."""

import io
import logging
import math
import os
import textwrap
import warnings

os.environ["MPLBACKEND"] = "Agg"  # no display is needed, and a notebook's own backend may not be there
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch

import files

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it warns of the dates in matplotlib's own fonts

COLUMN_WIDTH, COLUMN_HEIGHT = 3.35, 2.3  # inches; a column of a two-column page is 8.5 cm
MIN_ATTENTION_CELLS = 12  # the cells of a shorter sentence are not drawn larger than those of one with 12 characters
ATTENTION_MARGINS = 0.7, 0.5, 0.5, 0.45  # inches on the left, on the right, below and above, for the labels and the bar
TITLE_LETTERS = 60  # a title over a figure of a column's width is wrapped there
ROW_HEIGHT, LEAST_ROWS = 0.11, 31  # inches, of a row with a letter beside it; a figure of fewer rows is as high
GAP_COLOR = "dimgray"
LEGEND_COLUMNS = 3
WIDE_COLUMNS = 8  # with more pictures side by side the figure is two columns wide
FILTER_COLUMNS = 4
TILE_PIXELS = 28  # smaller pictures are enlarged to this side
TILE_HEADING = 0.2  # inches, for a line of text over a small picture
BAR_SHARE = 0.16  # of the width, that the bar of values takes
PICTURE_PIXELS, PANEL_PIXELS = 320, 112  # largest side of one photograph in a figure, and of one among several
FULL_HEAT, LEAST_HEAT = 0.99, 2.0  # full red is this quantile of the weights, and at least twice an equal weight
TITLE_CHARACTERS = 48  # a title over a figure of curves is wrapped there
LABEL_CHARACTERS = 30  # a label in a legend or at an axis is wrapped there
CAPTION_CHARACTERS = 34  # a caption beside an image is wrapped there
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


def new_figure(width=COLUMN_WIDTH, height=COLUMN_HEIGHT, has_math=False, **subplots):
    """A figure in the size of a report's column, inches; `subplots` as for `plt.subplots`. Returns fig, axes."""
    # Whatever the user's own settings are. Without `has_math` a dollar sign in a file's name is a dollar sign.
    plt.rcParams.update(matplotlib.rcParamsDefault | STYLE | {"text.parse_math": has_math})
    return plt.subplots(figsize=(width, height), **subplots)


def data_title(data):
    """The data's name as figures and tables show it: bundled data always say so. `data` has title and bundled."""
    return f"{data.title} (bundled)" if data.bundled else data.title


def save_figure(fig, path):
    """Write `fig` as PDF, atomically and without a date, so that the same figure is the same bytes; then close it."""
    content = io.BytesIO()  # matplotlib's own writer ends in another error when the disk is full
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a letter that the font lacks is drawn as a box
        fig.savefig(content, format="pdf", metadata={"CreationDate": None})
    plt.close(fig)
    files.write_bytes(path, content.getvalue())


def plot_curves(path, curves, ylabel, title=None, best=None):
    """A figure of one line a run over the epochs.

    Args:
        curves: dict from label to the values of epochs 1, 2, ...
        ylabel: what they are, with the unit.
        title: says at least whether the data are bundled.
        best: the epoch whose weights are kept, which is marked.
    """
    fig, ax = new_figure()
    for label, values in curves.items():
        ax.plot(range(1, len(values) + 1), values, marker="o", label=label)
    ax.xaxis.get_major_locator().set_params(integer=True)
    if best is not None:
        ax.axvline(best, color=GAP_COLOR, linestyle="dotted", zorder=0)
    xlabel = "Epoch" if best is None else f"Epoch (dotted: {best}, the best on validation)"
    ylabel, title = textwrap.fill(ylabel, LABEL_CHARACTERS), title and textwrap.fill(title, TITLE_CHARACTERS)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if len(curves) > 1:
        fig.legend(loc="outside lower center", ncols=LEGEND_COLUMNS)  # never over a point
    save_figure(fig, path)


def plot_tiles(path, tiles, titles=None, title=None, n_columns=4, signed=False, original=None):
    """A figure of small pictures side by side on one scale; drawn as one image, which is fast.

    Args:
        tiles: (n_tiles, height, width).
        titles: one for each.
        signed: blue below 0, white at 0, red above, with a bar that tells the values; else grey from 0 to the largest
            value.
        original: a picture (height, width) in grey on a scale of its own, which takes the place of the first tile.
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

    room = side * n_columns * (1 - BAR_SHARE if signed else 1)  # for the tiles
    fig, ax = new_figure(side * n_columns, room * canvas.shape[0] / canvas.shape[1] + TILE_HEADING)
    largest = max(tiles.abs().max().item(), 1e-12)
    cmap = plt.get_cmap("RdBu_r" if signed else "gray").with_extremes(
        bad="white" if titles or n_tiles == 1 else GAP_COLOR
    )
    image = ax.imshow(canvas.numpy(), interpolation="none", vmin=-largest if signed else 0, vmax=largest, cmap=cmap)
    if signed:
        fig.colorbar(image, ax=ax, shrink=0.8, aspect=30, fraction=BAR_SHARE - 0.01, pad=0.01)
    if original is not None:
        place = (-0.5, width - 0.5, heading - gap + height - 0.5, heading - gap - 0.5)  # left, right, bottom, top
        ax.autoscale(False)
        ax.imshow(original.numpy(), interpolation="none", cmap="gray", extent=place)
    if titles or n_tiles == 1:
        ax.axis("off")
    else:  # the filters of a layer that reads several channels
        ax.grid(False)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0, labelsize=6)
        ax.set(xlabel="Output channel", ylabel="Input channel")
        ax.set_xticks([i * (width + gap) + width / 2 for i in range(n_columns)], range(1, n_columns + 1))
        ax.set_yticks([i * (height + gap) + height / 2 for i in range(n_rows)], range(1, n_rows + 1))
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

    alpha: (tgt_len, src_len); the full colour is their 0.99 quantile.
    """
    side = COLUMN_WIDTH / max(len(src), len(tgt), MIN_ATTENTION_CELLS)
    map_width, map_height = side * len(src), side * len(tgt)
    left, right, bottom, top = ATTENTION_MARGINS
    width, height = left + map_width + right, bottom + map_height + top
    # The places are known, so that matplotlib need not search for them, which takes as long as the drawing.
    fig, ax = new_figure(width, height, layout="none")
    ax.set_position((left / width, bottom / height, map_width / width, map_height / height))
    full = alpha.flatten().quantile(FULL_HEAT).item()  # a single large weight would leave the others pale
    image = ax.imshow(alpha.numpy(), cmap="Blues", vmin=0, vmax=full, aspect="auto")
    bar = fig.add_axes((1 - right / width * 0.8, bottom / height, 0.1 / width, map_height / height))
    fig.colorbar(image, cax=bar)
    ax.set_xticks(range(len(src)), _visible(src), family="monospace")
    ax.set_yticks(range(len(tgt)), _visible(tgt), family="monospace")
    ax.grid(False)
    ax.set(xlabel="Source", ylabel="Translation", title=title)
    save_figure(fig, path)


def _visible(symbols):
    """Symbols as labels: a blank is an open box."""
    return ["\u2423" if symbol == " " else symbol for symbol in symbols]


def plot_over_time(path, image, seconds, ylabel, unit, labels=None, title=None, flipped=False):
    """A picture whose columns are evenly spaced in time, such as a spectrogram or attention to a clip.

    Args:
        image: (n_rows, n_columns).
        seconds: of the whole width.
        unit: what the colours stand for.
        labels: symbols of the rows, or None; a blank is drawn as an open box. Rows with labels hold weights, whose
            colour is full from their 0.99 quantile on.
        title: long lines are wrapped.
        flipped: the first row is drawn at the bottom.
    """
    title = "\n".join(wrapped for line in (title or "").split("\n") for wrapped in textwrap.wrap(line, TITLE_LETTERS))
    fig, ax = new_figure(height=ROW_HEIGHT * max(LEAST_ROWS, len(labels)) if labels else COLUMN_HEIGHT)
    n_rows = image.shape[0]
    extent = (0, seconds, -0.5, n_rows - 0.5) if flipped else (0, seconds, n_rows - 0.5, -0.5)
    cmap, origin = "Blues" if labels else "viridis", "lower" if flipped else "upper"
    drawing = {"cmap": cmap, "aspect": "auto", "origin": origin, "extent": extent, "interpolation": "none"}
    picture = ax.imshow(image.numpy(), **drawing, vmax=image.flatten().quantile(FULL_HEAT).item() if labels else None)
    fig.colorbar(picture, ax=ax, pad=0.02, label=unit)
    if labels:
        ax.set_yticks(range(n_rows), _visible(labels), family="monospace")
    ax.grid(False)
    ax.set(xlabel="Time (s)", ylabel=ylabel, title=title)
    save_figure(fig, path)


def plot_log_mel(path, mels, seconds, title=None):
    """A figure of a log-mel spectrogram (n_frames, n_mels)."""
    plot_over_time(path, mels.T, seconds, "Mel channel", "Log-mel", title=title, flipped=True)


def plot_captioned(folder, name, image, words, weights=None, title=None):
    """`plot_caption` and, with the weights of one image (`decoding.Decoded`), `plot_attention_over_image`."""
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


def plot_attention_over_image(path, image, alpha, words, title=None, n_columns=10):
    """The image, then for each word the weights above those of equal attention, red over the grey image.

    Args:
        image: (height, width, 3), uint8.
        alpha: (n_words, n_regions), the regions of a square map row by row.
    """
    small = torch.from_numpy(_thumbnail(image, PANEL_PIXELS).copy()).float() / 255
    height, width, _ = small.shape
    overlaid, equal, full = overlay(small, alpha)
    panels = [small, *overlaid]
    n_rows, heading = math.ceil(len(panels) / n_columns), 2.5 * TILE_HEADING
    inches = 2 * COLUMN_WIDTH / n_columns
    figure_height = n_rows * (inches * height / width + TILE_HEADING) + heading - TILE_HEADING
    fig, axes = new_figure(2 * COLUMN_WIDTH, figure_height, nrows=n_rows, ncols=n_columns, layout="none", squeeze=False)
    fig.subplots_adjust(0.005, 0.005, 0.995, 1 - heading / figure_height, wspace=0.04, hspace=0.16)
    for ax, panel, word in zip(axes.flat, panels, ["", *words]):
        ax.imshow(panel.numpy())
        ax.set_title(word, pad=2, fontsize=7)
    for ax in axes.flat:
        ax.axis("off")
    scale = f"no red: an equal weight ({equal:.3f}) or less, full red: {full:.3f} or more"
    fig.suptitle(f"{title}\n{scale}", fontsize=8, y=1 - 0.2 * TILE_HEADING / figure_height, va="top")
    save_figure(fig, path)


def overlay(image, alpha):
    """The grey image with each word's weights in red (n_words, height, width, 3); an equal weight; full red's.

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


def plot_scores(path, history, labels, ylabel, title=None, best=None):
    """A figure of validation scores by epoch; labels: from a score's name in `history` to its label."""
    plot_curves(path, {label: [line[name] for line in history] for name, label in labels.items()}, ylabel, title, best)


def plot_losses(path, history, ylabel, title=None, best=None, extras=None):
    """A figure of the training loss (with its extra terms) and the validation loss (without) by epoch.

    extras: from a name, such as "label smoothing", to its weight; zero weights are not listed.
    """
    shown = ["Training", *(f"{name} {weight:g}" for name, weight in (extras or {}).items() if weight)]
    label = textwrap.fill(", ".join(shown), LABEL_CHARACTERS)
    plot_scores(path, history, {"train_loss": label, "val_loss": "Validation"}, ylabel, title, best)


def plot_examples(folder, X, y, class_names, title):
    """The first image, and the first image of each class; X: uint8 (n_examples, 1, height, width)."""
    plot_tiles(folder / "original_example.pdf", X[0], title=f"{title}: {class_names[y[0]]}")
    present = y.unique().tolist()
    first = torch.stack([X[(y == label).nonzero()[0, 0], 0] for label in present])
    plot_tiles(folder / "examples.pdf", first, [class_names[label] for label in present], title, n_columns=5)


def plot_activation_maps(path, model, layer, x, title):
    """One image x (1, 1, height, width) and what `layer` of `model` computes of it, a picture for each channel."""
    maps = []
    hook = layer.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.no_grad():
        model(x)
    hook.remove()
    maps, names = maps[0][0].cpu(), ["image", *(f"channel {i}" for i in range(1, maps[0].shape[1] + 1))]
    tiles = torch.cat([torch.zeros_like(maps[:1]), maps])
    plot_tiles(path, tiles, names, title, math.ceil(len(tiles) ** 0.5), signed=True, original=x[0, 0].cpu())


def plot_filters(path, weight, title, most=32):
    """The filters of a layer, weight (out_channels, in_channels, height, width), with numbers from 1.

    A row for each input channel and a column for each output channel; of one input channel the first `most` filters.
    """
    kernels = weight.detach().cpu().transpose(0, 1)
    if len(kernels) > 1:
        plot_tiles(path, kernels.flatten(0, 1), None, title, n_columns=kernels.shape[1], signed=True)
    else:
        kernels = kernels[0, :most]
        plot_tiles(path, kernels, range(1, len(kernels) + 1), title, FILTER_COLUMNS, signed=True)
