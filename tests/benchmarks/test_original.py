"""The original's script runs as it is; its way to read is ours where asked for."""

import sys

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from benchmarks import original
from fed.partition import by_column
from fedenhance.data.manifests import (
    assign_clients,
    assign_groups,
    load_manifest,
    take_isolated_noises,
)

SCRIPT = """
import sys
from comet_ml import Experiment
from fedenhance.__config__ import API_KEY, CHUNK_LIBRI_FS50K, FED_LOG_DIR
import fedenhance.experiments.utils.dataset_setup as dataset_setup
import fedenhance.experiments.utils.cometml_loss_report as report
import torch
clients, valid = dataset_setup.enhancement_federated_setup({})
assert valid == {"val": None, "test": None}, valid
assert clients == [("train", CHUNK_LIBRI_FS50K)], clients
experiment = Experiment(API_KEY, project_name="x")
global_model = torch.nn.Linear(1, 1).cuda()
for epoch in range(int(sys.argv[1])):
    print(experiment.get_key())
    global_model(torch.ones(1).cuda())
    with experiment.validate():
        report.report_losses_mean_and_std({}, experiment, 0, 0)
"""
SETUP = """
from fedenhance.__config__ import CHUNK_LIBRI_FS50K
import fedenhance.dataset_loader.chunked_libri_fsd as chunked_libri_fsd

def enhancement_federated_setup(hparams):
    clients = [chunked_libri_fsd.Dataset(split="train", root=CHUNK_LIBRI_FS50K)]
    return clients, chunked_libri_fsd.Dataset(split="val", root="")
"""
FILES = {
    "__init__.py": "",
    "__config__.py": "API_KEY, CHUNK_LIBRI_FS50K, FED_LOG_DIR = 'key', '/', '/'",
    "dataset_loader/__init__.py": "",
    "dataset_loader/chunked_libri_fsd.py": (
        "import glob2\ndef Dataset(split, root):\n    return split, root\n"
    ),
    "experiments/__init__.py": "",
    "experiments/utils/__init__.py": "",
    "experiments/utils/dataset_setup.py": SETUP,
    "experiments/utils/cometml_loss_report.py": (
        "def report_losses_mean_and_std(*arguments):\n    raise RuntimeError\n"
    ),
    "experiments/run_federated.py": SCRIPT,
}


@pytest.fixture
def authors(tmp_path):
    """A script with the outline of the original's: a GPU, an account, other paths."""
    for name, text in FILES.items():
        path = tmp_path / "fedenhance" / "fedenhance" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def rows(tiny_corpus):
    found = load_manifest(tiny_corpus / "train.csv", tiny_corpus)
    take_isolated_noises(found, 0.5)
    assign_clients(found, lambda rows: by_column(rows, "spk_id"))
    return assign_groups(found, "client", {"supervised": 0.5}, seed=0)


def test_the_script_runs_without_a_gpu_and_an_account(authors):
    ticks = iter(range(10))
    cuda = torch.Tensor.cuda
    models = []
    seconds = original.rounds_of(
        authors, "/corpus", ["3"], lambda: next(ticks), after_round=models.append
    )
    assert seconds == [1, 1, 1]
    assert [type(model) for model in models] == [torch.nn.Linear] * 3
    assert torch.Tensor.cuda is cuda
    assert not {"comet_ml", "glob2", "fedenhance.experiments"} & set(sys.modules)


def test_what_the_script_says_at_its_end_is_passed_on(authors):
    script = authors / "fedenhance" / "fedenhance" / "experiments/run_federated.py"
    script.write_text("import argparse; argparse.ArgumentParser().parse_args()")
    with pytest.raises(RuntimeError, match="unrecognized arguments: --batches 2"):
        original.rounds_of(authors, "/corpus", ["--batches", "2"], lambda: 0)


def test_a_client_has_as_many_isolated_noises_as_recordings(rows, tmp_path):
    numbers = original.write_tree(rows, tmp_path, seconds=0.5)
    assert numbers == {"a": 0, "b": 1, "c": 2, "d": 3}
    for number in numbers.values():
        for place in ("speech", "noise"):
            files = sorted((tmp_path / "train" / str(number) / place).iterdir())
            assert [f.name for f in files] == [f"0000{i}.wav" for i in range(4)]
    rate, silence = wavfile.read(tmp_path / "train/0/speech/00003.wav")
    assert rate == 16000 and silence.dtype == np.int16 and not silence.any()


def test_noises_of_the_original_are_at_the_levels_asked_for(rows, tmp_path):
    numbers = original.write_tree(rows, tmp_path, 0.5, [6, 6], loop_noise=True)
    for number in numbers.values():
        place = tmp_path / "train" / str(number)
        power = {
            (kind, i): np.square(wavfile.read(file)[1].astype(float)).mean()
            for kind in ("speech", "noise")
            for i, file in enumerate(sorted((place / kind).iterdir()))
        }
        for i in range(4):  # two recordings, then two noises beside them
            ratio = power["speech", i % 2] / power["noise", i]
            np.testing.assert_allclose(10 * np.log10(ratio), 6, atol=0.1)
