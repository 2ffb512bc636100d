"""Whatever the recording, the file written is of its kind and has no seams."""

import math
from fractions import Fraction

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hyperpyyaml import load_hyperpyyaml

from fedenhance.data.opening import DamagedAudioError
from fedenhance.deploy.enhancement import (
    count_seconds,
    cut,
    enhance_blocks,
    enhance_file,
    find_recordings,
    join,
    piece_starts,
)
from fedenhance.deploy.trained import Trained
from fedenhance.networks.scaling import RunningLevel
from fedenhance.objectives.consistency import by_power

RATE = 8000


class Smooth(torch.nn.Module):
    """Local: speech is a moving average over three samples, noise the rest."""

    def __init__(self):
        super().__init__()
        self.side = torch.nn.Parameter(torch.tensor(0.25))

    def forward(self, mixture):
        padded = torch.nn.functional.pad(mixture, (1, 1))
        sides = padded[:, :-2] + padded[:, 2:]
        speech = self.side * sides + (1 - 2 * self.side) * mixture
        return torch.stack([speech, mixture - speech], dim=1)


@pytest.fixture
def smooth():
    return Trained(Smooth(), None, RATE, {})


@pytest.fixture
def unchanged():
    separator = Smooth()
    separator.side.data.zero_()
    return Trained(separator, None, RATE, {})


def noise(*shape, scale=0.1):
    return scale * torch.randn(*shape)


def difference(estimate, reference):
    """The difference in dB, relative to the reference."""
    ratio = (estimate - reference).square().mean() / reference.square().mean()
    return 10 * math.log10(ratio + 1e-30)


def in_blocks(signal, sizes):
    """Cut a signal into blocks of sizes that repeat."""
    blocks, position = [], 0
    while position < signal.shape[-1]:
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(signal[..., position : position + size])
        position += size
    return blocks


def whole(blocks):
    return torch.cat(list(blocks), dim=-1)


def test_pieces_cover_the_signal_and_overlap():
    for total in range(100, 1000, 7):
        starts = piece_starts(total, length=90, overlap=30)
        assert starts[0] == 0 and starts[-1] + 90 == total
        steps = np.diff(starts)
        assert (steps > 0).all() and (steps <= 60).all()


@pytest.mark.parametrize("total", [90, 91, 150, 151, 1000])
def test_what_is_cut_is_joined_again(total):
    signal = noise(2, 3, total)
    starts = piece_starts(total, length=90, overlap=30)
    pieces = cut(in_blocks(signal, [13, 40]), starts, length=90)
    torch.testing.assert_close(whole(join(pieces, starts, fade=10)), signal)


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize(
    "ratio", [Fraction(1), Fraction(44100, 8000), Fraction(22254, 8000)]
)
def test_a_local_network_gives_in_pieces_what_it_gives_at_once(
    smooth, ratio, batch_size
):
    num_frames = int(30 * RATE * ratio) + 1
    signal = noise(2, num_frames + 1).diff()  # of no mean, in no piece
    blocks = in_blocks(signal, [70_001])
    once, pieces = (
        whole(enhance_blocks(blocks, num_frames, ratio, smooth, piece, batch_size, 2))
        for piece in (60.0, 7.0)
    )
    assert once.shape == pieces.shape == (2, 2, num_frames)
    assert difference(pieces, once) < -50


def test_30_seconds_are_enhanced_at_once_by_default(tmp_path):
    """The bar: below -50 dB of the network on the whole, in 16 bits and resampled."""
    with open("hparams/models/sudormrf_groupcomm_small.yaml") as file:
        separator = load_hyperpyyaml(file)["separator"].eval()
    trained = Trained(separator, by_power, 16000, {})
    signal = noise(30 * 44100, scale=0.05)
    soundfile.write(tmp_path / "in.wav", signal.numpy(), 44100)
    enhance_file(trained, tmp_path / "in.wav", [tmp_path / "out.wav"])
    mixture = torchaudio.functional.resample(signal, 44100, 16000)
    expected = trained(mixture.unsqueeze(0))[0, 0]
    expected = torchaudio.functional.resample(expected, 16000, 44100)
    written, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    assert difference(torch.from_numpy(written), expected[: len(signal)]) < -50


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("mono.wav", 8000, 1, "PCM_16"),
        ("surround.flac", 44100, 6, "PCM_24"),
        ("double.wav", 16000, 2, "DOUBLE"),
        ("stereo.ogg", 48000, 2, "VORBIS"),
        ("mono.mp3", 44100, 1, "MPEG_LAYER_III"),
        ("odd.w64", 22254, 1, "FLOAT"),
    ],
)
def test_the_file_is_of_the_recordings_kind(
    unchanged, tmp_path, name, rate, channels, subtype
):
    time = torch.arange(rate) / rate
    tones = [0.1 * torch.sin(2000 * (i + 1) * time) for i in range(channels)]
    signal = torch.stack(tones, dim=1)
    soundfile.write(tmp_path / name, signal.numpy(), rate, subtype)
    target = tmp_path / "deep" / "er" / name
    seconds = []
    enhance_file(unchanged, tmp_path / name, [target], progress=seconds.append)
    before, after = soundfile.info(tmp_path / name), soundfile.info(target)
    for key in ("samplerate", "channels", "frames", "format", "subtype"):
        assert getattr(before, key) == getattr(after, key), key
    assert sum(seconds) == pytest.approx(before.duration)
    # Level and channels: in the middle, where no encoder fades.
    enhanced, _ = soundfile.read(target, dtype="float32", always_2d=True)
    middle = slice(rate // 4, 3 * rate // 4)
    loss = difference(torch.from_numpy(enhanced)[middle], signal[middle])
    assert loss < (-15 if subtype in ("VORBIS", "MPEG_LAYER_III") else -40)


def test_silence_stays_silent(smooth, tmp_path):
    for length in (1, 2, RATE):
        soundfile.write(tmp_path / "in.wav", np.zeros(length), RATE)
        enhance_file(smooth, tmp_path / "in.wav", [tmp_path / "out.wav"])
        written, _ = soundfile.read(tmp_path / "out.wav")
        assert written.tolist() == [0.0] * length


def test_an_offset_is_no_sound():
    """The microphone's, of which a network that follows the level knows nothing."""
    network = Smooth()
    network.level = RunningLevel(num_frames=4)
    signal = noise(1, RATE + 1).diff()
    signal = signal - signal.mean()
    found = [
        whole(enhance_blocks([wave], RATE, Fraction(1), trained, 60.0, 1, 2))
        for trained in [Trained(network, None, RATE, {})]
        for wave in (signal, signal + 0.3)
    ]
    assert difference(found[1], found[0]) < -80


def test_a_clipped_estimate_is_reported(unchanged, tmp_path, caplog):
    signal = np.ones(1000)
    signal[::10] = -1  # and -1.8 without the mean of 0.8
    soundfile.write(tmp_path / "in.wav", signal, RATE)
    enhance_file(unchanged, tmp_path / "in.wav", [tmp_path / "out.wav"])
    assert "in.wav: its estimate is clipped" in caplog.text
    written, _ = soundfile.read(tmp_path / "out.wav")
    assert written.min() == -1.0


def test_damaged_files_are_named_and_leave_nothing(unchanged, tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "nan.wav", [0.0, math.nan], RATE, "FLOAT")
    soundfile.write(tmp_path / "short.flac", noise(RATE).numpy(), RATE)
    content = (tmp_path / "short.flac").read_bytes()
    (tmp_path / "short.flac").write_bytes(content[: len(content) // 2])
    for name in ("text.wav", "nan.wav", "short.flac", "missing.wav"):
        with pytest.raises(DamagedAudioError, match=name):
            enhance_file(unchanged, tmp_path / name, [tmp_path / "out" / name])
    assert list((tmp_path / "out").glob("*")) == []


def test_short_pieces_and_no_batches_are_refused(unchanged, tmp_path):
    with pytest.raises(ValueError, match="a piece must be 6 s or more, not 1 s"):
        enhance_file(unchanged, tmp_path / "a.wav", [tmp_path / "b.wav"], piece=1.0)
    with pytest.raises(ValueError, match="batch_size must be 1 or more, not 0"):
        enhance_file(unchanged, tmp_path / "a.wav", [tmp_path / "b.wav"], batch_size=0)


def test_files_that_cannot_be_read_count_no_seconds(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(3 * RATE // 2).numpy(), RATE)
    (tmp_path / "b.wav").write_text("not audio")
    assert count_seconds(tmp_path / name for name in ("a.wav", "b.wav", "c.wav")) == 1.5


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_a_folders_tree_is_kept(tmp_path):
    touch(tmp_path / "in/a.WAV")
    touch(tmp_path / "in/déjà/vu.flac")
    touch(tmp_path / "in/notes.txt")
    touch(tmp_path / "in/._a.wav")
    touch(tmp_path / "in/out/old.wav")
    out = tmp_path / "in/out"
    assert find_recordings([tmp_path / "in"], out) == (
        {
            tmp_path / "in/a.WAV": out / "a.WAV",
            tmp_path / "in/déjà/vu.flac": out / "déjà/vu.flac",
        },
        [(str(tmp_path / "in/._a.wav"), "hidden file")],
    )


def test_no_recording_is_overwritten(tmp_path):
    a, b = touch(tmp_path / "a/x.wav"), touch(tmp_path / "b/x.wav")
    with pytest.raises(ValueError, match="x.wav would be overwritten"):
        find_recordings([a.parent], a.parent)
    with pytest.raises(ValueError, match="would both become"):
        find_recordings([a, b], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="there is no .*c.wav"):
        find_recordings([tmp_path / "c.wav"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no recordings in .*empty"):
        find_recordings([tmp_path / "empty"], tmp_path / "out")
    assert len(find_recordings([a, a], tmp_path / "out")[0]) == 1
