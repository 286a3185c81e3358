"""Check your own solution of a homework: which equation is right, and which known mistake is in the other.

$ python check.py my_models.py                          # a .py file, an .ipynb notebook, or a folder with several of them
$ python check.py hw2-q2.py models.py                   # the files of one homework
$ python check.py --edition 2022-23 --only Attention my_models.py
$ python check.py --hint 2 my_models.py                 # 0: where it is, 1: and what it is, 2: and the code that is right
$ python check.py submissions/ --csv checks.csv         # the folders in it are submissions; also --json results.json

The code that you check is executed on this computer, in a process with limits of time and memory, but with your rights.
Check only code that you would run. The exit code is 0 if nothing is wrong, 1 if something is, 2 for a wrong call.
"""

import argparse
import json
import os
import shutil
import signal
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


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="files, a folder, or a folder of submissions"
    )
    parser.add_argument("--edition", choices=EDITIONS, help="by default found from the signatures and shapes")
    parser.add_argument("--only", metavar="CLASS", help="check this class or function only")
    parser.add_argument("--hint", type=int, choices=(0, 1, 2), default=1, help="how much is said (default: 1)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row for each submission")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write Gradescope's results.json")
    return parser.parse_args(argv)


def code_files(folder):
    """The files with code in a folder and below it."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    return [path for path in paths if not SKIPPED_FOLDERS & set(path.relative_to(folder).parts)]


def submissions(args):
    """{name: [(file, name of its copy)]}, with one entry unless the path is a folder of submissions."""
    for path in args.paths:
        if not path.exists():
            raise UserError(f"{path} does not exist; give the file or folder with your code")
        if path.is_file() and path.suffix not in SUFFIXES:
            raise UserError(f"{path} is neither a .py file nor an .ipynb notebook; give one of these or a folder")
    folder = args.paths[0]
    if len(args.paths) == 1 and folder.is_dir():
        within = {sub.name: code_files(sub) for sub in sorted(folder.iterdir()) if sub.is_dir()}
        within = {name: files for name, files in within.items() if files and name not in SKIPPED_FOLDERS}
        own = [path for path in folder.iterdir() if path.suffix in SUFFIXES]
        if not own and len(within) > (0 if args.csv else 1):
            return {name: [(file, file.relative_to(folder / name)) for file in files] for name, files in within.items()}
    files = []
    for path in args.paths:
        files += [(path, Path(path.name))] if path.is_file() else [(f, f.relative_to(path)) for f in code_files(path)]
    if not files:
        raise UserError(f"{folder} holds neither .py files nor .ipynb notebooks; give the folder with your code")
    return {folder.name or str(folder): files}


def check_submission(files, args):
    """Check the files of one submission in a process of its own; returns what the worker answered, and what it lacked."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for source, name in files:
            copy = Path(folder, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        names = [name.as_posix() for _, name in files]
        request = {
            "files": names,
            "edition": args.edition,
            "only": args.only,
            "seconds": CLASS_SECONDS,
            "memory": MEMORY,
        }
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HOME": folder}
        environment["PYTHONUSERBASE"] = site.getuserbase()  # torch may be installed below the real home
        process = subprocess.Popen(
            [sys.executable, "-B", str(WORKER), json.dumps(request)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=os.name == "posix",
        )
        try:
            output, errors = process.communicate(timeout=PROCESS_SECONDS)
            ending = f"the code ended the process (exit code {process.returncode})"
        except subprocess.TimeoutExpired:
            kill(process)
            output, errors = process.communicate()
            ending = f"stopped after {PROCESS_SECONDS} s; is there a loop that does not end?"
        finally:
            kill(process)
    answers = [json.loads(line) for line in output.decode("utf-8", "replace").splitlines() if line.startswith("{")]
    if not answers:
        raise UserError(report.last_line(errors.decode("utf-8", "replace")) or ending)
    return report.Submission(answers, ending)


def kill(process):
    """Stop the worker and whatever the student's code has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
    except (ProcessLookupError, PermissionError):
        pass


def main(argv=None):
    args = parse_args(argv)
    try:
        found = submissions(args)
        checked = {}
        for name, files in found.items():
            if len(found) > 1:
                print(f"\n== {name}" if checked else f"{report.STRANGERS_CODE}\n\n== {name}")
            begin = time.monotonic()
            checked[name] = check_submission(files, args)
            if checked[name].error and len(found) == 1:
                raise UserError(checked[name].error)
            print(checked[name].text(args.hint, time.monotonic() - begin))
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
