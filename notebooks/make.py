"""Make the notebooks from the scripts that stand beside them.

$ python notebooks/make.py          # after a change of a script; the picture of each notebook is kept
$ python notebooks/make.py --run    # also run the notebooks, and keep the picture of the cell that is marked

A script is plain Python. `# %%` begins a cell; `# %% [markdown]` one of text, whose lines begin with `#`;
`# %% writefile NAME` one whose code is written to a file; `# %% picture` the one whose picture stays in
the notebook. A line `# !COMMAND` is one for the shell. Running needs nbclient, nbformat and ipykernel.
"""

import argparse
import json
import re
from pathlib import Path

HERE = Path(__file__).resolve().parent
CELL = re.compile(r"^# %%(.*)\n", re.MULTILINE)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def make(text, picture=None):
    """The notebook, a dict of nbformat 4.5, of a script; `picture`: the output of the cell that is marked."""
    cells = []
    _, *parts = CELL.split(text)  # before the first cell stands what is for the linter
    for number, (kind, body) in enumerate(zip(parts[::2], parts[1::2])):
        kind, lines = kind.strip(), body.strip("\n").split("\n")
        cell = {"id": f"cell-{number}", "metadata": {}}
        if kind == "[markdown]":
            lines = [re.sub(r"^# ?", "", line) for line in lines]
            cell |= {"cell_type": "markdown"}
        else:
            lines = [re.sub(r"^(\s*)# !", r"\1!", line) for line in lines]
            lines = [f"%%{kind}"] * kind.startswith("writefile") + lines
            outputs = [picture] if kind == "picture" and picture else []
            cell |= {"cell_type": "code", "execution_count": None, "outputs": outputs}
        cells.append(cell | {"source": [f"{line}\n" for line in lines[:-1]] + lines[-1:]})
    return {"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}


def picture_of(notebook):
    """The first output of a notebook that is a picture, None if there is none."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return next((output for output in outputs if "image/png" in output.get("data", {})), None)


def run(path, text):
    """Run the notebook of a script in this folder; returns the picture of the cell that is marked."""
    import nbclient
    import nbformat

    notebook = nbformat.reads(json.dumps(make(text)), as_version=4)
    nbclient.NotebookClient(notebook, resources={"metadata": {"path": path.parent}}, timeout=None).execute()
    kinds = [kind.strip() for kind in CELL.findall(text)]
    outputs = notebook.cells[kinds.index("picture")].outputs
    data = {"image/png": picture_of({"cells": [{"outputs": outputs}]})["data"]["image/png"].strip()}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="run the notebooks for their pictures")
    parser.add_argument("editions", nargs="*", help="the editions to make (default: all)")
    args = parser.parse_args()
    for script in sorted(HERE.glob("hw2-*.py")):
        if args.editions and script.stem.removeprefix("hw2-") not in args.editions:
            continue
        path, text = script.with_suffix(".ipynb"), script.read_text(encoding="utf-8")
        old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cells": []}
        notebook = make(text, run(path, text) if args.run else picture_of(old))
        path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"written to {path}")


if __name__ == "__main__":
    main()
