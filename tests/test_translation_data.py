"""The text of Question 3: normal form, files, split."""

import hashlib
from pathlib import Path

import pytest
from conftest import one_line_error
from hypothesis import example, given
from hypothesis import strategies as st

from data import sources, text, translation
from data.bundled import translation as bundled_translation
from data.text import EVAL_MAX_LENGTH, normalize, shorter_than
from tests.pairs import write_split

NORMAL_FORMS = {
    "¿Dónde está Tomás?": "donde esta tomas ?",
    "Go!": "go !",
    "No... ¡Qué va!": "no . . . que va !",
    "  It's 8:30 p.m. ": "it s p .m .",
    "ÑANDÚ, pingüino; Üñ": "nandu pinguino un",
    "n\u0303": "n",  # a tilde of its own
    "İ": "i",  # lower() makes two characters of it
    "a\u200bb\u2028c\xa0d": "a b c d",
    "1,000": "",
    "日本": "",
}


@pytest.mark.parametrize("sentence", NORMAL_FORMS)
def test_the_normal_form_is_the_courses(sentence):
    assert normalize(sentence) == NORMAL_FORMS[sentence]


@given(st.text())
@example("a.b ! ?c")
@example("ſﬁKÅ")
def test_a_normal_form_has_few_characters_and_is_its_own(sentence):
    normal = normalize(sentence)
    assert set(normal) <= set("abcdefghijklmnopqrstuvwxyz .!?")
    assert normal == normal.strip()
    assert "  " not in normal
    assert all(normal[i - 1] == " " for i, char in enumerate(normal) if char in ".!?" and i)
    assert normalize(normal) == normal


@given(st.text())
def test_the_split_is_the_last_digit_of_the_sha256(sentence):
    last_digit = str(int.from_bytes(hashlib.sha256(sentence.encode()).digest(), "big"))[-1]
    assert translation.split_of(sentence) == {"0": "test", "1": "val"}.get(last_digit, "train")


def test_the_split_of_known_sentences_does_not_move():
    # The splits of users' files rest on these, and so does every number in the README.
    assert [translation.split_of(text) for text in ("hola .", "ve .", "fuego !")] == ["test", "train", "val"]


def test_a_tenth_is_test_and_a_tenth_validation():
    n = 10_000
    splits = [translation.split_of(f"frase {i}") for i in range(n)]
    for split, share in {"train": 0.8, "val": 0.1, "test": 0.1}.items():
        assert splits.count(split) == pytest.approx(share * n, abs=5 * (share * (1 - share) * n) ** 0.5)


def parse(lines):
    content = lines if isinstance(lines, bytes) else lines.encode()
    return translation.parse_pairs(content, "corpus.txt")


def test_lines_are_read_as_users_write_them(capsys):
    pairs = [("go .", "ve ."), ("hi !", "hola !")]
    assert parse("Go.\tVe.\nHi!\t¡Hola!\n") == pairs
    assert parse("Go.\tVe.\nHi!\t¡Hola!") == pairs  # no line end at the end
    assert parse("\ufeffGo.\tVe.\r\nHi!\t¡Hola!\r\n\r\n") == pairs
    assert parse("\nGo.\tVe.\tCC-BY #1\n  \nHi!\t¡Hola!\tCC-BY\tmore\n") == pairs
    assert parse("Go\u2028now.\tVe\x85ya.\n") == [("go now .", "ve ya .")]  # these end a line for splitlines()
    assert parse("Go.\tVe.\nGo.\tVe.\n") == [("go .", "ve .")] * 2
    assert capsys.readouterr().err == ""


def test_a_side_without_letters_is_left_out_with_a_warning(capsys):
    assert parse("8:30\tLas ocho.\nGo.\tVe.\n7\t7\nGo.\t\n") == [("go .", "ve .")]
    warning = capsys.readouterr().err
    assert warning.startswith("warning: corpus.txt: left out 3 pairs")
    assert warning.count("\n") == 1


def test_pairs_that_lose_most_of_their_letters_are_counted_and_kept(capsys):
    lines = ["Go.\tVe.\n"] * 3 + ["Go.\tПоди!\n", "Él vería.\tAño, años; él está.\n", "Go 日本 to.\tVe.\n"]
    pairs = parse("".join(lines))
    assert pairs[3:] == [("go .", "!"), ("el veria .", "ano anos el esta ."), ("go to .", "ve .")]
    assert capsys.readouterr().err.count("1 of the 6 pairs lose most of their letters") == 1


@pytest.mark.parametrize(("n_lost", "is_refused"), [(9, False), (10, True)])
def test_a_file_that_loses_nearly_all_letters_is_refused(n_lost, is_refused, capsys):
    lines = "Go.\tПоди!\n" * n_lost + "Go.\tVe.\n" * (10 - n_lost)
    if is_refused:
        with one_line_error("corpus.txt", f"{n_lost} of the 10 pairs", "Latin letters"):
            parse(lines)
    else:
        assert len(parse(lines)) == 10


def test_the_bundled_pairs_are_made_anew_when_the_code_that_normalises_them_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CACHE_DIR", tmp_path / "cache")
    monkeypatch.setattr(bundled_translation, "generate", lambda max_length: made.append(max_length) or [("a", "b")])
    made, changed = [], tmp_path / "text.py"
    for _ in range(2):
        assert translation._bundled_pairs(20) == [("a", "b")]
    assert made == [20]
    changed.write_bytes(Path(text.__file__).read_bytes() + b"# changed\n")
    monkeypatch.setattr(text, "__file__", str(changed))
    translation._bundled_pairs(20)
    assert made == [20, 20]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds no sentence pair"),
        (b"\xef\xbb\xbf\r\n \r\n", "holds no sentence pair"),
        (b"12\t34\n", "holds no sentence pair"),
        (b"Go.\tVe.\n\nHi. Hola.\n", "corpus.txt, line 3: no tab"),
        (b"<html>\n", "corpus.txt, line 1: no tab"),
        ("Go.\tVe.\nYear.\tAño.\n".encode("latin-1"), "corpus.txt, line 2: not UTF-8 at byte 15"),
        ("Go.\tVe.\n".encode("utf-16"), "corpus.txt, line 1: not UTF-8"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(content, complaint):
    with one_line_error(complaint):
        parse(content)


@given(st.binary(max_size=60))
@example(b"\x00\t\x00")
@example(b"\t\n")
def test_any_bytes_give_pairs_or_one_line(content):
    try:
        pairs = parse(content)
    except translation.UserError as error:
        assert "\n" not in str(error)
    else:
        assert pairs
        assert all(side and side == normalize(side) for pair in pairs for side in pair)


def test_a_file_that_is_missing_or_no_file(tmp_path):
    with one_line_error("nothing.txt is missing", translation.DOWNLOAD_COMMAND):
        translation.read_pairs(tmp_path / "nothing.txt")
    with one_line_error(f"{tmp_path} cannot be read"):
        translation.read_pairs(tmp_path)


def test_both_sides_are_shorter_than_the_length():
    pairs = [("aaaa", "b"), ("a", "bbbb"), ("aaaaa", "b"), ("a", "bbbbb"), ("aaaaa", "bbbbb")]
    assert shorter_than(pairs, 5) == pairs[:2]


def letters(i):
    return "".join(chr(ord("a") + int(digit)) for digit in str(i))


# Every Spanish sentence with three translations, the third too long for the handout's files; one pair comes twice.
PAIRS = [(f"{english} {letters(i)}", f"frase {letters(i)}") for i in range(200) for english in ("a", "b", "c" * 20)]
PAIRS.append(PAIRS[0])


def test_no_spanish_sentence_is_in_two_splits_and_no_pair_is_lost():
    splits = translation.split_pairs(PAIRS, max_length=30)
    spanish = {split: {pair[1] for pair in pairs} for split, pairs in splits.items()}
    assert not spanish["train"] & spanish["val"]
    assert not spanish["train"] & spanish["test"]
    assert not spanish["val"] & spanish["test"]
    assert len(set().union(*spanish.values())) == 200
    for split, pairs in splits.items():
        translations = 3 if split == "train" else 2
        assert len(pairs) == len(set(pairs)) == translations * len(spanish[split])
        assert pairs == sorted(pairs, key=PAIRS.index)


def test_the_length_changes_the_training_split_only():
    splits = {max_length: translation.split_pairs(PAIRS, max_length) for max_length in (8, 20, 30)}
    sizes = {max_length: len(splits[max_length]["train"]) for max_length in splits}
    assert 0 < sizes[8] < sizes[20] < sizes[30]
    for split in ("val", "test"):
        assert splits[8][split] == splits[20][split] == splits[30][split]
        assert all(max(map(len, pair)) < EVAL_MAX_LENGTH for pair in splits[30][split])


def test_written_splits_are_read_back(tmp_path):
    splits = translation.split_pairs(PAIRS)
    folder = tmp_path / "new" / "data"
    write_split(splits, folder)
    for split, pairs in splits.items():
        assert translation.read_pairs(folder / translation.FILE_NAMES[split]) == pairs


def test_the_fingerprint_sees_every_change():
    splits = {"train": [("a", "b"), ("c", "d")], "val": [("e", "f")], "test": [("g", "h")]}
    others = [
        splits | {"train": [("c", "d"), ("a", "b")]},
        splits | {"train": [("a", "b")]},
        splits | {"train": [("b", "a"), ("c", "d")]},
        splits | {"train": [("a", "b")], "val": [("c", "d"), ("e", "f")]},
        splits | {"val": splits["test"], "test": splits["val"]},
    ]
    fingerprints = [translation.fingerprint(each) for each in (splits, *others)]
    assert len(set(fingerprints)) == len(fingerprints)
    assert translation.fingerprint(dict(reversed(splits.items()))) == fingerprints[0]
    assert all(len(each) == 64 for each in fingerprints)
