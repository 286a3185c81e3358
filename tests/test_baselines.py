"""The trivial translators against hand-made cases and a brute-force loop."""

import Levenshtein
from hypothesis import given
from hypothesis import strategies as st

from baselines import CharNgramCopy, NearestSentence

PAIRS = [("go .", "ve ."), ("go away .", "vete ."), ("he sees .", "ve el .")]


def test_the_nearest_sentence_is_that_of_the_smallest_distance():
    translator = NearestSentence(PAIRS)
    assert translator.translate(["ve .", "vete !", "ve ella ."]) == ["go .", "go away .", "he sees ."]


def test_of_equally_near_sentences_the_first_counts():
    assert NearestSentence([("first", "aa"), ("second", "ab")]).translate(["ac"]) == ["first"]


@given(st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=6), st.text("abc", min_size=1, max_size=5))
def test_the_nearest_sentence_by_brute_force(spanish, query):
    pairs = [(str(i), text) for i, text in enumerate(spanish)]
    best = min(range(len(spanish)), key=lambda i: Levenshtein.distance(query, spanish[i]))
    assert NearestSentence(pairs).translate([query]) == [str(best)]


def test_characters_are_copied_as_training_has_them():
    translator = CharNgramCopy([("xyz", "abc"), ("xyz", "abc"), ("yyy", "bbb")], n=1)
    assert translator.translate(["abc"]) == ["xyz"]
    assert translator.translate(["cab?"]) == ["zxy?"]  # what training never had stays


def test_the_longest_known_ngram_decides():
    pairs = [("pq", "ab")] + 3 * [("rs", "cb")]
    assert CharNgramCopy(pairs, n=1).translate(["ab"]) == ["ps"]
    assert CharNgramCopy(pairs, n=3).translate(["ab"]) == ["pq"]


def test_places_are_proportional():
    assert CharNgramCopy([("aabb", "xy")], n=1).translate(["xyx"]) == ["aba"]
    assert CharNgramCopy([("ab", "wxyz")], n=1).translate(["wxyz"]) == ["aabb"]
