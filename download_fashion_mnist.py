"""Fetch Fashion-MNIST (Xiao et al., 2017) for Question 2 of 2021-22 and write data/fashion_mnist.npz.

$ python download_fashion_mnist.py
$ python download_fashion_mnist.py -source ~/fashion      # a folder with the four .gz files
"""

import options
from data.fetch import download

SOURCE = "a folder with the four IDX files, or an .npz in MedMNIST's layout"
parse_args, main = download.image_script("fashion_mnist", SOURCE)

if __name__ == "__main__":
    options.before_imports(parse_args)
    options.run_script(main)
