"""What the check says: the lines on the screen, the csv for a class, and Gradescope's results.json."""

import csv
import io
import json
import textwrap

STRANGERS_CODE = "The submissions are executed on this computer, with limits of time and memory but your rights."
NO_MARK = "Nothing was trained: this is what can be checked, not a mark."
INDENT, WIDTH = 6, 96
BAD = ("WRONG", "ERROR", "not written", "not run")  # what makes the exit code 1; "not recognised" does not


class Submission:
    """What the worker answered about one submission, and why its answers end, for the question without a result."""

    def __init__(self, answers, ending):
        merged = {key: value for answer in answers for key, value in answer.items()}
        self.lacking, self.edition, self.guessed = merged["lacking"], merged.get("edition", ""), merged.get("guessed")
        self.results = [answer for answer in answers if "status" in answer]
        for n, name in enumerate(merged.get("plan", [])[len(self.results) :]):
            status, lines = ("not run", []) if n else ("ERROR", [ending])
            self.results.append({"number": "", "name": name, "status": status, "lines": lines, "mistakes": []})
        self.error = merged.get("error", None if self.results else ending)
        self.n_right = sum(result["status"] == "ok" for result in self.results)
        self.is_right = not self.error and not any(result["status"] in BAD for result in self.results)

    def text(self, hint, seconds):
        """The lines on the screen."""
        if self.error:
            return f"ERROR {self.error}"
        lines = [f"taken for {self.edition}" if self.guessed else self.edition]
        lines += [f"This system cannot limit the {limit}; the check goes on without." for limit in self.lacking]
        width = max(len(result["name"]) for result in self.results) + 2
        for result in self.results:
            parts = dict.fromkeys(mistake["part"] for mistake in result["mistakes"])
            says = " · ".join(parts) or (result["says"] if result["status"] == "ok" else "")
            lines.append(f"{result['number']:<{INDENT}}{result['name']:<{width}}{result['status']:<8}{says}".rstrip())
            lines += details(result, hint)
        n_unknown = sum(result["status"] == "not recognised" for result in self.results)
        unknown = f"{n_unknown} not recognised, and perhaps right in another way. " if n_unknown else ""
        last = f"{self.n_right} of {len(self.results)} right in {seconds:.0f} s. {unknown}{NO_MARK}"
        return "\n".join([*lines, last])


def details(result, hint):
    """The lines below the one of a result: where, what, and how to mend it."""
    mistakes, paragraphs = result["mistakes"], []
    these = "these mistakes together" if len(mistakes) > 1 else "this mistake"
    exactly = f"Your numbers are exactly those of {these}: "
    for mistake in mistakes:
        text = exactly * mistake["numeric"] + mistake["text"] + "."
        exactly = "And: "
        paragraphs += [mistake["where"], (text[0].upper() + text[1:]) * (hint > 0)]
        paragraphs += [f"Right: {mistake['mend']}"] * (hint > 1)
    paragraphs += [result.get("where", ""), *(result["lines"] if hint > 0 or not mistakes else [])]
    if mistakes and hint > 0:
        keys = ", #".join(mistake["key"] for mistake in mistakes)
        numbers = dict.fromkeys(mistake["part"][:3] for mistake in mistakes if mistake["part"].startswith("("))
        equation = "equation " + " and ".join(numbers) if numbers else result["equation"]
        statement = f"Statement {result['edition']}, {result['number']}, {equation}."
        paragraphs.append(f"{statement} More: docs/check.md#{keys}")
    paragraphs += [f"Note: {note}." for note in result.get("notes", [])]
    indent = " " * INDENT
    wrap = textwrap.TextWrapper(WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    return [line for paragraph in paragraphs if paragraph for line in wrap.wrap(paragraph)]


def csv_text(checked):
    """A row for each submission and a column for each check."""
    names = dict.fromkeys(result["name"] for submission in checked.values() for result in submission.results)
    output = io.StringIO()
    writer = csv.DictWriter(output, ["submission", "edition", "right", "checks", *names, "error"], lineterminator="\n")
    writer.writeheader()
    for name, submission in checked.items():
        row = {"submission": name, "edition": submission.edition, "error": submission.error}
        row |= {"right": submission.n_right, "checks": len(submission.results)}
        for result in submission.results:
            row[result["name"]] = " ".join([result["status"], *(mistake["key"] for mistake in result["mistakes"])])
        writer.writerow(row)
    return output.getvalue()


def gradescope_text(checked, hint):
    """Gradescope's results.json, with a point for each right check; of several submissions these by name."""
    files = {}
    for name, submission in checked.items():
        tests = []
        for result in submission.results:
            title = f"{result['number']} {result['name']}: {result['status']}"
            output = "\n".join(line.strip() for line in details(result, hint))
            tests.append({"name": title, "score": int(result["status"] == "ok"), "max_score": 1, "output": output})
        files[name] = {"score": submission.n_right, "output": submission.error or NO_MARK, "tests": tests}
    return json.dumps(files if len(files) > 1 else files[name], indent=2, ensure_ascii=False) + "\n"
