"""Fetch Kuzushiji-MNIST (Clanuwat et al., 2018) for Question 2 of 2022-23 and write data/kuzushiji_mnist.npz.

$ python download_kuzushiji_mnist.py
$ python download_kuzushiji_mnist.py -source ~/Kuzushiji-MNIST.npz      # the course's own file, or a folder with the four .gz files
"""

import options
from data.fetch import download


def main(argv=None):
    args = download.parse_args(
        "Fetch Kuzushiji-MNIST, verify it and write data/kuzushiji_mnist.npz.",
        "a folder with the four IDX files, or an .npz in MedMNIST's or the course's layout",
        argv,
    )
    from data.fetch import image_sets  # after parsing: --help answers at once

    image_sets.install(image_sets.KUZUSHIJI_MNIST, args)


if __name__ == "__main__":
    options.run_script(main)
