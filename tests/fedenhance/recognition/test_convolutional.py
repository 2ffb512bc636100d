"""The convolutional encoder."""

import pytest
import torch

from fedenhance.recognition.convolutional import ConvolutionalEncoder


@pytest.mark.parametrize("frames", [1, 2, 7, 100])
@pytest.mark.parametrize("stride", [1, 3, 4])
def test_as_many_frames_as_the_stride_become_one(frames, stride):
    encoder = ConvolutionalEncoder(5, 4, stride, num_blocks=1)
    assert encoder(torch.rand(2, frames, 5)).shape == (2, -(-frames // stride), 4)


def test_a_frame_is_normalised_by_itself():
    """No statistics: the other utterances of a batch change nothing."""
    encoder = ConvolutionalEncoder(5, 4, 2, num_blocks=2)
    frames = torch.rand(3, 20, 5)
    assert torch.allclose(encoder(frames)[:1], encoder(frames[:1]), atol=1e-6)
    assert not list(encoder.buffers())


def test_every_weight_learns():
    encoder = ConvolutionalEncoder(5, 4, 2, num_blocks=1)
    (encoder(torch.rand(2, 20, 5)) * torch.rand(4)).sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in encoder.parameters())
