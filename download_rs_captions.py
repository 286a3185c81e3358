"""Check a copy of Sydney-Captions or UCM-Captions for Question 3 of 2021-22 and put it at data/sydney/ or data/ucm/.

$ python download_rs_captions.py -source ~/Sydney_captions  # a folder with dataset.json and images/
"""

from pathlib import Path

import options


def parse_args(argv=None):
    parser = options.Parser("Check a copy of Sydney-Captions or UCM-Captions and put it into the data folder.")
    help = "a folder with dataset.json and images/"
    parser.add_option("source", type=Path, required=True, metavar="PATH", help=help)
    help = "data folder (default: data)"
    parser.add_option("data_dir", type=Path, default=options.DATA_DIR, metavar="DIR", help=help)
    parser.add_option("force", action="store_true", help="replace the set if it is there")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    from data.fetch import rs_captions  # which imports NumPy

    rs_captions.install(args)


if __name__ == "__main__":
    options.before_imports(parse_args)
    options.run_script(main)
