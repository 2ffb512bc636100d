"""An exported file gives what PyTorch gives, or is not written."""

import warnings

import pytest
import torch

from fedenhance.commands.export import main
from fedenhance.deploy import export as exporting
from fedenhance.deploy.export import export
from fedenhance.deploy.trained import load_trained
from tests.fedenhance.deploy.test_packaging import save_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("run") / "run")


MULTIPLE = 40  # 10 samples, twice halved


@pytest.fixture(scope="module", params=[".pt2", ".onnx"])
def exported(request, run, tmp_path_factory):
    """The file of a run, how it differs from PyTorch, and what runs it."""
    path = tmp_path_factory.mktemp("exported") / f"model{request.param}"
    if request.param == ".onnx":
        for module in ("onnx", "onnxscript"):
            pytest.importorskip(module)
        onnxruntime = pytest.importorskip("onnxruntime")
    with warnings.catch_warnings(action="ignore"):  # of PyTorch, about its own code
        difference, lengths = export(run, path, seconds=0.1, multiple=MULTIPLE)
    if request.param == ".pt2":
        return difference, lengths, torch.export.load(path).module()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return difference, lengths, lambda x: session.run(None, {"mixture": x.numpy()})[0]


def test_a_file_takes_other_lengths_than_it_was_traced_with(exported):
    difference, lengths, _ = exported
    assert difference < 1e-5
    assert len(lengths) > 1


@pytest.mark.parametrize("sound", [0.0, 0.1, 1e-8, 1e-20, 100.0])
def test_a_file_gives_what_pytorch_gives_whatever_it_hears(run, exported, sound):
    constant = torch.full((1, 12 * MULTIPLE), sound)
    for mixture in (constant, (sound * torch.randn_like(constant)).clamp(-1, 1)):
        torch.testing.assert_close(
            torch.as_tensor(exported[-1](mixture)),
            load_trained(run)(mixture),
            rtol=1e-5,
            atol=2e-6 * sound,
        )


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


@pytest.mark.parametrize("name", [*exporting.signals(4)])
def test_the_check_hears_more_than_noise(name):
    """A file that is wrong, or no number, on one kind of sound alone is found."""
    bad = [exporting.signals(length)[name] for length in (40, 80)]

    def wrong(mixture):
        same = any(torch.equal(mixture, each) for each in bad)
        return mixture * (torch.nan if same else 1)

    found = exporting.differences(wrong, lambda mixture: mixture, [40, 80])
    assert {key for key, value in found.items() if not value == 0.0} == {name}


def test_an_unknown_suffix_is_named(run, tmp_path):
    with pytest.raises(ValueError, match="must end in one of .pt2, .onnx"):
        export(run, tmp_path / "model.tflite")
