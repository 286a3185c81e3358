"""Fetch Tatoeba's English-Spanish pairs for Question 3 of 2022-23 and write data/spa.txt and its three splits.

$ python download_tatoeba.py
$ python download_tatoeba.py -source ~/spa-eng.zip      # a local copy, the zip or the spa.txt inside it
"""

import options
from data.fetch import download


def parse_args(argv=None):
    description = "Fetch Tatoeba's English-Spanish pairs, verify them and write data/spa.txt and its three splits."
    source = "spa-eng.zip of manythings.org/anki, or a text file of english<TAB>spanish lines"
    return download.parse_args(description, source, argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

from data.fetch import tatoeba


def main(argv=None):
    tatoeba.install(parse_args(argv))


if __name__ == "__main__":
    options.run_script(main)
