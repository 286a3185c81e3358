"""Intervals and tests against numbers worked out by hand or published."""

import jiwer
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import OSA

import metrics


def test_wilson_interval_is_the_published_one():
    score = metrics.proportion(81, 263)  # the example of Newcombe (1998), table I
    assert (score["low"], score["high"]) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_stays_in_range(counts):
    score = metrics.proportion(*counts)
    assert -1e-12 <= score["low"] <= score["value"] + 1e-12 and score["value"] <= score["high"] + 1e-12 <= 1 + 2e-12


def test_mean_interval_by_hand():
    score = metrics.mean([1.0, 2.0, 3.0])  # standard error 1/sqrt(3), t(2) = 4.303
    assert score["value"] == 2 and score["high"] - 2 == pytest.approx(4.302653 / 3**0.5, rel=1e-6)


def test_paired_difference_sees_what_unpaired_intervals_hide():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 50)
    difference = metrics.paired_difference(hard + 1 + rng.normal(0, 0.1, 50), hard)
    assert difference["low"] > 0


def test_mcnemar_by_hand():
    a = [True] * 6 + [False] + [True] * 3
    b = [False] * 6 + [True] + [True] * 3
    test = metrics.mcnemar(a, b)
    assert (test["only_a"], test["only_b"]) == (6, 1)
    assert test["p_value"] == pytest.approx(2 * (1 + 7) / 2**7)
    assert test["difference"]["value"] == pytest.approx(0.5)
    assert metrics.mcnemar(a, a)["p_value"] == 1


def test_what_is_kept_is_counted_among_those_that_were_right_before():
    kept = metrics.kept([True, True, True, False, False], [True, False, True, True, False])
    assert kept["acc"]["value"] == 3 / 5
    assert (kept["kept"]["value"], kept["kept"]["n"]) == (2 / 3, 3)
    assert metrics.kept([False, False], [True, False])["kept"] is None


def test_halves_of_the_sentences_are_told_by_the_median_length():
    halves = metrics.halves([5, 9, 7, 3, 8], [1.0, 2.0, 4.0, 3.0, 6.0])
    assert halves["middle"] == 7
    assert (halves["short"]["value"], halves["short"]["n"]) == (8 / 3, 3)
    assert (halves["long"]["value"], halves["long"]["n"]) == (4.0, 2)
    assert metrics.halves([4, 4], [0.5, 1.5]).keys() == {"middle", "short"}


def test_right_and_wrong_texts_come_in_turn_the_longest_sources_first():
    sources, refs = ["abc", "abcdef", "ab", "abcde", "abcdefgh", "a"], ["x"] * 6
    hyps = ["x", "x", "y", "yy", "x", "a long text"]
    assert metrics.longest_right_and_wrong(sources, hyps, refs, most=6) == [1, 3, 0, 2]
    assert metrics.longest_right_and_wrong(sources, ["x"] * 6, refs, most=8) == [4, 1, 3, 0, 2, 5]


def test_auc_is_the_share_of_pairs_in_the_right_order():
    rng = np.random.default_rng(0)
    y, scores = np.array([0, 0, 1, 1, 2, 2, 2]), rng.integers(0, 4, (7, 3)).astype(float)  # with ties
    areas = []
    for label in range(3):
        positive, negative = scores[y == label, label], scores[y != label, label]
        pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
        areas.append(np.mean(pairs))
    assert metrics.macro_auc(y, scores) == pytest.approx(np.mean(areas))
    assert metrics.macro_auc(y, scores[:, [0, 1, 2, 2]]) is None  # a class without examples


def test_classification_by_hand():
    y = torch.tensor([0, 0, 1, 2])
    scores = metrics.classification(y, torch.log_softmax(torch.eye(3)[[0, 1, 1, 2]] * 5, dim=-1))
    assert scores["acc"]["value"] == 0.75
    assert scores["per_class_acc"] == [0.5, 1.0, 1.0]
    assert scores["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


TEXTS = st.text("abc d", max_size=8)


@given(TEXTS, TEXTS)
def test_the_similarities_are_their_formulas(hyp, ref):
    found = {name: values[0] for name, values in metrics.similarities([hyp], [ref]).items()}
    common = sum(min(hyp.count(char), ref.count(char)) for char in set(hyp))
    union, product = len(hyp) + len(ref) - common, len(hyp) * len(ref)
    both_empty = float(hyp == ref)
    assert found == pytest.approx(
        {
            "jaccard": common / union if union else 1.0,
            "cosine": common / product**0.5 if product else both_empty,
            "damerau_levenshtein": OSA.normalized_similarity(hyp, ref),
        }
    )


def test_the_similarities_by_hand():
    # The multisets {a, c} and {a, b, c} share two of three. The order counts in the third alone: 3 edits of 3.
    found = metrics.similarities(["ca", "ab", "aab", "", ""], ["abc", "ba", "abb", "", "a"])
    assert found["jaccard"].tolist() == [2 / 3, 1, 1 / 2, 1, 0]
    assert found["cosine"].tolist() == pytest.approx([2 / 6**0.5, 1, 2 / 3, 1, 0])
    assert found["damerau_levenshtein"].tolist() == pytest.approx([0, 1 / 2, 2 / 3, 1, 0])  # ab to ba is one swap


def test_the_similarities_of_lists_and_the_pairs_that_differ_most():
    hyps, refs = ["abc", "cba", "ab", "xyz", "abd", "bac"], ["abc"] * 6
    found = metrics.similarities(hyps, refs)
    assert found["jaccard"].tolist() == [1, 1, 2 / 3, 0, 1 / 2, 1]
    assert found["damerau_levenshtein"].tolist() == pytest.approx([1, 1 / 3, 2 / 3, 0, 2 / 3, 2 / 3])
    chosen = metrics.differing(hyps, refs, 3)  # Jaccard is higher for cba and bac, lower for abd
    assert [row["hyp"] for row in chosen] == ["cba", "abd", "bac"]
    assert chosen[1] == {"ref": "abc", "hyp": "abd"} | {n: pytest.approx(found[n][4]) for n in metrics.SIMILARITIES}
    assert len(metrics.differing(hyps, refs, 9)) == 3


WORDS = st.lists(st.sampled_from(["a", "ab", "b", "cab", "d"]), max_size=6)


@given(st.lists(st.tuples(WORDS, WORDS.filter(bool)), min_size=1, max_size=6))
def test_error_rates_of_transcriptions_are_those_of_jiwer(pairs):
    hyps, refs = ([" ".join(words) for words in side] for side in zip(*pairs))
    scores = metrics.transcription(hyps, refs)
    assert scores["cer"]["value"] == pytest.approx(jiwer.cer(refs, hyps))
    assert scores["wer"]["value"] == pytest.approx(jiwer.wer(refs, hyps))
    assert scores["exact"]["value"] == sum(hyp == ref for hyp, ref in zip(hyps, refs)) / len(refs)
    similarities = metrics.similarities(hyps, refs)
    assert scores["jaccard"]["value"] == pytest.approx(np.mean(similarities["jaccard"]))
    difference = np.mean(similarities["damerau_levenshtein"] - similarities["jaccard"])
    assert scores["edits_minus_jaccard"]["value"] == pytest.approx(difference)
    edits, n_words = metrics.word_edits(hyps, refs)
    assert edits.tolist() == [round(jiwer.wer(ref, hyp) * len(ref.split())) for hyp, ref in zip(hyps, refs)]
    assert n_words.tolist() == [len(ref.split()) for ref in refs]


def test_blanks_at_the_ends_and_between_words_are_no_word_edits():
    edits, n_words = metrics.word_edits([" a  b ", ""], ["a b", "a b"])
    assert edits.tolist() == [0, 2] and n_words.tolist() == [2, 2]
    assert metrics.distances([" a  b ", ""], ["a b", "a b"]).tolist() == [3, 3]


def test_the_interval_of_a_ratio_holds_the_truth_in_95_of_100_samples():
    """Texts of 5 to 39 letters whose error rates differ and rise with the length; the truth is E edits / E letters."""
    rng = np.random.default_rng(0)

    def draw(n):
        lengths = rng.integers(5, 40, n)
        rates = rng.beta(1, 3, n) * (0.5 + lengths / 40)
        return rng.binomial(lengths, rates.clip(max=1)), lengths

    edits, lengths = draw(1_000_000)
    truth = edits.sum() / lengths.sum()
    scores = [metrics.ratio(*draw(100)) for _ in range(2000)]
    covered = np.mean([score["low"] <= truth <= score["high"] for score in scores])
    assert 0.93 < covered < 0.965
    edits, lengths = draw(200)
    rows = rng.integers(0, 200, (4000, 200))  # the bootstrap
    low, high = np.quantile(edits[rows].sum(axis=1) / lengths[rows].sum(axis=1), [0.025, 0.975])
    score = metrics.ratio(edits, lengths)
    assert (score["low"], score["high"]) == pytest.approx((low, high), abs=0.1 * (high - low))
    assert score["value"] == edits.sum() / lengths.sum() and score["n"] == 200


def test_the_difference_of_two_ratios():
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, 40, 50)
    a, b = rng.binomial(lengths, 0.3), rng.binomial(lengths, 0.2)
    difference = metrics.difference_of_ratios(a, b, lengths)
    assert difference["value"] == pytest.approx(metrics.ratio(a, lengths)["value"] - metrics.ratio(b, lengths)["value"])
    assert difference["low"] > 0
    paired = metrics.difference_of_ratios(a, a + 1, lengths)
    assert paired["value"] == pytest.approx(-50 / lengths.sum())
    assert metrics.ratio([3], [4]) == {"value": 0.75, "low": 0.75, "high": 0.75, "n": 1}


@given(st.lists(st.integers(-3, 3), min_size=3, max_size=9).filter(lambda values: len(set(values)) > 1))
def test_spearmans_correlation_is_scipys_with_ties(values):
    from scipy import stats  # slow to import

    assert metrics.spearman(values) == pytest.approx(stats.spearmanr(values, range(len(values))).statistic, abs=1e-12)


def test_values_that_do_not_rise_are_not_correlated_with_their_place():
    assert metrics.spearman([2.0, 2.0, 2.0]) == 0
    assert metrics.spearman(torch.tensor([0.5, 1.5, 9.0])) == pytest.approx(1)
    assert metrics.spearman([3, 2, 1]) == pytest.approx(-1)


@given(st.text("abcd ", max_size=9), st.text("abcd ", max_size=9))
def test_cosine_is_the_largest_similarity(hyp, ref):
    """As the report of 2023-24 derives in 3.4."""
    values = {name: found[0] for name, found in metrics.similarities([hyp], [ref]).items()}
    assert max(values.values()) <= values["cosine"] + 1e-12


def test_differences_of_transcriptions_are_those_of_their_figures_and_paired():
    refs = ["a cat sat", "dogs do not", "one", "two three four"]
    a, b = ["a cat sit", "dogs do", "won", "to three four"], ["cat", "dogs do", "", "two three for four"]
    found, reverse = metrics.transcription_differences(a, b, refs), metrics.transcription_differences(b, a, refs)
    ours, theirs = metrics.transcription(a, refs), metrics.transcription(b, refs)
    assert found.keys() == {"cer", "wer", *metrics.SIMILARITIES}
    assert ours.keys() - found.keys() == {"exact", "errors", "edits_minus_jaccard"}
    for name, score in found.items():
        assert score["value"] == pytest.approx(ours[name]["value"] - theirs[name]["value"]) and score["n"] == 4
        assert score["value"] == pytest.approx(-reverse[name]["value"]) and score["value"] != 0
        assert score["low"] == pytest.approx(-reverse[name]["high"])


def test_a_recogniser_listens_if_its_texts_are_its_own_and_the_attended_time_rises():
    eye = np.eye(5)[:, None]  # of one head
    hyps, refs, weights = ["abc", "d", "xx"], ["abc", "de", "yx"], [eye[:4], eye[:2], eye[[3, 1, 4]]]
    found = metrics.attention_report(hyps, refs, weights, seconds_a_position=0.25)
    assert found["cer"]["value"] == pytest.approx((0 + 1 + 1) / 7)
    assert found["shuffled_cer"]["value"] == pytest.approx((3 + 2 + 3) / 7)  # d for abc, xx for de, abc for yx
    assert found["own_minus_shuffled"]["value"] == pytest.approx((2 - 8) / 7)
    assert found["spearman"]["value"] == pytest.approx((1 - 1) / 2) and found["spearman"]["n"] == 2  # d has one letter
    assert found["moved"]["value"] == pytest.approx((2 - 2) / 2 * 0.25)  # from 0 to 2, and from 3 to 1
    assert found["seconds"] == pytest.approx(5 * 0.25)
    alone = metrics.attention_report(["a"], ["a"], [eye[:2]], 0.25)
    assert alone["spearman"] is alone["moved"] is None


def test_the_attended_time_is_the_mean_of_the_heads():
    up, down = np.eye(9)[[0, 4, 8]], np.eye(9)[[2, 1, 0]]
    found = metrics.attention_report(["abc"], ["abc"], [np.stack([up, down], axis=1)], seconds_a_position=2.0)
    assert found["spearman"]["value"] == pytest.approx(1)  # the means are 1, 2.5 and 4
    assert found["moved"]["value"] == pytest.approx((4 - 1) * 2.0) and found["seconds"] == pytest.approx(18.0)


def test_the_errors_of_a_cer_taken_apart_by_hand():
    refs, hyps = ["abcd", "ab", "the cat"], ["abd", "xbyzw", "the the the the the "]
    found = metrics.edits_apart(hyps, refs)  # c is missing; x is wrong, y, z and w are superfluous
    only = metrics.edits_apart(hyps[:2], refs[:2])
    assert [only[kind] * 6 for kind in ("deletions", "substitutions", "insertions")] == pytest.approx([1, 1, 3])
    assert only["length"] == pytest.approx((3 + 5) / 6)
    assert only["worse_than_empty"]["value"] == pytest.approx(1 / 2)  # four errors for two characters
    assert only["looping"]["value"] == 0 and found["looping"]["value"] == pytest.approx(1 / 3)
    silent = metrics.edits_apart(["", "", ""], refs)
    assert silent["deletions"] == 1 and silent["length"] == 0 and silent["worse_than_empty"]["value"] == 0


@given(st.lists(st.tuples(st.text("ab ", max_size=8), st.text("ab ", min_size=1, max_size=8)), min_size=1, max_size=4))
def test_the_kinds_of_errors_add_up_to_the_cer(pairs):
    hyps, refs = zip(*pairs)
    found = metrics.edits_apart(hyps, refs)
    total = sum(found[kind] for kind in ("insertions", "deletions", "substitutions"))
    assert total == pytest.approx(metrics.cer(hyps, refs)["value"])
    surplus = found["insertions"] - found["deletions"]
    assert found["length"] == pytest.approx(1 + surplus)


def test_the_words_of_captions_are_judged_by_kind():
    hyps = ["a brown road and two boats", "a red boat on a river", "many trees"]
    refs = [
        ["a black road , two red boats", "boats on brown soil by a river"],  # another thing is brown
        ["one red boat"],
        ["a brown road", "many green trees"],
    ]
    found = metrics.words_found(hyps, refs)
    things = {"boat", "boats", "river", "road", "trees"}
    assert {kind: set(value["words"]) for kind, value in found.items()} == {
        "other words": things,
        "colours": {"brown", "red"},
        "numbers": {"many", "two"},
    }
    # Right are road, boats; boat; trees of 5. In the references of another image: road (1 of 2), boats (0) of the first
    # caption, boat (0), river (1 of 2) of the second, and trees (0).
    assert found["other words"]["n"] == 5 and found["other words"]["share"]["value"] == pytest.approx(4 / 5)
    assert found["other words"]["by_chance"] == pytest.approx((1 + 0 + 0 + 1 + 0) / 2 / 5)
    assert found["colours"]["share"]["value"] == 1 / 2 and found["colours"]["by_chance"] == pytest.approx(1 / 2 / 2)
    assert found["numbers"]["share"]["value"] == 1 and found["numbers"]["by_chance"] == 0


def test_no_words_are_judged_without_captions_or_without_other_images():
    assert metrics.words_found(["", ""], [["a road"], ["a river"]]) == {}
    assert metrics.words_found(["a road"], [["a road"]]) == {}
