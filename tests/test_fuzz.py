"""A short version of `make fuzz`: a few hundred damaged and hostile files, and findings that the fuzzer must make."""

import os
from pathlib import Path

import pytest

from options import UserError
from tests.fuzz import __main__ as fuzz
from tests.fuzz import damage, readers

N_INPUTS = 700


@pytest.fixture
def folder(tmp_path):
    """A folder in memory where there is one."""
    if not os.access(fuzz.TMPFS, os.W_OK):
        yield tmp_path
        return
    import tempfile

    with tempfile.TemporaryDirectory(dir=fuzz.TMPFS) as folder:
        yield Path(folder)


def test_each_reader_ends_in_a_value_or_in_one_line(folder, monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "N_DRAWN", 10)
    assert fuzz.fuzz(readers.READERS, folder, N_INPUTS, seed=1) == []
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(readers.READERS) + 2
    assert lines[-1].split()[0] == "all" and lines[-1].split()[4] == "0"
    assert abs(int(lines[-1].split()[1]) - N_INPUTS) < len(readers.READERS)


def read_badly(kind):
    """A reader that does what it must not."""

    def read(folder):
        if kind == "traceback":
            raise ValueError
        if kind == "code":
            os.system("true")
        if kind == "path":
            (folder.parent / damage.OUTSIDE).read_bytes()
        if kind == "memory":
            assert len(bytearray(b"x") * (fuzz.MEMORY + 2**27))
        if kind == "crash":
            os._exit(3)
        if kind == "time":
            while True:
                pass
        raise UserError("damaged")

    return read


def run_badly(kind, folder, n=2, read=None):
    """The findings of a reader that reads its valid files and nothing else."""

    def read_valid(inside):
        return None if (inside / "a").read_bytes() == b"valid" else (read or read_badly(kind))(inside)

    reader = readers.Reader(
        kind,
        1,
        lambda f: (f / "a").write_bytes(b"valid"),
        lambda rng, f: (f / "a").write_bytes(rng.randbytes(3)),
        read_valid,
    )
    return fuzz.fuzz([reader], folder, n)


@pytest.mark.parametrize("kind", ["traceback", "code", "path", "memory", "crash", "time"])
def test_what_must_not_happen_is_found(kind, folder, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.2)
    monkeypatch.setattr(fuzz, "MEMORY", 2**28)
    findings = run_badly(kind, folder)
    assert [(name, number, found) for name, number, found, *_ in findings] == [(kind, 0, kind), (kind, 1, kind)]
    assert (Path(findings[0][-1]) / "a").is_file()


def test_an_input_depends_on_the_seed_and_its_number_alone(folder):
    seen = folder / "seen"
    seen.mkdir()

    def keep(inside):
        raise ValueError((inside / "a").read_bytes().hex())

    def contents(where, start, n):
        reader = readers.Reader(
            "some", 1, lambda f: (f / "a").write_bytes(b"valid"), lambda rng, f: (f / "a").write_bytes(rng.randbytes(9)),
            lambda inside: None if (inside / "a").read_bytes() == b"valid" else keep(inside),
        )  # fmt: skip
        _, findings, _ = fuzz.run(reader, folder / where, 5, start, n)
        return [what.splitlines()[-1] for _, _, what, _ in findings]

    first = contents("x", 0, 4)
    assert len(set(first)) == 4
    assert contents("y", 2, 2) == first[2:]
