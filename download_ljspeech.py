"""Fetch LJ Speech for Question 3 of 2023-24 into data/LJSpeech-1.1; a transfer that was cut goes on where it stopped.

$ python download_ljspeech.py
$ python download_ljspeech.py -source ~/LJSpeech-1.1.tar.bz2      # a copy of the published archive
"""

import options
from data.fetch import download, ljspeech

DESCRIPTION = """Fetch LJ Speech (2.7 GB), verify it and unpack it (3.8 GB) to data/LJSpeech-1.1.
A transfer that was cut goes on where it stopped when the command is given again."""
parse_args, main = download.script(DESCRIPTION, ljspeech.SOURCE_HELP, ljspeech.install)

if __name__ == "__main__":
    options.before_imports(parse_args)
    options.run_script(main)
