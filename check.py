"""Check your own solution of a homework: which equation is right, and which known mistake is in the other.

$ python check.py my_models.py                          # a .py file, an .ipynb notebook, or a folder with several
$ python check.py hw2-q2.py models.py                   # the files of one homework
$ python check.py --edition 2022-23 --only Attention my_models.py
$ python check.py --hint 2 my_models.py                 # 0: where it is, 1: and what it is, 2: and the right code
$ python check.py submissions/ --csv checks.csv         # the folders in it are submissions; also --json results.json

The code that you check is executed on this computer, in a process with limits of time and memory, but with your rights.
Check only code that you would run. The exit code is 0 if nothing is wrong, 1 if something is, 2 for a wrong call.
"""

import argparse
import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from checks import report

WORKER = Path(__file__).resolve().parent / "checks" / "worker.py"
SUFFIXES = (".py", ".ipynb")
EDITIONS = ("2021-22", "2022-23", "2023-24")
CLASS_SECONDS, PROCESS_SECONDS, MEMORY = 10, 90, 2 * 2**30  # limits; the memory comes on top of torch's own
RIGHT, WRONG, WRONG_CALL = 0, 1, 2  # exit codes
SKIPPED_FOLDERS = {"__pycache__", ".ipynb_checkpoints", ".git", ".venv", "venv", "__MACOSX"}


class UserError(Exception):
    """A mistake in the call, told in one line."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message):
        raise UserError(f"{message}; see python check.py --help")


def parse_args(argv):
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files, a folder, a folder of submissions")
    parser.add_argument("--edition", choices=EDITIONS, help="by default found from the signatures and shapes")
    parser.add_argument("--only", metavar="CLASS", help="check this class or function only")
    parser.add_argument("--hint", type=int, choices=(0, 1, 2), default=1, help="how much is said (default: 1)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row for each submission")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write Gradescope's results.json")
    return parser.parse_args(argv)


def code_files(path):
    """[(file, name of its copy)] for a file, or for all files with code in a folder and below it."""
    if not path.exists():
        raise UserError(f"{path} does not exist; give the file or folder with your code")
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [(file, file.relative_to(path if path.is_dir() else path.parent)) for file in files if file.is_file()]
    return [(file, name) for file, name in files if file.suffix in SUFFIXES and not SKIPPED_FOLDERS & set(name.parts)]


def submissions(paths, for_class):
    """{name: files}; several if the path is a folder of submissions, with no code beside its sub-folders."""
    files = [file for path in paths for file in code_files(path)]
    if not files:
        raise UserError(f"{paths[0]} holds neither a .py file nor an .ipynb notebook; give the one with your code")
    folder = paths[0]
    if len(paths) == 1 and folder.is_dir() and all(len(name.parts) > 1 for _, name in files):
        within = {name.parts[0]: code_files(folder / name.parts[0]) for _, name in files}
        if for_class or len(within) > 1:
            return within
    return {folder.resolve().name: files}


def check_submission(files, args):
    """Check the files of one submission in a process of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for source, name in files:
            Path(folder, name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, Path(folder, name))
        request = {"files": [name.as_posix() for _, name in files], "seconds": CLASS_SECONDS, "memory": MEMORY}
        command = [
            sys.executable,
            "-B",
            str(WORKER),
            json.dumps(request | {"edition": args.edition, "only": args.only}),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HOME": folder}
        environment["PYTHONUSERBASE"] = site.getuserbase()  # torch may be installed below the real home
        try:
            process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=PROCESS_SECONDS)
            output, errors = process.stdout, process.stderr.decode(errors="replace").split("\n")
            ending = f"the code ended the process (exit code {process.returncode})"
        except subprocess.TimeoutExpired as late:
            output, errors = late.stdout or b"", []
            ending = f"stopped after {PROCESS_SECONDS} s; is there a loop that does not end?"
    answers = [json.loads(line) for line in output.decode().splitlines()]
    if not answers:
        raise UserError(next((line for line in reversed(errors) if line.strip()), ending))
    return report.Submission(answers, ending)


def main(argv=None):
    try:
        args = parse_args(argv)
        found, checked = submissions(args.paths, args.csv), {}
        if len(found) > 1:
            print(report.STRANGERS_CODE)
        for name, files in found.items():
            begin = time.monotonic()
            checked[name] = check_submission(files, args)
            if len(found) > 1:
                print(f"\n== {name}")
            elif checked[name].error:
                raise UserError(checked[name].error)
            print(checked[name].text(args.hint, time.monotonic() - begin), flush=True)
        if args.csv:
            args.csv.write_text(report.csv_text(checked), encoding="utf-8")
        if args.json:
            args.json.write_text(report.gradescope_text(checked, args.hint), encoding="utf-8")
    except (UserError, OSError) as error:
        print(f"check.py: error: {error}", file=sys.stderr)
        return WRONG_CALL
    return RIGHT if all(submission.is_right for submission in checked.values()) else WRONG


if __name__ == "__main__":
    sys.exit(main())
