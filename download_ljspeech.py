"""Fetch LJ Speech for Question 3 of 2023-24 into data/LJSpeech-1.1; a transfer that was cut goes on where it stopped.

$ python download_ljspeech.py
$ python download_ljspeech.py -source ~/LJSpeech-1.1.tar.bz2      # a copy of the published archive
"""

import options
from data.fetch import download, ljspeech


def parse_args(argv=None):
    description = "Fetch LJ Speech (2.7 GB), verify it and unpack it (3.8 GB) to data/LJSpeech-1.1.\n"
    description += "A transfer that was cut goes on where it stopped when the command is given again."
    return download.parse_args(description, ljspeech.SOURCE_HELP, argv)


def main(argv=None):
    ljspeech.install(parse_args(argv))


if __name__ == "__main__":
    options.before_imports(parse_args)
    options.run_script(main)
