"""Fetch OCTMNIST (Yang et al., 2023, MedMNIST v2) for Question 2 of 2023-24 and write data/octmnist.npz.

$ python download_octmnist.py
$ python download_octmnist.py -source ~/octmnist.npz      # the file that MedMNIST publishes
"""

import options
from data.fetch import download

SOURCE = "the published octmnist.npz, or its folder"
parse_args, main = download.image_script("octmnist", SOURCE)

if __name__ == "__main__":
    options.before_imports(parse_args)
    options.run_script(main)
