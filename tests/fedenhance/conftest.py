"""What the Separation Brain and its data read of an experiment."""

import pytest

from tests.conftest import RATE


@pytest.fixture
def hparams(tiny_corpus, tmp_path):
    """What ``dataio_prepare`` and ``Separation`` read of an experiment."""
    from fedenhance.data.mixing import MixtureOfMixtures
    from fedenhance.objectives import consistency
    from fedenhance.objectives import mixit as objectives

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
