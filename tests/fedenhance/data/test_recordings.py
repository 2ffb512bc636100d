"""Datasets of an adaptation, on each machine of those that it holds."""

import numpy as np
import pytest
import soundfile

from fed.partition import by_column
from fedenhance.data.mixing import MixtureOfMixtures
from fedenhance.data.recordings import dataio_prepare


@pytest.fixture
def hparams(tmp_path):
    """One recording, in a manifest of each split."""
    soundfile.write(tmp_path / "a.wav", np.linspace(-0.5, 0.5, 8000), 8000)
    options = {"data_folder": tmp_path, "manifest_folder": tmp_path, "segment": 0.5}
    options |= {"partition": by_column, "output_folder": tmp_path / "out"}
    for split in ("train", "valid", "test"):
        path = options[f"{split}_csv"] = tmp_path / f"{split}.csv"
        path.write_text("ID,client,noisy\na,ann,$data_root/a.wav\n")
    return options | {"mixing": MixtureOfMixtures(8000, 0.5)}


def test_what_a_machine_does_not_hold_is_not_made(hparams):
    assert dataio_prepare(hparams)["train"].clients == {"ann": ["a"]}
    assert [*dataio_prepare(hparams | {"train_csv": None})] == ["valid", "test"]
    held = {"valid_csv": None, "test_csv": None}
    assert [*dataio_prepare(hparams | held)] == ["train"]


@pytest.mark.parametrize("share", [None, 0])
def test_recordings_are_never_taught_as_speech_for_lack_of_a_share(hparams, share):
    with pytest.raises(ValueError, match="cleanest must lie in"):
        dataio_prepare(hparams | {"cleanest": share, "start_model": None})


def test_noises_of_a_folder_are_added(hparams, tmp_path):
    folder = tmp_path / "noises"
    folder.mkdir()
    soundfile.write(folder / "hum.wav", np.linspace(0.5, -0.5, 8000), 8000)
    assert not dataio_prepare(hparams)["train"][0]["sources"][2].any()
    sets = dataio_prepare(hparams | {"noise_folder": folder})
    assert sets["train"][0]["sources"][2].any()
