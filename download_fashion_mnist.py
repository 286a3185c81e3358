"""Fetch Fashion-MNIST (Xiao et al., 2017) for Question 2 of 2021-22 and write data/fashion_mnist.npz.

$ python download_fashion_mnist.py
$ python download_fashion_mnist.py -source ~/fashion      # a folder with the four .gz files
"""

import options
from data.fetch import download


def parse_args(argv=None):
    source = "a folder with the four IDX files, or an .npz in MedMNIST's layout"
    return download.parse_args("Fetch the images, verify them and write data/fashion_mnist.npz.", source, argv)


def main(argv=None):
    args = parse_args(argv)
    from data.fetch import image_sets  # which imports NumPy

    image_sets.install(image_sets.FASHION_MNIST, args)


if __name__ == "__main__":
    options.before_imports(parse_args)
    options.run_script(main)
