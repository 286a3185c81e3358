"""Captioned images: dataset.json and images/ to words and tensors, what is missing or damaged, the frozen encoders."""

import json
import shutil
import threading
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import DRIPPING_SECONDS, one_line_error
from PIL import Image

import encoders
from data import captions, sources
from data.bundled import captions as bundled_captions
from data.text import EOS_IDX, PAD_IDX, SOS_IDX, UNK_IDX

N_IMAGES = 13
MAX_SECONDS = 0.4  # that "auto" waits for the hub here
FILES = {"resnet18-f37072fd.pth": bytes(2**21)}  # what the server of conftest.py gives


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A set in the published layout."""
    folder = tmp_path_factory.mktemp("data") / "set"
    bundled_captions.write(folder, bundled_captions.generate("ucm", N_IMAGES))
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    """A copy of it to break."""
    return shutil.copytree(pristine, tmp_path / "set")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CACHE_DIR", tmp_path / "cache")


def edit(folder, change):
    """Change the content of dataset.json by `change(content)`."""
    path = folder / "dataset.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_folder_and_the_generator_say_the_same(folder):
    data = captions.load(str(folder))
    scenes = bundled_captions.generate("ucm", N_IMAGES)
    for split in captions.SPLITS:
        expected = [(name, scene.captions) for name, (s, scene) in scenes.items() if s == split]
        assert [(example.filename, example.captions) for example in data.examples[split]] == expected
    assert (data.title, data.bundled) == ("set", False)
    name = data.filenames[0]
    assert (data.open_image(name) == bundled_captions.draw(scenes[name][1])).all()


def test_missing_images_are_counted_and_left_out(folder, capsys):
    whole = captions.load(str(folder))
    gone = whole.examples["train"][2].filename
    (folder / "images" / gone).unlink()
    data = captions.load(str(folder))
    assert data.title == f"set ({N_IMAGES - 1} of {N_IMAGES} images)" and gone not in data.filenames
    assert data.fingerprint != whole.fingerprint
    assert capsys.readouterr().err.count(f"1 of the {N_IMAGES} images") == 1


def test_auto_stops_at_an_incomplete_set_and_real_takes_what_is_there(folder, tmp_path):
    folder.rename(tmp_path / "ucm")
    (tmp_path / "ucm" / "images" / "3.tif").unlink()
    with one_line_error("1 of the 13", "3.tif", "-data real"):
        captions.load("ucm", "auto", tmp_path)
    assert len(captions.load("ucm", "real", tmp_path).filenames) == N_IMAGES - 1
    assert captions.load("ucm", "bundled", tmp_path).bundled
    with one_line_error("sydney", "missing", "download_rs_captions.py"):
        captions.load("sydney", "real", tmp_path)
    with one_line_error("no dataset.json"):
        captions.load(str(tmp_path / "nowhere"))


def test_an_empty_split_is_replaced_by_the_training_images_and_says_so(folder, capsys):
    def all_train(content):
        for image in content["images"]:
            image["split"] = "train"

    edit(folder, all_train)
    data = captions.load(str(folder))
    assert data.stand_ins == ("val", "test") and data["test"] is data["train"]
    assert "scored on the training images" in data.title
    assert capsys.readouterr().err.count("\n") == 1
    edit(folder, lambda content: [image.update(split="test") for image in content["images"]])
    with one_line_error("no training image"):
        captions.load(str(folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content["images"][1].pop("split"), ("split", "2.tif")),
        (lambda content: content["images"][1].update(split="dev"), ("'dev'", "2.tif")),
        (lambda content: content["images"][1]["sentences"][0].update(tokens=[]), ("caption 0 has no words", "2.tif")),
        (lambda content: content["images"][1]["sentences"][0].update(tokens=[" "]), ("no words",)),
        (lambda content: content["images"][1].update(sentences=[]), ("no sentences",)),
        (lambda content: content["images"][1].update(filename="../2.tif"), ("'../2.tif'",)),
        (lambda content: content["images"][1].update(filename="1.tif"), ("1.tif twice",)),
        (lambda content: content.pop("images"), ("list of images",)),
    ],
)
def test_a_wrong_json_is_one_line_that_names_it(folder, change, words):
    edit(folder, change)
    with one_line_error("dataset.json", *words):
        captions.load(str(folder))


def test_a_json_that_is_cut_short(folder):
    path = folder / "dataset.json"
    path.write_text(path.read_text()[:-40])
    with one_line_error("dataset.json", "cut short"):
        captions.load(str(folder))


def test_a_sentence_without_tokens_is_split_at_its_blanks(folder):
    edit(folder, lambda content: content["images"][0]["sentences"][0].pop("tokens"))
    (example,) = [e for e in captions.read_json(folder / "dataset.json")["train"] if e.filename == "1.tif"]
    assert example.captions[0][-1] == "." and len(set(example.captions)) == 5


def test_grey_rgba_and_16_bit_images_are_converted(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (9, 11), dtype=np.uint8)
    rgb = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    as_rgb = np.repeat(grey[:, :, None], 3, axis=2)
    alpha = np.full((9, 11, 1), 130, dtype=np.uint8)
    files = {
        "grey.png": (Image.fromarray(grey), as_rgb),
        "rgba.png": (Image.fromarray(np.concatenate([rgb, alpha], axis=2)), rgb),
        "rgb.tif": (Image.fromarray(rgb), rgb),
        "deep.tif": (Image.fromarray(grey.astype(np.uint16) * 257), as_rgb),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), as_rgb),
        "palette.png": (Image.fromarray(as_rgb).quantize(256), as_rgb),
    }
    for name, (image, expected) in files.items():
        image.save(tmp_path / name)
        pixels = captions.read_image(tmp_path / name)
        assert pixels.dtype == np.uint8 and pixels.shape == (9, 11, 3)
        assert (pixels == expected).all(), name


def bad_images(folder):
    """Files that are no usable images, by name."""
    whole = folder / "whole.tif"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(whole)
    content = whole.read_bytes()
    whole.unlink()
    (folder / "cut.tif").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (1, 1)).save(folder / "tiny.tif")
    (folder / "text.tif").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    return ["cut.tif", "tiny.tif", "text.tif", "empty.png"]


def test_bad_images_are_one_line_that_names_them(tmp_path):
    for name in [*bad_images(tmp_path), "absent.tif"]:
        with one_line_error(name):
            captions.read_image(tmp_path / name)


def test_in_a_folder_bad_images_are_listed_and_skipped(tmp_path, capsys):
    names = bad_images(tmp_path)
    Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(tmp_path / "good.png")
    found = dict(captions.open_images([str(tmp_path)], "sydney", "bundled", tmp_path))
    assert list(found) == ["good.png"]
    err = capsys.readouterr().err
    assert err.count("\n") == len(names) and all(name in err for name in names)
    with one_line_error("has no image 9999.tif"):
        list(captions.open_images(["9999.tif"], "sydney", "bundled", tmp_path))


def test_words_are_those_of_the_training_captions(folder):
    data = captions.load(str(folder))
    words = [word for example in data.examples["train"] for caption in example.captions for word in caption]
    vocab = captions.vocabulary(data)
    assert vocab.symbols == sorted(set(words))
    assert captions.vocabulary(data, 3).symbols == sorted({word for word in words if words.count(word) >= 3})
    assert vocab.encode([words[0], "zeppelin"])[1] == UNK_IDX
    assert vocab.decode([*vocab.encode(words[:3]), EOS_IDX, 5]) == " ".join(words[:3])


def test_the_tensor_of_captions_holds_each_word_of_each_caption():
    examples = [captions.Example("a", (("x", "y"), ("x", "y", "z"))), captions.Example("b", (("z",),))]
    vocab = captions.WordVocabulary("xyz")
    x, y, z = vocab.encode("xyz")
    expected = [
        [[SOS_IDX, x, y, z, EOS_IDX], [SOS_IDX, x, y, EOS_IDX, PAD_IDX]],
        [[SOS_IDX, z, EOS_IDX, PAD_IDX, PAD_IDX], [PAD_IDX] * 5],
    ]
    assert captions.to_tensor(examples, vocab).tolist() == expected
    regions = torch.arange(2.0).view(2, 1, 1).half()
    ((batch, words),) = captions.gatherer(regions, torch.tensor(expected))([torch.tensor([1, 0])])
    assert batch.flatten().tolist() == [0, 1] and words.tolist() == expected  # the longest first


def independent_lite0(x, state):
    """EfficientNet-Lite0 straight from the published state dict, without our modules."""
    stages = [(1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)]  # blocks, stride of the first
    strides = [stride if i == 0 else 1 for n, stride in stages for i in range(n)]

    def same(x, weight, stride, groups=1):
        kernel, n = weight.shape[-1], x.shape[-1]
        out = (n + stride - 1) // stride
        total = max(0, (out - 1) * stride + kernel - n)
        padded = torch.zeros(*x.shape[:2], n + total, n + total, dtype=x.dtype)
        padded[:, :, total // 2 : total // 2 + n, total // 2 : total // 2 + n] = x
        return F.conv2d(padded, weight, stride=stride, groups=groups)

    def norm(x, name):
        weight, bias, mean, var = (
            state[f"{name}.{part}"].view(-1, 1, 1) for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    x = norm(same(x, state["_conv_stem.weight"], 2), "_bn0").clamp(0, 6)
    for i, stride in enumerate(strides):
        name, entered = f"_blocks.{i}", x
        if f"{name}._expand_conv.weight" in state:
            x = norm(F.conv2d(x, state[f"{name}._expand_conv.weight"]), f"{name}._bn0").clamp(0, 6)
        x = same(x, state[f"{name}._depthwise_conv.weight"], stride, groups=x.shape[1])
        x = norm(x, f"{name}._bn1").clamp(0, 6)
        x = norm(F.conv2d(x, state[f"{name}._project_conv.weight"]), f"{name}._bn2")
        if x.shape == entered.shape:
            x = x + entered
    return norm(F.conv2d(x, state["_conv_head.weight"]), "_bn1").clamp(0, 6)


def test_lite0_is_the_published_network():
    encoder = encoders.Encoder("efficientnet_lite0")
    state = torch.load(encoder.file, weights_only=True)
    image = bundled_captions.draw(bundled_captions.make_scene("an image", 300))
    x = encoder.prepare([image])
    assert x.shape == (1, 3, 224, 224)
    regions = encoder.regions([image])
    expected = independent_lite0(x, state)[0]  # (1280, 7, 7)
    assert regions.shape == (1, 49, 1280)
    for cell in (0, 10, 48):
        torch.testing.assert_close(regions[0, cell], expected[:, cell // 7, cell % 7], rtol=1e-3, atol=1e-3)


def test_the_preprocessing_of_lite0():
    image = np.full((30, 50, 3), 200, np.uint8)
    x = encoders.Encoder("efficientnet_lite0").prepare([image])
    torch.testing.assert_close(x, torch.full((1, 3, 224, 224), (200 - 127) / 128))


def test_resnet18_is_torchvisions_before_pooling():
    import torchvision

    encoder = encoders.Encoder("resnet18", "random")
    network = encoder.build()
    whole = torchvision.models.resnet18().eval()
    whole.load_state_dict(network.state_dict() | {k: v for k, v in whole.state_dict().items() if k.startswith("fc")})
    x = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = network(x)
        assert maps.shape == (2, 512, 7, 7)
        torch.testing.assert_close(whole.fc(maps.mean(dim=(2, 3))), whole(x))


def test_features_are_computed_once_and_the_network_does_not_change(folder, monkeypatch, capsys):
    encoder = encoders.Encoder("efficientnet_lite0")
    before = {name: value.clone() for name, value in encoder.build().state_dict().items()}
    data = encoders.encode(captions.load(str(folder)), encoder)
    assert {name: len(part) for name, part in data.regions.items()} == {s: len(data[s]) for s in captions.SPLITS}
    network = encoder.build()
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    encoder.regions([data.open_image("1.tif")])
    after = network.state_dict()
    assert all((after[name] == value).all() for name, value in before.items())  # the statistics among them
    alone = encoder.regions([data.open_image(data["val"][0].filename)])[0]
    torch.testing.assert_close(
        data.regions["val"][0].float(), alone, rtol=2e-3, atol=2e-3
    )  # half precision, another batch
    assert "features of 13 images (EfficientNet-Lite0, ImageNet)" in capsys.readouterr().out
    monkeypatch.setattr(encoders.Encoder, "build", None)  # must not be needed again
    again = encoders.encode(captions.load(str(folder)), encoders.Encoder("efficientnet_lite0"))
    assert (again.regions["train"] == data.regions["train"]).all()


def test_damaged_images_of_a_set(folder, capsys, monkeypatch):
    (folder / "images" / "4.tif").write_text("not an image")
    (folder / "images" / "5.tif").write_bytes((folder / "images" / "5.tif").read_bytes()[:1000])
    monkeypatch.setattr(encoders.Encoder, "regions", lambda self, images, device: torch.zeros(len(images), 49, 1280))
    for _ in range(2):  # the second time from the cache
        data = encoders.encode(captions.load(str(folder)), encoders.Encoder("efficientnet_lite0"))
        assert data.title == f"set ({N_IMAGES - 2} of {N_IMAGES} images), EfficientNet-Lite0, ImageNet"
        assert sum(map(len, data.regions.values())) == N_IMAGES - 2
        err = capsys.readouterr().err
        assert err.count("\n") == 2 and "4.tif" in err and "5.tif" in err
    folder.rename(folder.parent / "ucm")
    with one_line_error("4.tif"):
        encoders.encode(captions.load("ucm", "auto", folder.parent), encoders.Encoder("efficientnet_lite0"))


def test_random_weights_are_calibrated_and_standardised(folder):
    encoder = encoders.Encoder("resnet18", "random")
    data = encoders.encode(captions.load(str(folder)), encoder)
    cells = data.regions["train"].float().flatten(0, 1)
    torch.testing.assert_close(cells.mean(dim=0), torch.zeros(512), atol=2e-2, rtol=0)
    torch.testing.assert_close(cells.std(dim=0), torch.ones(512), atol=2e-2, rtol=0)
    training = [data.open_image(example.filename) for example in data["train"]]  # fewer than a batch
    maps = encoder.build().conv1(encoder.prepare(training)).transpose(0, 1).flatten(1)  # what bn1 reads
    torch.testing.assert_close(torch.as_tensor(encoder.calibration["bn1.running_mean"]), maps.mean(dim=1))
    torch.testing.assert_close(torch.as_tensor(encoder.calibration["bn1.running_var"]), maps.var(dim=1))
    # A later image needs no training set: what was taken from it is kept with the weights.
    again = encoders.Encoder(
        "resnet18", "random", {name: torch.as_tensor(a) for name, a in encoder.calibration.items()}
    )
    name = data["test"][0].filename
    torch.testing.assert_close(
        again.regions([data.open_image(name)])[0], data.regions["test"][0].float(), atol=5e-3, rtol=5e-3
    )


def test_wrong_weights_are_one_line(tmp_path):
    torch.save(encoders.EfficientNetLite0().state_dict(), tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no weights")
    for name in ("other.pt", "text.pt"):
        with one_line_error(name, "ResNet-18"):
            encoders.Encoder("resnet18", str(tmp_path / name)).build()
    with one_line_error("absent.pt"):
        encoders.Encoder("resnet18", str(tmp_path / "absent.pt"))


def test_auto_takes_resnet18_only_if_its_weights_are_to_be_had(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(encoders, "resnet18_file", lambda *limits: None)
    assert encoders.choose("auto", "imagenet") == "efficientnet_lite0"
    assert "EfficientNet-Lite0, ImageNet" in capsys.readouterr().out
    with one_line_error("ResNet-18", "efficientnet_lite0"):
        encoders.Encoder("resnet18")
    monkeypatch.setattr(encoders, "resnet18_file", lambda *limits: tmp_path / "resnet18.pth")
    assert encoders.choose("auto", "imagenet") == "resnet18"


def test_the_hub_out_of_reach(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refuse(mirrors, files, folder, timeout, deadline):
        assert timeout == encoders.FETCH_TIMEOUT and list(files) == ["resnet18-f37072fd.pth"]
        raise encoders.download.FetchError("no connection")

    monkeypatch.setattr(encoders.download, "fetch_files", refuse)
    assert encoders.resnet18_file() is None
    path = tmp_path / "checkpoints" / "resnet18-f37072fd.pth"
    assert not path.exists() and not list(path.parent.iterdir())
    path.write_bytes(b"weights")
    assert encoders.resnet18_file() == path


def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch, tmp_path):
    import torchvision  # noqa: F401 (its two seconds are not measured)

    released = threading.Event()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(encoders, "FETCH_SECONDS", MAX_SECONDS)

    def fetch(*args, **limits):
        released.wait()
        raise encoders.download.FetchError("no connection")

    monkeypatch.setattr(encoders.download, "fetch_files", fetch)
    start = time.monotonic()
    assert encoders.choose("auto", "imagenet") == "efficientnet_lite0"
    assert MAX_SECONDS <= time.monotonic() - start < 10 * MAX_SECONDS
    released.set()


def test_a_slow_transfer_is_given_up(monkeypatch, tmp_path, server):
    """Every part comes within the time that is allowed for a part, but the whole takes too long."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    fetch_files, ended = encoders.download.fetch_files, threading.Event()

    def fetch(mirrors, *args, **limits):
        try:
            return fetch_files([f"{server.url}dripping/"], *args, **limits)
        finally:
            ended.set()

    monkeypatch.setattr(encoders.download, "fetch_files", fetch)
    assert encoders.resnet18_file(MAX_SECONDS) is None
    start = time.monotonic()
    assert ended.wait(10) and time.monotonic() - start < DRIPPING_SECONDS / 2
