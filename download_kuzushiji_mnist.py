"""Fetch Kuzushiji-MNIST (Clanuwat et al., 2018) for Question 2 of 2022-23 and write data/kuzushiji_mnist.npz.

$ python download_kuzushiji_mnist.py
$ python download_kuzushiji_mnist.py -source ~/Kuzushiji-MNIST.npz      # the course's file, or a folder of .gz files
"""

import options
from data.fetch import download


def parse_args(argv=None):
    source = "a folder with the four IDX files, or an .npz in MedMNIST's or the course's layout"
    return download.parse_args("Fetch the images, verify them and write data/kuzushiji_mnist.npz.", source, argv)


def main(argv=None):
    args = parse_args(argv)
    from data.fetch import image_sets  # which imports NumPy

    image_sets.install(image_sets.KUZUSHIJI_MNIST, args)


if __name__ == "__main__":
    options.before_imports(parse_args)
    options.run_script(main)
