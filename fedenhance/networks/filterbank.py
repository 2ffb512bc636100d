"""A filterbank to start from: the short-time Fourier transform.

A learned encoder and decoder must first learn to reconstruct. Started as a tight frame
they do so from the first step, and everything stays trainable. It helps most where
training is short, as it is for a client.
"""

import math

import torch


def fourier_frame(length):
    """Sine-windowed Fourier basis that reconstructs at a hop of half its length.

    Arguments
    ---------
    length : int
        Samples in an atom, even.

    Returns
    -------
    torch.Tensor
        Cosines and sines of ascending frequency, ``(length, length)``.

    Example
    -------
    >>> frame = fourier_frame(8)
    >>> overlap = frame.T @ frame
    >>> shifted = overlap[:4, :4] + overlap[4:, 4:]
    >>> torch.allclose(shifted, torch.eye(4), atol=1e-6)
    True
    """
    time = torch.arange(length, dtype=torch.float64)
    window = torch.sin(math.pi * (time + 0.5) / length)
    atoms = []
    for index in range(length // 2 + 1):
        edge = index in (0, length // 2)
        gain = math.sqrt((1 if edge else 2) / length)
        phase = 2 * math.pi * index * time / length
        atoms.append(gain * window * torch.cos(phase))
        if not edge:
            atoms.append(gain * window * torch.sin(phase))
    return torch.stack(atoms).float()


@torch.no_grad()
def start_as_fourier(separator):
    """Let the filterbank of a Sudo rm -rf separator start as a Fourier transform.

    With masks of one, every estimate is then the mixture itself, but for the last hop,
    which the network's padding covers. Filters beyond the Fourier basis keep their
    random values in the encoder and start silent in the decoder.

    Arguments
    ---------
    separator : fedenhance.networks.separator.Separator
        With the ``Encoder`` and the ``Decoder`` of ``fedenhance.networks.sudormrf``.

    Returns
    -------
    Separator
        The same, changed in place.

    Raises
    ------
    ValueError
        If there are fewer filters than a tight frame needs.

    Example
    -------
    >>> from fedenhance.networks.separator import Separator
    >>> from fedenhance.networks.sudormrf import Decoder, Encoder
    >>> separator = start_as_fourier(
    ...     Separator(Encoder(24, 21, depth=2), None, Decoder(3, 24, 21))
    ... )
    >>> mixture = torch.randn(1, 80)
    >>> latent = separator.encoder(mixture)
    >>> estimates = separator.decoder(latent.expand(3, 1, 24, -1))
    >>> torch.allclose(estimates[:, 1, :70], mixture[:, :70], atol=1e-5)
    True
    """
    analysis, synthesis = separator.encoder.conv.weight, separator.decoder.conv.weight
    num_bases, _, kernel_size = analysis.shape
    frame = fourier_frame(kernel_size - 1)
    if len(frame) > num_bases:
        raise ValueError(
            f"num_bases is {num_bases}: a Fourier start with kernel_size {kernel_size} "
            f"needs {len(frame)}"
        )
    analysis[: len(frame), 0] = torch.nn.functional.pad(frame, (0, 1))
    synthesis.zero_()
    for source in range(separator.decoder.num_sources):
        first = source * num_bases
        synthesis[first : first + len(frame), source] = analysis[: len(frame), 0]
    return separator
