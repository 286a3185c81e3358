"""Sentence pairs as files, for the tests that train a translator."""

from pathlib import Path

from data import translation


def write_split(splits, folder):
    """Write three files in the layout of the course's into `folder`, which is made if need be."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for split, name in translation.FILE_NAMES.items():
        lines = [f"{english}\t{spanish}\n" for english, spanish in splits[split]]
        (Path(folder) / name).write_bytes("".join(lines).encode())
