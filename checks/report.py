"""What the check says: the lines on the screen, the csv for a class, and Gradescope's results.json."""

import csv
import io
import json
import textwrap

STRANGERS_CODE = (
    "The submissions' code is executed on this computer, with limits of time and memory but with your rights."
)
NO_MARK = "Nothing was trained: this is what can be checked, not a mark."
INDENT, WIDTH = 6, 110
BAD = ("WRONG", "ERROR", "not written", "not run")  # what makes the exit code 1; "not recognised" does not
MORE = "More: docs/check.md#"


def last_line(text):
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


class Submission:
    """What the worker answered about one submission.

    Args:
        answers: the worker's lines, in order.
        ending: why there are no more, for the questions that have no result.
    """

    def __init__(self, answers, ending):
        merged = {key: value for answer in answers for key, value in answer.items()}
        self.lacking, self.error = merged.get("lacking", []), merged.get("error")
        self.edition, self.guessed = merged.get("edition", ""), merged.get("guessed", False)
        self.results = [answer for answer in answers if "status" in answer]
        for number, name in merged.get("plan", [])[len(self.results) :]:
            status, lines = ("not run", []) if self.results and self.results[-1].get("last") else ("ERROR", [ending])
            self.results.append({"number": number, "name": name, "status": status, "lines": lines, "last": True})
        if not self.results and not self.error:
            self.error = ending

    @property
    def n_right(self):
        return sum(result["status"] == "ok" for result in self.results)

    @property
    def is_right(self):
        return not self.error and not any(result["status"] in BAD for result in self.results)

    def text(self, hint, seconds):
        """The lines on the screen."""
        if self.error:
            return f"ERROR {self.error}"
        lines = [f"taken for {self.edition}" if self.guessed else self.edition]
        lines += [f"This system cannot limit the {limit}; the check goes on without." for limit in self.lacking]
        width = max(len(result["name"]) for result in self.results) + 2
        for result in self.results:
            says = result.get("says", "") if result["status"] == "ok" else ""
            says = " · ".join(mistake["part"] for mistake in result.get("mistakes", [])) or says
            lines.append(f"{result['number']:<{INDENT}}{result['name']:<{width}}{result['status']:<8}{says}".rstrip())
            lines += details(result, hint)
        unknown = sum(result["status"] == "not recognised" for result in self.results)
        lines.append(
            f"{self.n_right} of {len(self.results)} right in {seconds:.0f} s. "
            + (f"{unknown} not recognised: it may be right in another way. " if unknown else "")
            + NO_MARK
        )
        return "\n".join(lines)


def details(result, hint):
    """The lines below the one of a result: where, what, and how to mend it."""
    paragraphs = []
    mistakes = result.get("mistakes", [])
    for mistake in mistakes:
        paragraphs.append(mistake["where"])
        if hint >= 1:
            exactly = "Your numbers are exactly those of this mistake: " if mistake["numeric"] else ""
            together = "Your numbers are exactly those of two mistakes together; one is: "
            text = (together if len(mistakes) > 1 and exactly else exactly) + mistake["text"]
            paragraphs.append(text[0].upper() + text[1:] + ".")
        if hint >= 2:
            paragraphs.append(f"Right: {mistake['mend']}")
    if not mistakes:
        paragraphs.append(result.get("where", ""))
    if hint >= 1 or not mistakes:
        paragraphs += result["lines"]
    if hint >= 1 and mistakes:
        paragraphs.append(f"{statement(result)} {MORE}{', #'.join(mistake['key'] for mistake in mistakes)}")
    paragraphs += [f"Note: {note}." for note in result.get("notes", [])]
    wrap = textwrap.TextWrapper(
        WIDTH, initial_indent=" " * INDENT, subsequent_indent=" " * INDENT, break_long_words=False
    )
    return [line for paragraph in paragraphs if paragraph for line in wrap.wrap(paragraph)]


def statement(result):
    """Where the statement says what is right: edition, question and equation."""
    return f"Statement {result['edition']}, {result['number']}, {result['equation']}."


def csv_text(checked):
    """A row for each submission and a column for each check."""
    names = {f"{r['number']} {r['name']}": None for submission in checked.values() for r in submission.results}
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(["submission", "edition", "right", "checks", *names, "error"])
    for name, submission in checked.items():
        cells = {
            f"{r['number']} {r['name']}": " ".join([r["status"], *(m["key"] for m in r.get("mistakes", []))])
            for r in submission.results
        }
        counts = [submission.n_right, len(submission.results)]
        writer.writerow(
            [name, submission.edition, *counts, *(cells.get(key, "") for key in names), submission.error or ""]
        )
    return output.getvalue()


def gradescope(submission, hint):
    """Gradescope's results.json: a test for each check, and the number of right ones as the score."""
    tests = [
        {
            "number": result["number"],
            "name": f"{result['name']}: {result['status']}",
            "score": int(result["status"] == "ok"),
            "max_score": 1,
            "status": "passed" if result["status"] == "ok" else "failed",
            "output": "\n".join(line.strip() for line in details(result, hint)),
        }
        for result in submission.results
    ]
    return {"score": submission.n_right, "output": submission.error or NO_MARK, "tests": tests}


def gradescope_text(checked, hint):
    """Of one submission its results.json, of several these by name."""
    results = {name: gradescope(submission, hint) for name, submission in checked.items()}
    return (
        json.dumps(results if len(results) > 1 else next(iter(results.values())), indent=2, ensure_ascii=False) + "\n"
    )
