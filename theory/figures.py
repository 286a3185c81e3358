"""The figures of Question 1. Each function gets the axes and the values of its edition, as `result.json` holds them."""

import torch

from theory.attention import attention_map, drawn_image, edge_map, shuffled_and_back

MARKER_SIZE = 3.5  # points; the default hides the curves at a column's width


def pixel_permutation(axes, values):
    """2022-23, 1.2: a convolution and the attention of an image; below, of its pixels shuffled, and put back."""
    image = drawn_image()
    order = torch.randperm(image.numel(), generator=torch.Generator().manual_seed(0))
    shuffled = image.flatten()[order].view_as(image)
    layers = {"image": lambda x: x, "convolution": edge_map, "attention": attention_map}
    for (above, below), (title, layer) in zip(axes.T, layers.items(), strict=True):
        above.imshow(layer(image).numpy(), cmap="gray")
        above.set_title(title)
        output = shuffled if title == "image" else shuffled_and_back(layer, image, order)
        below.imshow(output.numpy(), cmap="gray")
        below.set_xlabel("shuffled" if title == "image" else "output put back")
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])


def attention_cost(ax, values):
    """2023-24, 1.1: seconds of exact attention by length."""
    lengths, seconds = values["timed_lengths"], values["softmax_seconds"]
    ax.loglog(lengths, seconds, marker="o", markersize=MARKER_SIZE, label=f"D = {values['head_size']}")
    anchor = len(lengths) // 2  # the guide runs below the curve from there
    guide = [seconds[anchor] / 2 * (length / lengths[anchor]) ** 2 for length in lengths[anchor:]]
    ax.loglog(lengths[anchor:], guide, color="0.5", linestyle=":", label="exponent 2")
    length_axes(ax, lengths)


def length_axes(ax, lengths):
    ax.set_xscale("log", base=2)
    ax.set_xticks(lengths[::2], [f"{length:,}" for length in lengths[::2]])
    ax.set(xlabel="length L", ylabel="seconds, one thread")
    ax.legend()


def maclaurin_error(ax, values):
    """2023-24, 1.2: relative error of phi(q).phi(k) by |q.k|, for each K."""
    curves = zip(values["series_terms"], values["series_error_negative"], values["series_error_positive"], strict=True)
    for index, (n_terms, negative, positive) in enumerate(curves):
        ax.loglog(
            values["scores"], negative, color=f"C{index}", marker="o", markersize=MARKER_SIZE, label=f"K = {n_terms}"
        )
        ax.loglog(values["scores"], positive, color=f"C{index}", linestyle="--")
    ax.set(xlabel=r"$|q \cdot k|$ (solid: $q \cdot k < 0$; dashed: $> 0$)", ylabel=r"error / $\exp(q \cdot k)$")
    ax.legend()


def linear_attention_error(ax, values):
    """2023-24, 1.4: difference from exact attention by the largest score."""
    for n_terms, errors in zip(values["agreement_terms"], values["agreement_errors"], strict=True):
        ax.loglog(values["largest_scores"], errors, marker="o", markersize=MARKER_SIZE, label=f"K = {n_terms}")
    bounds, color = values["agreement_bounds"], f"C{values['agreement_terms'].index(3)}"
    ax.loglog(values["largest_scores"][: len(bounds)], bounds, color=color, linestyle=":", label="bound, K = 3")
    ax.set(xlabel=r"largest $|q \cdot k|$", ylabel="largest difference in Z")
    ax.legend()


def linear_attention_cost(ax, values):
    """2023-24, 1.4: seconds of both orders of the products, and of exact and linear attention, by length."""
    for name, label, style in (
        ("softmax", r"softmax$(QK^\top)V$", "C3o-"),
        ("linear_with_features", r"linear, with $\Phi$", "C2D-"),
        ("quadratic", r"$(\Phi_Q \Phi_K^\top)V$", "C1s--"),
        ("linear", r"$\Phi_Q(\Phi_K^\top V)$", "C0^--"),
    ):
        ax.loglog(values["timed_lengths"], values[f"{name}_seconds"], style, markersize=MARKER_SIZE, label=label)
    for name, color in (("crossing_length", "C0"), ("softmax_crossing_length", "C2")):
        if values[name] is not None:
            ax.axvline(values[name], color=color, linestyle=":", linewidth=0.8)
            at_the_foot = {"xy": (values[name], 0), "xycoords": ("data", "axes fraction")}
            ax.annotate(f"{values[name]:,.0f}", **at_the_foot, xytext=(2, 3), textcoords="offset points", color=color)
    length_axes(ax, values["timed_lengths"])


# name of the file, what draws it, how its axes are laid out
FIGURES = {
    "2021-22": (),  # the report draws its own
    "2022-23": (("pixel_permutation.pdf", pixel_permutation, {"nrows": 2, "ncols": 3}),),
    "2023-24": (
        ("attention_cost.pdf", attention_cost, {}),
        ("maclaurin_error.pdf", maclaurin_error, {}),
        ("linear_attention_error.pdf", linear_attention_error, {}),
        ("linear_attention_cost.pdf", linear_attention_cost, {}),
    ),
}
