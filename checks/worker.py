"""The process in which a student's code runs: limits first, then the checks, a line of JSON for each result.

It is started by `check.py` in a temporary folder that holds a copy of the student's files.
"""

import itertools
import json
import os
import signal
import socket
import sys
from pathlib import Path

import torch

from checks import captioning, translation
from checks.loading import CallError, Code
from checks.network import CNN, CNNWithoutMaxPool, Evaluate, ParameterCount, Predict, TrainBatch
from checks.probe import TooLong, explain
from checks.speech import TextDecoderRecurrent, TextDecoderTransformer

SCRIPT = [TrainBatch, Predict, Evaluate]
TRANSLATOR = [translation.Encoder, translation.Attention, translation.Decoder, translation.DecoderWithAttention]
EDITIONS = {
    "2021-22": [CNN, captioning.Decoder, captioning.Attention, captioning.DecoderWithAttention, *SCRIPT],
    "2022-23": [CNN, *TRANSLATOR, translation.Seq2Seq, *SCRIPT],
    "2023-24": [CNN, CNNWithoutMaxPool, TextDecoderRecurrent, TextDecoderTransformer, ParameterCount, *SCRIPT],
}


def edition_of(code):
    """The edition whose signatures the student's code has; with a CNN alone, the one with the nearest sizes."""
    scores = {edition: sum(question.fits(code) for question in EDITIONS[edition]) for edition in EDITIONS}
    best = [edition for edition, score in scores.items() if score == max(scores.values())]
    if len(best) > 1 and code["CNN"]:
        networks = {edition: CNN(code, edition) for edition in best}
        distances = {edition: (len(cnn.check()["mistakes"]), cnn.n_off) for edition, cnn in networks.items()}
        best = [edition for edition in best if distances[edition] == min(distances.values())]
    if len(best) > 1:
        raise CallError(f"this may be the homework of {' or '.join(best)}; say which with --edition")
    return best[0]


def check_files(files, edition=None, only=None):
    """Check a student's files {name: text}: yields the plan, then a dictionary for each result."""
    code, every = Code(files), list(itertools.chain(*EDITIONS.values()))
    if not any(question.applies(code) for question in every):
        names = ", ".join(dict.fromkeys(question.target for question in every))
        raise CallError(f"none of the homework's classes was found: {names}; name the file that defines one")
    taken = edition or edition_of(code)
    found = [question for question in EDITIONS[taken] if question.applies(code)]
    questions = [question for question in found if only in (None, question.target, question.name)]
    if not questions:
        names = ", ".join(dict.fromkeys(question.target for question in found))
        raise CallError(f"--only {only}: there is no such check of {taken} for these files; choose one of {names}")
    yield {"edition": taken, "guessed": edition is None, "plan": [question.name for question in questions]}
    wrong = set()
    for question in questions:
        result = question(code, taken).check()
        waits = sorted(wrong & set(question.uses))
        shape_alone = [mistake["key"] for mistake in result["mistakes"]] == ["output-shape"]
        if waits and (shape_alone or result["status"] in ("ERROR", "not written")):
            result |= {"status": f"waits for {' and '.join(waits)}", "where": "", "difference": "", "mistakes": []}
        wrong |= {question.target} if result["status"] not in ("ok", "not recognised") else set()
        yield result


def confine(request):
    """Limit time and memory, and take the network away; returns what cannot be limited, and how to start the clock."""

    def refuse(*args, **kwargs):
        raise PermissionError("the code uses the network, and the check has none")

    def stop(*args):
        raise TooLong

    lacking = []
    socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
    try:
        import resource

        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + request["memory"],) * 2)
    except (ImportError, OSError, ValueError):
        lacking.append("memory")
    if not hasattr(signal, "setitimer"):
        return [*lacking, "time of a single class"], lambda: None
    signal.signal(signal.SIGALRM, stop)
    return lacking, lambda: signal.setitimer(signal.ITIMER_REAL, request["seconds"], 1)


def main():
    request = json.loads(sys.argv[1])
    files = {name: Path(name).read_text(encoding="utf-8-sig", errors="replace") for name in request["files"]}
    torch.set_num_threads(1)
    lacking, start_clock = confine(request)
    with open(request["answers"], "w", encoding="utf-8", buffering=1) as answers:
        print(json.dumps({"lacking": lacking}), file=answers)
        try:
            start_clock()
            for result in check_files(files, request["edition"], request["only"]):
                print(json.dumps(result), file=answers)
                start_clock()
        except BaseException as error:
            text = f"the definitions cannot be executed: {explain(error, files)}"
            print(json.dumps({"error": str(error) if isinstance(error, CallError) else text}), file=answers)
    os._exit(0)  # whatever the student's code has left running


if __name__ == "__main__":
    main()
