"""The clips of the speech question: spectrograms, texts, splits, sound files, the cache, the bundled clips."""

import builtins
import errno
import hashlib
import math
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from conftest import N_SPOKEN, load_script, one_line_error
from hypothesis import given
from hypothesis import strategies as st

from data import sources, speech
from data.bundled import speech as bundled_speech
from data.fetch.ljspeech import FOLDER_NAME, METADATA, WAVS
from options import UserError

RATE = 22_050  # Hz
script = load_script("hw2-q3-asr.py")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder of this test's own."""
    monkeypatch.setattr(sources, "CACHE_DIR", tmp_path / "cache")
    return tmp_path / "cache"


def tone(hz, seconds=0.3, rate=RATE, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def write_corpus(folder, n_clips, texts=None):
    """A small LJSpeech-1.1 of tones in `folder`; returns the path of each sound file."""
    folder = folder / FOLDER_NAME
    (folder / WAVS).mkdir(parents=True)
    paths = [folder / WAVS / f"LJ001-{n:04}.wav" for n in range(n_clips)]
    texts = texts or [f"Clip number {'i' * (n + 1)}." for n in range(n_clips)]
    for n, path in enumerate(paths):
        soundfile.write(path, tone(200 + 50 * n, 0.2 + 0.02 * n), RATE, "PCM_16")
    lines = [f"{path.stem}|{text}|{text}\n" for path, text in zip(paths, texts)]
    (folder / METADATA).write_text("".join(lines), encoding="utf-8")
    return paths


def mel_of(hz):
    """The mel scale of Slaney's Auditory Toolbox: 15 mels up to 1,000 Hz, then 27 for each factor of 6.4."""
    return hz * 15 / 1000 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def hz_of(mel):
    return mel * 1000 / 15 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def filters_as_loops():
    corners = [hz_of(mel_of(RATE / 2) * i / 81) for i in range(82)]
    filters = np.zeros((80, 201))
    for m in range(80):
        left, peak, right = corners[m : m + 3]
        for k in range(201):
            hz = k * RATE / 400
            if left < hz <= peak:
                filters[m, k] = (hz - left) / (peak - left) * 2 / (right - left)
            elif peak < hz < right:
                filters[m, k] = (right - hz) / (right - peak) * 2 / (right - left)
    return filters


def test_the_mel_filters_are_triangles_of_area_1_between_equal_steps_of_the_mel_scale():
    filters = speech.mel_filters().numpy()
    assert filters.shape == (80, 201)
    np.testing.assert_allclose(filters, filters_as_loops(), atol=1e-8)
    # The sum over frequencies is the area where a triangle is wide against the bins, at the upper end.
    np.testing.assert_allclose(filters[-20:].sum(axis=1) * RATE / 400, 1, atol=0.05)


@pytest.mark.parametrize("n_samples", [1103, 1600, 4000, 5321])
def test_log_mels_are_those_of_scipys_spectrum(n_samples):
    samples = np.random.default_rng(n_samples).normal(0, 0.1, n_samples)
    samples[: n_samples // 3] *= 1e-5  # so quiet that the dynamic range cuts it
    window = scipy.signal.get_window("hann", 400)
    _, _, spectrum = scipy.signal.stft(samples, window=window, noverlap=240, nperseg=400, padded=False)
    power = np.abs(spectrum * window.sum()) ** 2  # SciPy divides by the window's sum
    logs = np.log10(np.maximum(filters_as_loops() @ power, 1e-10))
    expected = (np.maximum(logs, logs.max() - 8) + 4) / 4
    found = speech.log_mel(torch.from_numpy(samples).float())
    assert found.shape == (1 + n_samples // 160, 80)
    np.testing.assert_allclose(found, expected.T, atol=2e-4)  # single precision where the clip is quiet
    assert found.min().item() == pytest.approx(found.max().item() - 2, abs=1e-6)  # eight powers of ten are two units


def test_silence_has_a_spectrogram():
    assert (speech.log_mel(torch.zeros(2000)) == (-10 + 4) / 4).all()


def test_a_tone_is_loudest_in_the_channel_of_its_frequency():
    for hz in (300, 1000, 2500, 7000):
        loudest = speech.log_mel(torch.from_numpy(tone(hz)).float())[10].argmax().item()
        assert abs(loudest + 1 - mel_of(hz) / mel_of(RATE / 2) * 81) <= 1


def test_the_symbols_are_the_courses():
    assert speech.SYMBOLS == "<>@# ,.?-abcdefghijklmnopqrstuvwxyz"
    assert (speech.START_IDX, speech.STOP_IDX, speech.PADDING_IDX, speech.UNKNOWN_IDX) == (0, 1, 2, 3)
    assert speech.SEARCH_SYMBOLS == {"sos": 0, "eos": 1, "pad": 2, "forbidden": (2, 0)}


def test_texts_are_lower_cased_and_what_the_symbols_lack_is_marked():
    assert speech.normalize(' In "1455", <Café>; a-b? ') == "in ######, #caf### a-b?"
    assert speech.normalize("@#") == "##" and speech.normalize(" \t ") == ""


@given(st.text(max_size=30))
def test_normalised_texts_survive_symbols_and_back(text):
    normal = speech.normalize(text)
    symbols = speech.encode(normal, 1000)
    assert (symbols[0], symbols[-1]) == (0, 1) and len(symbols) == len(normal) + 2
    assert speech.decode(symbols[1:-1] + [2, 2]) == normal == speech.normalize(normal)
    assert not set(normal) & set("<>@")


def test_a_text_is_cut_so_that_start_and_stop_have_room():
    text = "ab" * 60
    assert speech.encode(text[:97], 99) == speech.encode(text, 99)
    assert len(speech.encode(text, 99)) == 99 and len(speech.encode(text[:96], 99)) == 98
    assert speech.encode("abc", 3) == [0, 9, 1]


@pytest.mark.parametrize(
    ("n_clips", "sizes"), [(13_100, (9825, 655, 2620)), (6000, (4500, 300, 1200)), (100, (75, 5, 20)), (10, (8, 0, 2))]
)
def test_the_clips_are_split_in_the_courses_proportions_and_order(n_clips, sizes):
    splits = speech.split(list(range(n_clips)), None, "there")
    assert tuple(map(len, splits.values())) == sizes
    assert splits["train"] + splits["val"] + splits["test"] == list(range(n_clips))


def test_the_option_split_takes_the_first_clips():
    splits = speech.split(list(range(160)), [140, 0, 10], "there")
    assert splits == {"train": list(range(140)), "val": [], "test": list(range(140, 150))}
    with one_line_error("-split 140 0 21", "161", "160"):
        speech.split(list(range(160)), [140, 0, 21], "there")
    for counts in ([0, 5, 5], [5, 5, 0]):
        with one_line_error("no clip is left", "-split"):
            speech.split(list(range(160)), counts, "there")
    with one_line_error("no clip is left", "-split"):
        speech.split([0], None, "there")


def test_clips_are_loaded_with_their_texts_and_spectrograms(tmp_path):
    paths = write_corpus(tmp_path, 20)
    data = speech.load("real", tmp_path)
    assert {split: len(ids) for split, ids in data.ids.items()} == {"train": 15, "val": 1, "test": 4}
    assert not data.bundled and data.folder == tmp_path / FOLDER_NAME
    for split, places in (("train", range(15)), ("val", [15]), ("test", range(16, 20))):
        assert data.ids[split] == [paths[n].stem for n in places]
        assert data.texts[split] == [f"clip number {'i' * (n + 1)}." for n in places]
        for row, n in zip(data.rows[split], places):
            expected = speech.log_mel(speech.read_sound(paths[n]))
            assert int(data.n_frames[row]) == len(expected)
            torch.testing.assert_close(data.mels(row), expected, atol=1e-3, rtol=1e-3)  # float16


def test_the_quick_scale_takes_a_part_of_the_shorter_half_of_each_split(tmp_path, monkeypatch):
    write_corpus(tmp_path, 20)  # the texts become longer from clip to clip
    monkeypatch.setattr(speech, "QUICK_SIZES", {"train": 5, "val": 2, "test": 2})
    whole, quick = (speech.load("real", tmp_path, quick=quick) for quick in (False, True))
    assert {split: len(ids) for split, ids in quick.ids.items()} == {"train": 5, "val": 1, "test": 2}
    for split, ids in whole.ids.items():
        assert set(quick.ids[split]) <= set(ids[: -(-len(ids) // 2)])
    assert quick.fingerprint != whole.fingerprint


def test_the_shorter_half_keeps_its_order_and_texts_of_the_median_length():
    clips = [(str(i), "x" * n) for i, n in enumerate([5, 2, 9, 2, 4])]
    assert [len(text) for _, text in speech.shorter_half(clips)] == [2, 2, 4]
    assert speech.shorter_half(clips[:1]) == clips[:1] and speech.shorter_half([]) == []


def test_a_part_of_the_training_clips_is_there_for_comparisons(tmp_path, monkeypatch):
    write_corpus(tmp_path, 20)
    monkeypatch.setattr(speech, "N_PART", 4)
    clips = speech.load("real", tmp_path)
    assert len(clips.rows[speech.PART]) == len(clips.texts[speech.PART]) == 4
    for row, text in zip(clips.rows[speech.PART], clips.texts[speech.PART]):
        assert row == clips.rows["train"][clips.texts["train"].index(text)]


def test_a_batch_is_padded_to_its_own_longest_clip_and_text_and_to_the_grid(tmp_path):
    write_corpus(tmp_path, 20)
    data = speech.load("real", tmp_path)
    mels, n_frames, tgt = speech.gatherer(data, "train", 16, "cpu")(torch.tensor([4, 0, 2]))
    rows = [int(data.rows["train"][i]) for i in (4, 0, 2)]
    assert n_frames.tolist() == [int(data.n_frames[row]) for row in rows]
    assert mels.shape == (3, math.ceil(int(max(n_frames)) / 16) * 16, 80)
    for i, row in enumerate(rows):
        assert torch.equal(mels[i, : n_frames[i]], data.mels(row)) and (mels[i, n_frames[i] :] == 0).all()
        symbols = speech.encode(data.texts["train"][(4, 0, 2)[i]], 16)
        assert tgt[i].tolist() == symbols + [2] * (16 - len(symbols))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["metadata.csv is missing"]),
        (b"", ["metadata.csv is empty"]),
        (b"\n\r\n", ["metadata.csv is empty"]),
        (b"LJ001-0000|a|a\nLJ001-0001|b\n", ["metadata.csv, line 2"]),
        (b"LJ001-0000|a|b|c\n", ["metadata.csv, line 1"]),
        (b"LJ001-0000|two columns\n", ["metadata.csv, line 1", "-data_dir"]),
        (b"|a|b\n", ["metadata.csv, line 1"]),
        (b"../LJ001-0000|a|a\n", ["metadata.csv, line 1"]),
        (b"LJ001-0000|caf\xe9|caf\xe9\n", ["metadata.csv cannot be read", "utf-8"]),
        (b"LJ009-0000|a|a\n", ["no clip of", "sound file"]),
    ],
)
@pytest.mark.parametrize("mode", ["real", "auto"])
def test_damaged_metadata_are_one_line(content, words, mode, tmp_path):
    write_corpus(tmp_path, 4)
    path = tmp_path / FOLDER_NAME / METADATA
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        speech.load(mode, tmp_path)
    message = str(caught.value)
    assert all(word in message for word in words) and "\n" not in message
    # Nothing that would replace the recordings of somebody who has laid them out like LJ Speech.
    assert "-force" not in message and ("download_ljspeech.py" in message) == (content is None)


def test_a_missing_folder_of_sound_files_is_one_line(tmp_path):
    paths = write_corpus(tmp_path, 4)
    for path in paths:
        path.unlink()
    with one_line_error("no clip", "sound file"):
        speech.load("real", tmp_path)
    (tmp_path / FOLDER_NAME / WAVS).rmdir()
    with one_line_error("wavs", "missing", "download_ljspeech.py"):
        speech.load("auto", tmp_path)


def test_metadata_may_have_a_byte_order_mark_windows_line_ends_and_no_last_line_end(tmp_path):
    path = tmp_path / METADATA
    path.write_bytes(b"\xef\xbb\xbfA-1|X|Mr. x\r\n\r\nA-2|y|y")
    assert speech.read_metadata(path) == [("A-1", "mr. x"), ("A-2", "y")]


def damage(path, how):
    if how == "empty file":
        path.write_bytes(b"")
    elif how == "no sound":
        soundfile.write(path, np.zeros(0), RATE, "PCM_16")
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-2000])
    elif how == "cut in the header":
        path.write_bytes(path.read_bytes()[:30])
    elif how == "short":
        soundfile.write(path, tone(400, seconds=0.01), RATE, "PCM_16")
    elif how == "long":
        with soundfile.SoundFile(path, "w", RATE, 1, "PCM_U8") as file:
            for _ in range(600):
                file.write(np.zeros(RATE, dtype=np.int16))
    elif how == "text":
        path.write_text("no sound\n" * 1000)


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("empty file", "cannot be read as sound"), ("no sound", "0.00 s"), ("cut", "cut short"),
        ("cut in the header", "cannot be read as sound"), ("short", "0.01 s"), ("long", "600.00 s"),
        ("text", "cannot be read as sound"),
    ],
)  # fmt: skip
def test_a_bad_sound_file_is_one_line_that_says_which_and_why(how, word, tmp_path, cache):
    paths = write_corpus(tmp_path, 12)
    damage(paths[3], how)
    for read in (lambda: speech.read_sound(paths[3]), lambda: speech.load("real", tmp_path, [8, 2, 2])):
        with one_line_error(str(paths[3]), word, ";"):
            read()
    assert not list(cache.iterdir())
    paths[3].unlink()  # and the rest can be used
    assert paths[3].stem not in speech.load("real", tmp_path, [7, 2, 2]).ids["train"]


def test_a_clip_that_the_system_refuses_to_open_is_one_line(tmp_path, monkeypatch):
    paths = write_corpus(tmp_path, 12)
    open_any = builtins.open

    def refuse(path, *args, **kwargs):
        if path == paths[3]:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open_any(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", refuse)
    with one_line_error(str(paths[3]), "Permission denied"):
        speech.load("real", tmp_path, [8, 2, 2])


def test_clips_without_sound_or_text_are_skipped_and_counted(tmp_path, capsys):
    paths = write_corpus(tmp_path, 12, ["some text", "  ", *["more text"] * 10])
    for n in (4, 5, 6):
        paths[n].unlink()
    paths[5].symlink_to(tmp_path / "nowhere.wav")
    paths[6].mkdir()
    data = speech.load("real", tmp_path, [6, 1, 1])
    assert sum(data.ids.values(), []) == [paths[n].stem for n in (0, 2, 3, 7, 8, 9, 10, 11)]
    (line,) = capsys.readouterr().err.splitlines()
    assert "of 12 clips left out: 4 without a text or a sound file" in line


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [(".wav", "PCM_U8"), (".wav", "PCM_16"), (".wav", "PCM_24"), (".wav", "PCM_32"), (".wav", "FLOAT")]
    + [(".flac", "PCM_S8"), (".flac", "PCM_16"), (".flac", "PCM_24")],
)
@pytest.mark.parametrize("n_channels", [1, 2])
def test_a_tone_keeps_its_frequency_and_loudness_in_every_format(suffix, subtype, rate, n_channels, tmp_path):
    path, hz, seconds = tmp_path / f"tone{suffix}", 440, 0.5
    sound = tone(hz, seconds, rate)
    soundfile.write(path, np.stack([sound] * n_channels, axis=1), rate, subtype)
    samples = speech.read_sound(path).numpy()
    assert samples.dtype == np.float32 and abs(len(samples) - seconds * RATE) <= 1
    loudest = np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples)
    assert abs(loudest - hz) <= 1 / seconds
    middle = samples[RATE // 20 : -RATE // 20]
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / math.sqrt(2), rel=0.01)


def test_channels_are_averaged_and_what_the_lower_rate_cannot_hold_is_gone(tmp_path):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(440), tone(600, amplitude=0.25)], axis=1), RATE, "PCM_24")
    expected = (tone(440) + tone(600, amplitude=0.25)) / 2
    np.testing.assert_allclose(speech.read_sound(path), expected, atol=1e-6)
    soundfile.write(path, tone(15_000, rate=48_000), 48_000, "PCM_16")
    samples = speech.read_sound(path)[1000:-1000]
    assert samples.abs().max() < 0.001  # else it would be heard at 7,050 Hz


def test_what_is_no_file_is_not_read(tmp_path):
    for name, word in (("no.wav", "missing"), (".", "Is a directory")):
        with one_line_error(str(tmp_path / name), word):
            speech.read_sound(tmp_path / name)


def wav_of(n_channels, n_bytes):
    """A WAV that claims to have so many channels and bytes."""
    form = struct.pack("<HHIIHH", 1, n_channels, RATE, 2 * RATE * n_channels % 2**32, 2 * n_channels % 2**16, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", n_bytes) + bytes(4096)
    return b"RIFF" + struct.pack("<I", 2**32 - 1) + body


def test_a_sound_file_that_would_fill_the_memory_is_refused_by_its_header(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_of(1024, 2**31))
    with one_line_error("a.wav", "0.00 s"):
        speech.read_sound(tmp_path / "a.wav")
    soundfile.write(tmp_path / "c.flac", np.zeros(2205), RATE, "PCM_16")
    content = (tmp_path / "c.flac").read_bytes()
    for n_samples, word in ((2**36 - 1, f"{(2**36 - 1) / RATE:.2f} s"), (RATE * 20, "c.flac")):
        claim = RATE << 44 | 15 << 36 | n_samples
        (tmp_path / "c.flac").write_bytes(content[:18] + struct.pack(">Q", claim) + content[26:])
        with one_line_error(word):
            speech.read_sound(tmp_path / "c.flac")


def test_a_name_that_means_a_format_without_a_header(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(2205), RATE, "PCM_16")
    (tmp_path / "a.wav").rename(tmp_path / "a.raw")
    with one_line_error("a.raw", "cannot be read as sound"):
        speech.read_sound(tmp_path / "a.raw")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_an_error_of_the_clip(value, tmp_path):
    samples = tone(440)
    samples[100] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, "FLOAT")
    with one_line_error("a.wav", "not finite"):
        speech.read_sound(tmp_path / "a.wav")


def test_a_cut_flac_and_a_stream_of_unknown_length(tmp_path):
    path = tmp_path / "x.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, RATE), RATE, "PCM_16")
    path.write_bytes(path.read_bytes()[:-5000])
    with one_line_error(str(path)):
        speech.read_sound(path)
    path = tmp_path / "x.wav"  # written to a pipe: the sizes of its header were never filled in
    soundfile.write(path, tone(440), RATE, "PCM_16")
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    path.write_bytes(content)
    np.testing.assert_allclose(speech.read_sound(path), tone(440), atol=1e-4)


def same(a, b):
    clips = [list(zip(map(int, data.n_frames), map(data.mels, range(len(data.n_frames))))) for data in (a, b)]
    return a.fingerprint == b.fingerprint and all(
        m == n and torch.equal(x, y) for (m, x), (n, y) in zip(*clips, strict=True)
    )


@pytest.mark.parametrize("how", ["whole", "cut", "empty", "gone", "damaged", "arrays gone"])
def test_the_second_load_is_the_first_whatever_became_of_the_cache(how, tmp_path, cache, monkeypatch, capsys):
    write_corpus(tmp_path, 8)
    first = speech.load("real", tmp_path)
    frames, arrays = (next(cache.glob(f"log-mels-*{suffix}")) for suffix in (".f16", ".npz"))
    assert frames.stat().st_size == int(first.n_frames.sum()) * 80 * 2
    if how == "cut":
        frames.write_bytes(frames.read_bytes()[:-160])
    elif how == "empty":
        frames.write_bytes(b"")
    elif how == "gone":
        frames.unlink()
    elif how == "damaged":
        arrays.write_bytes(arrays.read_bytes()[:100])
    elif how == "arrays gone":
        arrays.unlink()
    first = speech.Clips(**{**vars(first), "frames": speech_frames(tmp_path)})
    n_read, read = [], soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *args, **kwargs: n_read.append(1) or read(*args, **kwargs))
    assert same(first, speech.load("real", tmp_path))
    assert len(n_read) == (0 if how == "whole" else 8)
    stderr = capsys.readouterr().err
    is_told = how not in ("whole", "arrays gone")
    assert stderr.count("\n") == stderr.count("making it again") == is_told
    n_read.clear()
    assert same(first, speech.load("real", tmp_path)) and not n_read


def test_the_spectrograms_are_made_anew_when_their_code_changes(tmp_path, monkeypatch):
    write_corpus(tmp_path, 8)
    before = speech.load("real", tmp_path).mels(0)
    log_mel, edited = speech.log_mel, tmp_path / "speech.py"
    edited.write_bytes(Path(speech.__file__).read_bytes() + b"# changed\n")
    monkeypatch.setattr(speech, "log_mel", lambda samples: log_mel(samples) / 2)
    assert torch.equal(speech.load("real", tmp_path).mels(0), before)  # the file is as it was: from the cache
    monkeypatch.setattr(speech, "__file__", str(edited))
    torch.testing.assert_close(speech.load("real", tmp_path).mels(0), before / 2, atol=1e-3, rtol=1e-3)


def speech_frames(folder):
    """The frames of the clips in `folder`, without the cache."""
    sounds = sorted((folder / FOLDER_NAME / WAVS).iterdir())
    return np.concatenate([speech.log_mel(speech.read_sound(path)).to(torch.float16) for path in sounds])


def test_another_sound_text_or_split_changes_the_fingerprint(tmp_path):
    paths = write_corpus(tmp_path, 8)
    fingerprints = [speech.load("real", tmp_path).fingerprint, speech.load("real", tmp_path, [5, 1, 2]).fingerprint]
    stat = paths[2].stat()
    sound, rate = soundfile.read(paths[2])
    soundfile.write(paths[2], -sound, rate, "PCM_16")  # of the same size
    os.utime(paths[2], ns=(stat.st_atime_ns, stat.st_mtime_ns + 2 * 10**9))  # of any file system
    fingerprints.append(speech.load("real", tmp_path).fingerprint)
    path = tmp_path / FOLDER_NAME / METADATA
    path.write_text(path.read_text().replace("iiii.|", "iiii?|").replace("iiii.\n", "iiii?\n"))
    fingerprints.append(speech.load("real", tmp_path).fingerprint)
    assert len(set(fingerprints)) == 4
    again = [speech.load("real", tmp_path, counts).fingerprint for counts in (None, None)]
    assert again == [fingerprints[-1]] * 2


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    write_corpus(tmp_path, 8)
    monkeypatch.setattr(sources, "CACHE_DIR", tmp_path / "file")
    sources.CACHE_DIR.write_text("a file where the folder would be")
    with one_line_error("cannot write", str(sources.CACHE_DIR)):
        speech.load("real", tmp_path)


def intervals(is_masked):
    """The lengths of the stretches of True in a list."""
    return [len(part) for part in re.findall("1+", "".join(str(int(bit)) for bit in is_masked))]


def test_spec_augment_masks_one_band_and_one_stretch_of_each_clip():
    torch.manual_seed(0)
    n_frames = torch.tensor([60, 100, 9] * 40)
    mels = torch.ones(len(n_frames), 100, 80)
    masked = speech.spec_augment(mels, n_frames, 27, 30)
    assert masked.shape == mels.shape and (mels == 1).all()
    widths = {"band": [], "stretch": []}
    for i, n in enumerate(n_frames.tolist()):
        band, stretch = (masked[i] == 0).all(dim=0), (masked[i] == 0).all(dim=1)
        assert ((masked[i] == 0) == (band | stretch.unsqueeze(1))).all()
        assert not stretch[n:].any()
        for name, is_masked in (("band", band), ("stretch", stretch)):
            found = intervals(is_masked)
            assert len(found) <= 1
            widths[name].append(sum(found))
    assert max(widths["band"]) <= 27 and max(widths["band"]) > 20 and len(set(widths["band"])) > 15
    for n, most in ((60, 30), (100, 30), (9, 4)):  # at most half of a clip
        found = [width for width, frames in zip(widths["stretch"], n_frames) if frames == n]
        assert max(found) <= most and max(found) >= most - 3 and min(found) <= 3 and len(set(found)) > 4 - (n == 9)


def test_a_batch_is_masked_only_if_it_is_augmented(tmp_path):
    write_corpus(tmp_path, 20)
    data, rows = speech.load("real", tmp_path), torch.tensor([4, 0, 2])
    torch.manual_seed(0)
    (mels, *rest), (masked, *others) = (speech.gatherer(data, "train", 16, "cpu", on)(rows) for on in (False, True))
    assert not torch.equal(mels, masked) and torch.equal(masked[masked != 0], mels[masked != 0])
    assert all(map(torch.equal, rest, others))


PLAN_FINGERPRINT = "642a58e516ac0cae101f9b6c531b2b5ac4df0fe3dc345773fe9e1441b2f7e031"


def test_the_bundled_texts_voices_speeds_and_pitches_are_frozen():
    clips = bundled_speech.plan(bundled_speech.sentences(bundled_speech.N_BUNDLED))
    ids, texts, voices, speeds, pitches = zip(*clips)
    assert len(clips) == 6000 == len(set(ids)) == len(set(texts))
    assert max(map(len, texts)) <= 40 and len(set(voices)) == 8
    assert (min(speeds), max(speeds), min(pitches), max(pitches)) == (140, 200, 30, 70)
    assert "#" in {char for text in texts for char in speech.normalize(text)}  # wasn't, for instance
    assert all("|" not in text and "\n" not in text for text in texts)
    assert hashlib.sha256(repr([tuple(clip) for clip in clips]).encode()).hexdigest() == PLAN_FINGERPRINT


def test_fresh_processes_speak_the_same_bytes(spoken, run_script, tmp_path):
    process = run_script("-m", "data.bundled.speech", "-output_dir", tmp_path / "new" / "folder", "-n_clips", "20")
    assert process.returncode == 0, process.stderr
    there, again = spoken / FOLDER_NAME, tmp_path / "new" / "folder" / FOLDER_NAME
    assert (again / METADATA).read_text() == "".join((there / METADATA).read_text().splitlines(keepends=True)[:20])
    sounds = sorted((again / WAVS).iterdir())
    assert len(sounds) == 20
    for path in sounds:
        assert path.read_bytes() == (there / WAVS / path.name).read_bytes()
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [FOLDER_NAME]


def test_whoever_waits_for_the_bundled_clips_sees_how_many_are_spoken(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bundled_speech, "CLIPS_OF_A_CHAPTER", 2)
    bundled_speech.write(bundled_speech.plan(bundled_speech.sentences(5)), tmp_path)
    assert capsys.readouterr().out == "2 of 5 clips are spoken\n4 of 5 clips are spoken\n"


def test_the_lines_of_the_process_that_speaks_are_passed_on(tmp_path, monkeypatch, capsys):
    """Also where stderr is no file, as in a notebook."""
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **kwargs: popen([*command, "-n_clips", "3"], **kwargs))
    monkeypatch.setattr(sources, "CACHE_DIR", tmp_path)
    assert (speech.bundled_folder() / METADATA).is_file()
    assert "3 clips, " in capsys.readouterr().err


def test_the_bundled_clips_are_speech_that_can_be_read(spoken):
    lines = speech.read_metadata(spoken / FOLDER_NAME / METADATA)
    assert len(lines) == N_SPOKEN and all(speech.normalize(text) == text for _, text in lines)
    sounds = [speech.read_sound(spoken / FOLDER_NAME / WAVS / f"{id}.wav") for id, _ in lines]
    seconds = [len(samples) / RATE for samples in sounds]
    letters_a_second = [len(text) / s for (_, text), s in zip(lines, seconds)]
    assert 5 < min(letters_a_second) and max(letters_a_second) < script.LETTERS_A_SECOND
    assert all(samples.abs().max() > 0.05 for samples in sounds)


def test_the_texts_of_another_metadata_file_are_spoken(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("LJ001-0001|In 1455|in fourteen fifty-five\nLJ001-0002|so|so\n")
    bundled_speech.main(["-output_dir", str(tmp_path), "-metadata", str(path), "-n_clips", "1"])
    (line,) = speech.read_metadata(tmp_path / FOLDER_NAME / METADATA)
    assert line == ("LJ001-0001", "in fourteen fifty-five")
    with one_line_error(FOLDER_NAME, "is there"):
        bundled_speech.main(["-output_dir", str(tmp_path), "-metadata", str(path)])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["cannot be read"]),
        (b"", ["empty"]),
        (b"a b|c|c\n", ["line 1"]),
        (b"a\n", ["line 1"]),
        (b"\xff|a", ["read"]),
    ],
)
def test_another_metadata_file_that_is_damaged_is_one_line(content, words, tmp_path):
    path = tmp_path / "texts.csv"
    if content is not None:
        path.write_bytes(content)
    with one_line_error("texts.csv", *words):
        bundled_speech.main(["-output_dir", str(tmp_path / "out"), "-metadata", str(path)])
    assert not (tmp_path / "out" / FOLDER_NAME).exists()


def test_another_process_may_be_the_first_to_speak_the_bundled_clips(monkeypatch):
    there, popen = [], subprocess.Popen
    code = "import sys; print('warning: slow', file=sys.stderr); sys.exit('speech.py: error: it is there; go on')"

    def too_late(command, **kwargs):
        if there:
            (command[-1] / FOLDER_NAME).mkdir(parents=True)
        return popen([sys.executable, "-c", code], **kwargs)

    monkeypatch.setattr(subprocess, "Popen", too_late)
    with one_line_error("it is there; go on"):
        speech.bundled_folder()
    there.append(True)
    assert speech.bundled_folder().name == FOLDER_NAME


def test_what_espeak_lacks_is_one_line(tmp_path, monkeypatch):
    engine = bundled_speech.Engine()
    for voice, words in (("en+zz9", ["zz9"]), ("qq", ["voice qq", "error"])):
        with one_line_error(*words, "espeakng-loader"):
            engine.speak(bundled_speech.Clip("a", "text", voice, 170, 50))
        with one_line_error(*words):
            bundled_speech.write([bundled_speech.Clip("a", "text", voice, 170, 50)], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with one_line_error("espeakng-loader", "pip install", "real data"):
        bundled_speech.write([], tmp_path / "out")
