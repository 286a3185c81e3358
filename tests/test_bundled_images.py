"""The bundled twins of the three image sets: frozen bytes, right shapes and shares, no leaks, not too easy."""

import hashlib
from itertools import combinations

import numpy as np
import pytest

from data.bundled import images as bundled_images
from editions import DATASETS

FINGERPRINTS = {
    "kuzushiji_mnist": "0c96ec46177c62ba68593ed612bb0fcf8b7f0f11fcfbc43f95b726046806a753",
    "octmnist": "e4a9df9bedc65835f711d18053cf7f69edc460f4eaa070c1b7f0b8a27da66a31",
    "fashion_mnist": "c7b2c7ca4f57dac440ec6be8b765972d2765146dcabb9ff748bc1f3019d2e1a1",
}


@pytest.fixture(scope="module", params=DATASETS)
def twin(request):
    """The name of a data set and its twin; one twin at a time is in memory."""
    return request.param, bundled_images.generate(request.param)


def fingerprint(arrays):
    """SHA-256 of the arrays' names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def test_the_twin_is_frozen(twin):
    dataset, arrays = twin
    assert fingerprint(arrays) == FINGERPRINTS[dataset]


def test_keys_shapes_and_types_are_those_of_medmnist(twin):
    dataset, arrays = twin
    assert set(arrays) == {f"{split}_{kind}" for split in ("train", "val", "test") for kind in ("images", "labels")}
    for split, n_images in (("train", 10_000), ("val", 2_000), ("test", 2_000)):
        images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
        assert images.shape == (n_images, 28, 28)
        assert labels.shape == ((n_images, 1) if dataset == "octmnist" else (n_images,))
        assert images.dtype == labels.dtype == np.uint8


def test_each_class_has_its_share(twin):
    dataset, arrays = twin
    n_classes = DATASETS[dataset].n_classes
    shares = {split: [1 / n_classes] * n_classes for split in ("train", "val", "test")}
    if dataset == "octmnist":  # the published training set's mix of CNV, DME, drusen and normal
        shares["train"] = shares["val"] = [0.34, 0.10, 0.08, 0.48]
    for split, expected in shares.items():
        labels = arrays[f"{split}_labels"].ravel()
        np.testing.assert_array_equal(np.bincount(labels) / len(labels), expected)


def test_the_first_images_of_a_split_show_every_class(twin):
    dataset, arrays = twin
    for split in ("train", "val", "test"):
        assert len(np.unique(arrays[f"{split}_labels"][:100])) == DATASETS[dataset].n_classes


def test_a_second_call_gives_the_same_bytes(monkeypatch):
    monkeypatch.setattr(bundled_images, "SPLITS", {"train": 100, "val": 40, "test": 20})
    for dataset in DATASETS:
        np.random.seed(0)  # numpy's global state must not matter
        first = fingerprint(bundled_images.generate(dataset))
        np.random.seed(1)
        assert fingerprint(bundled_images.generate(dataset)) == first


def test_another_seed_gives_other_images(monkeypatch):
    monkeypatch.setattr(bundled_images, "SPLITS", {"train": 100, "val": 40, "test": 20})
    first = bundled_images.generate("octmnist")
    monkeypatch.setattr(bundled_images, "SEED", bundled_images.SEED + 1)
    second = bundled_images.generate("octmnist")
    assert not np.array_equal(first["train_images"], second["train_images"])


def test_no_image_stands_in_two_splits(twin):
    _, arrays = twin
    images = {split: {image.tobytes() for image in arrays[f"{split}_images"]} for split in ("train", "val", "test")}
    for one, other in combinations(images, 2):
        assert not images[one] & images[other]


def test_nearest_centroid_is_above_chance_and_at_most_75_percent(twin):
    dataset, arrays = twin
    X, y = arrays["train_images"].reshape(-1, 28 * 28).astype(np.float32), arrays["train_labels"].ravel()
    centroids = np.stack([X[y == label].mean(axis=0) for label in range(DATASETS[dataset].n_classes)])
    X_test = arrays["test_images"].reshape(-1, 28 * 28).astype(np.float32)
    distances = (centroids**2).sum(axis=1) - 2 * X_test @ centroids.T  # plus |x|^2, the same for every centroid
    accuracy = (distances.argmin(axis=1) == arrays["test_labels"].ravel()).mean()
    assert 1.5 / DATASETS[dataset].n_classes < accuracy <= 0.75


def test_every_image_shows_something(twin):
    _, arrays = twin
    for split in ("train", "val", "test"):
        images = arrays[f"{split}_images"].reshape(-1, 28 * 28)
        assert images.max(axis=1).min() > 60
        assert np.std(images, axis=1, dtype=np.float32).min() > 5


@pytest.mark.parametrize("dataset", DATASETS)
def test_everything_is_drawn_in_whole_numbers(dataset):
    dice = bundled_images._Dice(np.random.Generator(np.random.PCG64(0)), 3)
    for label in range(DATASETS[dataset].n_classes):
        image = bundled_images.TWINS[dataset].draw(dice, label)
        assert image.shape == (3, 28, 28)
        assert image.dtype.kind == "i"


def rectangle(left, top, right, bottom):
    """One polygon (1, 4, 2), given in pixels."""
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return np.array([corners], dtype=np.int32) * bundled_images.PIXEL


def test_a_polygon_covers_the_pixels_inside_it():
    cover = bundled_images._polygon_cover(rectangle(3, 5, 10, 9))
    expected = np.zeros((1, 28, 28))
    expected[0, 5:9, 3:10] = 255
    np.testing.assert_array_equal(cover, expected)


def test_a_polygon_through_the_middle_of_pixels_covers_half_of_them():
    corners = rectangle(3, 5, 10, 9) + np.array([bundled_images.PIXEL // 2, 0], dtype=np.int32)
    np.testing.assert_array_equal(
        bundled_images._polygon_cover(corners)[0, 6, [3, 4, 9, 10, 11]], [127, 255, 255, 127, 0]
    )


def test_a_stroke_covers_discs_and_radius_zero_leaves_no_mark():
    points = np.array([[[8, 8], [20, 15]]], dtype=np.int32) * bundled_images.PIXEL + bundled_images.PIXEL // 2
    cover = bundled_images._stroke_cover(points, np.array([[3, 0]], dtype=np.int32) * bundled_images.PIXEL)
    assert cover[0, 8, 8] == cover[0, 8, 6] == cover[0, 10, 8] == 255  # row 8, column 8 is the centre
    assert cover[0, 8, 11] == 127  # on the edge
    assert cover[0, 8, 13] == cover[0, 15, 20] == 0


def test_a_curve_goes_through_its_points():
    points = np.array([[[0, 0], [100, 40], [50, 200], [-30, 10]]], dtype=np.int32)
    np.testing.assert_array_equal(bundled_images._curve(points, 6)[:, ::6], points)
