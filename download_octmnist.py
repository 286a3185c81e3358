"""Fetch OCTMNIST (Yang et al., 2023, MedMNIST v2) for Question 2 of 2023-24 and write data/octmnist.npz.

$ python download_octmnist.py
$ python download_octmnist.py -source ~/octmnist.npz      # the file that MedMNIST publishes
"""

import options
from data.fetch import image_script


def main(argv=None):
    image_script.install("octmnist", "the published octmnist.npz, or its folder", argv)


if __name__ == "__main__":
    options.run_script(main)
