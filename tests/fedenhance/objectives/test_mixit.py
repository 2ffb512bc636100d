"""The laws of the objectives, and their agreement with independent references."""

import functools
import itertools
import time

import numpy as np
import pytest
import torch
from torchmetrics.functional.audio import (
    permutation_invariant_training,
    scale_invariant_signal_distortion_ratio,
)

from fedenhance.objectives import mixit as objectives
from fedenhance.objectives.consistency import uniform
from fedenhance.objectives.levels import (
    si_sdr_loss,
    snr_loss,
    thresholded_snr_loss,
)
from fedenhance.objectives.mixit import (
    constrained_mixit,
    efficient_mixit,
    mixit,
    noisy_target,
    supervised,
)

LOSSES = [si_sdr_loss, snr_loss, thresholded_snr_loss]
OBJECTIVES = [mixit, efficient_mixit, constrained_mixit, noisy_target]


def random_case(sources=3, mixtures=2, batch=4, samples=400, snr_db=10, **options):
    """Sources, mixtures of them with at least one each, and noisy estimates."""
    signals = torch.randn(batch, sources, samples, **options)
    signals = signals * 10 ** torch.empty(batch, sources, 1).uniform_(-1, 0)
    assignments = torch.stack(
        [
            torch.cat(
                [torch.arange(mixtures), torch.randint(mixtures, (sources - mixtures,))]
            )[torch.randperm(sources)]
            for _ in range(batch)
        ]
    )
    mixing = torch.nn.functional.one_hot(assignments, mixtures).mT.to(signals)
    noise = torch.randn_like(signals) * signals.std(-1, keepdim=True)
    return signals + 10 ** (-snr_db / 20) * noise, mixing @ signals, assignments


def enumerate_in_numpy(estimates, mixtures, snr_max=30.0):
    """MixIT from its definition, one assignment of one example at a time."""
    estimates, mixtures = estimates.double().numpy(), mixtures.double().numpy()
    best = []
    for sources, sums in zip(estimates, mixtures, strict=True):
        found = []
        for assignment in itertools.product(range(len(sums)), repeat=len(sources)):
            losses = []
            for mixture, target in enumerate(sums):
                remix = np.zeros_like(target)
                for source, chosen in zip(sources, assignment, strict=True):
                    remix += source if chosen == mixture else 0
                power = np.sum(target**2)
                error = np.sum((target - remix) ** 2) + 10 ** (-snr_max / 10) * power
                losses.append(10 * np.log10(error / power))
            found.append((np.mean(losses), assignment))
        best.append(min(found))
    return [loss for loss, _ in best], [list(assignment) for _, assignment in best]


# ------------------------------------------------------------------------- MixIT


@pytest.mark.parametrize("mixtures", [2, 3])
@pytest.mark.parametrize("sources", [3, 4, 5, 8])
def test_mixit_agrees_with_an_enumeration_in_numpy(sources, mixtures):
    batch = 1 if mixtures**sources > 1000 else 4
    estimates, sums, _ = random_case(sources, mixtures, batch, samples=60, snr_db=0)
    expected_losses, expected_assignments = enumerate_in_numpy(estimates, sums)
    losses, assignments = mixit(estimates, sums, return_assignments=True)
    np.testing.assert_allclose(losses, expected_losses, atol=1e-4)
    assert assignments.tolist() == expected_assignments


def test_two_sources_two_mixtures_agree_with_numpy_too():
    estimates, sums, _ = random_case(2, 2, samples=60, snr_db=0)
    np.testing.assert_allclose(
        mixit(estimates, sums), enumerate_in_numpy(estimates, sums)[0], atol=1e-4
    )


def test_any_loss_can_be_enumerated_on_audio():
    # The same formula, unmarked: no short vectors, the audio itself.
    def on_audio(estimates, targets):
        return thresholded_snr_loss(estimates, targets, snr_max=20)

    on_vectors = functools.partial(thresholded_snr_loss, snr_max=20)
    estimates, sums, _ = random_case(sources=4, snr_db=3)
    audio = mixit(estimates, sums, on_audio, return_assignments=True)
    vectors = mixit(estimates, sums, on_vectors, return_assignments=True)
    torch.testing.assert_close(audio, vectors)


def test_short_vectors_keep_their_accuracy_at_high_snr():
    # Two assignments whose errors are 100 and 106 dB below the mixtures.
    audio = torch.randn(1, 2, 64000)
    faint = 1e-5 * torch.randn(1, 1, 64000)
    sources = torch.cat([audio, 0.5 * faint], dim=1)
    mixtures = audio + torch.cat([faint, torch.zeros_like(faint)], dim=1)
    _, assignments = mixit(sources, mixtures, snr_loss, return_assignments=True)
    assert assignments.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("objective", [mixit, efficient_mixit])
@pytest.mark.parametrize("loss", LOSSES)
def test_mixit_is_invariant_to_the_order_of_estimates(objective, loss):
    estimates, sums, _ = random_case(sources=4)
    shuffled = estimates[:, torch.tensor([2, 0, 3, 1])]
    torch.testing.assert_close(
        objective(shuffled, sums, loss), objective(estimates, sums, loss)
    )


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("objective", [*OBJECTIVES, supervised])
@pytest.mark.parametrize("loss", LOSSES)
def test_level_of_the_audio_does_not_matter(objective, loss, scale):
    estimates, sums, _ = random_case(samples=4000)
    if objective is supervised:
        sums = torch.randn_like(estimates)
        sums[0, 2] = 0
    loud = objective(scale * estimates, scale * sums, loss)
    torch.testing.assert_close(
        loud, objective(estimates, sums, loss), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_silence_never_wins(loss):
    # However poor, estimates that hold something of each mixture beat a silent one.
    estimates, sums, _ = random_case(sources=2, batch=16, snr_db=1)
    estimates = torch.cat([torch.zeros_like(estimates[:, :1]), estimates], dim=1)
    _, assignments = mixit(estimates, sums, loss, return_assignments=True)
    assert (assignments[:, 1] != assignments[:, 2]).all()


@pytest.mark.parametrize("loss", [snr_loss, thresholded_snr_loss])
def test_silent_network_reaches_no_more_than_0_db(loss):
    sums = torch.randn(3, 2, 100)
    losses = mixit(torch.zeros(3, 3, 100), sums, loss)
    assert (losses >= -1e-6).all()


def test_one_to_one_assignments_are_permutation_invariant_training():
    estimates, targets = torch.randn(2, 5, 3, 200)
    permutations = list(itertools.permutations(range(3)))
    expected, _ = permutation_invariant_training(
        estimates, targets, scale_invariant_signal_distortion_ratio
    )
    losses = mixit(estimates, targets, si_sdr_loss, allow=permutations)
    torch.testing.assert_close(losses, -expected, atol=1e-4, rtol=0)


def test_constrained_mixit_pins_speech_and_splits_the_noises():
    estimates, sums, _ = random_case(sources=3, batch=32, snr_db=-10)
    losses, assignments = constrained_mixit(estimates, sums, return_assignments=True)
    chosen = {tuple(row) for row in assignments.tolist()}
    assert chosen == {(0, 0, 1), (0, 1, 0)}
    by_hand = [
        thresholded_snr_loss(
            torch.stack(
                [estimates[:, 0] + estimates[:, own], estimates[:, other]], dim=1
            ),
            sums,
        ).mean(-1)
        for own, other in ((1, 2), (2, 1))
    ]
    torch.testing.assert_close(losses, torch.minimum(*by_hand))


def test_constrained_mixit_is_general_mixit_when_its_assignment_is_best():
    estimates, sums, _ = random_case(sources=3, batch=64)
    losses, assignments = mixit(estimates, sums, return_assignments=True)
    allowed = (assignments[:, 0] == 0) & (assignments[:, 1] != assignments[:, 2])
    constrained = constrained_mixit(estimates, sums)
    torch.testing.assert_close(constrained[allowed], losses[allowed])
    assert (constrained[~allowed] > losses[~allowed]).all()


def test_allow_and_deny_take_wildcards():
    estimates, sums, _ = random_case(batch=64, snr_db=-20)
    for settings in (
        {"allow": [[0, None, None]]},
        {"deny": [[1, None, None]]},
        {"allow": [[0, None, None], [1, 1, 1]], "deny": [[1, 1, None]]},
    ):
        _, assignments = mixit(estimates, sums, return_assignments=True, **settings)
        assert (assignments[:, 0] == 0).all()
    _, assignments = mixit(estimates, sums, deny=[[0, 0, 0]], return_assignments=True)
    assert (assignments != 0).any(1).all()


def test_weights_of_mixtures():
    estimates, sums, _ = random_case()
    options = {"allow": [[0, 1, 1]]}
    first, second = (
        mixit(estimates, sums, weights=weights, **options)
        for weights in ([1, 0], [0, 1])
    )
    both = mixit(estimates, sums, weights=[3, 1], **options)
    torch.testing.assert_close(both, 0.75 * first + 0.25 * second)


def test_noisy_target_by_hand():
    estimates, sums, _ = random_case(sources=3)
    expected = thresholded_snr_loss(estimates[:, 0], sums[:, 0])
    torch.testing.assert_close(noisy_target(estimates, sums), expected)
    noise = thresholded_snr_loss(estimates[:, 1:].sum(1), sums[:, 1])
    both = noisy_target(estimates, sums, noise_weight=1.0)
    torch.testing.assert_close(both, (expected + noise) / 2)


# ---------------------------------------------------------------- efficient MixIT


@pytest.mark.parametrize(("sources", "mixtures"), [(3, 2), (4, 2), (8, 2), (6, 3)])
@pytest.mark.parametrize("consistent", [False, True])
def test_efficient_mixit_finds_the_optimum(sources, mixtures, consistent):
    # Well posed: every source is estimated with 10 dB of SNR.
    estimates, sums, truth = random_case(sources, mixtures, batch=100, snr_db=10)
    if consistent:
        estimates = uniform(estimates, sums.sum(1))
    losses, assignments = efficient_mixit(estimates, sums, return_assignments=True)
    optimum, best = mixit(estimates, sums, return_assignments=True)
    assert (assignments == best).all(1).float().mean() >= 0.95
    assert (losses >= optimum - 1e-4).all()


def test_mixit_turns_to_efficient_mixit_where_enumeration_explodes():
    estimates, sums, truth = random_case(sources=24, mixtures=2, snr_db=15)
    started = time.perf_counter()
    losses, assignments = mixit(estimates, sums, return_assignments=True)
    assert time.perf_counter() - started < 5  # 2 ** 24 assignments take minutes
    torch.testing.assert_close(losses, efficient_mixit(estimates, sums))
    assert (assignments == truth).float().mean() > 0.95


# -------------------------------------------------------------------- supervised


def test_supervised_fixes_speech_and_permutes_noises():
    targets = torch.randn(4, 3, 100)
    swapped_noises = targets[:, [0, 2, 1]]
    swapped_speech = targets[:, [1, 0, 2]]
    torch.testing.assert_close(
        supervised(swapped_noises, targets), torch.full((4,), -30.0)
    )
    assert (supervised(swapped_speech, targets) > -15).all()


def test_noise_weight_zero_trains_on_speech_alone():
    estimates, targets = torch.randn(2, 4, 3, 100)
    torch.testing.assert_close(
        supervised(estimates, targets, noise_weight=0.0),
        thresholded_snr_loss(estimates[:, 0], targets[:, 0]),
    )


def test_silent_noise_target_does_not_dominate():
    targets = torch.randn(4, 3, 400)
    targets[:, 2] = 0
    mixture = targets.sum(1)
    perfect = supervised(targets, targets)
    torch.testing.assert_close(perfect, torch.full((4,), -30.0))
    # The worst an estimate of silence gets is the whole mixture: about 0 dB.
    estimates = targets.clone()
    estimates[:, 2] = mixture
    torch.testing.assert_close(
        supervised(estimates, targets), torch.full((4,), -20.0), atol=0.01, rtol=0
    )


def test_silent_noise_mixture_does_not_dominate():
    sums = torch.randn(4, 2, 400)
    sums[:, 1] = 0
    estimates = torch.cat([sums, torch.zeros(4, 1, 400)], dim=1)
    torch.testing.assert_close(mixit(estimates, sums), torch.full((4,), -30.0))
    estimates[:, 1] = 0.1 * sums[:, 0]
    losses = mixit(estimates, sums, allow=[[0, 1, 1]])
    expected = (-30 + 10 * np.log10(0.01 + 0.001)) / 2
    torch.testing.assert_close(losses, torch.full((4,), expected), atol=0.01, rtol=0)


@pytest.mark.parametrize("objective", [*OBJECTIVES, supervised])
def test_silent_examples_are_neutral(objective):
    estimates = torch.randn(2, 3, 100, requires_grad=True)
    sums = torch.randn(2, 3 if objective is supervised else 2, 100)
    sums[1] = 0
    losses = objective(estimates, sums)
    losses.sum().backward()
    assert losses[1] == 0
    assert (estimates.grad[1] == 0).all()
    assert torch.isfinite(estimates.grad).all()
    silent = torch.zeros_like(estimates, requires_grad=True)
    objective(silent, sums).sum().backward()
    assert torch.isfinite(silent.grad).all()


# ----------------------------------------------------------- numbers and gradients


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("objective", [*OBJECTIVES, supervised])
def test_gradients_of_objectives(objective, loss):
    estimates = torch.randn(2, 3, 12, dtype=torch.float64, requires_grad=True)
    sums = torch.randn(2, 3 if objective is supervised else 2, 12, dtype=torch.float64)
    sums[0, 1] = 0
    assert torch.autograd.gradcheck(lambda e: objective(e, sums, loss), estimates)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("objective", [*OBJECTIVES, supervised])
def test_half_precision_is_reduced_in_float32(objective, dtype):
    # The energy of four loud seconds overflows float16, and bfloat16 has two digits.
    estimates, sums, _ = random_case(samples=64000)
    if objective is supervised:
        sums = torch.randn_like(estimates)
    estimates, sums = (3 * estimates).to(dtype), (3 * sums).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = objective(estimates, sums)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, objective(estimates.float(), sums.float()))


def test_a_diverged_network_gives_nan_and_not_an_error():
    estimates, sums, _ = random_case()
    estimates[0] = float("nan")
    estimates[1] = float("inf")
    for objective in OBJECTIVES:
        losses = objective(estimates, sums)
        assert not torch.isfinite(losses[:2]).any()
        assert torch.isfinite(losses[2:]).all()


# -------------------------------------------------------------- numbers of sources


def test_two_sources_are_speech_and_the_sum_of_the_noises():
    estimates, targets = torch.randn(4, 2, 100), torch.randn(4, 3, 100)
    rest = torch.stack([targets[:, 0], targets[:, 1] + targets[:, 2]], dim=1)
    expected = supervised(estimates, rest)
    torch.testing.assert_close(supervised(estimates, targets), expected)


def test_a_source_too_many_should_be_silent():
    estimates, targets = torch.randn(4, 4, 100), torch.randn(4, 3, 100)
    silence = torch.zeros(4, 1, 100)
    expected = supervised(estimates, torch.cat([targets, silence], dim=1))
    torch.testing.assert_close(supervised(estimates, targets), expected)


# ------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda e, x: mixit(e[0], x), r"\(batch, source, time\)"),
        (lambda e, x: mixit(e, x[..., 1:]), r"\(batch, source, time\)"),
        (lambda e, x: supervised(e[:, :1], x), "2 targets for 1 estimates"),
        (lambda e, x: mixit(e, x, allow=[[0, 1]]), "one mixture per source"),
        (lambda e, x: mixit(e, x, allow=[[0, 1, 2]]), "does not exist"),
        (lambda e, x: mixit(e, x, deny=[[None] * 3]), "no assignment is allowed"),
        (lambda e, x: mixit(e, x, weights=[1]), "one per mixture"),
        (lambda e, x: mixit(e, x, weights=[1, -1]), "none negative"),
        (lambda e, x: constrained_mixit(e[:, :2], x), "needs 2 noise slots.* to 3"),
        (lambda e, x: noisy_target(e, x[:, :1]), "one noise"),
        (
            lambda e, x: mixit(torch.cat([e] * 8, 1), x, allow=[[None] * 24]),
            "allow fewer",
        ),
    ],
)
def test_wrong_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(torch.randn(4, 3, 100), torch.randn(4, 2, 100))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_short_vectors_of_gpus_have_the_same_inner_products(scale):
    signals = scale * torch.randn(4, 5, 2000)
    signals[1, 2] = 0  # a silent one, one that depends on others, silence alone
    signals[2, 4] = signals[2, 0] - signals[2, 1]
    signals[3] = 0
    short = objectives._gram_coordinates(signals).double()
    assert short.shape == (4, 5, 5)
    signals = signals.double()
    expected = signals @ signals.mT
    error = short @ short.mT - expected
    assert (error[:3].abs().amax((1, 2)) < 1e-6 * expected[:3].amax((1, 2))).all()
    assert not short[3].any()


def test_processors_take_the_qr(monkeypatch):
    monkeypatch.delattr(objectives, "_gram_coordinates")
    objectives.constrained_mixit(torch.randn(1, 3, 50), torch.randn(1, 2, 50))


def test_of_noise_without_weight_no_loss_is_computed():
    targets = torch.randn(2, 3, 100)
    estimates = targets + 0.1 * torch.randn_like(targets)
    seen = []

    def loss(estimates, targets):
        seen.append(targets.shape[-2])
        return snr_loss(estimates, targets)

    found = supervised(estimates, targets, loss, noise_weight=0.0)
    assert found == pytest.approx(snr_loss(estimates[:, 0], targets[:, 0]))
    assert seen == [1]
    targets[0, 0] = 0.0  # what is estimated for silence is an error on the mixture
    expected = snr_loss(targets[0].sum(0) + estimates[0, 0], targets[0].sum(0))
    assert supervised(estimates, targets, loss, 0.0)[0] == pytest.approx(expected)
