"""Clips of Question 3 of 2023-24 (LJ Speech): sound files and their texts to log-mel spectrograms and symbols.

The clips stand in the data folder as the data set publishes them:

    LJSpeech-1.1/metadata.csv     id|text|normalised text, a clip on each line
    LJSpeech-1.1/wavs/ID.wav      22,050 Hz

The spectrograms are computed once and kept as float16 in `data/cache/`: the 24 hours of LJ Speech take 1.9 GB there.
The file is mapped, so that the system reads what a batch needs and gives the memory up when others need it.
soundfile and soxr are imported where they are used.
"""

import hashlib
import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

import files
from data import sources
from data.bundled.speech import MARKER
from data.fetch.ljspeech import FOLDER_NAME, METADATA, N_CLIPS, TITLE, WAVS
from data.text import at_equal_distances
from options import DATA_DIR, ROOT, UserError, note, progress, warn

DOWNLOAD_COMMAND = "python download_ljspeech.py"
BUNDLED = Path(__file__).parent / "bundled"
SPLITS = ("train", "val", "test")
PART, N_PART = "train_part", 200  # training clips on which losses are compared and the attention is examined
# The course's split of the 13,100 clips: the first clips train, then validation, then test.
TRAIN_END, VAL_END = 9_825, 10_480
QUICK_SIZES = {"train": 2400, "val": 100, "test": 200}

# The front end. The course's texts and spectrograms have these values.
SAMPLE_RATE = 22_050  # Hz
N_FFT, HOP = 400, 160  # samples
N_MELS = 80
MIN_POWER = 1e-10  # before the logarithm
DYNAMIC_RANGE = 8.0  # powers of ten below the loudest value
FRAMES_A_SECOND = SAMPLE_RATE / HOP
SECONDS_A_POSITION = 2 / FRAMES_A_SECOND  # of the encoder's output
FRAME_BYTES = N_MELS * np.dtype(np.float16).itemsize  # in the cache
MIN_SECONDS, MAX_SECONDS = 0.05, 30.0  # of a clip; the longest of LJ Speech has 10.1 s
SOUND_SUFFIXES = (".wav", ".flac")

MAX_MASKED_MELS, MAX_MASKED_FRAMES = 27, 80  # of SpecAugment

# Batches are padded to multiples of so many frames and symbols. Few shapes come then: oneDNN prepares each product of a
# new shape, and on a GPU a step of each shape is recorded (`graphs`).
GRIDS = {"cpu": (16, 8), "cuda": (64, 32), "mps": (1, 1)}
GPU_SHARE = 1 / 4  # of a GPU's memory, which the frames of all clips may take

# The mel scale of Slaney's Auditory Toolbox: linear up to 1,000 Hz, then logarithmic.
HZ_A_MEL, LINEAR_END = 200 / 3, 1000.0
LOG_STEP = np.log(6.4) / 27

START, STOP, PADDING, UNKNOWN = SPECIALS = "<>@#"
SYMBOLS = SPECIALS + " ,.?-abcdefghijklmnopqrstuvwxyz"  # 35
INDEX = {symbol: i for i, symbol in enumerate(SYMBOLS)}
START_IDX, STOP_IDX, PADDING_IDX, UNKNOWN_IDX = range(len(SPECIALS))
SEARCH_SYMBOLS = {"sos": START_IDX, "eos": STOP_IDX, "pad": PADDING_IDX, "forbidden": (PADDING_IDX, START_IDX)}


def normalize(text):
    """The text as the network writes it: lower-case, stripped, with `#` for a character that is no symbol."""
    known = set(SYMBOLS) - set(SPECIALS)
    return "".join(char if char in known else UNKNOWN for char in text.lower().strip())


def encode(text, max_text_length):
    """The symbols of a normalised text with start and stop, cut so that they are at most `max_text_length`."""
    return [START_IDX, *(INDEX[char] for char in text[: max_text_length - 2]), STOP_IDX]


def decode(indices):
    """The text of some symbols, without padding."""
    return "".join(SYMBOLS[i] for i in indices if i != PADDING_IDX)


@lru_cache
def mel_filters():
    """The triangular filters of the mel scale (N_MELS, N_FFT // 2 + 1), each of area 1 (Slaney's norm).

    They stand at equal distances on the mel scale from 0 Hz to half the sample rate.
    """

    def to_mel(hz):
        return hz / HZ_A_MEL if hz < LINEAR_END else LINEAR_END / HZ_A_MEL + np.log(hz / LINEAR_END) / LOG_STEP

    mels = np.linspace(0.0, to_mel(SAMPLE_RATE / 2), N_MELS + 2)
    logarithmic = LINEAR_END * np.exp(LOG_STEP * (mels - LINEAR_END / HZ_A_MEL))
    corners = np.where(mels < LINEAR_END / HZ_A_MEL, mels * HZ_A_MEL, logarithmic)  # Hz
    left, peak, right = (corners[i : i + N_MELS, None] for i in range(3))
    bins = np.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1)
    triangles = np.minimum((bins - left) / (peak - left), (right - bins) / (right - peak)).clip(min=0)
    return torch.from_numpy(triangles * 2 / (right - left)).float()


def log_mel(samples):
    """The log-mel spectrogram of a clip.

        (max(log10(mel), maximum - 8) + 4) / 4

    mel are the powers of a short-time Fourier transform (Hann window) through `mel_filters`; the maximum is the clip's.

    Shapes:
        samples: (n_samples), from -1 to 1
        returns (1 + n_samples // HOP, N_MELS)
    """
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(samples, N_FFT, HOP, window=window, center=True, pad_mode="constant", return_complex=True)
    mels = mel_filters() @ spectrum.abs() ** 2
    logs = mels.clamp(min=MIN_POWER).log10()
    return ((logs.clamp(min=logs.max() - DYNAMIC_RANGE) + 4) / 4).T


def read_sound(path):
    """The samples of a sound file (n_samples) at 22,050 Hz, the mean of its channels.

    Raises `UserError` for a file that is missing, damaged, too short or too long.
    """
    import soundfile

    try:
        with open(path, "rb") as content, soundfile.SoundFile(content) as file:
            rate, seconds = file.samplerate, file.frames / file.samplerate
            if not MIN_SECONDS <= seconds <= MAX_SECONDS:
                raise UserError(f"{path} has {seconds:.2f} s; give a clip of {MIN_SECONDS:g} to {MAX_SECONDS:g} s")
            samples = file.read(dtype="float32", always_2d=True)
            if len(samples) < file.frames or _is_cut(path):
                raise ValueError("it is cut short")
            if not np.isfinite(samples).all():
                raise ValueError("it has samples that are not finite")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; name a WAV or FLAC file that is there") from None
    # soundfile raises a TypeError for a name that ends in .raw, since it has to be told the format of such files.
    except (soundfile.SoundFileError, OSError, ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{path} cannot be read as sound ({files.reason_of(error)}); give a WAV or FLAC") from error
    samples = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        import soxr

        samples = soxr.resample(samples, rate, SAMPLE_RATE)
    return torch.from_numpy(samples)


def _is_cut(path):
    """Whether a WAV file is shorter than its header says; libsndfile reads what is there and does not tell."""
    with open(path, "rb") as file:
        head = file.read(8)
        n_bytes = file.seek(0, os.SEEK_END)
    size = int.from_bytes(head[4:], "little")  # of what follows; 2**32 - 1 in a WAV that was written to a pipe
    return head[:4] == b"RIFF" and size < 2**32 - 1 and n_bytes + 1 < len(head) + size  # a padding byte may be left out


@dataclass(frozen=True, eq=False)
class Clips:
    """The clips of the three splits with their spectrograms.

    Attributes:
        title: name to show; `bundled` says whether the clips were spoken by eSpeak NG.
        ids, texts: dict from split to a list; the texts are normalised and whole.
        rows: dict from split to the clips' rows in `n_frames` and `starts` (n_clips_of_split). Texts and rows have
            the `PART` of the training clips as well.
        n_frames: (n_clips), on the CPU.
        starts: (n_clips), the first frame of each clip in `frames`.
        frames: (n_frames_of_all, N_MELS) float16, a `numpy.memmap`.
        fingerprint: SHA-256 of the ids, the texts, the sound and the splits.
        folder: where the sound files are.
    """

    title: str
    bundled: bool
    ids: dict
    texts: dict
    rows: dict
    n_frames: torch.Tensor
    starts: torch.Tensor
    frames: np.ndarray
    fingerprint: str
    folder: Path

    def seconds(self, row):
        """The length of one clip."""
        return int(self.n_frames[row]) / FRAMES_A_SECOND

    def mels(self, row):
        """The spectrogram of one clip (n_frames, N_MELS)."""
        start = int(self.starts[row])
        return torch.from_numpy(self.frames[start : start + int(self.n_frames[row])].astype(np.float32))

    def batch(self, rows, device="cpu"):
        """The clips of some rows (n_clips) as `pad_mels` gives them, on a device."""
        grid, _ = GRIDS[torch.device(device).type]
        frames = frames_on(self, torch.device(device))
        if frames is None:
            return tuple(part.to(device) for part in pad_mels([self.mels(row) for row in rows], grid))
        max_frames = math.ceil(int(self.n_frames[rows].max()) / grid) * grid
        starts, n_frames = (part[rows].to(device, non_blocking=True) for part in (self.starts, self.n_frames))
        places = torch.arange(max_frames, device=device)
        is_frame = places < n_frames.unsqueeze(1)
        mels = frames[(starts.unsqueeze(1) + places).where(is_frame, 0)].float()  # (n_clips, max_frames, N_MELS)
        return mels * is_frame.unsqueeze(2), n_frames


@lru_cache(maxsize=1)
def frames_on(data, device):
    """The frames of all clips on a CUDA GPU; None where they stay with the host: for the CPU, or if there are many."""
    if device.type != "cuda" or data.frames.nbytes > GPU_SHARE * torch.cuda.get_device_properties(device).total_memory:
        return None
    return torch.from_numpy(data.frames).to(device)


def load(mode="auto", data_dir=DATA_DIR, counts=None, quick=False):
    """The clips: LJ Speech if it is in the data folder, or the bundled ones.

    Args:
        mode: "auto", "real" or "bundled".
        counts: clips of train, validation and test, the first ones of the metadata; None for the course's proportions.
        quick: fewer clips, of each split the `shorter_half`.

    Raises `UserError` for metadata or a sound file that are damaged, or if there are too few clips.
    """
    paths = tuple(Path(data_dir) / FOLDER_NAME / name for name in (METADATA, WAVS))
    found = sources.choose(mode, data_dir, [paths], TITLE, DOWNLOAD_COMMAND)
    folder = bundled_folder() if found is None else found[0].parent
    bundled = (folder / MARKER).exists()  # also in a folder of other texts that eSpeak NG spoke
    lines = read_metadata(folder / METADATA)
    clips = usable(lines, folder)
    splits = split(clips, counts, folder)
    if quick:
        splits = {name: at_equal_distances(shorter_half(clips), QUICK_SIZES[name]) for name, clips in splits.items()}
    ids = {name: [id for id, _ in clips] for name, clips in splits.items()}
    texts = {name: [text for _, text in clips] for name, clips in splits.items()}
    arrays, frames = spectrograms([folder / WAVS / f"{id}.wav" for name in SPLITS for id in ids[name]])
    n_frames = torch.from_numpy(arrays["n_frames"])
    rows = dict(zip(SPLITS, torch.arange(len(n_frames)).split([len(ids[name]) for name in SPLITS])))
    part = at_equal_distances(list(range(len(ids["train"]))), N_PART)
    texts[PART], rows[PART] = [texts["train"][i] for i in part], rows["train"][part]
    content = [(name, ids[name], texts[name]) for name in SPLITS]
    fingerprint = hashlib.sha256(f"{arrays['digest']}{content}".encode()).hexdigest()
    starts = torch.cat([n_frames.new_zeros(1), n_frames.cumsum(0)[:-1]])
    return Clips(TITLE, bundled, ids, texts, rows, n_frames, starts, frames, fingerprint, folder)


def bundled_folder():
    """The folder of the bundled clips; a fresh process speaks them if they are not there."""
    code = [*sorted(BUNDLED.glob("translation*.py")), BUNDLED / "speech.py"]
    folder = sources.CACHE_DIR / f"bundled-speech-{sources.key_of(*code)}" / FOLDER_NAME
    if not folder.exists():
        note("speaking the bundled clips, once")
        command = [sys.executable, "-m", "data.bundled.speech", "-output_dir", folder.parent]
        # Its lines of progress go on to our stderr, which may be a notebook's; of its own stderr only the error counts.
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                note(line.rstrip())
            said = process.stderr.read().strip().splitlines() or ["it was killed"]
        if process.returncode != 0 and not folder.exists():  # else another process was faster
            raise UserError(said[-1].rpartition("error: ")[2])
    return folder


def read_metadata(path):
    """The lines of a metadata.csv, [(id, text)], the texts by `normalize`.

    Raises `UserError` for a file that cannot be read, or a line that has not three fields.
    """
    advice = f"mend the file, or name another folder that has {FOLDER_NAME} with -data_dir"
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({files.reason_of(error)}); {advice}") from error
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.rstrip("\r").split("|")
        if fields == [""]:
            continue
        if len(fields) != 3 or Path(fields[0]).name != fields[0] or not fields[0] or not fields[0].isprintable():
            raise UserError(f"{path}, line {number}: not id|text|normalised text; {advice}")
        lines.append((fields[0], normalize(fields[2])))
    if not lines:
        raise UserError(f"{path} is empty; {advice}")
    ((id, n),) = Counter(id for id, _ in lines).most_common(1)
    if n > 1:
        raise UserError(f"{path} has the clip {id} more than once; {advice}")
    return lines


def usable(lines, folder):
    """The clips with a text and a sound file; a warning tells how many lack one of them."""
    advice = f"put the clips there, or name another folder that has {FOLDER_NAME} with -data_dir"
    try:
        with os.scandir(folder / WAVS) as entries:
            there = {entry.name for entry in entries if entry.is_file()}
    except OSError as error:
        raise UserError(f"{folder / WAVS} cannot be read ({error.strerror}); {advice}") from error
    clips = [(id, text) for id, text in lines if f"{id}.wav" in there and text]
    if not clips:
        raise UserError(f"no clip of {folder / METADATA} has a text and a sound file in {WAVS}; {advice}")
    if len(clips) < len(lines):
        n_others = len(lines) - len(clips)
        warn(f"{folder}: of {len(lines):,} clips left out: {n_others:,} without a text or a sound file in {WAVS}")
    return clips


def split(clips, counts, folder):
    """The clips of train, validation and test in the order of the metadata.

    counts: how many of each; None for the course's proportions.
    """
    n = len(clips)
    if counts is None:
        ends = [round(n * end / N_CLIPS) for end in (TRAIN_END, VAL_END)] + [n]
    else:
        ends = [sum(counts[: i + 1]) for i in range(len(SPLITS))]
        if ends[-1] > n:
            raise UserError(f"-split {' '.join(map(str, counts))} needs {ends[-1]:,} clips, {folder} has {n:,}")
    splits = dict(zip(SPLITS, (clips[start:end] for start, end in zip([0, *ends], ends))))
    for name in ("train", "test"):
        if not splits[name]:
            raise UserError(f"no clip is left for {name}, {folder} has {n:,} in all; give their numbers with -split")
    return splits


def shorter_half(clips):
    """The clips whose texts have at most the median length, in their order; [] of []."""
    median = np.median([len(text) for _, text in clips]) if clips else 0
    return [clip for clip in clips if len(clip[1]) <= median]


def spectrograms(paths):
    """The spectrograms of sound files, from the cache if they are there.

    Returns (arrays, frames). arrays has n_frames (n_files), and `digest`, SHA-256 of the samples. frames is
    (sum of n_frames, N_MELS) float16, a `numpy.memmap` of the file in the cache.
    """
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    path = sources.CACHE_DIR / f"log-mels-{sources.key_of(Path(__file__), stats)}.f16"

    def is_whole(arrays):
        return os.path.getsize(path) == arrays["n_frames"].sum() * FRAME_BYTES

    arrays = sources.cached_arrays(path.stem, lambda: write_spectrograms(paths, path), is_whole=is_whole)
    shape = (int(arrays["n_frames"].sum()), N_MELS)
    return arrays, np.memmap(path, np.float16, mode="c", shape=shape)  # nobody writes, but torch asks


def write_spectrograms(paths, path):
    """Write the spectrograms of sound files one after the other to `path`; returns the arrays of `spectrograms`."""
    n_frames, digest = [], hashlib.sha256()
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on two the spectrogram of one clip took ten times as long
    with files.atomic_path(path) as new, files.writing(path), open(new, "wb") as file:
        for sound in progress(paths, "spectrograms"):
            samples = read_sound(sound)
            digest.update(samples.numpy())
            frames = log_mel(samples).to(torch.float16).numpy()
            n_frames.append(len(frames))
            file.write(np.ascontiguousarray(frames))
    torch.set_num_threads(n_threads)
    return {"n_frames": np.array(n_frames), "digest": np.array(digest.hexdigest())}


def pad_mels(mels, grid=1):
    """Spectrograms as one tensor (n_clips, max_frames, N_MELS), filled up with 0, and their numbers of frames.

    max_frames is that of the longest clip, or the next multiple of `grid`.
    """
    n_frames = torch.tensor([len(clip) for clip in mels])
    padded = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True)
    return torch.nn.functional.pad(padded, (0, 0, 0, -padded.shape[1] % grid)), n_frames


def gatherer(data, split, max_text_length, device, augmented=False):
    """A function from row indices (batch_size) to a batch, padded to its own longest clip and text, and to `GRIDS`.

    The batch is mels (batch_size, max_frames, N_MELS), n_frames (batch_size), tgt (batch_size, max_tgt_len). If it is
    `augmented`, `spec_augment` masks it.
    """
    symbols = [torch.tensor(encode(text, max_text_length)) for text in data.texts[split]]
    lengths = torch.tensor([len(text) for text in symbols])
    targets = torch.nn.utils.rnn.pad_sequence(symbols, batch_first=True, padding_value=PADDING_IDX).to(device)
    _, grid = GRIDS[targets.device.type]

    def gather(rows):
        clips = data.rows[split][rows]
        mels, n_frames = data.batch(clips, device)
        if augmented:
            mels = spec_augment(mels, data.n_frames[clips])
        max_tgt_len = math.ceil(int(lengths[rows].max()) / grid) * grid
        return mels, n_frames, targets[rows.to(device, non_blocking=True), :max_tgt_len]

    return gather


def spec_augment(mels, n_frames, max_mels=MAX_MASKED_MELS, max_frames=MAX_MASKED_FRAMES):
    """SpecAugment with one mask of each kind (Park et al., 2019): a band of channels and a stretch of frames become 0.

    Their widths are drawn evenly, from 0 to `max_mels` channels and from 0 to `max_frames` frames, or half of the clip;
    they are drawn on the CPU, where n_frames is, so that every device gets the same ones.
    """
    channels, frames = torch.arange(mels.shape[2]), torch.arange(mels.shape[1])
    band = _masks(channels, torch.full_like(n_frames, mels.shape[2]), torch.full_like(n_frames, max_mels))
    stretch = _masks(frames, n_frames, (n_frames // 2).clamp(max=max_frames))
    band, stretch = band.to(mels.device), stretch.to(mels.device)
    return mels.masked_fill(band.unsqueeze(1) | stretch.unsqueeze(2), 0.0)


def _masks(places, sizes, most):
    """For each size a random interval of at most `most` places inside it: a mask (len(sizes), len(places))."""
    width = (torch.rand(len(sizes)) * (most + 1)).long()
    start = (torch.rand(len(sizes)) * (sizes - width + 1)).long()
    return (places >= start.unsqueeze(1)) & (places < (start + width).unsqueeze(1))
