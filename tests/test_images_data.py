"""Image sets: files of both layouts to tensors, class names, test subsets, shifts and shuffled pixels, the cache."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_line_error

from data import images, sources
from data.bundled import images as bundled_images
from editions import EDITIONS
from options import UserError

SIZES = {"train": 48, "val": 20, "test": 30}


def make_arrays(n_classes=10, sizes=SIZES):
    """Images whose bright row is their class: a network learns them at once."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in sizes.items():
        labels = np.arange(n) % n_classes
        pictures = rng.integers(0, 60, (n, 28, 28))
        pictures[np.arange(n), 2 * labels + 2] = 255
        arrays |= {f"{split}_images": pictures.astype(np.uint8), f"{split}_labels": labels.astype(np.uint8)}
    return arrays


def broken(change):
    """The tiny arrays with some replaced."""
    return lambda: make_arrays() | change(make_arrays())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (broken(lambda a: {"train_images": a["train_images"][:5]}), ["5 train images", "48 train labels"]),
        (broken(lambda a: {"val_images": a["val_images"][:0], "val_labels": a["val_labels"][:0]}), ["0 val"]),
        (broken(lambda a: {"train_images": a["train_images"] / 255}), ["whole numbers from 0 to 255"]),
        (broken(lambda a: {"train_images": a["train_images"][:, :20]}), ["train_images", "(48, 20, 28)"]),
        (broken(lambda a: {"val_images": a["val_images"].transpose(1, 2, 0)}), ["val_images", "(28, 28, 20)"]),
        (broken(lambda a: {"val_images": a["val_images"].reshape(-1, 14, 56)}), ["val_images", "(20, 14, 56)"]),
        (broken(lambda a: {"test_labels": a["test_labels"] + 200}), ["labels up to 209", "10 classes"]),
        (lambda: {"images": np.zeros(3)}, ["train_images"]),
    ],
)
def test_broken_files_are_refused(tmp_path, make, words):
    np.savez(tmp_path / "kuzushiji_mnist.npz", **make())
    with pytest.raises(UserError) as caught:
        images.load("kuzushiji_mnist", "real", tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_the_courses_own_file_gives_the_same_images(tmp_path):
    arrays = make_arrays()
    course = {
        key: arrays[ours].reshape(len(arrays[ours]), -1) / 256 if "images" in ours else arrays[ours]
        for key, ours in zip(images.COURSE_KEYS, images.MEDMNIST_KEYS, strict=True)
    }
    np.savez(tmp_path / "Kuzushiji-MNIST.npz", **course)
    loaded = images.load("kuzushiji_mnist", "real", tmp_path)
    assert not loaded.bundled
    for split in images.SPLITS:
        np.testing.assert_array_equal(loaded.X[split][:, 0].numpy(), arrays[f"{split}_images"])
        np.testing.assert_array_equal(loaded.y[split].numpy(), arrays[f"{split}_labels"])


def test_the_courses_octmnist_subset_is_the_first_of_each_class():
    labels = np.arange(1000) % 4
    arrays = make_arrays(4, SIZES | {"test": 1000})
    assert (arrays["test_labels"] == labels).all()
    data = images.Images("", False, "octmnist", (), {}, {"test": torch.from_numpy(labels)}, "")
    subset = images.test_subsets(data)["course_529"]
    counts = np.bincount(labels[subset], minlength=4)
    assert list(counts) == [182, 55, 42, 250] and len(subset) == 529
    for label, n in enumerate(counts):
        assert subset[labels[subset] == label].tolist() == np.flatnonzero(labels == label)[:n].tolist()


def test_shifts_and_mirrors_are_those_of_the_same_image():
    torch.manual_seed(0)
    X = torch.randint(1, 256, (6, 1, 28, 28), dtype=torch.uint8)
    assert images.random_distortion()(X) is X
    distorted = images.random_distortion(shift=2, flip=True)(X)
    seen = set()
    for x, found in zip(X[:, 0], distorted[:, 0], strict=True):
        padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
        mirrored = torch.nn.functional.pad(x.flip(1), (2, 2, 2, 2))
        candidates = {
            (i, j, k): source[i : i + 28, j : j + 28]
            for k, source in enumerate((padded, mirrored))
            for i in range(5)
            for j in range(5)
        }
        matches = [key for key, candidate in candidates.items() if (candidate - found).abs().max() < 0.01]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 1 and {k for _, _, k in seen} == {0, 1}


def test_shifts_go_to_all_sides_and_are_all_equally_frequent():
    torch.manual_seed(0)
    X = torch.zeros(4000, 1, 28, 28, dtype=torch.uint8)
    X[:, 0, 14, 14] = 255
    distorted = images.random_distortion(shift=2)(X)[:, 0]
    for places in ((distorted.sum(dim=2) > 0.5), (distorted.sum(dim=1) > 0.5)):
        counts = places.sum(dim=0)[12:17]
        assert counts.sum() == len(X) and (counts - len(X) / 5).abs().max() < 5 * math.sqrt(len(X) / 5)


def test_a_warp_reads_each_pixel_where_a_random_matrix_maps_it():
    """Each pixel of the result is the bilinear mixture of the four around A (x, y), seen from the image's centre."""
    X = torch.randint(0, 256, (3, 1, 28, 28), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    torch.manual_seed(2)
    distorted = images.random_distortion(warp=0.3)(X)
    torch.manual_seed(2)
    maps = torch.eye(2) + 0.3 * (2 * torch.rand(3, 2, 2) - 1)
    n_black = 0
    for x, found, matrix in zip(X[:, 0], distorted[:, 0], maps.tolist(), strict=True):
        for i, j in itertools.product(range(0, 28, 3), range(0, 28, 3)):
            column, row = j - 13.5, i - 13.5
            u = matrix[0][0] * column + matrix[0][1] * row + 13.5
            v = matrix[1][0] * column + matrix[1][1] * row + 13.5
            expected = 0.0
            for m, n in itertools.product((math.floor(v), math.floor(v) + 1), (math.floor(u), math.floor(u) + 1)):
                if 0 <= m < 28 and 0 <= n < 28:
                    expected += (1 - abs(v - m)) * (1 - abs(u - n)) * float(x[m, n])
                else:
                    n_black += 1
            assert abs(float(found[i, j]) - expected) < 0.05
    assert n_black > 0


def tiny_images(**kwargs):
    arrays = make_arrays()
    X = {split: torch.from_numpy(arrays[f"{split}_images"]).unsqueeze(1) for split in SIZES}
    y = {split: torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64)) for split in SIZES}
    return images.Images("", False, "kuzushiji_mnist", tuple("abcdefghij"), X, y, "", **kwargs)


def test_shuffled_pixels_are_one_bijection_of_every_image():
    plain = tiny_images()
    shuffled = images.with_shuffled_pixels(plain)
    order = shuffled.pixel_order
    assert sorted(order.tolist()) == list(range(784)) and order.tolist() != list(range(784))
    for split in SIZES:
        assert shuffled.X[split].shape == plain.X[split].shape
        torch.testing.assert_close(shuffled.X[split].flatten(1), plain.X[split].flatten(1)[:, order])
    assert torch.equal(order, images.with_shuffled_pixels(plain).pixel_order)


def test_shifted_images_move_to_the_right_and_shuffled_ones_before_they_are_shuffled():
    plain = tiny_images()
    X = plain.X["test"]
    moved = images.shifted(plain, "test", 3)
    assert torch.equal(moved[..., 3:], X[..., :-3]) and not moved[..., :3].any()
    assert torch.equal(images.shifted(plain, "test", 0), X)
    shuffled = images.with_shuffled_pixels(plain)
    assert torch.equal(images.shifted(shuffled, "test", 3), images.reorder(moved, shuffled.pixel_order))


def test_baselines_are_those_written_as_loops():
    rng = np.random.default_rng(3)
    data = tiny_images()
    for split in ("train", "test"):
        data.X[split] = torch.from_numpy(rng.integers(0, 256, data.X[split].shape, dtype=np.uint8))
    data.y["train"][:5] = 7
    X, y = (part["train"].numpy() for part in (data.X, data.y))
    hits = 0
    for x, label in zip(data.X["test"].numpy(), data.y["test"].tolist(), strict=True):
        distances = [((X[y == k].mean(axis=0) - x) ** 2).sum() for k in range(10)]
        hits += int(np.argmin(distances)) == label
    n = SIZES["test"]
    expected = {"majority": (data.y["test"] == 7).sum().item() / n, "nearest_centroid": hits / n}
    assert images.baselines(data) == pytest.approx(expected)


def test_a_file_of_another_size_is_told_by_its_title(tmp_path, capsys):
    np.savez(tmp_path / "octmnist.npz", **make_arrays(4))
    assert images.load("octmnist", "real", tmp_path).title == "OCTMNIST (48 of 97,477 training images)"
    assert "48 / 20 / 30 images where OCTMNIST has 97,477 / 10,832 / 1,000" in capsys.readouterr().err
    arrays = {f"{split}_labels": np.zeros(n) for split, n in zip(images.SPLITS, (50_000, 10_000, 10_000))}
    assert images.title_of("fashion_mnist", arrays, tmp_path) == "Fashion-MNIST"


@pytest.mark.parametrize("edition", [None, "2023-24", "2021-22"])
def test_a_file_at_a_path_has_the_class_names_of_the_edition_if_it_has_as_many(edition, tmp_path):
    np.savez(tmp_path / "four.npz", **make_arrays(4))
    names = images.load(str(tmp_path / "four.npz"), edition=edition).class_names
    expected = EDITIONS["2023-24"].class_names if edition == "2023-24" else ("0", "1", "2", "3")
    assert names == expected


def test_a_named_set_has_its_own_class_names_whatever_the_edition(tmp_path):
    np.savez(tmp_path / "fashion_mnist.npz", **make_arrays(9))  # a class is missing
    loaded = images.load("fashion_mnist", "real", tmp_path, edition="2022-23")
    assert loaded.class_names == EDITIONS["2021-22"].class_names


def test_only_octmnist_has_the_courses_subset():
    labels = torch.from_numpy(np.arange(1000) % 4)
    for dataset, expected in (("octmnist", {"official", "course_529"}), ("fashion_mnist", {"official"})):
        data = images.Images("", False, dataset, (), {}, {"test": labels}, "")
        assert set(images.test_subsets(data)) == expected


def test_a_batch_is_the_images_of_its_rows_as_the_network_reads_them():
    data = tiny_images()
    X, y, rows = data.X["train"], data.y["train"], torch.tensor([7, 0, 7, 41])
    batch, labels = images.gatherer(X, y, lambda X: 255 - X)(rows)
    assert batch.dtype == torch.float32 and batch.shape == (4, 1, 28, 28)
    for i, row in enumerate(rows):
        torch.testing.assert_close(batch[i], (255 - X[row].float()) / 255)
        assert labels[i] == y[row]


@pytest.mark.parametrize("dataset", ["kuzushiji_mnist", "octmnist", "fashion_mnist"])
def test_the_cache_of_bundled_images_is_good_until_their_code_changes(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, "CACHE_DIR", tmp_path / "cache")
    monkeypatch.setattr(bundled_images, "SPLITS", {"train": 100, "val": 40, "test": 20})
    first = images.load(dataset, "bundled")
    generate, made = bundled_images.generate, []
    monkeypatch.setattr(bundled_images, "generate", lambda name: made.append(name) or generate(name))
    second = images.load(dataset, "bundled")
    assert second.fingerprint == first.fingerprint and torch.equal(second.X["train"], first.X["train"])
    assert (made, capsys.readouterr().err) == ([], "")
    (tmp_path / "images.py").write_bytes(Path(bundled_images.__file__).read_bytes() + b"# changed\n")
    monkeypatch.setattr(bundled_images, "__file__", str(tmp_path / "images.py"))
    images.load(dataset, "bundled")
    assert made == [dataset]


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.write_text("text")])
def test_a_damaged_cache_is_made_again(damage, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, "CACHE_DIR", tmp_path)
    arrays = sources.cached_arrays("some", lambda: {"a": np.arange(1000)})
    damage(tmp_path / "some.npz")
    for _ in range(2):
        found = sources.cached_arrays("some", lambda: {"a": np.arange(1000)})
        np.testing.assert_array_equal(found["a"], arrays["a"])
    assert capsys.readouterr().err.count("making it again") == 1  # the second time it is good


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "objects.npz", **make_arrays() | {"val_labels": np.array([None])})
    with one_line_error("objects.npz", "allow_pickle=False"):
        images.load(str(tmp_path / "objects.npz"))


@pytest.mark.parametrize("kind", ["gone", "text", "more", "fewer"])
def test_predictions_that_cannot_be_compared_are_one_line(kind, tmp_path):
    path = tmp_path / "predictions.npz"
    if kind == "text":
        path.write_text("text", encoding="utf-8")
    elif kind != "gone":
        n = {"more": 4, "fewer": 2}[kind]
        images.write_predictions(path, torch.zeros(n), torch.zeros(n))
    with one_line_error("predictions.npz", "run again without -resume"):
        images.read_correct(path, 3)
    images.write_predictions(path, torch.tensor([0, 1, 2]), torch.tensor([0, 2, 2]))
    assert images.read_correct(path, 3).tolist() == [True, False, True]
