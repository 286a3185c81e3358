"""A short `make fuzz`, and findings that the fuzzer must make."""

import os
import sys

import pytest

from options import UserError
from tests import fuzz

N_INPUTS = 600


def test_each_reader_ends_in_a_value_or_in_one_line(capsys):
    assert fuzz.fuzz(fuzz.READERS, N_INPUTS, seed=1) == []
    lines = capsys.readouterr().out.splitlines()
    rows = [line.rsplit(maxsplit=5) for line in lines[1:]]
    assert [row[0] for row in rows] == [reader.name for reader in fuzz.READERS] + ["all"]
    assert int(rows[-1][1]) == N_INPUTS
    assert all(
        int(values) and int(errors) for name, _, values, errors, *_ in rows if name != "cache"
    )  # it is made anew


def traceback(content):
    raise ValueError


def second_line(content):
    print("warning: of\rtwo lines", file=sys.stderr)


def memory(content):
    assert len(bytearray(b"x") * (2 * fuzz.MEMORY))


def time(content):
    while True:
        pass


def crash(content):
    os._exit(3)


FAULTS = {traceback: "traceback", second_line: "traceback", memory: "memory", time: "time", crash: "crash"}


def reader_of(fault):
    """A reader that fails on everything but its valid file."""

    def read(folder):
        content = (folder / "a").read_bytes()
        if content != b"valid":
            fault(content)
            raise UserError("damaged")

    return fuzz.Reader("some", lambda folder: (folder / "a").write_bytes(b"valid"), "a", read)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_must_not_happen_is_found(fault, monkeypatch, tmp_path):
    monkeypatch.setattr(fuzz, "SECONDS", 1.0)
    monkeypatch.setattr(fuzz, "MEMORY", 2**26)
    monkeypatch.setattr(fuzz.tempfile, "tempdir", str(tmp_path))
    findings = fuzz.fuzz([reader_of(fault)], 3)
    assert {(name, outcome) for name, outcome, _ in findings} == {("some", FAULTS[fault])}
    assert all((kept / "a").read_bytes() != b"valid" for _, _, kept in findings if (kept / "a").is_file())


def test_a_reader_that_refuses_its_valid_file_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(fuzz.tempfile, "tempdir", str(tmp_path))

    def refuse(folder):
        raise UserError("no")

    findings = fuzz.fuzz([reader_of(traceback)._replace(read=refuse)], 3)
    assert {outcome for _, outcome, _ in findings} == {"crash"}


def test_an_input_depends_on_the_seed_and_its_number_alone(tmp_path):
    reader = reader_of(traceback)._replace(pattern="a")
    (tmp_path / "valid").mkdir()
    reader.make(tmp_path / "valid")

    def content(seed, number):
        path = fuzz.prepare(reader, tmp_path, seed, number, tmp_path / "input") / "a"
        return path.read_bytes() if path.is_file() and not path.is_symlink() else None

    first = [content(1, number) for number in range(20)]
    assert first == [content(1, number) for number in range(20)] and len(set(first)) > 10
    assert first != [content(2, number) for number in range(20)]
