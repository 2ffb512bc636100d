"""How much each client's update is worth: positive weights from raw metrics.

A weighting is a function of the metrics that one client reports (a dict with
``num-examples``, ``loss`` and whatever else its Brain logs) that returns a weight.
Only ratios matter: the server divides by the sum. The weights of a mean must be
positive, so metrics in dB, which may be negative, pass through an exponential:
dividing ``exp(metric / temperature)`` by its sum is a softmax over the clients.
"""

import math

# exp() of more overflows a double; ratios beyond it mean "only this client" anyway.
LARGEST_EXPONENT = 700.0


def by_examples(metrics):
    """Weighs a client by its training examples (FedAvg, McMahan et al., 2017).

    Arguments
    ---------
    metrics : dict
        What the client reports.

    Returns
    -------
    float

    Example
    -------
    >>> by_examples({"num-examples": 3})
    3.0
    """
    return float(metrics["num-examples"])


def uniform(metrics):
    """Weighs all clients alike (FedEnhance, Tzinis et al., 2021).

    Example
    -------
    >>> uniform({"num-examples": 3})
    1.0
    """
    return 1.0


def by_metric(metrics, key, temperature=1.0, maximum=0.0):
    """Weighs a client by a softmax over a metric, of which more is better.

    Arguments
    ---------
    metrics : dict
        What the client reports.
    key : str
        The metric, for instance ``si_sdr`` in dB.
    temperature : float
        In the metric's unit: a client that is better by this much weighs e times
        as much. A negative temperature is for metrics of which less is better.
    maximum : float
        Subtracted first; it cancels in the ratios and keeps the numbers small.

    Returns
    -------
    float
        ``exp((metric - maximum) / temperature)``

    Raises
    ------
    KeyError, ValueError
        When the client does not report the metric, or it is not a number.

    Example
    -------
    >>> [by_metric({"si_sdr": x}, "si_sdr", maximum=10.0) for x in (10.0, 9.0)]
    [1.0, 0.36787944117144233]
    """
    if key not in metrics:
        raise KeyError(f"no metric '{key}' to weigh by; it has {sorted(metrics)}")
    if math.isnan(metrics[key]):
        raise ValueError(f"metric '{key}' to weigh by is not a number")
    exponent = (metrics[key] - maximum) / temperature
    return math.exp(max(-LARGEST_EXPONENT, min(LARGEST_EXPONENT, exponent)))


def by_loss(metrics, temperature=1.0, key="loss"):
    """Weighs a client by ``exp(-loss / temperature)``.

    Example
    -------
    >>> by_loss({"loss": 0.0})
    1.0
    """
    return by_metric(metrics, key, temperature=-temperature)


def by_word_error_rate(metrics, key="valid_WER"):
    """Weighs a client by ``exp(100 - WER)``, WER in percent (Gao et al., 2022).

    The weighting of SpeechBrain's federated tutorial ("End-to-End Speech Recognition
    from Federated Acoustic Models", ICASSP 2022), where a WER above 100, as insertions
    make it, counts as 100. One point of WER is a factor of e: for milder weights, use
    :func:`by_metric` with a temperature of, say, -10.

    Example
    -------
    >>> by_word_error_rate({"valid_WER": 100.0})
    1.0
    >>> by_word_error_rate({"valid_WER": 250.0})
    1.0
    """
    if key in metrics:
        metrics = {**metrics, key: min(metrics[key], 100.0)}
    return by_metric(metrics, key, temperature=-1.0, maximum=100.0)
