"""Fetch OCTMNIST (Yang et al., 2023, MedMNIST v2) for Question 2 of 2023-24 and write data/octmnist.npz.

$ python download_octmnist.py
$ python download_octmnist.py -source ~/octmnist.npz      # the file that MedMNIST publishes
"""

import options
from data.fetch import download


def parse_args(argv=None):
    source = "the published octmnist.npz, or its folder"
    return download.parse_args("Fetch the images, verify them and write data/octmnist.npz.", source, argv)


def main(argv=None):
    args = parse_args(argv)
    from data.fetch import image_sets  # which imports NumPy

    image_sets.install(image_sets.OCTMNIST, args)


if __name__ == "__main__":
    options.before_imports(parse_args)
    options.run_script(main)
