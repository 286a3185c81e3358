"""Fetch OCTMNIST (Yang et al., 2023, MedMNIST v2) for Question 2 of 2023-24 and write data/octmnist.npz.

$ python download_octmnist.py
$ python download_octmnist.py -source ~/octmnist.npz      # the file that MedMNIST publishes
"""

import options
from data.fetch import download


def main(argv=None):
    args = download.parse_args(
        "Fetch OCTMNIST, verify it and write data/octmnist.npz.", "the published octmnist.npz, or its folder", argv
    )
    from data.fetch import image_sets  # after parsing: --help answers at once

    image_sets.install(image_sets.OCTMNIST, args)


if __name__ == "__main__":
    options.run_script(main)
