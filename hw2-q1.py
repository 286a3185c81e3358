"""Question 1: the theory questions of the three editions, each claim checked numerically.

$ python hw2-q1.py                      # all three editions
$ python hw2-q1.py --edition 2022-23    # one of them

Prints the formulas that answer a part, then a row for each claim: what they say, what was measured,
whether it holds. Writes result.json and the figures to report/runs/q1/<edition>/. Exit code 1 if a
claim does not hold. The formulas and claims are in theory/, derivations in report/hw2-EDITION.typ.
"""

import textwrap
import time
from dataclasses import asdict
from itertools import zip_longest

import options
from editions import EDITIONS

YEARS = sorted(EDITIONS)
QUESTION, NUMBERS, HOLDS, GAP = 4, 17, 5, 2  # widths of columns of the table; the claims have the rest of a line


def parse_args(argv=None):
    parser = options.Parser(__doc__)
    parser.add_option("edition", choices=YEARS, help="the edition to check (default: all three)")
    parser.add_option("seed", type=options.seed, default=options.DEFAULT_SEED, help="default: %(default)s")
    help = "results (default: report/runs)"
    parser.add_option("runs_dir", type=options.path, default=options.RUNS_DIR, metavar="DIR", help=help)
    return parser.parse_args(argv)


if __name__ == "__main__":
    options.before_imports(parse_args)

import torch

import files
import plots
import theory
from theory.figures import FIGURES


def main(argv=None):
    args = parse_args(argv)
    years = [args.edition] if args.edition else YEARS
    folders = {year: args.runs_dir / "q1" / year for year in years}
    for folder in folders.values():  # an error shows before the work
        with files.writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # small matrices, and seconds that do not depend on the number of cores
    all_hold = [check_edition(year, args.seed, folder) for year, folder in folders.items()]
    return 0 if all(all_hold) else 1


def check_edition(year, seed, folder):
    """Check, print, plot and write one edition; returns whether all its claims hold."""
    start = time.perf_counter()
    print(f"{year}, Question 1")
    print_row("", "claim", "expected", "measured", "holds")
    claims, values = [], {}
    for check in theory.CLAIMS[year]:
        new_claims, new_values = check(seed)
        for part in {claim.id for claim in new_claims} - {claim.id for claim in claims}:
            for answer in theory.answers(year, part):
                print(options.fold(f"{part:<{QUESTION + GAP}}{answer}", " " * (QUESTION + GAP)), flush=True)
        for claim in new_claims:
            numbers = format_expected(claim), format_number(claim.measured)
            print_row(claim.id, claim.claim, *numbers, "yes" if claim.holds else "NO")
        claims += new_claims
        values |= new_values

    for name, draw, subplots in FIGURES[year]:
        fig, axes = plots.new_figure(has_math=True, **subplots)
        draw(axes, values)
        plots.save_figure(fig, folder / name)

    seconds = time.perf_counter() - start
    result = {
        "edition": year,
        "question": "1",
        "seed": seed,
        "claims": [asdict(claim) | {"holds": claim.holds} for claim in claims],
        "values": values,
        "figures": [name for name, _, _ in FIGURES[year]],
        "seconds": seconds,
    }
    files.write_json(folder / "result.json", result)
    n_holding = sum(claim.holds for claim in claims)
    print(f"{n_holding} of {len(claims)} claims hold ({seconds:.1f}s), written to {options.typed(folder)}\n")
    return n_holding == len(claims)


def print_row(*cells):
    """A row of the table, with as many lines as its longest cell has."""
    rest = options.screen_width() - QUESTION - 2 * NUMBERS - HOLDS - 4 * GAP
    widths = QUESTION, max(NUMBERS, rest), NUMBERS, NUMBERS, HOLDS
    for parts in zip_longest(*map(textwrap.wrap, cells, widths), fillvalue=""):
        options.say((" " * GAP).join(f"{part:<{width}}" for part, width in zip(parts, widths, strict=True)).rstrip())


def format_number(x):
    """A number, or a list of numbers, for the table."""
    if isinstance(x, list):
        return ", ".join(map(format_number, x))
    return f"{x:,}" if isinstance(x, int) else f"{x:.3g}"


def format_expected(claim):
    relation = "" if claim.relation == "=" else f"{claim.relation} "
    tolerance = f" +- {claim.tolerance:.0e}" if claim.tolerance else ""
    return f"{relation}{format_number(claim.expected)}{tolerance}"


if __name__ == "__main__":
    options.run_script(main)
