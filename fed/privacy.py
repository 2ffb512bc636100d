"""Central differential privacy: the model hardly depends on any one client.

DP-FedAvg (McMahan et al., "Learning Differentially Private Recurrent Language Models",
ICLR 2018), with adaptive clipping (Andrew et al., NeurIPS 2021) on request:

- Each client takes part in a round with probability q, independently of the others
  (Poisson sampling), so that rounds differ in size, and none may have nobody.
- Its update is scaled down to the clipping norm C where it is longer.
- The sum of the updates gets Gaussian noise of standard deviation z C in each value.
- It is divided by q N, the number of clients that is expected, not by that which came.

The server is trusted to do so; whoever sees all models learns of any client no more
than (epsilon, delta) says. Neighbours are two sets of clients of which one has one
client more, with all its data: it changes the sum by C at most, and nothing else, as
neither the other clients' chances nor the divisor depend on it. For noise that clients
add themselves, before anything is sent, give ``mods`` Flower's
``flwr.clientapp.mod.LocalDpMod``.
"""

import logging
import math

import numpy as np
from flwr.serverapp.exception import PrivacyBudgetExhausted
from flwr.supercore.privacy_accounting import (
    GaussianPrivacyEvent,
    NeighboringRelation,
    PrivacyConfig,
    SamplingMethod,
)
from flwr.supercore.privacy_accounting.rdp_accountant import RdpAccountant
from speechbrain.utils.logger import get_logger

from fed.arrays import view
from fed.strategy import Wrapper, as_reply

logger = get_logger(__name__)


def central(
    strategy,
    population,
    sampled,
    rounds,
    noise_multiplier=None,
    clipping_norm=1.0,
    delta=1e-5,
    max_epsilon=None,
    quantile=None,
    clipping_rate=0.2,
    count_stddev=None,
):
    """Wraps a strategy in clipping, noise and accounting.

    Arguments
    ---------
    strategy : flwr.serverapp.strategy.FedAvg
        Gets the private mean, and nothing else.
    population, sampled, rounds : int
        Clients that there are, that are expected in a round, and rounds; the server
        fills them in.
    noise_multiplier : float
        z, the standard deviation of the noise on the sum of updates, in clipping norms.
        By default the least with which all rounds stay within ``max_epsilon``, or 1.0
        without one.
    clipping_norm : float
        C, the largest L2 norm of an update; at first, if it adapts.
    delta : float
        For which epsilon is reported; well below one over the number of clients.
    max_epsilon : float
        The run stops before a round that would exceed it.
    quantile : float
        Of the clients' norms, which the clipping norm follows: 0.5 is their median. By
        default it stays as it is.
    clipping_rate : float
        How fast it follows.
    count_stddev : float
        Of the noise on how many updates were short enough; a twentieth of ``sampled``
        by default. Less noise here makes for more on the updates.

    Returns
    -------
    DifferentialPrivacy

    Raises
    ------
    ImportError
        When the accountant's library is not installed: ``pip install "flwr[dp]"``.
    ValueError
        When the noise is none, or leaves none for the updates.
    """
    if delta * population > 1:
        logger.warning(
            "delta %g should be well below 1 / %d clients.", delta, population
        )
    if noise_multiplier is None:
        noise_multiplier = (
            noise_for(max_epsilon, delta, sampled / population, rounds)
            if max_epsilon
            else 1.0
        )
    config = PrivacyConfig(
        target_delta=delta,
        population_size=population,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        sampling_method=SamplingMethod.POISSON,
        max_epsilon=max_epsilon,
    )
    event = GaussianPrivacyEvent(noise_multiplier, sampled, population)
    clipping = Clipping(clipping_norm, quantile, clipping_rate, count_stddev)
    return DifferentialPrivacy(strategy, event, RdpAccountant(config), clipping)


def event_of(noise_multiplier, q):
    """Describe one round to ``dp_accounting``."""
    from dp_accounting import dp_event

    gaussian = dp_event.GaussianDpEvent(noise_multiplier)
    return dp_event.PoissonSampledDpEvent(q, gaussian)


def epsilon_of(noise_multiplier, delta, q, rounds):
    """Compute what a whole run spends, by Renyi differential privacy (Mironov, 2017).

    Arguments
    ---------
    noise_multiplier, delta : float
        As for :func:`central`.
    q : float
        Probability of a client to take part in a round.
    rounds : int

    Returns
    -------
    float
    """
    from dp_accounting import rdp

    quieten()
    accountant = rdp.RdpAccountant()
    accountant.compose(event_of(noise_multiplier, q), rounds)
    return float(accountant.get_epsilon(delta))


def noise_for(epsilon, delta, q, rounds):
    """Compute the least noise multiplier with which a whole run spends no more.

    The other way round than :func:`epsilon_of`, with the same arguments.
    """
    import dp_accounting
    from dp_accounting import rdp

    quieten()
    return dp_accounting.calibrate_dp_mechanism(
        rdp.RdpAccountant,
        lambda noise: dp_accounting.SelfComposedDpEvent(event_of(noise, q), rounds),
        epsilon * (1 - 1e-6),  # found by search, so that rounding exceeds nothing
        delta,
        dp_accounting.LowerEndpointAndGuess(0.1, 1.0),
    )


def quieten():
    """Silence warnings of orders that the accountant leaves out, which is safe."""
    logging.getLogger("absl").setLevel(logging.ERROR)


class Clipping:
    """How long updates may be, and how that adapts to how long they are.

    Whether an update is no longer than the norm counts +1/2 or -1/2, so that one client
    changes the sum of it by 1/2. It gets noise of its own, and the norm moves
    geometrically (Andrew et al., 2021, algorithm 1).

    Arguments
    ---------
    norm, quantile, rate, count_stddev : float
        As for :func:`central`.
    """

    def __init__(self, norm, quantile=None, rate=0.2, count_stddev=None):
        if norm <= 0:
            raise ValueError(f"clipping_norm is {norm}; it must be positive.")
        if quantile is not None and not 0 < quantile < 1:
            raise ValueError(f"quantile is {quantile}; it must be in (0, 1).")
        self.norm = norm
        self.quantile = quantile
        self.rate = rate
        self.count_stddev = count_stddev

    def noise_multiplier(self, whole, sampled):
        """Return what is left for updates of a noise that is accounted for.

        Updates and count together are one Gaussian mechanism of noise multiplier z
        (theorem 1): ``z ** -2 = z_updates ** -2 + (2 * count_stddev) ** -2``.

        Example
        -------
        >>> round(Clipping(1.0, quantile=0.5).noise_multiplier(1.0, sampled=100), 3)
        1.005
        """
        if self.quantile is None:
            return whole
        if self.count_stddev is None:
            self.count_stddev = sampled / 20
        if 2 * self.count_stddev <= whole:
            raise ValueError(
                f"count_stddev {self.count_stddev:g} must be more than half of the "
                f"noise multiplier {whole:g}: ask more clients, or set it higher."
            )
        return (whole**-2 - (2 * self.count_stddev) ** -2) ** -0.5

    def adapt(self, norm, count, sampled, generator):
        """Move the norm towards the quantile.

        Arguments
        ---------
        norm : float
            In this round.
        count : float
            The sum of +1/2 for updates that were short enough, -1/2 for others.
        sampled : int
            Clients that are expected.
        generator : numpy.random.Generator

        Returns
        -------
        float
        """
        if self.quantile is None:
            return norm
        noisy = count + generator.normal(0, self.count_stddev)
        short = 0.5 + noisy / sampled
        return norm * math.exp(-self.rate * (short - self.quantile))


class DifferentialPrivacy(Wrapper):
    """Gives the strategy that it wraps the private mean as the only reply.

    What that makes of it, momentum for instance, is no less private.

    Arguments
    ---------
    strategy : flwr.serverapp.strategy.FedAvg
    event : GaussianPrivacyEvent
        One round.
    accountant : RdpAccountant
    clipping : Clipping
    """

    def __init__(self, strategy, event, accountant, clipping):
        self.strategy = strategy
        self.event = event
        self.accountant = accountant
        self.clipping = clipping
        self.clipping_norm = clipping.norm
        self.noise = clipping.noise_multiplier(
            event.noise_multiplier, event.sample_size
        )
        # Not from the run's seed, which everybody knows.
        self.generator = np.random.default_rng()

    def privacy_spent(self):
        """Return what was spent so far; see Flower's PrivacySpent."""
        return self.accountant.get_privacy_spent()

    def configure_train(self, server_round, arrays, config, grid):
        """Send the model, if there is a budget left for what comes back."""
        accountant = self.accountant
        if accountant.config.max_epsilon and accountant.would_exceed(self.event):
            raise PrivacyBudgetExhausted(
                f"Round {server_round} would exceed max_epsilon "
                f"{accountant.config.max_epsilon:g}, of which "
                f"{self.privacy_spent().epsilon:.3g} is spent."
            )
        self.start = view(arrays)
        asked = self.strategy.configure_train(server_round, arrays, config, grid)
        self.asked = list(asked)
        return self.asked

    def aggregate_train(self, server_round, replies):
        """Clip what comes in, add it up, add noise, divide; then let go on with it."""
        sampled, count, empty = self.event.sample_size, 0.0, True
        total = {name: np.zeros(a.shape) for name, a in self.start.items()}
        for reply in replies:
            arrays = view(reply.content["arrays"])
            steps = {
                n: np.subtract(arrays[n], a, dtype=float) for n, a in self.start.items()
            }
            norm = math.sqrt(sum(float(np.vdot(s, s)) for s in steps.values()))
            empty, short = False, norm <= self.clipping_norm
            count += 0.5 if short else -0.5
            for name, step in steps.items():
                total[name] += step if short else step * (self.clipping_norm / norm)
        if self.asked and empty:
            return None, None  # it is tried again, and nothing is released
        stddev = self.noise * self.clipping_norm
        mean = {}
        for name, start in self.start.items():
            noisy = total[name] + self.generator.normal(0, stddev, start.shape)
            mean[name] = (start + noisy / sampled).astype(start.dtype)
        self.accountant.compose(self.event)
        self.clipping_norm = self.clipping.adapt(
            self.clipping_norm, count, sampled, self.generator
        )
        return self.strategy.aggregate_train(server_round, [as_reply(mean)])
