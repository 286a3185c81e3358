"""Figures of merit with their 95 % intervals, and paired differences. No modules, no plots."""

import itertools
import math
import re
from collections import Counter

import Levenshtein
import numpy as np
from scipy import special  # scipy.stats, which has the same by other names, takes half a second to import

CONFIDENCE = 0.95


def proportion(n_hits, n):
    """A share of `n` examples with its Wilson interval (Wilson, 1927): {"value", "low", "high", "n"}.

    The interval holds the shares p whose standard error puts n_hits / n within z = 1.96 of them.
    """
    value, z = n_hits / n, float(special.ndtri((1 + CONFIDENCE) / 2))
    center = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z / (1 + z**2 / n) * math.sqrt(value * (1 - value) / n + z**2 / (4 * n**2))
    low, high = min(value, center - half_width), max(value, center + half_width)  # rounding aside they hold the value
    return {"value": value, "low": low, "high": high, "n": int(n)}


def mean(values):
    """The mean of per-example values with Student's t interval: {"value", "low", "high", "n"}."""
    values = np.asarray(values, dtype=np.float64)
    value, half_width = float(values.mean()), 0.0
    if len(values) > 1:
        standard_error = float(values.std(ddof=1)) / math.sqrt(len(values))
        half_width = float(special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)) * standard_error
    return {"value": value, "low": value - half_width, "high": value + half_width, "n": len(values)}


def paired_difference(a, b):
    """The mean of `a - b` over the same examples, as `mean` gives it: an interval without 0 is a difference."""
    return mean(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))


def format_interval(score, sign=""):
    """A score with its 95 % interval, or a mere number, for the screen."""
    if not isinstance(score, dict):
        return f"{score:{sign}.4f}"
    return f"{score['value']:{sign}.4f} (95 %: {score['low']:{sign}.4f} to {score['high']:{sign}.4f})"


def mcnemar(correct_a, correct_b):
    """McNemar's exact test of two classifiers on the same examples (McNemar, 1947).

    Args:
        correct_a, correct_b: one boolean an example.

    Returns {"only_a", "only_b": how many only one of them has right, "p_value", "difference": paired, a - b}.
    """
    correct_a, correct_b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum())
    # Twice the probability that a fair coin falls at most so often on the rarer side.
    p_value = min(1.0, 2 * special.bdtr(min(only_a, only_b), only_a + only_b, 0.5))
    return {
        "only_a": only_a,
        "only_b": only_b,
        "p_value": float(p_value),
        "difference": paired_difference(correct_a, correct_b),
    }


def kept(correct_before, correct_after):
    """The share of the examples that are right after a change, and of those right before it the share that still are.

    correct_before, correct_after: one boolean an example. Returns {"acc", "kept"}; kept is None if none was right.
    """
    before, after = np.asarray(correct_before, bool), np.asarray(correct_after, bool)
    still = proportion(int((before & after).sum()), before.sum()) if before.any() else None
    return {"acc": proportion(int(after.sum()), len(after)), "kept": still}


def confusion(y, y_hat, n_classes):
    """Counts (n_classes, n_classes): row the true class, column the predicted one."""
    return np.bincount(np.asarray(y) * n_classes + np.asarray(y_hat), minlength=n_classes**2).reshape(n_classes, -1)


def macro_auc(y, scores):
    """Mean over the classes of the area under the ROC curve of class against rest; None if a class is missing.

    Args:
        y: labels (n_examples).
        scores: one an example and class (n_examples, n_classes); only their order within a class counts.
    """
    from sklearn.metrics import roc_auc_score  # slow to import

    y, scores = np.asarray(y), np.asarray(scores, dtype=np.float64)
    one_hot = y[:, None] == np.arange(scores.shape[1])
    if not one_hot.any(axis=0).all() or one_hot.all(axis=0).any():
        return None
    return float(np.mean([roc_auc_score(truth, score) for truth, score in zip(one_hot.T, scores.T, strict=True)]))


def classification(y, log_probs):
    """Accuracy with its interval, accuracy of each class, macro one-vs-rest AUC, confusion; JSON values.

    Args:
        y: labels (n_examples).
        log_probs: (n_examples, n_classes).
    """
    y, log_probs = np.asarray(y), np.asarray(log_probs)
    y_hat = log_probs.argmax(axis=1)
    counts = confusion(y, y_hat, log_probs.shape[1])
    sizes = counts.sum(axis=1)
    per_class = [hits / size if size else None for hits, size in zip(counts.diagonal().tolist(), sizes.tolist())]
    return {
        "acc": proportion(int((y == y_hat).sum()), len(y)),
        "per_class_acc": per_class,
        "macro_auc": macro_auc(y, log_probs),
        "confusion": counts.tolist(),
    }


def distances(hyps, refs):
    """The Levenshtein distance of each translation from its reference."""
    return np.array([Levenshtein.distance(hyp, ref) for hyp, ref in zip(hyps, refs, strict=True)])


def error_rates(hyps, refs):
    """Levenshtein distance over the reference's length, for each sentence (the handout's error rate)."""
    return distances(hyps, refs) / np.array([len(ref) for ref in refs])


def error_rate(hyps, refs):
    """The mean error rate of the texts, with its interval."""
    return mean(error_rates(hyps, refs))


def by_length(lengths, rates, at_least):
    """The mean rate of the sentences of each length that `at_least` so many have: a dict from length to score."""
    lengths, rates = np.asarray(lengths), np.asarray(rates)
    return {n: mean(rates[lengths == n]) for n in sorted(set(lengths.tolist())) if (lengths == n).sum() >= at_least}


def halves(lengths, values):
    """The mean of the values of the sentences of up to `middle` characters, the median, and of the longer ones."""
    lengths, values = np.asarray(lengths), np.asarray(values)
    middle = int(np.median(lengths))
    parts = {"short": values[lengths <= middle], "long": values[lengths > middle]}
    return {"middle": middle} | {name: mean(part) for name, part in parts.items() if len(part)}


def longest_right_and_wrong(sources, hyps, refs, most):
    """The rows with the longest sources whose texts are right, and wrong, in turn; no text longer than `most`."""
    rows = [i for i, hyp in enumerate(hyps) if max(len(sources[i]), len(hyp)) <= most]
    rows.sort(key=lambda i: len(sources[i]), reverse=True)
    right, wrong = ([i for i in rows if (hyps[i] == refs[i]) is is_right] for is_right in (True, False))
    return [i for pair in itertools.zip_longest(right, wrong) for i in pair if i is not None]


def translation(hyps, refs, seen=()):
    """Figures of free-running translations; JSON values.

    Args:
        hyps, refs: strings, a sentence each; no reference is empty.
        seen: the target sentences of the training set.

    Returns err_rate (the mean error rate of a sentence, with its interval), cer (all edits over all characters), exact
    (share of sentences without an error), chrf (Popovic, 2015; from 0 to 100), and err_rate_seen / err_rate_unseen, the
    error rate of the sentences whose reference is, or is not, in `seen`; None where there are none; and errors, those
    of `edits_apart`.
    """
    import sacrebleu  # slow to import

    edits, lengths = distances(hyps, refs), np.array([len(ref) for ref in refs])
    rates = edits / lengths
    is_seen = np.array([ref in seen for ref in refs])
    return {
        "err_rate": mean(rates),
        "cer": float(edits.sum() / lengths.sum()),
        "exact": proportion(int((edits == 0).sum()), len(edits)),
        "chrf": sacrebleu.corpus_chrf(list(hyps), [list(refs)]).score,
        "err_rate_seen": mean(rates[is_seen]) if is_seen.any() else None,
        "err_rate_unseen": mean(rates[~is_seen]) if not is_seen.all() else None,
        "errors": edits_apart(hyps, refs),
    }


def ratio(parts, wholes):
    """A ratio of sums over examples, such as all edits over all characters, with the interval of its linearisation.

    sum(parts) / sum(wholes), whose standard error is that of the mean of parts - ratio * wholes, divided by the mean of
    wholes (Cochran, Sampling Techniques, 1977, Chapter 6): {"value", "low", "high", "n"}.
    """
    parts, wholes = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
    value = float(parts.sum() / wholes.sum())
    rest = mean((parts - value * wholes) / wholes.mean())
    return {"value": value, "low": value + rest["low"], "high": value + rest["high"], "n": len(parts)}


def difference_of_ratios(parts_a, parts_b, wholes):
    """`ratio` of a minus `ratio` of b over the same examples and wholes."""
    return ratio(np.asarray(parts_a, dtype=np.float64) - np.asarray(parts_b, dtype=np.float64), wholes)


def cer(hyps, refs):
    """The character error rate: all edits over all characters of the references, with its interval."""
    return ratio(distances(hyps, refs), [len(ref) for ref in refs])


def cer_difference(hyps_a, hyps_b, refs):
    """The CER of a minus that of b on the same references."""
    lengths = [len(ref) for ref in refs]
    return difference_of_ratios(distances(hyps_a, refs), distances(hyps_b, refs), lengths)


def spearman(values):
    """Spearman's rank correlation of values with their place; equal ones share their mean rank; 0 if all are equal."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(counts) == 1:
        return 0.0
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])


SIMILARITIES = ("jaccard", "cosine", "damerau_levenshtein")  # 2023-24, Question 3.4
SIMILARITY_LINE = ", ".join(
    f"{name.title().replace('_', '-')} {{test[greedy][{name}][value]:.4f}}" for name in SIMILARITIES
)


def similarities(hyps, refs):
    """Each of `SIMILARITIES` for every pair of texts, as the course computed them: a dict from name to an array.

    Jaccard |A n B| / |A u B| and cosine |A n B| / sqrt(|A| |B|) compare the multisets of characters.
    Damerau-Levenshtein is 1 - d / length of the longer text; d counts insertions, deletions, substitutions and swaps
    of neighbours, no part being edited twice. Two empty texts have 1.
    """
    import textdistance  # slow to import

    pairs = list(zip(hyps, refs, strict=True))
    functions = {name: getattr(textdistance, name).normalized_similarity for name in SIMILARITIES}
    return {name: np.array([similarity(*pair) for pair in pairs]) for name, similarity in functions.items()}


def differing(hyps, refs, n_examples=4):
    """The pairs in which Jaccard and Damerau-Levenshtein differ most, with all similarities.

    In turn a pair in which Jaccard is higher, and one in which it is lower; where no pair is left of one kind, of the
    other.
    """
    values = similarities(hyps, refs)
    excess = (values["jaccard"] - values["damerau_levenshtein"]).round(9)  # 2 / 3 may be computed in two ways
    order = np.argsort(-excess, kind="stable").tolist()
    higher, lower = [i for i in order if excess[i] > 0], [i for i in reversed(order) if excess[i] < 0]
    chosen = [i for pair in itertools.zip_longest(higher, lower) for i in pair if i is not None][:n_examples]
    return [{"ref": refs[i], "hyp": hyps[i]} | {name: float(v[i]) for name, v in values.items()} for i in chosen]


def word_edits(hyps, refs):
    """The word edits of each text and the number of words of its reference, which is not empty."""
    hyps, refs = ([text.split() for text in texts] for texts in (hyps, refs))
    return distances(hyps, refs), np.array(list(map(len, refs)))


LOOP = re.compile(r"(.{3,})\1\1")  # three characters or more, three times in a row


def edits_apart(hyps, refs):
    """What the errors of a CER consist of; JSON values.

    Returns insertions, deletions and substitutions, each over all characters of the references (their sum is the CER),
    length (characters written over those of the references), and two shares of the texts: worse_than_empty, which have
    more errors than an empty answer would have, and looping, which repeat a `LOOP`.
    """
    kinds = Counter(kind for hyp, ref in zip(hyps, refs, strict=True) for kind, *_ in Levenshtein.editops(ref, hyp))
    n_chars, worse = sum(map(len, refs)), distances(hyps, refs) > [len(ref) for ref in refs]
    return {
        "insertions": kinds["insert"] / n_chars,
        "deletions": kinds["delete"] / n_chars,
        "substitutions": kinds["replace"] / n_chars,
        "length": sum(map(len, hyps)) / n_chars,
        "worse_than_empty": proportion(int(worse.sum()), len(refs)),
        "looping": proportion(sum(LOOP.search(hyp) is not None for hyp in hyps), len(refs)),
    }


def attention_report(hyps, refs, weights, seconds_a_position):
    """Does the decoder use the sound? CER, CER against a wrong clip, and how the attended time rises with the letter.

    Args:
        hyps, refs: strings, one a clip; the text of another clip is that of the clip before.
        weights: tensors (n_symbols, n_heads, n_positions), the attention to the positions of each clip at each symbol
            of its text.

    Returns cer, shuffled_cer and their paired difference own_minus_shuffled; seconds, the mean length of a clip; and
    two means over the clips with two letters or more, None without any: spearman, the rank correlation of a letter's
    place in the text and the mean time that is attended to for it, and moved, the seconds between those times of the
    first and of the last letter. The weights are the mean of the heads.
    """
    shuffled = [*hyps[1:], hyps[0]]
    heads = [np.asarray(alpha).mean(axis=1) for alpha in weights]  # (n_symbols, n_positions) each
    times = [alpha @ np.arange(alpha.shape[1]) * seconds_a_position for alpha in heads]
    paths = [path[: len(hyp)] for path, hyp in zip(times, hyps, strict=True) if len(hyp) > 1]
    return {
        "cer": cer(hyps, refs),
        "shuffled_cer": cer(shuffled, refs),
        "own_minus_shuffled": cer_difference(hyps, shuffled, refs),
        "seconds": seconds_a_position * sum(alpha.shape[2] for alpha in weights) / len(weights),
        "spearman": mean([spearman(path) for path in paths]) if paths else None,
        "moved": mean([path[-1] - path[0] for path in paths]) if paths else None,
    }


def transcription(hyps, refs):
    """Figures of free-running transcriptions; JSON values.

    Returns cer and wer (all edits over all characters or words of the references), exact (share of texts without an
    error), the mean similarities, and edits_minus_jaccard (Damerau-Levenshtein minus Jaccard, paired), each with its
    interval; and errors, those of `edits_apart`.
    """
    values = similarities(hyps, refs)
    return {
        "cer": cer(hyps, refs),
        "wer": ratio(*word_edits(hyps, refs)),
        "exact": proportion(sum(map(str.__eq__, hyps, refs)), len(refs)),
        **{name: mean(values[name]) for name in SIMILARITIES},
        "edits_minus_jaccard": paired_difference(values["damerau_levenshtein"], values["jaccard"]),
        "errors": edits_apart(hyps, refs),
    }


def transcription_differences(hyps_a, hyps_b, refs):
    """CER, WER and the similarities of `transcription` for a minus those for b, paired: the same references."""
    (edits_a, n_words), (edits_b, _) = word_edits(hyps_a, refs), word_edits(hyps_b, refs)
    values_a, values_b = similarities(hyps_a, refs), similarities(hyps_b, refs)
    return {
        "cer": cer_difference(hyps_a, hyps_b, refs),
        "wer": difference_of_ratios(edits_a, edits_b, n_words),
        **{name: paired_difference(values_a[name], values_b[name]) for name in SIMILARITIES},
    }


class Bleu:
    """BLEU of captions against several references, from 0 to 1, by sacrebleu (Papineni et al., 2002; Post, 2018).

    The counts of n-grams are kept for each caption, so that the score of any sample of the captions is quick.

    Args:
        hyps: captions, each a string of tokens with blanks between.
        refs: for each caption a list of references, strings as well; their number may vary.
    """

    MAX_ORDER = 4
    N_RESAMPLES = 1000  # of the bootstrap
    SEED = 0

    def __init__(self, hyps, refs):
        from sacrebleu.metrics import BLEU  # slow to import

        # The score of a sentence is not used, only its counts; the effective order keeps sacrebleu from warning of it.
        metric = BLEU(tokenize="none", effective_order=True)
        scores = [metric.sentence_score(hyp, list(references)) for hyp, references in zip(hyps, refs, strict=True)]
        self.stats = np.array([[s.sys_len, s.ref_len, *s.counts, *s.totals] for s in scores], dtype=np.int64)
        self.sentences = self._of_sentences()
        self._compute = BLEU.compute_bleu

    def score(self, rows=slice(None)):
        """Corpus BLEU-4 of the captions in `rows`."""
        sys_len, ref_len, *counts = self.stats[rows].sum(axis=0).tolist()
        correct, total = counts[: self.MAX_ORDER], counts[self.MAX_ORDER :]
        return self._compute(correct, total, sys_len, ref_len, smooth_method="exp").score / 100

    def _of_sentences(self):
        """BLEU-4 of each caption by itself (n_captions), without smoothing: 0 without a common 4-gram."""
        hyp_len, ref_len = np.maximum(self.stats[:, 0], 1), self.stats[:, 1]
        correct, total = self.stats[:, 2 : 2 + self.MAX_ORDER], self.stats[:, 2 + self.MAX_ORDER :]
        with np.errstate(divide="ignore"):  # log 0
            log_precision = np.log(correct / np.maximum(total, 1)).mean(axis=1)
        return np.exp(log_precision + np.minimum(1 - ref_len / hyp_len, 0))

    def mean_of_sentences(self, rows=slice(None)):
        """The course's score: the mean of NLTK's `sentence_bleu`, with 0 where that is 1e-77 for want of a 4-gram."""
        return self.sentences[rows].mean()


BLEUS = {"sentence_bleu": Bleu.mean_of_sentences, "bleu4": Bleu.score}
BLEU_TITLES = {"sentence_bleu": "mean sentence BLEU (the course's score)", "bleu4": "BLEU-4 of the whole set"}


def paired_bleu(ours, others=(), name="bleu4"):
    """The mean BLEU of some sets of captions minus that of others, on the same images, with its bootstrap interval.

    Args:
        ours, others: lists of `Bleu`, for instance one a seed; without others the mean of `ours` itself.
        name: which of `BLEUS`.

    The interval holds the middle 95 % of the values on samples of the images with replacement (Koehn, 2004, EMNLP); all
    sets are scored on the same samples. Returns {"value", "low", "high", "n"}; an interval without 0 is a difference.
    """
    n = len(ours[0].stats)

    def value(rows):
        parts = [[BLEUS[name](bleu, rows=rows) for bleu in side] for side in (ours, others)]
        return float(np.mean(parts[0]) - (np.mean(parts[1]) if others else 0.0))

    generator = np.random.default_rng(Bleu.SEED)
    samples = [value(generator.integers(n, size=n)) for _ in range(Bleu.N_RESAMPLES)]
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"value": value(slice(None)), "low": float(low), "high": float(high), "n": n}


def mean_bleus(refs, ours, others=()):
    """`paired_bleu` in both `BLEUS` of lists of captions, each list for the same images with these references."""
    ours, others = ([Bleu(hyps, refs) for hyps in lists] for lists in (ours, others))
    return {name: paired_bleu(ours, others, name) for name in BLEUS}


def bleus_by_name(key, refs, found):
    """What a result says of named captions: under `key` the course's score, under bleu4_`key` the BLEU-4.

    found: for each name the arguments `ours` and `others` of `mean_bleus`.
    """
    scores = {name: mean_bleus(refs, *sides) for name, sides in found.items()}
    keys = {"sentence_bleu": key, "bleu4": f"bleu4_{key}"}
    return {keys[bleu]: {name: scores[name][bleu] for name in found} for bleu in BLEUS}


def sentence_bleu(hyps, refs):
    """The course's score of captions, with its interval."""
    return mean_bleus(refs, [hyps])["sentence_bleu"]


WORD_KINDS = {  # of captions
    "": "a an the this there is are it of and with on in at by to from into through while but only some , .",
    "other words": "",
    "colours": "white red blue yellow black orange green dark brown pale grey deep",
    "numbers": "no one two three four five many several few lots",
    "places": "upper lower left right top bottom middle corner side sides",
}


def words_found(hyps, refs):
    """The words of captions that are in a reference of their image, by kind (2021-22, Question 3.1c).

    Of a colour the reference must also have the next word: the brown of a brown road is not that of brown soil.

    hyps and refs of `Bleu`. Returns for each kind {"share": with its interval, "by_chance", "n", "words"}: the share of
    its n words that is found, what it is on average with the references of the other images, and the different words.
    """
    kind_of = {word: kind for kind, words in WORD_KINDS.items() for word in words.split()}
    known = [{part for ref in references for parts in _with_next(ref) for part in parts} for references in refs]
    result = {}
    for kind in filter(None, WORD_KINDS):
        pairs = [[pair for pair in _with_next(hyp) if kind_of.get(pair[0], "other words") == kind] for hyp in hyps]
        said = [[two if kind == "colours" else word for word, two in caption] for caption in pairs]
        found = np.array([[sum(part in parts for part in caption) for parts in known] for caption in said])
        n = np.array([len(caption) for caption in said])
        if n.any() and len(n) > 1:
            by_chance = (found.sum() - found.trace()) / ((len(n) - 1) * n.sum())
            result[kind] = {"share": ratio(found.diagonal(), n), "n": int(n.sum()), "by_chance": float(by_chance)}
            result[kind]["words"] = sorted({word for caption in pairs for word, _ in caption})
    return result


def _with_next(text):
    """Each word of a text, and the same with the next word behind it."""
    words = text.split()
    return [(word, f"{word} {following}") for word, following in zip(words, [*words[1:], ""])]


def captioning(hyps, refs):
    """Scores of free-running captions; hyps and refs of `Bleu`.

    Returns sentence_bleu (the course's score) and bleu4 (of the whole set) with their intervals, and `words_found`;
    JSON values.
    """
    return mean_bleus(refs, [hyps]) | {"words_found": words_found(hyps, refs)}


def leave_one_out_bleu(refs):
    """BLEU-4 of each reference against the others, the mean over the references' places (images with at least two)."""
    refs = [list(references) for references in refs if len(references) > 1]
    if not refs:
        return None
    places = range(min(map(len, refs)))
    scores = [Bleu([r[i] for r in refs], [r[:i] + r[i + 1 :] for r in refs]).score() for i in places]
    return float(np.mean(scores))
