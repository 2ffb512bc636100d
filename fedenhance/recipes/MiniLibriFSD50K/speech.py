"""Synthetic speakers: eSpeak NG behind a vocal tract, a room and a microphone.

eSpeak NG is licensed under the GPL, version 3. It is loaded here alone, in a process
of its own, and only while the built-in corpus is being made.
"""

import ctypes
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy.signal import fftconvolve, resample_poly

SAMPLE_RATE = 16000
RETRIEVAL, PLAYBACK_RATE, PITCH, RANGE = 2, 1, 3, 4  # espeak-ng's speak_lib.h
CHARS_UTF8 = 1


@dataclass(frozen=True)
class Voice:
    """A speaker.

    Arguments
    ---------
    sex : str
        "F" or "M".
    name : str
        eSpeak NG language and variant, such as "en-us+f2".
    pitch : int
        0 to 99; 50 is the variant's own.
    pitch_range : int
        0 to 99; 50 is the variant's own liveliness.
    rate : int
        Words per minute.
    tract : float
        All formants are multiplied by this: above 1 for a shorter vocal tract.
    """

    sex: str
    name: str
    pitch: int
    pitch_range: int
    rate: int
    tract: float


# No variant of one split is in another one. Variants with "breath" (f2, f3, f5, Alicia)
# do not sound the same from run to run, so none is here.
VOICES = {
    "train-clean-100": (
        Voice("M", "en-us+m1", 45, 55, 165, 1.00),
        Voice("F", "en-us+f1", 50, 60, 160, 1.02),
        Voice("M", "en+m4", 38, 70, 150, 0.93),
        Voice("F", "en+f1", 62, 55, 175, 1.12),
        Voice("M", "en-us+m2", 60, 50, 185, 1.05),
        Voice("F", "en-us+Annie", 35, 65, 150, 0.97),
        Voice("M", "en-gb-scotland+m5", 52, 60, 155, 0.98),
        Voice("F", "en-gb-scotland+f4", 58, 50, 165, 1.04),
        Voice("M", "en-us-nyc+Alex", 48, 75, 175, 1.02),
        Voice("F", "en-us+linda", 30, 45, 170, 1.06),
        Voice("M", "en-gb-x-rp+Lee", 42, 60, 145, 0.90),
        Voice("F", "en-gb-x-rp+aunty", 55, 70, 155, 1.00),
        Voice("M", "en-us+Denis", 66, 55, 170, 1.03),
        Voice("F", "en-029+f4", 40, 60, 165, 0.92),
        Voice("M", "en-us+edward", 30, 65, 160, 0.96),
        Voice("F", "en-us+belinda", 45, 55, 185, 1.10),
    ),
    "dev-clean": (
        Voice("M", "en-gb-x-gbclan+m6", 55, 60, 160, 0.95),
        Voice("F", "en-us+grandma", 45, 60, 165, 1.01),
        Voice("M", "en-us+Mike", 50, 55, 175, 1.04),
        Voice("F", "en+shelby", 52, 60, 155, 1.05),
    ),
    "test-clean": (
        Voice("M", "en-us+m3", 40, 60, 165, 0.97),
        Voice("F", "en+anika", 25, 60, 160, 0.97),
        Voice("M", "en-gb-x-gbcwmd+m7", 58, 55, 170, 1.01),
        Voice("F", "en-us+Andrea", 38, 65, 170, 1.04),
    ),
}
BABBLERS = tuple(
    Voice("", f"en-us+{name}", 50, 60, 170, 1.0)
    for name in ("max", "Gene", "pablo", "steph", "norbert", "anika")
)


class ESpeak:
    """eSpeak NG through its C interface.

    Its pitch flutter runs on from one utterance to the next: one instance in one
    process, asked for the same utterances in the same order, repeats itself exactly.
    """

    def __init__(self):
        import espeakng_loader

        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.sample_rate = self.library.espeak_Initialize(RETRIEVAL, 0, data, 0)
        if self.sample_rate <= 0:
            raise RuntimeError(f"eSpeak NG does not start with its data in {data!r}.")
        callback = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )
        self.pieces = []
        self.callback = callback(self._receive)  # held, or it would be freed
        self.library.espeak_SetSynthCallback(self.callback)

    def _receive(self, samples, count, _events):
        if samples and count > 0:
            self.pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text, voice):
        """Synthesise a text at 16 kHz.

        Arguments
        ---------
        text : str
            What is said.
        voice : Voice
            Who says it.

        Returns
        -------
        numpy.ndarray
            float64, (time,), full scale 1.
        """
        self.pieces.clear()
        if self.library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise ValueError(f"eSpeak NG has no voice {voice.name!r}.")
        # Played faster by `tract`, pitch and formants rise; so speak slower by it.
        rate = round(voice.rate / voice.tract)
        for parameter, value in (
            (PLAYBACK_RATE, rate),
            (PITCH, voice.pitch),
            (RANGE, voice.pitch_range),
        ):
            self.library.espeak_SetParameter(parameter, value, 0)
        data = text.encode()
        self.library.espeak_Synth(
            data, ctypes.c_size_t(len(data) + 1), 0, 1, 0, CHARS_UTF8, None, None
        )
        if not self.pieces:
            raise RuntimeError(f"eSpeak NG gave no sound for {text!r}.")
        wave = np.concatenate(self.pieces) / 32768.0
        ratio = SAMPLE_RATE / (self.sample_rate * voice.tract)
        ratio = Fraction(ratio).limit_denominator(200)
        return resample_poly(wave, ratio.numerator, ratio.denominator)


def room(rng):
    """Draw the impulse response of a small furnished room.

    Decaying noise, 60 dB down after 0.12 to 0.35 s, 9 to 18 dB below the direct sound.

    Arguments
    ---------
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    numpy.ndarray
        (taps,), direct sound first.
    """
    decay = rng.uniform(0.12, 0.35)
    time = np.arange(int(decay * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(time.size) * 10 ** (-3 * time / decay)
    tail[: int(0.002 * SAMPLE_RATE)] = 0
    tail = fftconvolve(tail, np.array([0.25, 0.5, 0.25]), "same")  # walls eat treble
    tail *= 10 ** (-rng.uniform(9, 18) / 20) / np.linalg.norm(tail)
    tail[0] = 1.0
    return tail


def spectral_colour(rng, wave, sample_rate, depth=4.0):
    """Filter with a smooth random response, as microphones have.

    Arguments
    ---------
    rng : numpy.random.Generator
        Source of the draws.
    wave : numpy.ndarray
        (time,)
    sample_rate : int
        Hz.
    depth : float
        Standard deviation of the response in dB, at eight points in frequency.

    Returns
    -------
    numpy.ndarray
        (time,)
    """
    points = np.geomspace(60, sample_rate / 2, 8)
    gains = rng.normal(0, depth, 8)
    size = 1024
    frequency = np.fft.rfftfreq(size, 1 / sample_rate)
    gain = np.interp(np.log(np.maximum(frequency, 20)), np.log(points), gains)
    kernel = np.fft.irfft(10 ** (gain / 20))
    return fftconvolve(wave, np.roll(kernel, size // 2) * np.hanning(size), "same")


def scaled(wave, level, ceiling=0.95):
    """Set the root mean square to `level` dB of full scale, the peak below a ceiling.

    Example
    -------
    >>> round(float(np.abs(scaled(np.array([1.0, -1.0]), -20.0)).max()), 6)
    0.1
    """
    wave = wave * (10 ** (level / 20) / np.sqrt(np.mean(wave**2) + 1e-20))
    return wave * min(1.0, ceiling / np.abs(wave).max())
