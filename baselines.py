"""Baselines without training, to compare a model's score with."""

from collections import Counter

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from data.captions import mean_regions

QUERY_BATCH_SIZE = 256  # sentences; bounds the memory of the table of distances


def nearest_sentences(pairs, sentences):
    """For each sentence the English side of the training pair whose Spanish side is nearest by Levenshtein distance.

    pairs: (english, spanish); of equals the first counts.
    """
    english, spanish = zip(*pairs)
    hyps = []
    for start in range(0, len(sentences), QUERY_BATCH_SIZE):
        batch = sentences[start : start + QUERY_BATCH_SIZE]
        distances = process.cdist(batch, spanish, scorer=Levenshtein.distance, dtype=np.uint16)
        hyps += [english[i] for i in distances.argmin(axis=1)]
    return hyps


def captions(train, regions):
    """Captions of the test images without a trained decoder: a dict from name to one or more lists of captions.

    "most frequent caption" is that of the training set; "nearest image" the captions of the training image with the
    nearest mean feature by the cosine, a list for each of its captions.

    Args:
        train: for each training image its captions, strings.
        regions: features of the images, for "train" and "test" a tensor (n_images, n_regions, n_channels).
    """
    commonest = Counter(caption for captions in train for caption in captions).most_common(1)[0][0]
    means = {split: mean_regions(regions[split]) for split in ("train", "test")}
    unit = {split: mean / mean.norm(dim=1, keepdim=True).clamp(min=1e-12) for split, mean in means.items()}
    nearest = [train[i] for i in (unit["test"] @ unit["train"].T).argmax(dim=1).tolist()]
    return {
        "most frequent caption": [[commonest] * len(regions["test"])],
        "nearest image": [list(place) for place in zip(*nearest)],
    }
