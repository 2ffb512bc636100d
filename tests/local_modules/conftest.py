"""A corpus of a few seconds, small enough to train on in a test."""

import numpy as np
import pytest
import soundfile

RATE = 8000
SPLITS = {"train": ["a", "b", "c", "d"], "valid": ["e"], "test": ["f"]}


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    """Manifests of tones in noise: four rows a speaker, half a second each.

    Returns
    -------
    Path
        Folder with train.csv, valid.csv and test.csv, and the audio beside them.
    """
    folder = tmp_path_factory.mktemp("tiny")
    generator = np.random.default_rng(0)
    time = np.arange(RATE // 2) / RATE
    for split, speakers in SPLITS.items():
        lines = ["ID,duration,spk_id,speech,noise,noise_class"]
        for index, speaker in enumerate(speakers):
            for row in range(4):
                name = f"{speaker}{row}"
                tone = 0.1 * np.sin(2 * np.pi * (200 + 40 * index) * time)
                noise = generator.normal(0, 0.1, len(time))
                soundfile.write(folder / f"{name}_speech.wav", tone, RATE)
                soundfile.write(folder / f"{name}_noise.wav", noise, RATE)
                files = f"$data_root/{name}_speech.wav,$data_root/{name}_noise.wav"
                lines.append(f"{name},0.5,{speaker},{files},Hiss")
        (folder / f"{split}.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def hparams(tiny_corpus, tmp_path):
    """What ``dataio_prepare`` and ``Separation`` read of an experiment."""
    from local_modules import consistency, objectives
    from local_modules.mixing import MixtureOfMixtures

    class Log:
        """Keeps what a Brain logs."""

        def __init__(self):
            self.lines = []

        def log_stats(self, meta, train_stats=None, valid_stats=None, test_stats=None):
            self.lines.append(
                {"train": train_stats, "valid": valid_stats, "test": test_stats}
            )

    return {
        "seed": 0,
        "sample_rate": RATE,
        "data_folder": str(tiny_corpus),
        "manifest_folder": str(tiny_corpus),
        "output_folder": str(tmp_path),
        "mixing": MixtureOfMixtures(sample_rate=RATE, segment=0.5),
        "partition": None,
        "client_groups": {"supervised": 0.5},
        "p_labelled": 1.0,
        "available_speech_percentage": 0.5,
        "noise_folder": None,
        "valid_size": None,
        "test_size": None,
        "consistency": consistency.uniform,
        "objectives": {
            "unsupervised": objectives.constrained_mixit,
            "supervised": objectives.supervised,
        },
        "train_logger": Log(),
    }
