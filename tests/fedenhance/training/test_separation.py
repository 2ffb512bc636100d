"""The Separation Brain."""

import math

import pytest
import speechbrain as sb
import torch

from fedenhance.data.audio import Segment
from fedenhance.data.datasets import collate, dataio_prepare
from fedenhance.networks.scaling import separate
from fedenhance.training.graphs import Graphed
from fedenhance.training.separation import Separation, mean_scores, mixtures_of

LOADER = {"batch_size": 4, "collate_fn": collate}


class TinySeparator(torch.nn.Module):
    """Three filters of 65 samples: enough to tell a tone from noise."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv1d(1, 3, 65, padding=32)

    def forward(self, mixture):
        return self.conv(mixture.unsqueeze(1))


@pytest.fixture
def brain(hparams):
    return Separation(
        modules={"separator": TinySeparator()},
        opt_class=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        hparams=hparams,
        run_opts={"device": "cpu", "noprogressbar": True},
    )


def fit(brain, datasets, epochs):
    brain.fit(
        epochs,
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs=dict(LOADER),
        valid_loader_kwargs=dict(LOADER),
    )


def test_estimates_follow_the_level_of_the_mixture():
    network = TinySeparator()
    mixture = torch.randn(2, 100)
    loud = separate(network, 1000 * mixture)
    assert torch.allclose(loud, 1000 * separate(network, mixture), rtol=1e-4)


def test_a_constant_added_to_the_mixture_changes_nothing():
    network = TinySeparator()
    mixture = torch.randn(2, 100)
    expected = separate(network, mixture)
    assert torch.allclose(separate(network, mixture + 3), expected, atol=1e-5)


def test_silence_stays_silent(hparams):
    estimates = separate(TinySeparator(), torch.zeros(1, 100), hparams["consistency"])
    assert estimates.abs().max() < 1e-6


def test_mixtures_must_be_batches():
    with pytest.raises(ValueError, match=r"\(batch, time\)"):
        separate(TinySeparator(), torch.zeros(100))


def test_the_two_mixtures_sum_to_the_input():
    sources = torch.randn(2, 3, 10)
    assert torch.allclose(mixtures_of(sources).sum(1), sources.sum(1), atol=1e-6)


def test_unsupervised_objectives_never_see_a_reference(brain, hparams):
    seen = {}

    def spy(name):
        def objective(estimates, targets):
            seen.setdefault(name, set()).add(targets.shape[1])
            return estimates.square().mean((1, 2))

        return objective

    hparams["objectives"].update({k: spy(k) for k in ("unsupervised", "supervised")})
    fit(brain, dataio_prepare(hparams), range(1, 2))
    assert seen == {"unsupervised": {2}, "supervised": {3}}


@pytest.mark.parametrize("p_supervised", [0.0, 1.0])
def test_learns_to_remove_noise(brain, hparams, p_supervised):
    hparams["client_groups"] = {"supervised": p_supervised}
    datasets = dataio_prepare(hparams)
    fit(brain, datasets, range(1, 16))
    brain.evaluate(datasets["test"], test_loader_kwargs=dict(LOADER))
    assert mean_scores(brain.utterances)["si_sdri"] > 3


def test_counts_examples_and_hours(brain, hparams):
    fit(brain, dataio_prepare(hparams), range(1, 4))
    assert brain.num_examples == 3 * 8
    assert brain.train_stats["hours"] == pytest.approx(8 * 0.5 / 3600)


def test_reports_each_number_of_noises(brain, hparams):
    fit(brain, dataio_prepare(hparams), range(1, 2))
    valid = hparams["train_logger"].lines[-1]["valid"]
    both = (valid["si_sdri_1"] + valid["si_sdri_2"]) / 2
    assert valid["si_sdri"] == pytest.approx(both)


def test_the_same_seed_gives_the_same_loss(hparams):
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        brain = Separation(
            modules={"separator": TinySeparator()},
            opt_class=torch.optim.Adam,
            hparams=hparams,
            run_opts={"device": "cpu", "noprogressbar": True},
        )
        fit(brain, dataio_prepare(hparams), range(1, 3))
        losses.append(brain.train_stats["loss"])
    assert losses[0] == losses[1]


def test_training_steps_are_recorded_if_asked_for_and_evaluation_is_not(
    hparams, monkeypatch
):
    seen = []

    class Spy(Graphed):
        def __init__(self, network):
            seen.append("made")
            super().__init__(network)

        def __call__(self, x):
            seen.append("training" if self.network.training else "evaluation")
            return super().__call__(x)

        def record(self):
            seen.append("record")

    monkeypatch.setattr("fedenhance.training.separation.Graphed", Spy)
    losses = []
    for asked in (False, True):
        torch.manual_seed(0)
        brain = Separation(
            modules={"separator": TinySeparator()},
            opt_class=torch.optim.Adam,
            hparams={**hparams, "cuda_graphs": asked},
            run_opts={"device": "cpu", "noprogressbar": True},
        )
        for epoch in (1, 2):
            fit(brain, dataio_prepare(hparams), range(epoch, epoch + 1))
        losses.append(brain.train_stats["loss"])
        epochs = 2 * ["record", "training", "training"]
        assert seen == (["made", *epochs] if asked else [])
    assert losses[0] == losses[1]


def test_a_nonfinite_loss_changes_no_weight_and_is_counted(brain, hparams):
    brain.skip_nonfinite_grads = True
    hparams["objectives"] = dict.fromkeys(
        ("supervised", "unsupervised"), lambda e, t: e.sum((1, 2)) * math.nan
    )
    brain.hparams.objectives = hparams["objectives"]
    before = brain.modules.separator.conv.weight.detach().clone()
    datasets = dataio_prepare(hparams)
    brain.fit(range(1, 2), datasets["train"], train_loader_kwargs=dict(LOADER))
    assert torch.equal(before, brain.modules.separator.conv.weight)
    assert brain.train_stats["skipped"] == 8
    assert brain.num_examples == 0


def test_the_best_checkpoint_is_kept(brain, hparams, tmp_path):
    brain.checkpointer = sb.utils.checkpoints.Checkpointer(
        tmp_path / "save", {"separator": brain.modules.separator}
    )
    fit(brain, dataio_prepare(hparams), range(1, 4))
    valid = [line["valid"]["si_sdri"] for line in hparams["train_logger"].lines]
    best = brain.checkpointer.find_checkpoint(max_key="si_sdri")
    assert best.meta["si_sdri"] == max(valid)


def test_silent_speech_is_not_scored(brain, hparams):
    datasets = dataio_prepare(hparams)
    key = datasets["test"].data_ids[0]
    datasets["test"].data[key]["speech"] = None
    brain.evaluate(datasets["test"], test_loader_kwargs=dict(LOADER))
    assert key not in {row["id"] for row in brain.utterances}


def test_damaged_recordings_are_skipped_and_counted(brain, hparams):
    datasets = dataio_prepare(hparams)
    for data in datasets.values():
        for key in data.data_ids[:4]:
            data.data[key]["speech"] = Segment("/gone.wav", 0, 0)
    fit(brain, datasets, range(1, 2))
    assert brain.num_examples == 4
    assert brain.train_stats["skipped"] == 4
    assert brain.utterances == []


def test_a_group_without_objective_is_named(brain, hparams):
    hparams["client_groups"] = {"semi": 1.0}
    with pytest.raises(ValueError, match="no entry for the group semi"):
        fit(brain, dataio_prepare(hparams), range(1, 2))


def test_recordings_of_unequal_length_have_one_loss_whatever_the_batch(brain, hparams):
    data = dataio_prepare(hparams)["valid"]
    examples = list(data)
    for i, example in enumerate(examples):
        example["sources"] = example["sources"][:, : 2000 + 1000 * (i % 2)]
    brain.modules.eval()
    one_by_one = [
        brain.evaluate_batch(collate([example]), sb.Stage.VALID) for example in examples
    ]
    together = brain.evaluate_batch(collate(examples), sb.Stage.VALID)
    assert float(together) == pytest.approx(float(sum(one_by_one)) / len(examples))
    assert len(brain.utterances) == 2 * len(examples)


@pytest.mark.parametrize(
    ("options", "frozen"),
    [
        ({"frozen_statistics": False, "initial_model": "start"}, False),
        ({"frozen_statistics": True}, True),
        ({"frozen_statistics": None, "initial_model": "start"}, True),
        ({"frozen_statistics": None, "initial_model": None}, False),
        ({}, False),
    ],
)
def test_frozen_statistics_of_any_network_stay(hparams, options, frozen):
    network = TinySeparator()
    network.norm = torch.nn.BatchNorm1d(3)
    network.forward = lambda mixture: network.norm(network.conv(mixture.unsqueeze(1)))
    brain = Separation(
        modules={"separator": network},
        opt_class=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        hparams=hparams | options,
        run_opts={"device": "cpu", "noprogressbar": True},
    )
    fit(brain, dataio_prepare(hparams), range(1, 2))
    assert network.norm.running_mean.eq(0).all() == frozen
    assert not network.norm.weight.eq(1).all()
