"""Objectives of enhancement and separation: MixIT in its variants, and supervision.

Every loss is in dB, lower is better, and is computed per example, so that a
recipe can weight, log or drop examples one by one.

Enumerating MixIT's assignments costs next to nothing because no audio is remixed
for it. The losses of :mod:`fedenhance.objectives.levels` depend on their signals only
through inner products, and a QR decomposition of the few estimates and mixtures yields
vectors as short as their number with the same inner products. The losses of all
assignments are taken on those; only the best assignment is then applied to the audio.

References
----------
Yu et al., "Permutation invariant training of deep models for speaker-independent
multi-talker speech separation", ICASSP 2017 (PIT).
Wisdom et al., "Unsupervised sound separation using mixture invariant training",
NeurIPS 2020 (MixIT).
Wisdom et al., "What's all the FUSS about free universal sound separation data?",
ICASSP 2021 (loss of inactive sources).
Wisdom et al., "Sparse, efficient, and semantic mixture invariant training: taming
in-the-wild unsupervised sound separation", WASPAA 2021 (efficient MixIT).
Tzinis et al., "Separate but together: unsupervised federated learning for speech
enhancement from non-IID data", WASPAA 2021 (constrained MixIT).
Fujimura et al., "Noisy-target training: a training strategy for DNN-based speech
enhancement without clean speech", EUSIPCO 2021.
"""

import functools
import itertools

import torch
from torch.nn import functional as F

from fedenhance.objectives.levels import (
    at_least_float32,
    depends_on_inner_products,
    energy,
    thresholded_snr_loss,
)

MAX_ASSIGNMENTS = 2**13
# A source 40 dB below its mixture counts as silent.
INACTIVE = 1e-4
# Singular values below this share of the largest are rounding errors.
RANK_TOLERANCE = 1e-5


def supervised(estimates, targets, loss=thresholded_snr_loss, noise_weight=1.0):
    """Loss of estimates whose targets are known.

    The first slot is speech, the others are noises in any order: the permutation of
    the noises that has the least loss counts. A target more than 40 dB below the
    mixture is inactive and what is estimated for it counts as an error on the
    mixture, as in the FUSS paper.

    A network of two sources gives speech and the rest: its target is the sum of the
    noises. One of more sources than there are targets should leave the others silent.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimated sources, shape (batch, source, time).
    targets : torch.Tensor
        True sources, shape (batch, target, time); silent ones where there is none.
    loss : callable
        Maps (..., time) estimates and targets to losses (...).
    noise_weight : float
        Weight of each noise relative to speech; 0 trains on speech alone.

    Returns
    -------
    torch.Tensor
        Weighted mean of the losses of the sources in dB, shape (batch,).

    Example
    -------
    >>> targets = torch.eye(3).unsqueeze(0)
    >>> supervised(targets[:, [0, 2, 1]], targets)
    tensor([-30.])
    """
    estimates, targets = _matching_sources(estimates, targets)
    num_sources, num_targets = estimates.shape[1], targets.shape[1]
    if num_sources == 2 < num_targets:
        targets = torch.stack([targets[:, 0], targets[:, 1:].sum(1)], dim=1)
    elif 2 <= num_targets < num_sources:
        targets = F.pad(targets, (0, 0, 0, num_sources - num_targets))
    elif num_sources != num_targets:
        raise ValueError(
            f"supervised has {num_targets} targets for {num_sources} estimates: set "
            "the network's num_sources to 2 (speech and the rest) or to at least as "
            "many as there are targets"
        )
    if noise_weight == 0:
        return mixit(
            estimates,
            targets,
            functools.partial(_first_alone, loss),
            allow=[range(num_sources)],
            weights=[1.0] + [0.0] * (num_sources - 1),
        )
    noise_orders = itertools.permutations(range(1, num_sources))
    return mixit(
        estimates,
        targets,
        loss,
        allow=[(0, *order) for order in noise_orders],
        weights=[1.0] + [noise_weight] * (num_sources - 1),
    )


def _first_alone(loss, estimates, targets):
    """Losses of which only those of the first slot are computed; 0 for the others."""
    first = loss(estimates[..., :1, :], targets[..., :1, :])
    return F.pad(first, (0, targets.shape[-2] - 1))


def mixit(
    estimates,
    mixtures,
    loss=thresholded_snr_loss,
    allow=None,
    deny=None,
    weights=None,
    return_assignments=False,
):
    """Mixture invariant training (Wisdom et al., NeurIPS 2020).

    Each source is assigned to one of the mixtures; the assignment whose remixes are
    closest to the mixtures counts.

    An assignment is written as one mixture per source: with three sources,
    ``[0, 0, 1]`` puts the first two in mixture 0 and the last one in mixture 1. In
    ``allow`` and ``deny``, None (``null`` in YAML) stands for any mixture:
    ``allow=[[0, None, None]]`` keeps the first source in mixture 0.

    Where there are more than ``MAX_ASSIGNMENTS`` and none is excluded,
    ``efficient_mixit`` takes over.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimated sources, shape (batch, source, time).
    mixtures : torch.Tensor
        Mixtures whose sum was separated, shape (batch, mixture, time).
    loss : callable
        Maps (..., time) estimates and targets to losses (...).
    allow : list
        Only these assignments are considered; all of them by default.
    deny : list
        These assignments are not considered.
    weights : list
        One weight per mixture for the mean over mixtures; equal by default.
    return_assignments : bool
        Whether to return the chosen assignments too.

    Returns
    -------
    torch.Tensor
        Mean of the losses of the mixtures in dB, shape (batch,). An example that is
        entirely silent has loss 0.
    torch.Tensor
        If asked for, the mixture of each source, shape (batch, source).

    Example
    -------
    >>> sources = torch.eye(3).unsqueeze(0)
    >>> mixtures = torch.stack([sources[:, 0] + sources[:, 2], sources[:, 1]], dim=1)
    >>> mixit(sources, mixtures, return_assignments=True)
    (tensor([-30.]), tensor([[0, 1, 0]]))
    """
    patterns = (p if p is None else tuple(map(tuple, p)) for p in (allow, deny))
    choose = functools.partial(_best_assignments, *patterns)
    return _mixit(choose, estimates, mixtures, loss, weights, return_assignments)


def efficient_mixit(
    estimates,
    mixtures,
    loss=thresholded_snr_loss,
    weights=None,
    return_assignments=False,
):
    """MixIT without enumeration (Wisdom et al., WASPAA 2021).

    The mixing matrix that approximates the mixtures best in the least-squares sense is
    projected onto assignments: each source goes to the mixture that has most of it.
    Cost grows linearly with the number of mixtures and not exponentially with the
    number of sources, but the assignment is not always the best one.

    Arguments and returns are those of :func:`mixit`.

    Example
    -------
    >>> sources = torch.eye(3).unsqueeze(0)
    >>> mixtures = torch.stack([sources[:, 0] + sources[:, 2], sources[:, 1]], dim=1)
    >>> efficient_mixit(sources, mixtures, return_assignments=True)
    (tensor([-30.]), tensor([[0, 1, 0]]))
    """
    return _mixit(
        _project_least_squares, estimates, mixtures, loss, weights, return_assignments
    )


def constrained_mixit(estimates, mixtures, loss=thresholded_snr_loss, **settings):
    """MixIT of a noisy recording and noise recordings (Tzinis et al., WASPAA 2021).

    The first slot is speech. Each noise recording is one noise slot; speech and the
    noise slots that are left make up the noisy recording.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimated sources, speech first, shape (batch, source, time).
    mixtures : torch.Tensor
        The noisy recording, then noise recordings, shape (batch, mixture, time).
    loss : callable
        Maps (..., time) estimates and targets to losses (...).
    **settings
        As for ``mixit``.

    Returns
    -------
    torch.Tensor
        Mean of the losses of the mixtures in dB, shape (batch,); see ``mixit``.

    Example
    -------
    >>> sources = torch.eye(3).unsqueeze(0)
    >>> mixtures = torch.stack([sources[:, 0] + sources[:, 2], sources[:, 1]], dim=1)
    >>> constrained_mixit(sources, mixtures)
    tensor([-30.])
    """
    num_noises, num_mixtures = estimates.shape[1] - 1, mixtures.shape[1]
    if num_noises < num_mixtures:
        raise ValueError(
            f"constrained_mixit needs {num_mixtures} noise slots, for the noise in the "
            f"noisy recording and for {num_mixtures - 1} recordings of noise, but "
            f"{num_noises} are estimated: set the network's num_sources to "
            f"{num_mixtures + 1}, or train it with noisy_target, RemixIT or supervised"
        )
    noises = [*range(1, num_mixtures)] + [0] * (num_noises - num_mixtures + 1)
    allow = sorted({(0, *order) for order in itertools.permutations(noises)})
    return mixit(estimates, mixtures, loss, allow=allow, **settings)


def noisy_target(
    estimates, mixtures, loss=thresholded_snr_loss, noise_weight=0.0, **settings
):
    """Noisy-target training (Fujimura et al., EUSIPCO 2021).

    The noisy recording is the target of the speech slot and the noise that was added
    to it is the target of the other slots together.

    Arguments
    ---------
    estimates : torch.Tensor
        Estimated sources, speech first, shape (batch, source, time).
    mixtures : torch.Tensor
        The noisy recording and the added noise, shape (batch, 2, time).
    loss : callable
        Maps (..., time) estimates and targets to losses (...).
    noise_weight : float
        Weight of the noise relative to the noisy recording.
    **settings
        As for ``mixit``.

    Returns
    -------
    torch.Tensor
        Loss in dB, shape (batch,).

    Example
    -------
    >>> mixtures = torch.eye(2).unsqueeze(0)
    >>> noisy_target(mixtures, mixtures)
    tensor([-30.])
    """
    if mixtures.shape[1] != 2:
        raise ValueError(
            "noisy_target needs a noisy recording and one noise, mixtures of shape "
            f"(batch, 2, time), got {tuple(mixtures.shape)}"
        )
    assignment = [0] + [1] * (estimates.shape[1] - 1)
    weights = [1.0, noise_weight]
    return mixit(
        estimates, mixtures, loss, allow=[assignment], weights=weights, **settings
    )


def _mixit(choose, estimates, mixtures, loss, weights, return_assignments):
    """Losses of the assignments that ``choose`` finds."""
    estimates, mixtures = _matching_sources(estimates, mixtures)
    weights = _normalized(weights, mixtures)
    with torch.autocast(estimates.device.type, enabled=False):
        with torch.no_grad():
            best = choose(estimates, mixtures, loss, weights)  # (batch, source)
        losses = _remix_losses(best, estimates, mixtures, loss) @ weights
    return (losses, best) if return_assignments else losses


def _best_assignments(allow, deny, estimates, mixtures, loss, weights):
    """Choose for each example the allowed assignment of least loss."""
    num_sources, num_mixtures = estimates.shape[1], mixtures.shape[1]
    if allow is None and deny is None and num_mixtures**num_sources > MAX_ASSIGNMENTS:
        return _project_least_squares(estimates, mixtures, loss, weights)
    candidates = _assignments(num_sources, num_mixtures, allow, deny, mixtures.device)
    if len(candidates) == 1:
        return candidates.expand(len(estimates), -1)
    if depends_on_inner_products(loss):
        estimates, mixtures = _coordinates(estimates, mixtures)
    chunk = max(1, 2**24 // mixtures.numel())
    scores = [
        _remix_losses(assignments.unsqueeze(1), estimates, mixtures, loss) @ weights
        for assignments in candidates.split(chunk)
    ]
    return candidates[torch.cat(scores).argmin(0)]


def _project_least_squares(estimates, mixtures, loss, weights):
    """Choose for each source the mixture that has most of it."""
    sources, sums = map(torch.nan_to_num, _coordinates(estimates, mixtures))
    mixing = sums @ torch.linalg.pinv(sources, rtol=RANK_TOLERANCE)
    return mixing.argmax(1)


def _remix_losses(assignments, estimates, mixtures, loss):
    """Losses (..., batch, mixture) of assignments (..., batch or 1, source)."""
    mixing = F.one_hot(assignments, mixtures.shape[1]).mT.to(estimates)
    remixes = mixing @ estimates  # (..., batch, mixture, time)
    total = mixtures.sum(1, keepdim=True)
    power = energy(mixtures)  # (batch, mixture)
    inactive = power <= INACTIVE * energy(total)
    # What stands for an inactive mixture is an error on the sum of the mixtures.
    offset = inactive.unsqueeze(-1) * total
    losses = loss(remixes + offset, mixtures + offset)
    silent = power.sum(-1, keepdim=True) == 0
    return torch.where(silent, torch.zeros_like(losses), losses)


def _coordinates(*signals):
    """Turn signals (batch, source, time) into short vectors.

    The vectors (batch, source, coordinate) have the inner products of the signals.
    QR rather than a Gram matrix, which would lose half of the digits; on a GPU, where
    the QR of long matrices is slow, the Gram matrix with twice the digits.
    """
    stacked = torch.cat(signals, dim=1)
    if stacked.device.type == "cuda":
        vectors = _gram_coordinates(stacked)
    else:
        vectors = torch.linalg.qr(stacked.mT, mode="r")[1].mT
    return vectors.split([signal.shape[1] for signal in signals], dim=1)


def _gram_coordinates(signals):
    """Short vectors from the Cholesky factor of the inner products, in float64."""
    wide = signals.double()
    products = wide @ wide.mT
    diagonal = products.diagonal(dim1=-2, dim2=-1)
    trace = diagonal.sum(-1, keepdim=True)
    # As little as keeps silent or dependent signals from being singular.
    diagonal += torch.where(trace > 0, 1e-13 * trace, 1.0)
    vectors = torch.linalg.cholesky_ex(products)[0]
    return torch.where(trace[..., None] > 0, vectors, 0.0).to(signals.dtype)


@functools.lru_cache(maxsize=64)
def _assignments(num_sources, num_mixtures, allow, deny, device):
    """All allowed assignments, shape (assignment, source).

    They are kept where they are used: to move them to a GPU is to wait for it.
    """
    allow = ((None,) * num_sources,) if allow is None else allow
    deny = deny or ()
    for pattern in (*allow, *deny):
        if len(pattern) != num_sources:
            raise ValueError(
                f"the assignment {list(pattern)} has {len(pattern)} entries, "
                f"but {num_sources} sources are estimated: give one mixture per source"
            )
        if not set(pattern) <= {None, *range(num_mixtures)}:
            raise ValueError(
                f"the assignment {list(pattern)} names a mixture that does not exist: "
                f"the {num_mixtures} mixtures are counted from 0; null means any"
            )
    count = sum(num_mixtures ** pattern.count(None) for pattern in allow)
    if count > MAX_ASSIGNMENTS:
        raise ValueError(
            f"{num_sources} sources in {num_mixtures} mixtures have {count} "
            f"assignments; at most {MAX_ASSIGNMENTS} are enumerated: allow fewer"
        )
    found = set()
    for pattern in allow:
        choices = [range(num_mixtures) if m is None else (m,) for m in pattern]
        found.update(itertools.product(*choices))
    for pattern in deny:
        fixed = [(i, m) for i, m in enumerate(pattern) if m is not None]
        found = {a for a in found if any(a[i] != m for i, m in fixed)}
    if not found:
        raise ValueError(f"no assignment is allowed: allow={allow}, deny={deny}")
    return torch.tensor(sorted(found), device=device)


def _normalized(weights, mixtures):
    """Weights that sum to one, shape (mixture,)."""
    count = mixtures.shape[1]
    if weights is None:
        return mixtures.new_full((count,), 1 / count)
    # Looked at before they move: to look at them on a GPU is to wait for it.
    weights = torch.as_tensor(weights, dtype=mixtures.dtype)
    if len(weights) != count or weights.min() < 0 or weights.sum() == 0:
        raise ValueError(
            f"weights {weights.tolist()} must be {count} numbers, none negative and "
            "not all zero: one per mixture"
        )
    return (weights / weights.sum()).to(mixtures.device)


def _matching_sources(estimates, mixtures):
    """Check (batch, source, time) and (batch, mixture, time)."""
    if estimates.dim() != 3 or estimates[:, 0].shape != mixtures[:, 0].shape:
        raise ValueError(
            "estimates must be (batch, source, time) and mixtures or targets "
            "(batch, mixture, time) of the same batch and time: got "
            f"{tuple(estimates.shape)} and {tuple(mixtures.shape)}"
        )
    return at_least_float32(estimates, mixtures)
