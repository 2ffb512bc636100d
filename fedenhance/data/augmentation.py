"""More variety from few recordings: speed, colour and rooms, drawn for each example.

References
----------
Ko et al., "Audio augmentation for speech recognition", Interspeech 2015 (speed).
Valin, "A hybrid DSP/deep learning approach to real-time full-band speech enhancement",
MMSP 2018 (random spectral colour).
Polack, "La transmission de l'énergie sonore dans les salles", PhD thesis, 1988 (the
tail of a room's response is noise that decays exponentially).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(eq=False)
class Augmentation:
    """Changes waveforms, each by draws of its own; where nothing is drawn, not at all.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    speeds : tuple of float
        Factors of speed, and with it of pitch; one is drawn.
    colour : float
        Levels of eight points from 50 Hz to half the rate, equally far apart in
        octaves, are changed by up to so many dB up or down, and smoothly in between.
    p_room : float
        Probability of a simulated room.
    decay_times : tuple of two float
        Seconds until a room's response has decayed by 60 dB, drawn from this range.
    direct_ratios : tuple of two float
        Energy of the direct sound relative to what follows in dB, drawn likewise.

    Example
    -------
    >>> from random import Random
    >>> unchanged = Augmentation(sample_rate=16000)
    >>> unchanged(torch.tensor([1.0, 2.0]), Random(0))
    tensor([1., 2.])
    """

    sample_rate: int = 16000
    speeds: tuple = (1.0,)
    colour: float = 0.0
    p_room: float = 0.0
    decay_times: tuple = (0.1, 0.6)
    direct_ratios: tuple = (0.0, 15.0)

    def __call__(self, waveform, generator):
        """Change one waveform.

        Arguments
        ---------
        waveform : torch.Tensor
            ``(time,)``.
        generator : random.Random
            All draws are its.

        Returns
        -------
        torch.Tensor
            ``(time,)``; what was slowed down is cut to its length, what was sped up
            begins again.
        """
        speed = generator.choice(self.speeds)
        if speed != 1.0:
            waveform = change_speed(waveform, speed)
        responses = []
        if self.colour > 0:
            responses.append(self._colour(generator, len(waveform)))
        if self.p_room > 0 and generator.random() < self.p_room:
            responses.append(self._room(generator, len(waveform)))
        if not responses:
            return waveform
        spectrum = torch.fft.rfft(waveform, 2 * len(waveform))
        for response in responses:
            spectrum = spectrum * response
        return torch.fft.irfft(spectrum, 2 * len(waveform))[: len(waveform)]

    def _colour(self, generator, num_samples):
        """Gains of the bins of a spectrum, ``(num_samples + 1,)``."""
        points = [generator.uniform(-self.colour, self.colour) for _ in range(8)]
        octaves = torch.linspace(0, self.sample_rate / 2, num_samples + 1)
        octaves = octaves.clamp(min=50.0).div(50.0).log2()
        place = octaves / octaves[-1] * (len(points) - 1)
        before = place.floor().long().clamp(max=len(points) - 2)
        share = (1 - torch.cos(torch.pi * (place - before))) / 2
        points = torch.tensor(points)
        decibels = points[before] * (1 - share) + points[before + 1] * share
        return 10 ** (decibels / 20)

    def _room(self, generator, num_samples):
        """Spectrum of a room's response, whose direct sound comes at once."""
        decay = generator.uniform(*self.decay_times)
        ratio = generator.uniform(*self.direct_ratios)
        noise = torch.Generator().manual_seed(generator.getrandbits(62))
        tail = torch.randn(round(decay * self.sample_rate), generator=noise)
        seconds = torch.arange(len(tail)) / self.sample_rate
        tail = tail * 10 ** (-3 * seconds / decay)
        tail = tail * 10 ** (-ratio / 20) / tail.square().sum().sqrt()
        response = F.pad(tail[: num_samples - 1], (1, 0))
        response[0] = 1.0
        return torch.fft.rfft(response, 2 * num_samples)


def change_speed(waveform, speed):
    """Play a waveform faster or slower, in the same time.

    Arguments
    ---------
    waveform : torch.Tensor
        ``(time,)``.
    speed : float
        More than one is faster.

    Returns
    -------
    torch.Tensor
        ``(time,)``.

    Example
    -------
    >>> change_speed(torch.arange(4.0), 0.5)
    tensor([0.0000, 0.5000, 1.0000, 1.5000])
    """
    num_samples = len(waveform)
    place = torch.arange(num_samples) * speed % max(1, num_samples - 1)
    before = place.long()
    share = place - before
    after = (before + 1).clamp(max=num_samples - 1)
    return waveform[before] * (1 - share) + waveform[after] * share
