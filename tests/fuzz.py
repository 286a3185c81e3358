"""Damaged files for every reader of the project: each must end in a value or in a `UserError` of one line.

$ python -m tests.fuzz                                # make fuzz
$ python -m tests.fuzz -n 2000 -only npz checkpoint   # those readers whose names hold one of the words
$ python -m tests.fuzz -only tatoeba -start 71 -n 1   # one input again, as a finding names it

An input is a copy of a small valid folder in which one file was damaged: bytes are flipped, overwritten, cut, inserted
or appended; a JSON file also gets values of wrong types, a text other lines. Input i of a reader depends on the seed
and on i alone. Each reader has a process of its own with a limit of its memory. Findings are

    traceback   an exception that is no `UserError`, or a message that has not one line
    time        more than `SECONDS` of processor time
    memory      more than `MEMORY` bytes above the start
    crash       the end of the process
    path        a file beside the input's folder that has appeared or changed

The files of a finding are kept in a folder that is printed; the exit code is then 1.
"""
