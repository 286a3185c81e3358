"""Fetch Fashion-MNIST (Xiao et al., 2017) for Question 2 of 2021-22 and write data/fashion_mnist.npz.

$ python download_fashion_mnist.py
$ python download_fashion_mnist.py -source ~/fashion      # a folder with the four .gz files
"""

import options
from data.fetch import image_script


def main(argv=None):
    image_script.install("fashion_mnist", "a folder with the four IDX files, or an .npz in MedMNIST's layout", argv)


if __name__ == "__main__":
    options.run_script(main)
