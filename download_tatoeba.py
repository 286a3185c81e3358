"""Fetch Tatoeba's English-Spanish pairs for Question 3 of 2022-23 and write data/spa.txt.

$ python download_tatoeba.py
$ python download_tatoeba.py -source ~/spa-eng.zip      # a local copy, the zip or the spa.txt inside it
"""

import options
from data.fetch import download, tatoeba


def parse_args(argv=None):
    description = "Fetch Tatoeba's English-Spanish pairs, verify them and write data/spa.txt."
    return download.parse_args(description, tatoeba.SOURCE_HELP, argv)


def main(argv=None):
    tatoeba.install(parse_args(argv))


if __name__ == "__main__":
    options.before_imports(parse_args)
    options.run_script(main)
