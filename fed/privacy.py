"""Central differential privacy for clients, by Flower, with its accountant.

The server clips each client's update and adds Gaussian noise to their mean (McMahan et
al., 2018). For noise added by the clients themselves, before anything is sent, give
``mods`` Flower's ``flwr.clientapp.mod.LocalDpMod``.

Flower's Message API has a protocol for secure aggregation of its older strategies only,
so there is none here.
"""

from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping
from flwr.supercore.privacy_accounting import (
    NeighboringRelation,
    PrivacyConfig,
    SamplingMethod,
)
from flwr.supercore.privacy_accounting.rdp_accountant import RdpAccountant


def central(
    strategy,
    population,
    sampled,
    noise_multiplier=1.0,
    clipping_norm=1.0,
    delta=1e-5,
    max_epsilon=None,
):
    """Wraps a strategy in clipping, noise and accounting.

    Arguments
    ---------
    strategy : flwr.serverapp.strategy.FedAvg
    population : int
        Clients there are; the server fills it in.
    sampled : int
        Clients in a round, all of which must succeed; the server fills it in.
    noise_multiplier : float
        Standard deviation of the noise on the sum of updates, in clipping norms.
    clipping_norm : float
        The largest L2 norm of an update.
    delta : float
        For which epsilon is reported.
    max_epsilon : float
        Where the run stops.

    Returns
    -------
    flwr.serverapp.strategy.Strategy

    Raises
    ------
    ImportError
        When the accountant's library is not installed: ``pip install "flwr[dp]"``.
    """
    config = PrivacyConfig(
        target_delta=delta,
        population_size=population,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        # What Flower accounts for with fixed clipping: sampling is given no credit.
        sampling_method=SamplingMethod.NO_AMPLIFICATION,
        max_epsilon=max_epsilon,
    )
    return DifferentialPrivacyServerSideFixedClipping(
        strategy,
        noise_multiplier,
        clipping_norm,
        sampled,
        accountant=RdpAccountant(config),
    )
