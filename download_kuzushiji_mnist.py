"""Fetch Kuzushiji-MNIST (Clanuwat et al., 2018) for Question 2 of 2022-23 and write data/kuzushiji_mnist.npz.

$ python download_kuzushiji_mnist.py
$ python download_kuzushiji_mnist.py -source ~/Kuzushiji-MNIST.npz      # the course's own file, or a folder with the four .gz files
"""

import options
from data.fetch import image_script


def main(argv=None):
    image_script.install(
        "kuzushiji_mnist", "a folder with the four IDX files, or an .npz in MedMNIST's or the course's layout", argv
    )


if __name__ == "__main__":
    options.run_script(main)
