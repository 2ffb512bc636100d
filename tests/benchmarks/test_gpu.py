"""What can be known of the GPU benchmarks without a GPU."""

import csv
import time
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu, measuring


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A program that says twenty times a second how busy a GPU is."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nwhile true; do echo "90, 1024, 300.5"; sleep 0.05; done\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    card = SimpleNamespace(uuid="0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: card)


def test_what_nvidia_smi_says_is_averaged_over_some_time(nvidia_smi):
    with gpu.Watch(time.perf_counter) as watch:
        time.sleep(0.5)
    end = time.perf_counter()
    seen = watch.between(end - 1, end)
    assert seen == {"busy_percent": 90, "used_mib": 1024, "watts": 300.5}
    assert watch.between(end + 1, end + 2) == {}
    assert watch.process.wait(timeout=5) != 0


def test_training_is_timed_by_every_code(
    tiny_corpus, tmp_path, monkeypatch, nvidia_smi
):
    options = ["training", "--quick", "--device", "cpu", "--out", str(tmp_path)]
    args = gpu.parse([*options, "--batches", "1", "--batch_size", "2"])
    args.batches, args.model = 1, "sudormrf_groupcomm_small"
    args.num_workers, args.data_folder = 0, tiny_corpus
    monkeypatch.setattr(gpu, "SECONDS", 0.25)
    case = gpu.loops.Case(settings={"clients": 2, "registered": 2, "parameters": 64})
    monkeypatch.setattr(gpu.loops, "recordings", lambda *args, **sizes: case)
    gpu.training(args, time.perf_counter)
    with open(tmp_path / "gpu_training.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["code"] for row in rows] == ["bare", "ours", "flower"]
    for row in rows:
        expected = 4 / float(row["seconds"])
        assert float(row["examples_per_second"]) == pytest.approx(expected, rel=0.01)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    with pytest.raises(SystemExit, match="PyTorch finds no GPU"):
        gpu.main(["steps"])


def test_the_original_knows_one_precision(capsys):
    with pytest.raises(SystemExit):
        gpu.parse(["training", "--precision", "bf16", "--codes", "bare"])
    assert "are for ours alone" in capsys.readouterr().err


def test_other_benchmarks_measure_the_processor():
    args = measuring.parser("doc").parse_args([])
    assert not measuring.on_gpu(args)
