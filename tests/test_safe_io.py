"""Hostile files, one test for each way in which a reader could be misled: code, memory, paths, lines on the terminal."""

import argparse
import ast
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, one_line_error
from PIL import Image

import encoders
import options
import runs
import safe_io
import utils
from data import captions, images, sources, speech
from data.fetch import download, image_sets, rs_captions
from tests.fuzz import damage, readers


class Payload:
    """Makes a folder when it is unpickled by Python."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def zip_bytes(*members, method=zipfile.ZIP_STORED):
    """A zip of (name, content) pairs."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return content.getvalue()


def checkpoint_with(pickled, *members):
    """A checkpoint of torch with this pickle."""
    return zip_bytes(("a/data.pkl", pickled), ("a/version", "3\n"), ("a/byteorder", "little"), *members)


# Code


def sources_of_the_project():
    paths = [
        path for path in ROOT.rglob("*.py") if not {"tests", ".venv", "benchmarks"} & set(path.relative_to(ROOT).parts)
    ]
    assert len(paths) > 30
    return paths


def test_the_source_unpickles_nothing():
    n_loads = 0
    for path in sources_of_the_project():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name.partition(".")[0] for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "shelve", "marshal", "dill", "joblib"}, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert called not in ("eval", "exec"), path
                if called == "np.fromfile":  # of numbers it is harmless, of objects it is not
                    assert ast.unparse(node.args[1]) == "np.float16", path
                if called in ("torch.load", "np.load"):
                    n_loads += 1
                    assert given["weights_only" if called == "torch.load" else "mmap_mode"] in ("True", "'r'"), path
                if called == "npy.read_array":
                    n_loads += 1
                    assert given["allow_pickle"] == "False"
    assert n_loads == 2  # both of them in `safe_io`


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", ["zip", "legacy", "npz"])
def test_no_code_of_a_file_runs(kind, protocol, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CACHE_DIR", tmp_path)
    made, path = tmp_path / "made", tmp_path / "hostile.npz"
    if kind == "npz":
        member = io.BytesIO()
        np.save(member, np.array([Payload(made)], dtype=object), allow_pickle=True)
        path.write_bytes(zip_bytes(("train_images.npy", member.getvalue())))
        with one_line_error("objects"):
            images.load(str(path))
        assert sources.cached_arrays("hostile", lambda: {"a": np.zeros(2)}, fits=lambda arrays: True)["a"].shape == (2,)
    else:
        pickled = pickle.dumps(Payload(made), protocol)
        path.write_bytes(checkpoint_with(pickled) if kind == "zip" else pickled)
        with one_line_error("not a checkpoint"):
            runs.load_checkpoint(path)
        with one_line_error("does not hold the weights"):
            encoders.Encoder("tiny", str(path)).build()
    assert not made.exists()


def test_an_image_is_read_by_no_other_program(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("a process was started"))
    path = tmp_path / "a.png"
    for content in (readers.POSTSCRIPT, b"P6 20 20 255\n" + bytes(1200)):
        path.write_bytes(content)
        with one_line_error("not an image"):
            captions.read_image(path)


# Memory


def little_endian(number, n_bytes):
    return number.to_bytes(n_bytes, "little")


def list_of_lists(depth):
    """A list that has ten times the same list, and so on: 10 ** depth numbers in some hundred bytes."""
    return [list_of_lists(depth - 1)] * 10 if depth else [0]


HOSTILE_PICKLES = {
    "bytes without end": (b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + little_endian(2**35, 5) + b"\x85R.", "bytearray"),
    "text without end": (b"\x80\x02X" + little_endian(2**31, 4) + b"a.", "expected 2147483648 bytes"),
    "a list of lists of lists": (pickle.dumps(list_of_lists(30), 2), "values"),
    "a list that holds itself": (b"\x80\x02]q\0h\0a.", "values"),
    "a long number": (b"\x80\x02\x8a\x20" + b"\x7f" * 32 + b".", "int"),
    "another protocol": (pickle.dumps({}, 4), "protocol"),
    "a codec": (b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x04\0\0\0zlib\x86R.", "_codecs"),
}


@pytest.mark.parametrize("name", HOSTILE_PICKLES)
def test_a_small_checkpoint_stays_small(name, tmp_path):
    content, word = HOSTILE_PICKLES[name]
    (tmp_path / "best.pt").write_bytes(checkpoint_with(content))
    with one_line_error("not a checkpoint"):
        runs.load_checkpoint(tmp_path / "best.pt")
    with pytest.raises(ValueError, match=word):
        safe_io.read_state(tmp_path / "best.pt")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(1).expand(10**12),
        torch.eye(2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(2).expand(3, 2),
    ],
)
def test_every_number_of_a_tensor_is_in_the_file(tensor, tmp_path):
    torch.save({"weights": tensor}, tmp_path / "best.pt")
    with one_line_error("best.pt"):
        runs.load_checkpoint(tmp_path / "best.pt")


def test_a_checkpoint_is_not_packed_and_has_its_own_members(tmp_path):
    path = tmp_path / "best.pt"
    runs.save_checkpoint(path, {"weights": torch.zeros(100)})
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    assert runs.load_checkpoint(path)["weights"].shape == (100,)
    path.write_bytes(zip_bytes(*members, method=zipfile.ZIP_DEFLATED))
    with one_line_error("packed"):
        runs.load_checkpoint(path)
    path.write_bytes(zip_bytes(*members, ("archive/code.py", "1")))
    with one_line_error("members"):
        runs.load_checkpoint(path)
    with pytest.warns(UserWarning, match="Duplicate"):
        path.write_bytes(zip_bytes(*members, members[0]))
    with one_line_error("members"):
        runs.load_checkpoint(path)


def npy(descr, shape, body=b""):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + body


HOSTILE_ARRAYS = {
    "more values than bytes": npy("'|u1'", "(99999999999,)", bytes(10)),
    "fewer values than bytes": npy("'|u1'", "(3,)", bytes(10)),
    "values without bytes": npy("'<U0'", "(99999999999,)"),
    "negative sizes": npy("'|u1'", "(-2, -5)", bytes(10)),
    "objects": npy("'|O'", "(1,)", bytes(8)),
    "characters that do not exist": npy("'<U1'", "(1,)", b"\xff" * 4),
    "a header without end": npy("(" * 5000, "(1,)", bytes(10)),
    "another version": b"\x93NUMPY\x09\0" + bytes(20),
    "no array": b"text",
}


@pytest.mark.parametrize("name", HOSTILE_ARRAYS)
def test_an_array_is_what_its_header_says(name, tmp_path):
    (tmp_path / "a.npz").write_bytes(zip_bytes(("a.npy", HOSTILE_ARRAYS[name])))
    with pytest.raises((*safe_io.DAMAGED, OSError)):
        safe_io.read_arrays(tmp_path / "a.npz")


def test_an_npz_that_unpacks_to_gigabytes_is_refused_unread(tmp_path):
    info = zipfile.ZipInfo("train_images.npy")
    (tmp_path / "a.npz").write_bytes(damage.zipped([(info, damage.zeros(1100))]))
    assert (tmp_path / "a.npz").stat().st_size < 2**21
    with one_line_error("unpacks to more than"):
        images.load(str(tmp_path / "a.npz"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_without_a_limit_are_refused(method, tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_bytes(("dataset.json", bytes(10**6)), method=method))
    with one_line_error("neither stored nor deflated"):
        download.unzip_member(tmp_path / "a.zip", "dataset.json", tmp_path / "out")
    with one_line_error("neither stored nor deflated"), rs_captions.opened(tmp_path / "a.zip"):
        pass
    assert not (tmp_path / "out").exists()


HOSTILE_MEMBERS = {
    "parent": ("../a.json", 0),
    "absolute": ("/a.json", 0),
    "drive": ("C:\\a.json", 0),
    "link": ("link", 0o120777 << 16),
    "no name": ("\0", 0),
}


@pytest.mark.parametrize("name", HOSTILE_MEMBERS)
def test_a_zip_of_captions_with_a_hostile_member_is_refused(name, tmp_path):
    filename, mode = HOSTILE_MEMBERS[name]
    info = zipfile.ZipInfo(filename)
    info.external_attr = mode
    (tmp_path / "a.zip").write_bytes(zip_bytes((info, "x"), ("dataset.json", "{}")))
    with one_line_error("a.zip"), rs_captions.opened(tmp_path / "a.zip"):
        pass


def tar_of(*members):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        for name, n_bytes in members:
            member = tarfile.TarInfo(name)
            member.size = n_bytes
            tar.addfile(member, io.BytesIO(bytes(n_bytes)))
    return content.getvalue()


def test_a_tar_whose_names_or_other_files_are_huge_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(tar_of(("n" * 100_000, 1)))
    with one_line_error("a name of 100,001 bytes"):
        download.untar(path, tmp_path / "out", "a", 3, 1000)
    monkeypatch.setattr(download, "MAX_OTHER", 10_000)
    path.write_bytes(tar_of(("other", 20_000), ("a", 1)))
    with one_line_error("more than 3 files"):
        download.untar(path, tmp_path / "out", "a", 3, 1000)
    path.write_bytes(tar_of(*[(f"other {i}", 0) for i in range(20)]))
    with one_line_error("more than 3 files"):
        download.untar(path, tmp_path / "out", "a", 3, 1000)
    assert not (tmp_path / "out").exists()


def test_a_sparse_member_of_a_tar_is_refused_before_it_is_skipped(tmp_path):
    member = tarfile.TarInfo("other")
    member.type, member.size = tarfile.GNUTYPE_SPARSE, 2**60
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with one_line_error("'other'"):
        download.untar(tmp_path / "a.tar", tmp_path / "out", "a", 3, 1000)


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
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("the image was decoded"))
    with one_line_error("a.png"):
        captions.read_image(tmp_path / "a.png")


def test_32_bit_images_are_scaled_as_exactly_as_16_bit_ones(tmp_path):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / "a.tif")
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "b.tif")
    expected = (values.astype(int) // 257).astype(np.uint8)
    for name in ("a.tif", "b.tif"):
        assert (captions.read_image(tmp_path / name) == expected[:, :, None]).all()


def wav_of(n_channels, rate, n_bytes):
    form = struct.pack("<HHIIHH", 1, n_channels, rate, 2 * rate * n_channels % 2**32, 2 * n_channels % 2**16, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", n_bytes) + bytes(4096)
    return b"RIFF" + struct.pack("<I", 2**32 - 1) + body


def test_a_sound_file_cannot_claim_channels_or_hours(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_of(1024, 22_050, 2**31))
    with one_line_error("a.wav"):
        speech.read_sound(tmp_path / "a.wav")
    soundfile.write(tmp_path / "b.wav", np.zeros((2205, 9)), 22_050, "PCM_16")
    with one_line_error("9 channels"):
        speech.read_sound(tmp_path / "b.wav")
    soundfile.write(tmp_path / "c.flac", np.zeros(2205), 22_050, "PCM_16")
    content = (tmp_path / "c.flac").read_bytes()
    for n_samples, word in ((2**36 - 1, "s long"), (22_050 * 20, "c.flac")):
        claim = 22_050 << 44 | 15 << 36 | n_samples
        (tmp_path / "c.flac").write_bytes(content[:18] + struct.pack(">Q", claim) + content[26:])
        with one_line_error(word):
            speech.read_sound(tmp_path / "c.flac")


@pytest.mark.parametrize("name", ["a.aiff", "a.w64", "a.ogg"])
def test_only_wav_and_flac_are_parsed(name, tmp_path, monkeypatch):
    soundfile.write(tmp_path / name, np.zeros(2205), 22_050)
    monkeypatch.setattr(soundfile, "SoundFile", lambda path: pytest.fail("the file was parsed"))
    with one_line_error("no WAV or FLAC"):
        speech.read_sound(tmp_path / name)


def test_a_name_that_means_a_format_without_a_header(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(2205), 22_050, "PCM_16")
    (tmp_path / "a.wav").rename(tmp_path / "a.raw")
    with one_line_error("not a sound file"):
        speech.read_sound(tmp_path / "a.raw")


# Paths


@pytest.mark.parametrize("name", ["{outside}", "../../outside", "../config.json", "sub/file", "result.json"])
def test_a_marker_cannot_move_files_out_of_the_folder(name, tmp_path):
    run, outside = tmp_path / "runs" / "run", tmp_path / "outside"
    name = name.format(outside=outside)
    new = run / f"{runs.NEW}{name}"
    (run / f"{runs.NEW}{name.partition('/')[0]}").mkdir(parents=True)
    if not new.exists():
        os.makedirs(os.path.dirname(new), exist_ok=True)
        new.write_bytes(b"hostile")
    (run / runs.CONFIG).write_text("{}", encoding="utf-8")
    runs.write_json(run / runs.REPLACING, [name])
    with one_line_error(runs.REPLACING), runs.open_run(run, {}):
        pass
    assert not outside.exists() and (run / runs.CONFIG).read_text(encoding="utf-8") == "{}"


def test_a_file_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "zero", tmp_path):
        for read in (
            runs.read_json,
            runs.load_checkpoint,
            captions.read_json,
            captions.read_image,
            speech.read_metadata,
        ):
            with one_line_error(str(path)):
                read(path)
        with pytest.raises(OSError):
            safe_io.read_arrays(path)


# What reaches the terminal


def test_a_message_is_one_line_whatever_a_file_holds(tmp_path, capsys):
    hostile = "a\nb\r\x1b[2J\u2028\ud800"
    assert str(options.UserError(hostile)) == "a\\nb\\r\\x1b[2J\\u2028\\ud800"
    options.warn(hostile)
    assert capsys.readouterr().err == "warning: a\\nb\\r\\x1b[2J\\u2028\\ud800\n"
    assert len(str(options.UserError("a" * 10**6))) < options.MAX_MESSAGE + 10
    runs.write_json(tmp_path / "a.json", {"images": [{"filename": "1.png", "split": "no\nsplit", "sentences": []}]})
    with one_line_error("no\\nsplit"):
        captions.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a\nb.png", "\ud800.png", "a\0.png", "../a.png", "\x1b[2J"])
def test_names_of_images_that_no_set_has(name, tmp_path):
    content = readers.caption_json()
    content["images"][0]["filename"] = name
    (tmp_path / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    with one_line_error("dataset.json"):
        captions.read_json(tmp_path / "dataset.json")


def test_a_name_that_is_too_long_is_a_missing_image(tmp_path):
    readers.make_captions(tmp_path)
    content = readers.caption_json()
    content["images"][0]["filename"] = "a" * 5000
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    assert captions.load(str(tmp_path / "set"), "real").title == "set (4 of 5 images)"


def test_pillow_does_not_speak_for_itself(tmp_path):
    content = bytearray((lambda file: (Image.new("RGB", (9, 9)).save(file, "TIFF"), file.getvalue())[1])(io.BytesIO()))
    place = content.index(struct.pack("<HH", 277, 3))  # SamplesPerPixel
    content[place + 8 : place + 10] = struct.pack("<H", 63)
    (tmp_path / "a.tif").write_bytes(content)
    code = f"from data import captions\ntry: captions.read_image({str(tmp_path / 'a.tif')!r})\nexcept captions.UserError: print('refused')"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (process.stdout, process.stderr) == ("refused\n", "")


# What is well-formed and yet something else


@pytest.mark.parametrize("arrays", [{}, {"a": np.zeros(3)}, {"a": np.array("text")}, {"b": np.zeros(2)}])
def test_a_cache_with_other_arrays_is_made_again(arrays, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, "CACHE_DIR", tmp_path)
    np.savez(tmp_path / "some.npz", **arrays)
    for _ in range(2):
        made = sources.cached_arrays("some", lambda: {"a": np.ones(2)}, fits=lambda arrays: arrays["a"].shape == (2,))
        np.testing.assert_array_equal(made["a"], np.ones(2))
    assert capsys.readouterr().err.count("damaged, making it again") == 1  # the second time it is good


def test_bundled_images_fit_and_others_do_not():
    arrays = readers.some_images()
    assert image_sets.fits(arrays)
    assert not image_sets.fits(arrays | {"val_labels": arrays["val_labels"][:1]})
    assert not image_sets.fits(arrays | {"val_labels": arrays["val_labels"].astype(float)})
    assert not image_sets.fits(arrays | {"more": arrays["val_labels"]})


@pytest.mark.parametrize(
    "rows", [[], [1], [{}], [{"image": "a"}], [{"greedy": 1}], [{"greedy": "a"}, {}], [{"greedy": "a"}, {"beam": "a"}]]
)
def test_captions_of_a_run_that_are_not_what_the_test_wrote(rows, tmp_path):
    runs.write_json(tmp_path / captions.GENERATED_NAMES[False], {"captions": rows})
    with one_line_error("run again"):
        captions.read_generated(tmp_path, False)


def test_parts_of_a_checkpoint_have_their_form(tmp_path):
    runs.save_checkpoint(tmp_path / "best.pt", {"chars": ["ab", "c"], "words": ["a", 1], "more": {"a": 0.5}})
    assert runs.part_of_checkpoint(tmp_path / "best.pt", "chars", of=(str, str)) == ["ab", "c"]
    assert runs.part_of_checkpoint(tmp_path / "best.pt", "more", of={str: float}) == {"a": 0.5}
    for name, form in (("chars", (str,)), ("chars", [int]), ("words", [str]), ("more", {str: int}), ("none", None)):
        with one_line_error("another network"):
            runs.part_of_checkpoint(tmp_path / "best.pt", name, of=form)


@pytest.mark.parametrize("kind", ["gone", "text", "more", "fewer"])
def test_predictions_that_cannot_be_compared_are_one_line(kind, tmp_path):
    path = tmp_path / "predictions.npz"
    if kind == "text":
        path.write_text("text", encoding="utf-8")
    elif kind != "gone":
        n = {"more": 4, "fewer": 2}[kind]
        np.savez(path, y=np.zeros(n), y_hat=np.zeros(n))
    with one_line_error("predictions.npz"):
        images.read_correct(path, 3)
    np.savez(path, y=np.array([0, 1, 2]), y_hat=np.array([0, 2, 2]))
    assert images.read_correct(path, 3).tolist() == [True, False, True]


def test_statistics_of_another_encoder_are_refused():
    good = {"mean": np.zeros(4, np.float32), "std": np.ones(4, np.float32)}
    good |= {"bn.running_mean": np.zeros(4, np.float32), "bn.running_var": np.ones(4, np.float32)}
    encoders.Encoder("tiny", "random", good).build()
    for change in (
        {"mean": np.zeros(3, np.float32)},
        {"mean": np.array("a")},
        {"std": np.full(4, np.nan)},
        {"x": np.zeros(4)},
    ):
        with one_line_error("another network's"):
            encoders.Encoder("tiny", "random", good | change).build()


def change_step(state):
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(7)


def change_betas(state):
    state["optimizer"]["param_groups"][0]["betas"] = "text"


HOSTILE_STATES = {
    "moments of another shape": change_step,
    "another setting": change_betas,
    "no moments": lambda state: state["optimizer"]["state"][0].pop("exp_avg"),
    "a parameter that is not there": lambda state: state["optimizer"]["state"].update({99: {}}),
    "a method of the schedule": lambda state: state["scheduler"].update(step=1),
    "another schedule": lambda state: state["scheduler"].update(T_max=0),
    "no epochs": lambda state: state["history"][0].pop("epoch"),
    "a figure without a number": lambda state: state["history"][0].update(val_acc="text"),
    "random states without a generator": lambda state: state.update(random=[torch.zeros(3)]),
    "a generator of another size": lambda state: state["place"].update(order=torch.zeros(3, dtype=torch.uint8)),
    "a step before the first": lambda state: state["place"].update(step=-1),
    "a place with more to it": lambda state: state["place"].update(more=1),
}


@pytest.mark.parametrize("name", HOSTILE_STATES)
def test_a_checkpoint_that_this_training_cannot_have_written(name, tmp_path):
    readers.make_resumed(tmp_path)
    path = tmp_path / "q3" / "a" / runs.LAST
    readers_of = {reader.name: reader for reader in readers.READERS}
    readers_of["run folder: resume"].read(tmp_path)
    state = runs.load_checkpoint(path)
    HOSTILE_STATES[name](state)
    runs.save_checkpoint(path, state)
    with one_line_error("another model"):
        readers_of["run folder: resume"].read(tmp_path)


@pytest.mark.parametrize("history", [None, [1], [{1: 2}], [{"epoch": torch.zeros(1)}]])
def test_a_history_that_is_none(history, tmp_path):
    readers.make_resumed(tmp_path)
    path = tmp_path / "q3" / "a" / runs.LAST
    runs.save_checkpoint(path, runs.load_checkpoint(path) | {"history": history})
    with one_line_error("last.pt"), runs.open_run(path.parent, readers.CONFIG, "must") as run:
        run.checkpoint()


def test_the_settings_of_all_optimizers_and_schedules_come_back():
    for optimizer in ("sgd", "adam", "adamw"):
        for schedule in ("constant", "cosine", "linear"):
            args = argparse.Namespace(**readers.ARGS | {"optimizer": optimizer, "schedule": schedule, "momentum": 0.5})
            model = readers.small_model()
            before = utils.Optimization(model, args, 4)
            readers.step(model, before)
            after = utils.Optimization(readers.small_model(), args, 4)
            for name, part in before.parts.items():
                utils._check_settings(after.parts[name], part.state_dict())


def test_a_lock_that_is_a_link_leaves_its_target_alone(tmp_path):
    (tmp_path / "outside").write_text("secret", encoding="utf-8")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / runs.LOCK).symlink_to("../outside")
    with one_line_error(str(tmp_path / "run")), runs.open_run(tmp_path / "run", {}):
        pass
    assert (tmp_path / "outside").read_text(encoding="utf-8") == "secret"


def test_a_storage_has_no_more_numbers_than_its_bytes(tmp_path):
    runs.save_checkpoint(tmp_path / "best.pt", {"weights": torch.arange(4.0)})
    with zipfile.ZipFile(tmp_path / "best.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = members["archive/data.pkl"]
    larger = pickled.replace(b"K\x04tq", b"M\x00\x40tq", 1).replace(b"K\x04\x85", b"M\x00\x40\x85", 1)
    assert larger != pickled
    (tmp_path / "best.pt").write_bytes(zip_bytes(*(members | {"archive/data.pkl": larger}).items()))
    with one_line_error("not a checkpoint"):
        runs.load_checkpoint(tmp_path / "best.pt")
