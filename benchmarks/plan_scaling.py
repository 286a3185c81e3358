"""A calculation on paper: what limits data-parallel training of the speech recogniser on many GPUs.

$ python benchmarks/plan_scaling.py            # 10,000 hours, up to 1,000 GPUs, three sizes of network
$ python benchmarks/plan_scaling.py --hours 24 --batch_size 64

Nothing is measured here. A step computes 2 floating-point operations for each multiply-add, at a rate that is an assumption, and then
sums the gradients of all GPUs by a ring (Patarasuk and Yuan, 2009): each GPU sends and receives 2 (n - 1) / n times the gradient's
bytes, in 2 (n - 1) messages, or 2 log2(n) of them along a tree, whichever is faster. The two follow each other, as they do in `parallel`.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import options

CLIP_SECONDS = 6.6  # the mean of LJ Speech
BYTES_A_SECOND = 80 * 2 * 22_050 / 160  # of float16 log-mels
GRADIENT_BYTES = 4  # float32
# Multiply-adds of a training step for a second of sound by bench_asr.py, "32 real, 976 frames": 116.0 G for 32 clips of 976 frames.
MULTIPLY_ADDS_A_SECOND = 116.0e9 / 32 / (976 * 160 / 22_050)
MESSAGE_SECONDS = 10e-6  # from one GPU to another, with the software's part
LINK_BYTES_A_SECOND = 50e9  # of each GPU's network card, 400 Gbit/s
KERNEL_SECONDS = 5e-6  # to start a kernel
KERNELS_A_STEP = 700  # forward, backward and optimizer of this network, about
COUNTS = (1, 8, 64, 1_000)


@dataclass(frozen=True)
class Network:
    """A network that differs from the question's in its size: all its products grow with the number of parameters."""

    name: str
    n_params: float
    flops: float  # floating-point operations a second that one GPU reaches on its products, an assumption

    def step_seconds(self, n_clips, own_params):
        """Computing the gradient of `n_clips` clips on one GPU, at least the time to start the kernels."""
        operations = 2 * MULTIPLY_ADDS_A_SECOND * CLIP_SECONDS * n_clips * self.n_params / own_params
        return max(operations / self.flops, KERNELS_A_STEP * KERNEL_SECONDS)


OWN_PARAMS = 1_999_435  # of hw2-q3-asr.py --decoder transformer
NETWORKS = (
    Network("the question's", OWN_PARAMS, 20e12),
    Network("40 times as large", 40 * OWN_PARAMS, 200e12),
    Network("400 times as large", 400 * OWN_PARAMS, 400e12),
)


def sum_seconds(n_params, n_gpus):
    """Summing the gradients of all GPUs."""
    if n_gpus == 1:
        return 0.0
    n_bytes = GRADIENT_BYTES * n_params
    ring = 2 * (n_gpus - 1) / n_gpus * n_bytes / LINK_BYTES_A_SECOND + 2 * (n_gpus - 1) * MESSAGE_SECONDS
    tree = 2 * n_bytes / LINK_BYTES_A_SECOND + 2 * math.log2(n_gpus) * MESSAGE_SECONDS
    return min(ring, tree)


def plan(network, n_gpus, batch_size, hours):
    """Figures of a job whose whole batch has `batch_size` clips: a dict from name to number."""
    compute, sums = network.step_seconds(batch_size / n_gpus, OWN_PARAMS), sum_seconds(network.n_params, n_gpus)
    alone = network.step_seconds(batch_size, OWN_PARAMS)
    n_steps = hours * 3600 / CLIP_SECONDS / batch_size
    return {
        "compute_ms": 1e3 * compute,
        "sum_ms": 1e3 * sums,
        "speedup": alone / (compute + sums),
        "n_steps": n_steps,
        "epoch_minutes": n_steps * (compute + sums) / 60,
        "read_gb_a_second": batch_size * CLIP_SECONDS * BYTES_A_SECOND / (compute + sums) / 1e9,
    }


def parse_args(argv=None):
    parser = options.Parser(__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_option("hours", type=options.positive_float, default=10_000.0, help="of sound (default: %(default)g)")
    help = "clips of a step, over all GPUs (default: 512 and 8192)"
    parser.add_option("batch_size", type=options.positive_int, nargs="+", default=[512, 8192], help=help)
    return parser.parse_args(argv)


def main():
    args = parse_args()
    tb = args.hours * 3600 * BYTES_A_SECOND / 1e12
    print(f"{args.hours:,g} hours: {args.hours * 3600 / CLIP_SECONDS:,.0f} clips, {tb:.2f} TB of float16 log-mels\n")
    print(
        "| network | clips a step | GPUs | compute, ms | sum, ms | times one GPU | steps an epoch | minutes an epoch | read, GB/s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for network in NETWORKS:
        for batch_size in args.batch_size:
            for n_gpus in (n for n in COUNTS if n <= batch_size):
                row = plan(network, n_gpus, batch_size, args.hours)
                shown = (
                    f"{row['compute_ms']:,.1f} | {row['sum_ms']:,.2f} | {row['speedup']:,.1f} | {row['n_steps']:,.0f}"
                )
                shown += f" | {row['epoch_minutes']:,.1f} | {row['read_gb_a_second']:,.2f} |"
                name = f"{network.name} ({network.n_params / 1e6:,.0f} M)"
                print(f"| {name} | {batch_size:,} | {n_gpus:,} | {shown}")


if __name__ == "__main__":
    options.run_script(main)
