"""A package gives what the run's model gives, without this repository."""

import csv
import os
import subprocess
import sys

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.inference.separation import SepformerSeparation

from fedenhance.deploy.packaging import package, write_package
from fedenhance.deploy.trained import load_trained

HPARAMS = """# Generated 2026-11-25 from:
# /home/me/hparams/fedenhance.yaml
# yamllint disable
output_folder: nowhere
data_folder: /data/Corpus
sample_rate: 8000
n_clients: 4
models:
  num_sources: 2
  separator: &id001 !new:fedenhance.networks.separator.Separator
    encoder: !new:fedenhance.networks.sudormrf.Encoder
      num_bases: 8
      kernel_size: 21
      depth: 2
    masknet: !new:fedenhance.networks.sudormrf.MaskNet
      num_sources: 2
      num_bases: 8
      channels: 4
      num_blocks: 1
      block: !name:fedenhance.networks.blocks.UConvBlock
        channels: 4
        hidden_channels: 8
        depth: 2
    decoder: !new:fedenhance.networks.sudormrf.Decoder
      num_sources: 2
      num_bases: 8
      kernel_size: 21
modules:
  separator: *id001
consistency: !name:fedenhance.objectives.consistency.by_power
opt_class: !name:torch.optim.Adam
  lr: 0.001
"""
LEARNED = "!new:fedenhance.objectives.consistency.Learned\n  num_sources: 2"

ELSEWHERE = """
import sys, torch
from speechbrain.inference.interfaces import foreign_class
folder, out = sys.argv[1:]
model = foreign_class(source=folder, run_opts={"device": "cpu"})
assert type(model).__name__ == "SepformerSeparation"
import fedenhance
assert fedenhance.__file__.startswith(folder), fedenhance.__file__
torch.save(model.separate_batch(torch.linspace(-1, 1, 999).sin().repeat(2, 1)), out)
"""


def save_run(folder, hparams=HPARAMS):
    """Write the folder of a finished run."""
    checkpoint = folder / "save" / "CKPT+0"
    checkpoint.mkdir(parents=True)
    (checkpoint / "CKPT.yaml").write_text("round: 7\nend-of-epoch: true\nunixtime: 0\n")
    (folder / "hyperparams.yaml").write_text(hparams)
    separator = load_hyperpyyaml(hparams)["modules"]["separator"]
    torch.save(separator.state_dict(), checkpoint / "separator.ckpt")
    with open(folder / "test_metrics.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "n_noises", "si_sdr_in", "si_sdr", "si_sdri"])
        writer.writerows([["a", 1, 1.0, 3.0, 2.0], ["b", 1, 2.0, 6.0, 4.0]])
    (folder / "rounds.csv").write_text("round,hours\n1,0.25\n2,0.5\n")
    return folder


@pytest.fixture
def run(tmp_path):
    return save_run(tmp_path / "run")


def test_a_package_loads_without_this_repository(run, tmp_path):
    out = package(run)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = out.rename(elsewhere / "moved")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, out, elsewhere / "estimates.pt"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    mixture = torch.linspace(-1, 1, 999).sin().repeat(2, 1)
    expected = load_trained(run)(mixture).transpose(1, 2)
    estimates = torch.load(elsewhere / "estimates.pt", weights_only=True)
    torch.testing.assert_close(estimates, expected)


def test_a_learned_consistency_is_packaged(run):
    text = HPARAMS.replace("!name:fedenhance.objectives.consistency.by_power", LEARNED)
    text = text.replace("consistency: ", "consistency: &id002 ").replace(
        "  separator: *id001\n", "  separator: *id001\n  consistency: *id002\n"
    )
    before, _, after = text.partition("modules:\n")
    modules, _, rest = after.partition("consistency: &id002")
    rest, _, tail = rest.partition("opt_class")
    text = f"{before}consistency: &id002{rest}modules:\n{modules}opt_class{tail}"
    (run / "hyperparams.yaml").write_text(text)
    torch.save(
        {"logits": torch.tensor([3.0, 0.0])}, run / "save/CKPT+0/consistency.ckpt"
    )
    out = package(run)
    mixture = torch.randn(1, 500)
    expected = load_trained(run)(mixture)
    torch.testing.assert_close(load_trained(out)(mixture), expected)
    model = SepformerSeparation.from_hparams(out, run_opts={"device": "cpu"})
    estimates = model.separate_batch(mixture)
    torch.testing.assert_close(estimates, expected.transpose(1, 2))


def test_a_package_carries_the_sources_it_needs_and_no_training(run):
    out = package(run)
    carried = {path.stem for path in (out / "fedenhance").rglob("*.py")}
    needed = {"__init__", "sepformer_adapter", "sudormrf", "fused", "consistency"}
    assert needed <= carried
    assert not carried & {"streaming", "results", "packaging", "separation", "mixing"}
    text = (out / "hyperparams.yaml").read_text()
    assert "optim" not in text and "/data" not in text
    for path in out.glob("*.ckpt"):
        torch.load(path, weights_only=True)


def test_the_model_card_is_filled_from_the_run(run):
    write_package(None, None, {"output_folder": str(run)})
    card = (run / "package/README.md").read_text()
    for fact in (
        "# Speech enhancement: fedenhance",
        "| data | Corpus |",
        "| clients | 4 |",
        "| rounds done | 2 |",
        "| hours of audio, all clients together | 0.75 |",
        "| best model by validation: round | 7 |",
        "| 1 | 2 | 1.50 | 3.00 ± 1.41 |",
        "speechbrain` alone.",
        "python train.py hyperparams.yaml",
    ):
        assert fact in card, fact
    assert "{" not in card and "/home/me" not in card


def test_modules_of_ones_own_are_carried(run):
    text = HPARAMS.replace("fedenhance.objectives.consistency.by_power", "math.fsum")
    (run / "hyperparams.yaml").write_text(
        text.replace("math.fsum", "tests.fedenhance.deploy.test_packaging.leave")
    )
    with pytest.raises(ValueError, match="test_packaging.leave, .* say --trust"):
        package(run)
    out = package(run, trust=True)
    assert "speechbrain` alone." in (out / "README.md").read_text()
    assert (out / "tests/fedenhance/deploy/test_packaging.py").is_file()


def leave(estimates, mixture):
    """A consistency that is not of fedenhance."""
    return estimates
