"""What the check says: the lines on the screen, the csv for a class, and Gradescope's results.json."""

import csv
import io
import json
import re
import textwrap
from functools import cache
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "check.md"
NO_MARK = "Nothing was trained: this is what can be checked, not a mark."
INDENT, WIDTH = 6, 96
BAD = ("WRONG", "ERROR", "not written", "not run")  # what makes the exit code 1; "not recognised" does not


@cache
def known_mistakes():
    """{mistake: (part of the statement, what it is, how to mend it)}, from the headings and paragraphs of the page."""
    mistakes, part = {}, ""
    for marks, heading, text in re.findall(r"^(##+) (.+)\n\n([^#]*)", PAGE.read_text(encoding="utf-8"), flags=re.M):
        part = heading if marks == "##" else part
        sentences = re.match(r"(.+?\.) (?=[A-Z`\d]).* Mend: (.+)\.", " ".join(text.split()))
        if marks == "###" and sentences:
            mistakes[heading] = part, *(sentence.replace("`", "") for sentence in sentences.groups())
    return mistakes


class Submission:
    """What the worker answered about one submission, and why its answers end, for the question without a result."""

    def __init__(self, answers, ending):
        merged = {key: value for answer in answers for key, value in answer.items()}
        self.lacking, self.edition, self.guessed = merged["lacking"], merged.get("edition", ""), merged.get("guessed")
        self.results = [answer for answer in answers if "status" in answer]
        for n, name in enumerate(merged.get("plan", [])[len(self.results) :]):
            status, problem = ("not run", "") if n else ("ERROR", ending)
            self.results.append({"number": "", "name": name, "status": status, "difference": problem, "mistakes": []})
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
            parts = dict.fromkeys(known_mistakes()[mistake["key"]][0] for mistake in result["mistakes"])
            says = " · ".join(parts) or (result["says"] if result["status"] == "ok" else "")
            lines.append(f"{result['number']:<{INDENT}}{result['name']:<{width}}{result['status']:<8}{says}".rstrip())
            lines += details(result, hint)
        n_unknown = sum(result["status"] == "not recognised" for result in self.results)
        unknown = f"{n_unknown} not recognised, and perhaps right in another way. " if n_unknown else ""
        last = f"{self.n_right} of {len(self.results)} right in {seconds:.0f} s. {unknown}{NO_MARK}"
        return "\n".join([*lines, last])


def details(result, hint):
    """The lines below the one of a result: where, what, and how to mend it."""
    paragraphs, keys = [], [mistake["key"] for mistake in result["mistakes"]]
    exactly = "Your numbers are exactly those of " + ("these mistakes together: " if keys[1:] else "this mistake: ")
    for mistake in result["mistakes"]:
        _, text, mend = known_mistakes()[mistake["key"]]
        text += f" Yours: {mistake['details']}." if mistake["details"] else ""
        if mistake["numeric"]:
            text, exactly = exactly + text[0].lower() + text[1:], "And: "
        paragraphs += [mistake["where"], text * (hint > 0), f"Right: {mend}" * (hint > 1)]
    paragraphs += [result.get("where", ""), result["difference"] * (hint > 0 or not keys)]
    if keys and hint > 0:
        parts = dict.fromkeys(known_mistakes()[key][0] for key in keys)
        equations = " and ".join(f"equation {part[:3]}" for part in parts if part.startswith("("))
        statement = ", ".join(filter(None, (f"Statement {result['edition']}", result["number"], equations)))
        paragraphs.append(f"{statement}. More: docs/check.md#{', #'.join(keys)}")
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
