"""Encoders of speech recognition that SpeechBrain has none of: small and quick."""

import torch


class ConvolutionalEncoder(torch.nn.Module):
    """A residual stack of convolutions over time, for machines without a GPU.

    On a CPU it costs a fraction of a recurrent network of its size, which computes one
    frame after the other. In the manner of Wav2Letter (Collobert et al., 2016) and
    Jasper (Li et al., 2019), with normalisation by frame instead of by batch, so that
    it has no statistics to average between clients.

    Arguments
    ---------
    input_size : int
        Features.
    channels : int
        Of all layers, and of the output.
    stride : int
        Of the first convolution: how many frames become one.
    num_blocks : int
        Residual convolutions after it.
    kernel_size : int
        Odd, and larger than the stride.
    dropout : float
        Share of each residual that is left out in training.

    Example
    -------
    >>> encoder = ConvolutionalEncoder(40, channels=8, stride=4, num_blocks=1)
    >>> encoder(torch.zeros(1, 102, 40)).shape
    torch.Size([1, 26, 8])
    """

    def __init__(
        self,
        input_size,
        channels=128,
        stride=4,
        num_blocks=6,
        kernel_size=9,
        dropout=0.0,
    ):
        super().__init__()
        self.front = Convolution(input_size, channels, kernel_size, stride)
        self.blocks = torch.nn.ModuleList(
            Convolution(channels, channels, kernel_size) for _ in range(num_blocks)
        )
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, features):
        """Encode ``(batch, frame, feature)`` to ``(batch, frame', channel)``."""
        features = self.front(features)
        for block in self.blocks:
            features = features + self.dropout(block(features))
        return features


class Convolution(torch.nn.Module):
    """Convolution over time, normalisation of each frame, rectifier."""

    def __init__(self, input_size, channels, kernel_size, stride=1):
        super().__init__()
        self.conv = torch.nn.Conv1d(
            input_size, channels, kernel_size, stride, padding=kernel_size // 2
        )
        self.norm = torch.nn.LayerNorm(channels)

    def forward(self, frames):
        """Map ``(batch, frame, feature)`` to ``(batch, frame', channel)``."""
        return torch.relu(self.norm(self.conv(frames.mT).mT))
