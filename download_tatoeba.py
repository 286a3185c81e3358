"""Fetch Tatoeba's English-Spanish pairs for Question 3 of 2022-23 and write data/spa.txt.

$ python download_tatoeba.py
$ python download_tatoeba.py -source ~/spa-eng.zip      # a local copy, the zip or the spa.txt inside it
"""

import options
from data.fetch import download, tatoeba

DESCRIPTION = "Fetch Tatoeba's English-Spanish pairs, verify them and write data/spa.txt."
parse_args, main = download.script(DESCRIPTION, tatoeba.SOURCE_HELP, tatoeba.install)

if __name__ == "__main__":
    options.before_imports(parse_args)
    options.run_script(main)
