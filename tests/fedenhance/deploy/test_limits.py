"""What is nearly clean is left as it is; options say otherwise."""

import argparse
import io

import numpy as np
import pytest
import torch

import fedenhance
from fedenhance.commands import limits
from fedenhance.deploy.blocks import Blocks, Kept
from fedenhance.deploy.live import Timed, filter_raw
from fedenhance.deploy.packaging import inference_yaml
from fedenhance.deploy.trained import (
    Trained,
    include_network,
    load_start,
    load_trained,
    locate,
)
from fedenhance.objectives.nearly_clean import clean_share
from tests.fedenhance.deploy.test_live import HPARAMS
from tests.fedenhance.deploy.test_packaging import save_run


class Takes(torch.nn.Module):
    """Takes a share of the mixture for noise."""

    def __init__(self, share):
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(share))

    def forward(self, mixture):
        return torch.stack([(1 - self.share) * mixture, self.share * mixture], dim=1)


def noise(count):
    mixture = torch.randn(count, 8000, generator=torch.Generator().manual_seed(0))
    return mixture - mixture.mean(-1, keepdim=True)


def level(signal):
    return float(signal.square().mean().sqrt())


def test_each_mixture_keeps_as_much_as_it_is_clean():
    loud, soft = (Takes(share) for share in (0.5, 0.01))
    mixture = noise(2)
    for network, left in ((loud, 0.5), (soft, 1.0)):
        kept = Trained(network, None, 16000, {}, clean_above=24.0)(mixture)
        expected = left * level(mixture)
        assert level(kept[:, 0]) == pytest.approx(expected, rel=1e-3)
        torch.testing.assert_close(kept.sum(1), mixture)


def test_an_option_takes_the_place_of_what_the_model_says():
    model = Trained(Takes(0.01), None, 16000, {}, clean_above=24.0)
    mixture = noise(1)
    assert model.keeping(None) is model
    for dry, left in ((0.0, 0.99), (0.5, 0.995), (1.0, 1.0)):
        speech = model.keeping(dry)(mixture)[:, 0]
        torch.testing.assert_close(speech, left * mixture)


@pytest.mark.parametrize(
    ("words", "share"),
    [
        ([], None),
        (["--dry", "0"], 0.0),
        (["--attenuation_limit", "20"], 0.1),
        (["--attenuation_limit", "-1"], "must be 0 dB or more, not -1"),
        (["--dry", "1.5"], "must lie between 0 and 1, not 1.5"),
        (["--dry", "0", "--attenuation_limit", "3"], "not allowed with"),
    ],
)
def test_options(words, share, capsys):
    parser = argparse.ArgumentParser()
    if isinstance(share, str):
        with pytest.raises(SystemExit):
            limits.parse(parser, words)
        assert share in capsys.readouterr().err
    else:
        assert limits.parse(parser, words).dry == share


def test_live_the_share_is_that_of_what_was_heard():
    keep = Kept(0.0, 20.0, sample_rate=8000)
    draws = torch.Generator().manual_seed(0)
    sources = torch.randn(2, 40, 128, generator=draws)
    sources[1] *= 0.1
    sources[0, 20:] = 0
    for block in sources.unbind(1):
        keep(block)
    speech, noise = sources[0].square().mean(), sources[1, 20:].square().mean()
    whole = clean_share(speech, noise, 20.0)
    assert float(keep.share) == pytest.approx(float(whole), abs=0.02)
    alone = torch.stack([torch.zeros(128), torch.ones(128)])
    for _ in range(40):
        speech = keep(alone)
    assert float(speech.abs().max()) < 1e-3


def test_live_a_share_stays(tmp_path):
    run = save_run(tmp_path / "run", HPARAMS + "clean_above: 30\n")
    mixture = 0.1 * torch.randn(1, 1111)
    model = load_trained(run).keeping(0.25)
    assert (load_trained(run).clean_above, model.clean_above) == (30, None)
    sink = io.BytesIO()
    source = io.BytesIO(mixture.numpy().tobytes())
    filter_raw(Timed(Blocks(model)), source, sink, "f32")
    given = torch.from_numpy(np.frombuffer(sink.getvalue(), "<f4").copy())
    torch.testing.assert_close(given, model(mixture)[0, 0], rtol=1e-5, atol=1e-5)


def test_descriptions_carry_the_number(tmp_path):
    run = save_run(tmp_path / "run", HPARAMS + "clean_above: 30\n")
    assert "clean_above: 30\n" in inference_yaml(run / "hyperparams.yaml", 2, [])
    (run / "hyperparams.yaml").write_text(HPARAMS + "clean_above: often\n")
    with pytest.raises(ValueError, match="clean_above is a number of dB, or null, not"):
        load_trained(run)


def test_what_starts_from_a_model_has_its_number_and_trains_without():
    assert fedenhance.load().clean_above == 24.0
    assert load_start("gtcrn").clean_above is None
    assert "\nclean_above: 24.0\n" in include_network(locate())
    assert "clean_above" not in include_network(locate(), given={"clean_above": 20})
