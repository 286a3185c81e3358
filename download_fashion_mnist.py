"""Fetch Fashion-MNIST (Xiao et al., 2017) for Question 2 of 2021-22 and write data/fashion_mnist.npz.

$ python download_fashion_mnist.py
$ python download_fashion_mnist.py -source ~/fashion      # a folder with the four .gz files
"""

import options
from data.fetch import download


def main(argv=None):
    args = download.parse_args(
        "Fetch Fashion-MNIST, verify it and write data/fashion_mnist.npz.",
        "a folder with the four IDX files, or an .npz in MedMNIST's layout",
        argv,
    )
    from data.fetch import image_sets  # after parsing: --help answers at once

    image_sets.install(image_sets.FASHION_MNIST, args)


if __name__ == "__main__":
    options.run_script(main)
