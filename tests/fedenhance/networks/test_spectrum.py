"""The short-time Fourier transform of a signal is the signal again."""

import pytest
import torch

from fedenhance.networks.spectrum import SpectralDecoder, SpectralEncoder, erb_bands


@pytest.mark.parametrize("num_samples", [1, 8, 33])
def test_synthesis_undoes_analysis(num_samples):
    mixture = torch.randn(2, num_samples)
    latents = SpectralEncoder(8)(mixture).expand(3, -1, -1, -1)
    waveforms = SpectralDecoder(8)(latents)[..., :num_samples]
    torch.testing.assert_close(waveforms, mixture.unsqueeze(1).expand(2, 3, -1))


def test_frames_are_those_of_pytorch():
    mixture = torch.randn(2, 64)
    window = torch.hann_window(16).sqrt()
    expected = torch.stft(
        mixture, 16, 8, window=window, pad_mode="constant", return_complex=True
    )
    latent = SpectralEncoder(16)(mixture).unflatten(1, (-1, 2)).transpose(2, 3)
    actual = torch.view_as_complex(latent.contiguous())
    torch.testing.assert_close(actual, expected)


def test_an_odd_frame_is_refused():
    with pytest.raises(ValueError, match="fft_length must be even, got 7"):
        SpectralEncoder(7)


def test_bands_sum_to_one_at_each_bin():
    bands = erb_bands(512, 65, 64, 16000)
    torch.testing.assert_close(bands.sum(0), torch.ones(192))
    assert (bands.count_nonzero(0) <= 2).all()
