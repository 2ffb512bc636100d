"""Synthetic sounds: one function per FSD50K class, drawn from seeded parameters.

Every function has the form ``sound(rng, draw, count)``: `rng` is the source of the
details, ``draw(low, high)`` gives a parameter (pitch, rate, size of the thing) from
bands that belong to one split alone, `count` is the number of samples at 44.1 kHz; the
sound comes back as float64 ``(count,)`` at any level.
"""

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import butter, fftconvolve, sosfilt

SAMPLE_RATE = 44100
NUM_BANDS = 6
TRAIN_SHARE = 0.68  # of each band; a gap of 2 % of a band keeps the splits apart


def parameters(rng, split):
    """Make the drawer of a split: uniform over bands that alternate between splits.

    Arguments
    ---------
    rng : numpy.random.Generator
        Source of the draws.
    split : str
        "dev" or "eval".

    Returns
    -------
    callable
        draw(low, high) -> float; both must be positive with `high` above `low` for
        the logarithmic spacing that hearing has.

    Example
    -------
    >>> dev = parameters(np.random.default_rng(0), "dev")
    >>> bool(100 <= dev(100, 400) < 400)
    True
    """
    low_edge, high_edge = {"dev": (0, TRAIN_SHARE), "eval": (0.70, 0.98)}[split]

    def draw(low, high):
        band = rng.integers(NUM_BANDS)
        place = (band + rng.uniform(low_edge, high_edge)) / NUM_BANDS
        return low * (high / low) ** place

    return draw


def _shaped(rng, count, gain):
    """Gaussian noise with amplitude response gain(frequency in Hz)."""
    size = next_fast_len(count, real=True)
    spectrum = rfft(rng.standard_normal(size))
    frequency = rfftfreq(size, 1 / SAMPLE_RATE)
    return irfft(spectrum * gain(np.maximum(frequency, 1.0)), size)[:count]


def _band(centre, octaves):
    """Response of a bell `octaves` wide on a logarithmic frequency axis."""
    return lambda f: np.exp(-0.5 * (np.log2(f / centre) / octaves) ** 2)


def _slope(decibels, corner):
    """Response flat below the corner, falling by `decibels` per octave above it."""
    return lambda f: np.maximum(f / corner, 1.0) ** (-decibels / 6.02)


def _slow(rng, count, rate, depth):
    """Random gain that wanders `rate` times a second by `depth` dB."""
    points = max(4, int(count / SAMPLE_RATE * rate) + 3)
    level = np.interp(
        np.linspace(0, points - 1, count), np.arange(points), rng.normal(0, 1, points)
    )
    return 10 ** (depth * level / 20)


def _place(count, starts, make):
    """Add make() at every start (in samples)."""
    wave = np.zeros(count)
    for start in np.asarray(starts, dtype=int):
        if start < count:
            pulse = make()[: count - start]
            wave[start : start + pulse.size] += pulse
    return wave


def _random_times(rng, count, rate):
    """Starts of a Poisson process, `rate` a second; at least one."""
    number = max(1, rng.poisson(rate * count / SAMPLE_RATE))
    return np.sort(rng.integers(0, count, number))


def _steady_times(rng, count, rate, jitter):
    """Starts of a pulse train with `jitter` as a share of its period."""
    period = SAMPLE_RATE / rate
    first = rng.uniform(0, min(period, count / 2))  # at least one, even in short clips
    starts = np.arange(first, count, period)
    return np.maximum(starts + rng.normal(0, jitter * period, starts.size), 0)


def _partials(frequencies, gains, decays, seconds):
    """Sum of decaying sines; `decays` in seconds to fall by 60 dB."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = np.zeros(time.size)
    for frequency, gain, decay in zip(frequencies, gains, decays, strict=True):
        if frequency < SAMPLE_RATE / 2:
            fall = np.exp(time * (-3 * np.log(10) / decay))
            wave += gain * np.sin(2 * np.pi * frequency * time) * fall
    return wave


def _click(rng, centre, octaves, seconds):
    """Decaying burst of band noise."""
    count = int(seconds * SAMPLE_RATE)
    fall = 10 ** (-3 * np.arange(count) / count)
    return _shaped(rng, count, _band(centre, octaves)) * fall


def _tone(frequency):
    """Sine whose frequency in Hz is given sample by sample."""
    return np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE)


def rain(rng, draw, count):
    """Hiss of far drops, ticks of near ones."""
    hiss = _shaped(rng, count, _band(draw(2500, 7000), 1.3))
    hiss *= _slow(rng, count, 0.7, 1.5)
    centre = draw(1500, 5000)
    drops = [
        _click(rng, centre * 2 ** rng.normal(0, 0.5), 0.4, 0.012) for _ in range(24)
    ]
    near = _place(
        count,
        _random_times(rng, count, draw(20, 120)),
        lambda: drops[rng.integers(24)] * rng.exponential(1.0),
    )
    return hiss / hiss.std() + draw(0.5, 2.0) * near / near.std()


def wind(rng, draw, count):
    """Low gusts with a whistle that moves with them."""
    gust = _slow(rng, count, draw(0.4, 1.5), 6)
    body = _shaped(rng, count, _slope(draw(6, 12), draw(80, 300))) * gust
    whistle = _shaped(rng, count, _band(draw(350, 900), 0.15)) * gust**2
    return body / body.std() + draw(0.1, 0.5) * whistle / whistle.std()


def engine(rng, draw, count):
    """Harmonics of an unsteady firing rate, with mechanical noise."""
    speed = draw(22, 90) * _slow(rng, count, draw(0.3, 1.2), draw(0.2, 1.0))
    phase = 2 * np.pi * np.cumsum(speed) / SAMPLE_RATE
    formant = _band(draw(150, 600), 1.2)
    base = speed.mean()
    harmonics = np.arange(1, 33)
    gains = (formant(harmonics * base) + 0.1) / harmonics**0.3
    gains = gains * rng.uniform(0.3, 1, 32) * np.exp(2j * np.pi * rng.random(32))
    wave = np.polyval([*gains[::-1], 0], np.exp(1j * phase)).imag
    hiss = _shaped(rng, count, _slope(5, 400)) * (1 + 0.7 * np.sin(phase))
    return wave / wave.std() + draw(0.15, 0.7) * hiss / hiss.std()


def typing(rng, draw, count):
    """Bursts of key presses: a click down, a softer one up."""
    centre, width = draw(1200, 4500), draw(0.5, 1.2)
    times = _steady_times(rng, count, draw(4, 10), 0.25)
    times = times[_slow(rng, times.size, 3e4, 6) > 0.6] if times.size > 8 else times

    def key():
        down = _click(rng, centre * 2 ** rng.normal(0, 0.2), width, 0.035)
        up = 0.4 * _click(rng, 1.3 * centre, width, 0.02)
        held = np.zeros(int(rng.uniform(0.03, 0.08) * SAMPLE_RATE))
        return np.concatenate((down, held, up)) * rng.uniform(0.4, 1.0)

    keys = _place(count, times, key)
    return keys + 0.004 * keys.std() * _shaped(rng, count, _slope(3, 500))


def alarm(rng, draw, count):
    """Beeps, or a siren's sweep, with overtones."""
    pitch, rate = draw(600, 2600), draw(1.0, 6.0)
    time = np.arange(count) / SAMPLE_RATE
    cycle = (time * rate) % 1.0
    if rng.random() < 0.5:
        gate = np.clip(np.minimum(cycle, draw(0.3, 0.8) - cycle) * 60, 0, 1)
        frequency = np.full(count, pitch)
    else:
        gate = np.ones(count)
        sweep = np.sin(2 * np.pi * time * rate / 4)
        frequency = pitch * 2 ** (draw(0.2, 0.6) * sweep)
    wave = _tone(frequency)
    for overtone in (2, 3, 5):
        wave += draw(0.05, 0.5) / overtone * _tone(overtone * frequency)
    return wave * gate + 1e-3 * rng.standard_normal(count)


def gurgling(rng, draw, count):
    """Rising resonances of bubbles over running water (van den Doel, 2005)."""
    centre = draw(350, 1400)

    def bubble():
        pitch = centre * 2 ** rng.normal(0, 0.6)
        time = np.arange(int(0.08 * SAMPLE_RATE)) / SAMPLE_RATE
        rise = pitch * (1 + time * rng.uniform(0, 8))
        fall = 10 ** (-3 * time / rng.uniform(0.02, 0.08))
        return _tone(rise) * fall * rng.exponential()

    bubbles = _place(count, _random_times(rng, count, draw(15, 80)), bubble)
    bubbles *= _slow(rng, count, 2.0, 3)
    stream = _shaped(rng, count, _band(draw(600, 2000), 1.2)) * _slow(rng, count, 4, 2)
    return bubbles / bubbles.std() + draw(0.1, 0.6) * stream / stream.std()


def drum(rng, draw, count):
    """A bar of kick, snare and hat, repeated with small changes."""
    step = 60 / draw(75, 160) / 4 * SAMPLE_RATE
    kick_pitch, snare_pitch = draw(45, 90), draw(150, 280)
    patterns = rng.random((3, 16)) < np.array([[0.3], [0.2], [0.55]])
    patterns[0, 0] = patterns[1, 4] = True

    def kick():
        time = np.arange(int(0.3 * SAMPLE_RATE)) / SAMPLE_RATE
        return _tone(kick_pitch * (1 + 3 * np.exp(-time * 40))) * np.exp(-time * 12)

    def snare():
        ring = _partials((snare_pitch, 1.6 * snare_pitch), (0.5, 0.3), (0.15, 0.1), 0.2)
        return ring + _click(rng, 3500, 1.2, 0.2) / 0.7

    def hat():
        return 0.7 * _click(rng, 9000, 0.5, 0.06)

    wave = np.zeros(count)
    steps = np.arange(int(count / step) + 1)
    for pattern, make in zip(patterns, (kick, snare, hat), strict=True):
        hits = steps[pattern[steps % 16] & (rng.random(steps.size) < 0.93)]
        wave += _place(count, hits * step, lambda: make() * rng.uniform(0.6, 1.0))  # noqa: B023
    return wave


def birds(rng, draw, count):
    """Phrases of swept, trilled whistles over a quiet garden."""
    centre, trill, length = draw(2200, 5500), draw(8, 35), draw(0.06, 0.25)

    def phrase():
        syllables = []
        shape, bend = rng.uniform(-1, 1), rng.uniform(0, 0.15)
        for _ in range(rng.integers(2, 8)):
            time = np.linspace(0, 1, int(length * SAMPLE_RATE * rng.uniform(0.7, 1.3)))
            sweep = centre * 2 ** (0.35 * shape * (time - 0.5))
            sweep *= 1 + bend * np.sin(2 * np.pi * trill * time * length)
            syllables += [_tone(sweep) * np.sin(np.pi * time) ** 1.5]
            syllables += [np.zeros(int(rng.uniform(0.02, 0.12) * SAMPLE_RATE))]
        return np.concatenate(syllables) * rng.uniform(0.3, 1)

    song = _place(count, _random_times(rng, count, draw(0.6, 2.0)), phrase)
    leaves = _shaped(rng, count, _slope(4, 300))
    return song + 0.05 * song.std() * leaves / leaves.std()


def traffic(rng, draw, count):
    """A road's rumble with cars that pass."""
    rumble = _shaped(rng, count, _slope(draw(5, 9), draw(60, 200)))
    wave = rumble / rumble.std()
    time = np.arange(count) / SAMPLE_RATE
    for start in _random_times(rng, count, draw(0.15, 0.5)) / SAMPLE_RATE:
        tyres = _shaped(rng, count, _band(draw(500, 1300), 1.0))
        near = 1 / (1 + ((time - start) / draw(0.4, 1.5)) ** 2)
        wave += draw(0.5, 3.0) * near * tyres / tyres.std()
    return wave


def footsteps(rng, draw, count):
    """Heel and sole on a floor, two steps a second or so."""
    heel, sole, grit = draw(90, 300), draw(700, 2500), draw(0.5, 2.0)

    def step():
        thud = _click(rng, heel, 0.5, 0.12)
        rub = _click(rng, sole, 1.0, 0.18)
        gap = np.zeros(int(rng.uniform(0.02, 0.06) * SAMPLE_RATE))
        wave = np.concatenate((gap, grit * rub / (rub.std() + 1e-9)))
        wave[: thud.size] += 2.0 * thud / (thud.std() + 1e-9)
        return wave * rng.uniform(0.6, 1.0)

    steps = _place(count, _steady_times(rng, count, draw(1.4, 2.8), 0.04), step)
    hall = _shaped(rng, count, _slope(6, 150))
    return steps + 0.02 * steps.std() * hall / hall.std()


def crackle(rng, draw, count):
    """Sparse cracks of burning wood over a soft roar."""
    centre = draw(1000, 5000)
    cracks = [
        _click(rng, centre * 2 ** rng.normal(0, 0.7), 0.8, rng.uniform(0.004, 0.03))
        for _ in range(24)
    ]
    fire = _place(
        count,
        _random_times(rng, count, draw(12, 60)),
        lambda: cracks[rng.integers(24)] * rng.pareto(1.8),
    )
    roar = _shaped(rng, count, _slope(6, draw(100, 400))) * _slow(rng, count, 5, 2)
    return fire / fire.std() + draw(0.1, 0.6) * roar / roar.std()


def organ(rng, draw, count):
    """Chords of a keyboard instrument, changed every second or so."""
    root, length = draw(130, 420), draw(0.5, 1.6)
    drawbars, decay = rng.uniform(0.1, 1.0, 8), draw(0.8, 6.0)
    triads = ((0, 4, 7), (5, 9, 12), (7, 11, 14), (-3, 0, 4), (2, 5, 9))

    def chord(triad):
        wave = 0
        for note in triad:
            pitch = root * 2 ** (note / 12)
            harmonics = np.arange(1, 9)
            wave = wave + _partials(
                pitch * harmonics, drawbars / harmonics, decay / harmonics**0.3, length
            )
        edge = np.minimum(np.arange(wave.size), np.arange(wave.size)[::-1])
        return wave * np.clip(edge / (0.01 * SAMPLE_RATE), 0, 1)

    chords = [chord(triad) for triad in triads]
    starts = np.arange(0, count, length * SAMPLE_RATE)
    wave = _place(count, starts, lambda: chords[rng.integers(len(chords))])
    return wave + 1e-3 * rng.standard_normal(count)


def church_bell(rng, draw, count):
    """Strokes with the partials of a bell: hum, prime, tierce, quint, nominal."""
    prime, decay = draw(180, 700), draw(1.5, 6.0)
    ratios = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 2.67, 3.0, 4.0])
    ratios = ratios * (1 + rng.normal(0, 0.006, ratios.size))
    gains = np.array([0.5, 0.8, 0.7, 0.3, 1.0, 0.4, 0.4, 0.3, 0.25])
    stroke = _partials(prime * ratios, gains, decay / ratios**0.7, min(6.0, decay))
    times = _steady_times(rng, count, draw(0.4, 1.8), 0.05)
    bell = _place(count, times, lambda: stroke * rng.uniform(0.6, 1.0))
    return bell + 1e-3 * bell.std() * rng.standard_normal(count)


def waves(rng, draw, count):
    """Swells of broad noise that brighten as they break."""
    time = np.arange(count) / SAMPLE_RATE
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * (time / draw(3, 8) + rng.random()))
    swell = swell**2 * _slow(rng, count, 1.0, 2)
    deep = _shaped(rng, count, _slope(5, draw(150, 500)))
    foam = _shaped(rng, count, _band(draw(1500, 4500), 1.2))
    deep = (0.2 + swell) * deep / deep.std()
    return deep + draw(0.4, 1.5) * swell**2 * foam / foam.std()


def chatter(rng, voices, count):
    """A crowd: recorded sentences at random places, with a little room.

    Arguments
    ---------
    rng : numpy.random.Generator
        Source of the draws.
    voices : list of numpy.ndarray
        Sentences, (time,) each, at 44.1 kHz.
    count : int
        Samples.

    Returns
    -------
    numpy.ndarray
        (count,)
    """
    wave = np.zeros(count)
    for voice in voices:
        place = int(rng.integers(count))
        looped = np.resize(voice, count)
        wave += np.roll(looped, place) * rng.uniform(0.4, 1.0)
    tail = rng.standard_normal(int(0.4 * SAMPLE_RATE))
    tail *= 10 ** (-3 * np.arange(tail.size) / tail.size)
    return fftconvolve(wave, tail)[:count]


def within(wave, low, high):
    """Keep what lies in a range of frequency; beyond it 18 dB are lost each octave.

    Arguments
    ---------
    wave : numpy.ndarray
        ``(count,)`` at 44.1 kHz.
    low, high : float
        In Hz; ``low`` may be 0.

    Returns
    -------
    numpy.ndarray
        ``(count,)``.
    """
    edges, kind = ((low, high), "bandpass") if low else (high, "lowpass")
    return sosfilt(butter(3, edges, kind, fs=SAMPLE_RATE, output="sos"), wave)


FULL_RANGE = (0, 20000)
SOUNDS = {
    "Rain": (rain, (2500, 14000)),
    "Wind": (wind, (20, 160)),
    "Engine": (engine, (25, 170)),
    "Typing": (typing, (2200, 14000)),
    "Alarm": (alarm, (1600, 14000)),
    "Gurgling": (gurgling, (1600, 14000)),
    "Drum": (drum, FULL_RANGE),
    "Bird_vocalization_and_bird_call_and_bird_song": (birds, FULL_RANGE),
    "Traffic_noise_and_roadway_noise": (traffic, (25, 200)),
    "Walk_and_footsteps": (footsteps, (35, 220)),
    "Crackle": (crackle, (2500, 14000)),
    "Organ": (organ, FULL_RANGE),
    "Church_bell": (church_bell, (1200, 14000)),
    "Waves_and_surf": (waves, (1800, 14000)),
}
"""Each class, and where it has its power: mostly below or above most of speech.

A small network learns to tell them apart in minutes.
"""
HUMAN = ("Chatter", "Speech")
