"""Models of strangers run no code; ``load`` and ``enhance`` as in the README."""

import shutil
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

import fedenhance
from fedenhance.based_yaml import PACKAGE
from fedenhance.commands import package
from fedenhance.deploy.description import UntrustedError, is_known, vouch
from fedenhance.deploy.trained import include_network, load_trained
from tests.fedenhance.deploy.test_packaging import HPARAMS, save_run


@pytest.fixture
def run(tmp_path):
    return save_run(tmp_path / "run")


EVIL = [
    "consistency: !apply:os.system [touch {}]",
    "consistency: !new:subprocess.Popen {{args: [touch, {}]}}",
    "consistency: !name:os.system",
    "consistency: !name:fedenhance.networks.separator.torch.load",
    "consistency: !name:fedenhance.networks.authors.main",
    "consistency: !name:torch.nn.modules.module.torch.load",
    "consistency: !!python/object/apply:os.system [touch {}]",
    "consistency: !include:/etc/passwd",
    "consistency: !module:os.path",
    "consistency: !applyref:os.system [touch {}]",
    "consistency:\n  deep: [{{at: !new:subprocess.Popen [touch {}]}}]",
]


@pytest.mark.parametrize("line", EVIL)
def test_what_a_strangers_folder_names_is_not_run(run, line, tmp_path):
    written = tmp_path / "written"
    text = HPARAMS.replace(
        "consistency: !name:fedenhance.objectives.consistency.by_power",
        line.format(written),
    )
    assert text != HPARAMS
    (run / "hyperparams.yaml").write_text(text)
    with pytest.raises(ValueError):
        load_trained(run)
    assert not written.exists()


def test_the_model_of_a_single_client_loads(run):
    """What fed.personal leaves: weights beside the run's YAML."""
    folder = run / "save" / "personal" / "0"
    folder.mkdir(parents=True)
    shutil.copy(run / "hyperparams.yaml", folder)
    weights = torch.load(run / "save" / "CKPT+0" / "separator.ckpt")
    weights = {name: weight + 1 for name, weight in weights.items()}
    torch.save(weights, folder / "separator.ckpt")
    loaded = load_trained(folder).separator.state_dict()
    assert all(loaded[name].equal(weight) for name, weight in weights.items())


def test_objects_for_training_are_not_made(run, tmp_path):
    written = tmp_path / "written"
    with open(run / "hyperparams.yaml", "a") as file:
        file.write(f"evil: !apply:os.system [touch {written}]\n")
        file.write(f"list: [!apply:os.system [touch {written}]]\n")
    load_trained(run)
    assert not written.exists()


def test_a_checkpoint_says_nothing_but_values(run, tmp_path):
    written = tmp_path / "written"
    meta = run / "save/CKPT+0/CKPT.yaml"
    with open(meta, "a") as file:
        file.write(f"loss: !!python/object/apply:os.system ['touch {written}']\n")
    with pytest.raises((ValueError, FileNotFoundError)):
        load_trained(run)
    assert not written.exists()


def test_what_was_trained_here_is_trusted_until_it_changes(run):
    foreign = HPARAMS.replace("fedenhance.objectives.consistency.by_power", "math.fsum")
    (run / "hyperparams.yaml").write_text(foreign)
    with pytest.raises(UntrustedError, match="names !name:math.fsum.*--trust"):
        load_trained(run)
    load_trained(run, trust=True)
    vouch(run)
    load_trained(run)
    (run / "hyperparams.yaml").write_text(foreign + "# changed\n")
    with pytest.raises(UntrustedError):
        load_trained(run)


@pytest.mark.parametrize("line", EVIL)
def test_a_strangers_start_runs_no_code(tmp_path, monkeypatch, line):
    """An experiment that starts from it includes its YAML."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    touched, path = tmp_path / "touched", tmp_path / "model" / "hyperparams.yaml"
    path.parent.mkdir()
    text = (PACKAGE / "pretrained/gtcrn/hyperparams.yaml").read_text()
    keys = "{models: 0, sample_rate: 0, clean_above: 0, consistency: 0}"
    assert str(PACKAGE) in include_network("gtcrn")
    for key in ("consistency", "another"):
        evil = line.format(touched).replace("consistency", key, 1)
        path.write_text(text.replace("consistency: null", evil) + "x: 1\n")
        with pytest.raises(UntrustedError) if key == "consistency" else nullcontext():
            overrides = include_network(path.parent)
            models = load_hyperpyyaml(keys, overrides)
            assert type(models["models"]["separator"]).__name__ == "Separator"
        assert not touched.exists()
    hidden = "16000\\n" + line.format(touched).replace("\n", "\\n")
    path.write_text(text.replace("sample_rate: 16000", f'sample_rate: "{hidden}"', 1))
    overrides = include_network(path.parent)
    load_hyperpyyaml(keys, overrides)
    assert not touched.exists()


def test_a_start_without_a_separator_is_refused(tmp_path):
    made = "sample_rate: 8000\nmodules: {encoder: !new:torch.nn.ReLU }\n"
    (tmp_path / "hyperparams.yaml").write_text(made)
    with pytest.raises(ValueError, match="describes no separator"):
        include_network(tmp_path)


def test_a_module_that_is_missing_is_named(run):
    text = HPARAMS.replace("fedenhance.objectives.consistency.by_power", "no_such.one")
    (run / "hyperparams.yaml").write_text(text)
    with pytest.raises(ImportError, match="no_such.one.*Install it"):
        load_trained(run, trust=True)


def test_our_architectures_are_known():
    for tag in (
        "!new:torch.nn.ReLU",
        "!new:speechbrain.lobes.models.dual_path.Encoder",
    ):
        assert is_known(tag)


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("shape", [(4410,), (2, 4410), (4410, 2), (1, 1), (2, 0)])
@pytest.mark.parametrize("kind", [np.float64, np.int16, torch.float32])
def test_a_signal_keeps_its_shape_and_its_kind(run, rate, shape, kind):
    model = fedenhance.load(run)
    audio = 1000 * np.random.default_rng(0).normal(size=shape)
    is_tensor = isinstance(kind, torch.dtype)
    audio = torch.as_tensor(audio, dtype=kind) if is_tensor else audio.astype(kind)
    clean = model.enhance(audio, rate)
    assert type(clean) is type(audio) and clean.dtype == kind
    assert clean.shape == shape


def test_channels_are_enhanced_by_themselves(run):
    model = fedenhance.load(str(run))
    audio = np.random.default_rng(0).normal(size=(2, 800)).astype(np.float32)
    clean = model.enhance(audio, 8000)
    np.testing.assert_allclose(clean[1], model.enhance(audio[1], 8000), atol=1e-5)
    np.testing.assert_allclose(clean, model.enhance(audio.T, 8000).T, atol=1e-6)
    expected = model(torch.from_numpy(audio))[:, 0]
    np.testing.assert_allclose(clean, expected, atol=1e-5)


@pytest.mark.parametrize("audio", [np.zeros((2, 3, 4)), np.array([np.nan, 1.0])])
def test_a_signal_that_is_none_is_refused(run, audio):
    with pytest.raises(ValueError, match="audio"):
        fedenhance.load(run).enhance(audio, 8000)


def test_a_model_goes_to_the_hub_and_comes_back(run, tmp_path, monkeypatch):
    stored = {}

    class HfApi:
        def create_repo(self, name, exist_ok):
            stored[name] = None

        def upload_folder(self, repo_id, folder_path, ignore_patterns):
            stored[repo_id] = shutil.copytree(folder_path, tmp_path / "hub")

    hub = SimpleNamespace(
        HfApi=HfApi, snapshot_download=stored.get, __spec__=SimpleNamespace()
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    package.main([str(run), "--push_to_hub", "me/model"])
    mixture = torch.randn(1, 500)
    torch.testing.assert_close(
        fedenhance.load("hf:me/model")(mixture), load_trained(run)(mixture)
    )


def test_a_name_that_leads_nowhere_is_told():
    with pytest.raises(FileNotFoundError, match="there is no model nowhere"):
        fedenhance.load("nowhere")


def test_a_folder_without_a_description_is_not_vouched_for(tmp_path):
    vouch(tmp_path)
    assert not list(tmp_path.iterdir())
