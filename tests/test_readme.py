"""The documents: size of the README, commands that parse and run, links and names that lead somewhere, equal scores."""

import itertools
import os
import re
import shlex
import struct
import subprocess

import numpy as np
import pytest
from conftest import ROOT, load_script
from test_scripts import SCRIPTS

from data import translation
from data.bundled import translation as bundled_translation
from tests.pairs import write_split

PAGES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *PAGES]
MAX_LINES, MAX_COLUMNS = 130, 100
MIN_WIDTH, MAX_BYTES = 1400, 1_000_000  # of the README's picture
# A command of ours: after python, or after torchrun with its own options, up to what ends it in Markdown or the shell.
COMMAND = re.compile(r"\b(?:python|torchrun(?: +--\S+)*) +((?:\w+/)?[\w-]+\.py)([^`#\n]*)")
ANSWERS = ("Edition, question", "File: class or function", "Command", "Section of the PDF")
IN_ONE_LOOK = ("Edition, question", "Ours", "Published", "Data", "Command", "Row")
RESULTS = ("", "Question", "Data", "Validation", "Test, seed 42", "Test, three seeds: mean (range)")
RESULTS += ("Published, real data", "Minutes")
TINY = {
    "python hw2-q1.py --edition 2022-23": (),
    "python hw2-q2.py -learning_rate 0.0005": ("-epochs", 1),
    "python hw2-q3.py --use_attn -scale quick": ("-epochs", 1, "-hidden_size", 8, "-batch_size", 16),
}


def read(path):
    return path.read_text(encoding="utf-8")


README = read(ROOT / "README.md")


def commands(text):
    """(script, arguments) of each command line in a document that calls one of the scripts."""
    for script, arguments in COMMAND.findall(text.replace("\\\n", " ")):
        if script in SCRIPTS:
            yield script, tuple(shlex.split(arguments))


def rows(text, *columns):
    """The rows of the table with these columns, each a list of cells."""
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    start = table.index(list(columns)) + 2
    return list(itertools.takewhile(lambda row: len(row) == len(columns), table[start:]))


def test_the_readme_is_short():
    lines = README.splitlines()
    assert len(lines) <= MAX_LINES
    assert [line for line in lines if len(line) > MAX_COLUMNS and not line.startswith("|")] == []


def test_the_readme_opens_with_one_wide_picture():
    (path,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert README.index(path) < README.index("\n## ")
    content = (ROOT / path).read_bytes()
    width, _ = struct.unpack(">II", content[16:24])  # of the header of a PNG
    assert content.startswith(b"\x89PNG") and width >= MIN_WIDTH and len(content) < MAX_BYTES


@pytest.mark.parametrize(
    ("script", "arguments"), sorted({command for path in DOCUMENTS for command in commands(read(path))})
)
def test_the_documents_commands_parse(script, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_models.py").touch()
    load_script(script).parse_args(
        [str(tmp_path) if word == "DIR" else word for word in arguments]
    )  # DIR: a folder of the user


def test_the_documents_name_every_script():
    assert {script for path in DOCUMENTS for script, _ in commands(read(path))} == set(SCRIPTS)


def test_a_command_is_found_in_every_form():
    text = (
        "`python a.py -x 1`, then\n    $ python b/c.py \\\n        --y 'one two'   # 3 s\n    torchrun --n=2 d.py -z\n"
    )
    found = [(script, shlex.split(arguments)) for script, arguments in COMMAND.findall(text.replace("\\\n", " "))]
    assert found == [("a.py", ["-x", "1"]), ("b/c.py", ["--y", "one two"]), ("d.py", ["-z"])]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_documents_targets_of_make_are_there(path):
    targets = re.findall(r"^([\w-]+):", read(ROOT / "Makefile"), re.MULTILINE)
    named = re.findall(r"(?:`|^ {4}(?:\$ )?)make ((?:[a-z-]+ ?)+)", read(path), re.MULTILINE)
    assert {name for names in named for name in names.split()} <= set(targets)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_to_a_file(path):
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", read(path)):
        target = path.parent / link if link else path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", read(target), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{link}#{anchor}"


def test_the_answers_stand_where_the_readme_says():
    table = rows(README, *ANSWERS)
    assert {question[:7] for question, *_ in table} == {"2021-22", "2022-23", "2023-24"}
    for question, places, _, sections in table:
        files, _, names = places.partition(": ")
        text = "".join(read(ROOT / file) for file in re.findall(r"`([\w/.-]+\.py)`", files))
        assert text, places
        for name in re.findall(r"`(\w+)", names):
            assert re.search(rf"^(class|def) {name}\b", text, re.MULTILINE), name
        report = read(ROOT / "report" / f"hw2-{question[:7]}.typ")
        for number in re.findall(r"\d\.\d[a-c]?", sections):
            assert re.search(rf"^== {re.escape(number)} ", report, re.MULTILINE), f"{question}: {number}"


def test_the_readmes_scores_are_those_of_the_results_page():
    page = read(ROOT / "docs" / "results.md")
    results = {row[0]: row for row in rows(page, *RESULTS)}
    for _, ours, published, data, short, number in rows(README, *IN_ONE_LOOK):
        _, _, of_row, _, one_run, seeds, of_others, _ = results[number]
        assert ours.split()[0] == (seeds or one_run).split()[0], number
        assert seeds or "one run" in ours or ours == one_run, number
        assert (published, data) == (of_others, of_row), number
        (whole,) = re.findall(rf"^{number}\. `([^`]+)`", page, re.MULTILINE)
        assert settings(short.strip("`")) == settings(whole), number


def settings(command):
    """The options of a command that its result depends on, but for what the row says beside it."""
    ((script, arguments),) = commands(f"python {command.removeprefix('python ')}\n")
    args = vars(load_script(script).parse_args([*arguments]))
    beside = ("given", "threads", "data", "n_samples", "resume")  # its data, and a second search
    return {name: value for name, value in args.items() if name not in beside}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Tiny files of images and sentences, as users have them."""
    folder = tmp_path_factory.mktemp("data")
    pairs = bundled_translation.generate(n_pairs=150)
    write_split(translation.split_pairs(pairs), folder)
    np.savez(folder / "kuzushiji_mnist.npz", **tiny_images())
    return folder


def tiny_images():
    rng = np.random.default_rng(0)
    sizes = {"train": 48, "val": 20, "test": 30}
    arrays = {f"{split}_images": rng.integers(0, 256, (n, 28, 28), np.uint8) for split, n in sizes.items()}
    return arrays | {f"{split}_labels": np.arange(n, dtype=np.uint8) % 10 for split, n in sizes.items()}


@pytest.mark.parametrize("command", TINY)
def test_a_command_of_the_readme_runs(command, run_script, data_dir, tmp_path):
    assert re.search(rf"{re.escape(command)}(?= *[`#|\n])", README)
    where = ("-runs_dir", tmp_path) if "q1" in command else ("-runs_dir", tmp_path, "-data_dir", data_dir)
    process = run_script(*command.split()[1:], *TINY[command], *where)
    assert process.returncode == 0, process.stderr
    assert list(tmp_path.glob("*/*/result.json"))
    shown = re.search(rf"\$ {re.escape(command)}.*\n((?: {{4}}.+\n)+)", README)
    if shown:  # the README's lines are the command's last ones, with other numbers
        lines = [line.strip() for line in shown[1].splitlines()]
        last = process.stdout.splitlines()[-len(lines) :]
        assert [line.split()[:2] for line in lines[:-1]] == [line.split()[:2] for line in last[:-1]]
        assert lines[-1].split("/")[0].split()[:2] == last[-1].split()[:2]


BLOCK = re.compile(r"^```(sh|powershell)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ACTIVATE = {"sh": ".venv/bin/activate", "powershell": r".venv\Scripts\Activate.ps1"}
SHELL_COMMANDS = {"sh": {"python3", "source", "python"}, "powershell": {"py", "python", ACTIVATE["powershell"]}}


@pytest.mark.parametrize("shell", ["sh", "powershell"])
def test_each_shell_makes_an_environment_enters_it_and_installs_the_requirements(shell):
    """PowerShell takes no `source`, no `$` before a command and no path with slashes as one."""
    ((_, block),) = [found for found in BLOCK.findall(README) if found[0] == shell]
    lines = block.splitlines()
    assert {line.split()[0] for line in lines} <= SHELL_COMMANDS[shell]
    assert lines[0].endswith("-m venv .venv") and ACTIVATE[shell] in lines[1]
    files = re.findall(r"-[rc] (\S+)", lines[2])
    assert lines[2].startswith("python -m pip install ") and files and all((ROOT / name).is_file() for name in files)
    for script, arguments in commands(block):
        load_script(script).parse_args(list(arguments))


@pytest.mark.skipif(os.name == "nt", reason="the POSIX shell's lines")
def test_the_shells_lines_are_those_of_a_shell():
    ((_, block),) = [found for found in BLOCK.findall(README) if found[0] == "sh"]
    assert subprocess.run(["sh", "-n", "-c", block]).returncode == 0
