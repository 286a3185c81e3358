"""The bundled data in place of LJ Speech: English sentences of our own grammar, spoken by eSpeak NG, in its layout.

$ python -m data.bundled.speech -output_dir DIR                    # the bundled data, in DIR/LJSpeech-1.1
$ python -m data.bundled.speech -output_dir DIR -metadata PATH     # the texts of another metadata.csv, as LJ Speech's

eSpeak NG gives another waveform for the same text later in one process. So all clips are spoken in a fixed order by a
fresh process, and two such processes agree. The texts, voices, speeds and pitches are frozen; another version of eSpeak
NG may change the waveforms.
"""

import ctypes
import random
import re
import wave
from pathlib import Path
from typing import NamedTuple

import options
from data.fetch import download
from data.fetch.ljspeech import FOLDER_NAME, METADATA, WAVS
from options import UserError

MARKER = "GENERATED"  # a file beside the metadata that tells such a folder from recordings
MARKER_TEXT = "These clips were spoken by eSpeak NG (python -m data.bundled.speech); they are no recordings.\n"
SEED = 20241206
N_BUNDLED = 6000
MAX_CHARS = 40  # of a sentence
CLIPS_OF_A_CHAPTER = 1000  # ids are numbered as those of LJ Speech, chapter by chapter
# A language and a variant of its voice, both of eSpeak NG: a voice of its own, a man's, two women's.
LANGUAGES = ("en", "en-us")
VARIANTS = ("", "+m3", "+f2", "+f4")
SPEEDS = (140, 200)  # words a minute
PITCHES = (30, 70)  # of 0 to 99

# Of eSpeak NG's C interface (speak_lib.h).
AUDIO_OUTPUT_SYNCHRONOUS = 2
CHARS_UTF8 = 1
POS_CHARACTER = 1
PARAMETER_RATE, PARAMETER_PITCH = 1, 3
EE_OK = 0


class Clip(NamedTuple):
    """What is said, and how."""

    id: str
    text: str
    voice: str
    speed: int
    pitch: int


def parse_args(argv=None):
    parser = options.Parser("Speak the bundled clips, or the texts of a metadata.csv, in LJ Speech's layout.")
    parser.add_option("output_dir", type=Path, required=True, metavar="DIR", help="LJSpeech-1.1 is made in it")
    help = "speak these texts, id|text|normalised text, in place of the bundled ones"
    parser.add_option("metadata", type=Path, metavar="PATH", help=help)
    help = f"speak only the first ones (default: all texts of -metadata, else {N_BUNDLED})"
    parser.add_option("n_clips", type=options.positive_int, help=help)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    lines = read_metadata(args.metadata) if args.metadata else sentences(args.n_clips or N_BUNDLED)
    clips = plan(lines[: args.n_clips])
    seconds = write(clips, args.output_dir)
    said = f"{len(clips):,} clips, {seconds / 3600:.2f} hours, spoken by eSpeak NG, are in"
    print(options.fold(f"{said} {args.output_dir / FOLDER_NAME}"))


def sentences(n_sentences, seed=SEED):
    """Distinct English sentences of the translation grammar as they are written, [(id, text)]."""
    from data.bundled import translation
    from data.bundled.translation_grammar import Grammar

    g, drawn = Grammar(seed), {}  # a dict keeps the order
    while len(drawn) < n_sentences:
        english, _ = translation.draw(g)
        if len(english) <= MAX_CHARS:
            drawn[english] = None
    return [(f"ES{n // CLIPS_OF_A_CHAPTER:03}-{n % CLIPS_OF_A_CHAPTER:04}", text) for n, text in enumerate(drawn)]


def read_metadata(path):
    """The ids and the normalised texts of a metadata.csv, [(id, text)]."""
    try:
        lines = [line.split("|") for line in path.read_bytes().decode("utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); name a metadata.csv of LJ Speech") from error
    for number, fields in enumerate(lines, start=1):
        if len(fields) < 2 or not re.fullmatch(r"[\w-]+", fields[0]):
            raise UserError(f"{path}, line {number}: not id|text|normalised text; name a metadata.csv of LJ Speech")
    if not lines:
        raise UserError(f"{path} is empty; name a metadata.csv of LJ Speech")
    return [(fields[0], fields[-1]) for fields in lines]


def plan(lines, seed=SEED):
    """A `Clip` for each (id, text): its voice, speed and pitch are drawn from `seed`, each evenly."""
    rng = random.Random(seed)
    voices = [language + variant for language in LANGUAGES for variant in VARIANTS]
    return [Clip(id, text, rng.choice(voices), rng.randint(*SPEEDS), rng.randint(*PITCHES)) for id, text in lines]


def write(clips, folder):
    """Speak the clips in their order and write them to `folder`/LJSpeech-1.1; returns the seconds of sound.

    The folder appears when it is whole. Raises `UserError` if it is there, cannot be written, or eSpeak NG is missing.
    """
    target = Path(folder) / FOLDER_NAME
    if target.exists():
        raise UserError(f"{target} is there; name another -output_dir, or delete it")
    engine, n_samples = Engine(), 0
    with download.workspace(Path(folder)) as new:
        (new / FOLDER_NAME / WAVS).mkdir(parents=True)
        for n, clip in enumerate(clips, start=1):
            samples = engine.speak(clip)
            n_samples += len(samples) // 2
            with wave.open(str(new / FOLDER_NAME / WAVS / f"{clip.id}.wav"), "wb") as file:
                file.setparams((1, 2, engine.sample_rate, 0, "NONE", None))
                file.writeframes(samples)
            if n % CLIPS_OF_A_CHAPTER == 0:
                print(f"{n:,} of {len(clips):,} clips are spoken", flush=True)
        lines = [f"{clip.id}|{clip.text}|{clip.text}\n" for clip in clips]
        (new / FOLDER_NAME / METADATA).write_bytes("".join(lines).encode())
        (new / FOLDER_NAME / MARKER).write_text(MARKER_TEXT, encoding="utf-8")
        (new / FOLDER_NAME).rename(target)
    return n_samples / engine.sample_rate


class Engine:
    """eSpeak NG, in the shared library that the package espeakng-loader brings.

    Raises `UserError` if that package is missing or its library does not start.
    """

    def __init__(self):
        try:
            import espeakng_loader

            self.data = Path(espeakng_loader.get_data_path())
            self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        except (ImportError, OSError, RuntimeError) as error:
            advice = "python -m pip install espeakng-loader"
            raise UserError(f"the bundled speech needs eSpeak NG ({error}); {advice}, or use real data") from error
        self.sample_rate = self.library.espeak_Initialize(AUDIO_OUTPUT_SYNCHRONOUS, 0, str(self.data).encode(), 0)
        if self.sample_rate <= 0:
            raise UserError("eSpeak NG does not start; install the package espeakng-loader again")
        self.samples = bytearray()
        callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
        self.callback = callback_type(self._receive)  # kept: the library holds only its address
        self.library.espeak_SetSynthCallback(self.callback)
        self.library.espeak_Synth.argtypes = (
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
            ctypes.c_void_p, ctypes.c_void_p,
        )  # fmt: skip
        self._check(self.library.espeak_ng_SetRandSeed(ctypes.c_long(SEED)), "random seed")

    def speak(self, clip):
        """The 16-bit samples of one clip, bytes in the machine's order."""
        _, plus, variant = clip.voice.partition("+")
        if plus and not (self.data / "voices" / "!v" / variant).is_file():  # the library takes any variant in silence
            raise UserError(f"eSpeak NG has no voice variant {variant}; install the package espeakng-loader again")
        self.samples.clear()
        self._check(self.library.espeak_SetVoiceByName(clip.voice.encode()), f"voice {clip.voice}")
        self._check(self.library.espeak_SetParameter(PARAMETER_RATE, clip.speed, 0), "speed")
        self._check(self.library.espeak_SetParameter(PARAMETER_PITCH, clip.pitch, 0), "pitch")
        text = clip.text.encode()
        size = len(text) + 1  # with the terminating zero
        self._check(self.library.espeak_Synth(text, size, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None), "sentence")
        self._check(self.library.espeak_Synchronize(), "sentence")
        return bytes(self.samples)

    def _receive(self, samples, n_samples, events):
        """The library's callback: keep the samples, return 0 to go on."""
        if samples and n_samples > 0:
            self.samples += ctypes.string_at(samples, 2 * n_samples)
        return 0

    def _check(self, code, what):
        if code != EE_OK:
            raise UserError(f"eSpeak NG refused the {what} (error {code}); install the package espeakng-loader again")


if __name__ == "__main__":
    options.run_script(main)
