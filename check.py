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
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from checks import report
from checks.loading import CallError

EDITIONS = ("2021-22", "2022-23", "2023-24")
CLASS_SECONDS, PROCESS_SECONDS, MEMORY = 10, 90, 2 * 2**30  # limits; the memory comes on top of torch's own
SKIPPED_FOLDERS = {"__pycache__", ".ipynb_checkpoints", ".git", ".venv", "venv", "__MACOSX"}


def make_parser():
    parser = argparse.ArgumentParser(usage=argparse.SUPPRESS, description=__doc__)  # without it an error is one line
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files, a folder, a folder of submissions")
    parser.add_argument("--edition", choices=EDITIONS, help="by default found from the signatures and shapes")
    parser.add_argument("--only", metavar="CLASS", help="check this class or function only")
    parser.add_argument("--hint", type=int, choices=(0, 1, 2), default=1, help="how much is said (default: 1)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row for each submission")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write Gradescope's results.json")
    return parser


def submissions(paths, for_class):
    """{name: {name of a copy: file}}; several if the path is a folder with no code beside its sub-folders."""
    copies = {}
    for path in paths:
        if not path.exists():
            raise CallError(f"{path} does not exist; give the file or folder with your code")
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            name = file.relative_to(path if path.is_dir() else path.parent)
            if file.is_file() and file.suffix in (".py", ".ipynb") and not SKIPPED_FOLDERS & set(name.parts):
                copies[name] = file
    if not copies:
        raise CallError(f"{paths[0]} holds neither a .py file nor an .ipynb notebook; give the one with your code")
    folders = {name.parts[0]: {} for name in copies if len(name.parts) > 1}
    if len(paths) > 1 or any(len(name.parts) == 1 for name in copies) or (len(folders) == 1 and not for_class):
        return {paths[0].resolve().name: copies}
    for name, file in copies.items():
        folders[name.parts[0]][name.relative_to(name.parts[0])] = file
    return folders


def check_submission(copies, args):
    """Check the files of one submission in a process of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        code, answers = Path(folder, "code"), Path(folder, "answers")
        for name, file in copies.items():
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, code / name)
        request = {"files": [name.as_posix() for name in copies], "answers": str(answers), "memory": MEMORY}
        request |= {"seconds": CLASS_SECONDS, "edition": args.edition, "only": args.only}
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HOME": folder}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)  # torch may be installed below the real home
        command = [sys.executable, "-B", "-P", "-m", "checks.worker", json.dumps(request)]
        options = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL) | {"cwd": code, "env": environment}
        try:
            process = subprocess.run(command, timeout=PROCESS_SECONDS, **options)
            ending = f"the code ended the process (exit code {process.returncode})"
        except subprocess.TimeoutExpired:
            ending = f"stopped after {PROCESS_SECONDS} s; is there a loop that does not end?"
        if not answers.exists():  # it is there before any of the student's code runs
            raise CallError("torch cannot be imported; install torch 2.2 or later first: pip install torch")
        return report.Submission([json.loads(line) for line in answers.read_text("utf-8").splitlines()], ending)


def main(argv=None):
    parser, checked = make_parser(), {}
    args = parser.parse_args(argv)
    try:
        found = submissions(args.paths, args.csv)
        for path in filter(None, (args.csv, args.json)):
            path.touch()  # a folder that does not exist is told now and not after the whole class
        print("The check runs this code on this computer, with your rights:", *args.paths, flush=True)
        for name, copies in found.items():
            begin = time.monotonic()
            checked[name] = check_submission(copies, args)
            if len(found) > 1:
                print(f"\n== {name}")
            elif checked[name].error:
                raise CallError(checked[name].error)
            print(checked[name].text(args.hint, time.monotonic() - begin), flush=True)
        if args.csv:
            args.csv.write_text(report.csv_text(checked), encoding="utf-8")
        if args.json:
            args.json.write_text(report.gradescope_text(checked, args.hint), encoding="utf-8")
    except (CallError, OSError) as error:
        parser.error(str(error))  # ends with exit code 2
    return int(not all(submission.is_right for submission in checked.values()))


if __name__ == "__main__":
    sys.exit(main())
