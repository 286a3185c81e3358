"""Fetch Tatoeba's English-Spanish pairs for Question 3 of 2022-23, write data/spa.txt and the course's three files of it.

$ python download_tatoeba.py
$ python download_tatoeba.py -source ~/spa-eng.zip      # a local copy, the zip or the spa.txt inside it
"""

import options
from data.fetch import download


def main(argv=None):
    args = download.parse_args(
        "Fetch Tatoeba's English-Spanish sentence pairs, verify them and write data/spa.txt and the three splits of it.",
        "spa-eng.zip of manythings.org/anki, or a text file of english<TAB>spanish lines",
        argv,
    )
    from data.fetch import tatoeba  # after parsing: --help answers at once

    tatoeba.install(args)


if __name__ == "__main__":
    options.run_script(main)
