"""An exported file gives what PyTorch gives, or is not written."""

import pytest
import torch

from fedenhance.deploy import export as exporting
from fedenhance.deploy.export import export, main
from fedenhance.deploy.trained import load_trained
from tests.fedenhance.deploy.test_packaging import save_run


@pytest.fixture
def run(tmp_path):
    return save_run(tmp_path / "run")


MULTIPLE = 40  # 10 samples, twice halved


@pytest.mark.filterwarnings("ignore")  # of PyTorch, about its own code
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_file_takes_other_lengths_than_it_was_traced_with(run, tmp_path, suffix):
    if suffix == ".onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(module)
    path = tmp_path / f"model{suffix}"
    difference, lengths = export(run, path, seconds=0.1, multiple=MULTIPLE)
    assert difference < 1e-5
    assert len(lengths) > 1


@pytest.mark.filterwarnings("ignore")
def test_a_program_loads_again(run, tmp_path, capsys):
    path = tmp_path / "model.pt2"
    main([str(run), "--out", str(path), "--seconds=0.1", f"--multiple={MULTIPLE}"])
    assert f"takes multiples of {MULTIPLE} samples" in capsys.readouterr().out
    mixture = torch.randn(1, 12 * MULTIPLE)
    estimates = torch.export.load(path).module()(mixture)
    torch.testing.assert_close(estimates, load_trained(run)(mixture), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_file_that_differs_is_refused(run, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(ValueError, match="would differ from PyTorch"):
        export(run, tmp_path / "model.pt2", seconds=0.1, multiple=MULTIPLE)
    assert not (tmp_path / "model.pt2").exists()


def test_an_unknown_suffix_is_named(run, tmp_path):
    with pytest.raises(ValueError, match="must end in one of .pt2, .onnx"):
        export(run, tmp_path / "model.tflite")
