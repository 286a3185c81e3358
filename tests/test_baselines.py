"""The translator without training against hand-made cases and a brute-force loop."""

import Levenshtein
from hypothesis import given
from hypothesis import strategies as st

from baselines import nearest_sentences

PAIRS = [("go .", "ve ."), ("go away .", "vete ."), ("he sees .", "ve el .")]


def test_the_nearest_sentence_is_that_of_the_smallest_distance():
    assert nearest_sentences(PAIRS, ["ve .", "vete !", "ve ella ."]) == ["go .", "go away .", "he sees ."]


def test_of_equally_near_sentences_the_first_counts():
    assert nearest_sentences([("first", "aa"), ("second", "ab")], ["ac"]) == ["first"]


@given(st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=6), st.text("abc", min_size=1, max_size=5))
def test_the_nearest_sentence_by_brute_force(spanish, query):
    pairs = [(str(i), text) for i, text in enumerate(spanish)]
    best = min(range(len(spanish)), key=lambda i: Levenshtein.distance(query, spanish[i]))
    assert nearest_sentences(pairs, [query]) == [str(best)]
