"""Metrics of enhanced speech, one utterance at a time, several processes at once.

All ``METRICS`` are called alike, with numpy arrays ``(time,)`` and a rate in Hz, and
raise :class:`UndefinedMetricError` where they do not exist; :func:`measure` sorts out
missing references and silence before.

The metrics other than SI-SDR are those of well-kept libraries. A metric that is
undefined for an utterance, such as PESQ where no speech is found, is a failure: it is
counted, and left out of every mean. It is never scored 0.
"""

import logging
import math
import multiprocessing
import os
import warnings
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fedenhance.data.available import require
from fedenhance.objectives import levels
from fedenhance.reports import dnsmos

logger = logging.getLogger(__name__)


class UndefinedMetricError(Exception):
    """A metric does not exist for these signals."""


def si_sdr(estimate, target, sample_rate):
    """Scale-invariant SDR in dB (Le Roux et al., 2019), as ``METRICS`` are called."""
    pair = (torch.from_numpy(np.asarray(x, np.float64)) for x in (estimate, target))
    return float(levels.si_sdr(*pair))


def sdr(estimate, target, sample_rate):
    """SDR of BSS Eval in dB, by ``fast-bss-eval``: 512 taps of filtering are forgiven.

    Vincent et al., "Performance measurement in blind audio source separation", IEEE
    TASLP 2006; Scheibler, "SDR - medium rare with fast computations", ICASSP 2022.
    Values are clamped to +-100 dB. Called as all ``METRICS``.
    """
    import fast_bss_eval

    target, estimate = (np.asarray(x, np.float64)[None] for x in (target, estimate))
    # Level does not matter to SDR, but does to the conditioning of its equations.
    target, estimate = target / np.abs(target).max(), estimate / np.abs(estimate).max()
    return float(fast_bss_eval.sdr(target, estimate, clamp_db=100)[0])


def pesq(estimate, target, sample_rate):
    """PESQ, wide band, as MOS-LQO between 1.04 and 4.64 (ITU-T P.862.2), by ``pesq``.

    Arguments
    ---------
    estimate, target : numpy.ndarray
        Waveforms, ``(time,)``.
    sample_rate : int
        16000 Hz.

    Returns
    -------
    float

    Raises
    ------
    UndefinedMetricError
        If the signals are too short, or without speech.
    ValueError
        At any other sample rate.
    """
    from pesq import PesqError
    from pesq import pesq as itu_pesq

    if sample_rate != 16000:
        raise ValueError(f"PESQ (wide band) needs 16000 Hz, not {sample_rate} Hz")
    try:
        return float(itu_pesq(sample_rate, target, estimate, "wb"))
    except PesqError as error:
        reason = error.args[0] if error.args else type(error).__name__
        reason = reason.decode() if isinstance(reason, bytes) else reason
        raise UndefinedMetricError(str(reason)) from error


def estoi(estimate, target, sample_rate):
    """Extended short-time objective intelligibility, at most 1, by ``pystoi``.

    Jensen and Taal, "An algorithm for predicting the intelligibility of speech masked
    by modulated noise maskers", IEEE/ACM TASLP 2016.

    Arguments
    ---------
    estimate, target : numpy.ndarray
        Waveforms, ``(time,)``.
    sample_rate : int
        In Hz.

    Returns
    -------
    float

    Raises
    ------
    UndefinedMetricError
        If less than 0.4 s of the target are not silent.
    """
    from pystoi import stoi

    with warnings.catch_warnings():
        # pystoi warns and returns a constant: for us, a failure.
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(stoi(target, estimate, sample_rate, extended=True))
        except (RuntimeWarning, np.exceptions.AxisError) as error:
            raise UndefinedMetricError("less than 0.4 s of speech") from error


def opinion(name, estimate, target, sample_rate):
    """One of the scores of :func:`fedenhance.reports.dnsmos.dnsmos`, at -30 LUFS.

    Arguments
    ---------
    name : str
        ``sig``, ``bak`` or ``ovrl``.
    estimate : numpy.ndarray
        Waveform, ``(time,)``.
    target : numpy.ndarray or None
        Not used here.
    sample_rate : int
        16000 Hz.

    Returns
    -------
    float
    """
    samples = np.ascontiguousarray(estimate, np.float32)
    return _opinions(samples.tobytes(), sample_rate)[name]


@lru_cache(maxsize=2)
def _opinions(samples, sample_rate):
    """All scores of a signal, for which each of them is asked in turn."""
    return dnsmos.dnsmos([np.frombuffer(samples, np.float32)], sample_rate)[0]


def nisqa(estimate, target, sample_rate):
    """NISQA v2.0, overall quality from 1 to 5, by ``torchmetrics``; no reference.

    Mittag, Naderi, Chehadi and Moeller, "NISQA: a deep CNN-self-attention model for
    multidimensional speech quality prediction with crowdsourced datasets", Interspeech
    2021. On first use torchmetrics downloads its weights to ``NISQA_WEIGHTS``, unless
    they are there. Called as all ``METRICS``.
    """
    from torchmetrics.functional.audio.nisqa import (
        non_intrusive_speech_quality_assessment as assess,
    )

    signal = torch.from_numpy(np.ascontiguousarray(estimate, np.float32))
    try:
        return float(assess(signal, sample_rate)[0])
    except OSError as error:  # of requests too
        raise ImportError(
            "the metric nisqa needs its weights: put nisqa.tar, of "
            f"github.com/gabrielmittag/NISQA, to {NISQA_WEIGHTS}; torchmetrics could "
            f"not download it ({type(error).__name__})"
        ) from error
    except RuntimeError as error:
        raise UndefinedMetricError(str(error)) from error


METRICS = {metric.__name__: metric for metric in (si_sdr, sdr, pesq, estoi, nisqa)}
METRICS |= {
    "dnsmos": partial(opinion, "ovrl"),
    "dnsmos_sig": partial(opinion, "sig"),
    "dnsmos_bak": partial(opinion, "bak"),
}
"""Name -> ``(estimate, target, sample_rate) -> float``; each the higher the better."""

OPINIONS = {"dnsmos", "dnsmos_sig", "dnsmos_bak"}

WITHOUT_REFERENCE = {*OPINIONS, "nisqa"}

UNDEFINED_IN_SILENCE = {"sdr", "pesq", *WITHOUT_REFERENCE}
"""What says nothing about a silent estimate."""

PACKAGES = {
    "sdr": ["fast-bss-eval"],
    "pesq": ["pesq"],
    "estoi": ["pystoi"],
    "nisqa": ["torchmetrics", "librosa", "requests"],
    **dict.fromkeys(OPINIONS, dnsmos.PACKAGES),
}
"""What has to be installed for a metric."""

NISQA_WEIGHTS = Path("~/.torchmetrics/NISQA/nisqa.tar")
"""Where torchmetrics looks for them, and downloads them to."""


def check_metrics(names):
    """Check that metrics exist and that their packages are installed.

    Arguments
    ---------
    names : list of str

    Raises
    ------
    ValueError
        Naming the metric that does not exist.
    ImportError
        Naming the package to install.
    """
    for name in names:
        if name not in METRICS:
            raise ValueError(f"no metric {name}: choose from {', '.join(METRICS)}")
        require(f"the metric {name}", *PACKAGES.get(name, ()))


def is_installed(name):
    """Whether what a metric needs is there, weights included."""
    try:
        check_metrics([name])
    except ImportError:
        return False
    return name != "nisqa" or NISQA_WEIGHTS.expanduser().exists()


def measure(estimate, target, sample_rate, metrics):
    """Metrics of one signal.

    Arguments
    ---------
    estimate : numpy.ndarray
        Waveform, ``(time,)``.
    target : numpy.ndarray or None
        Clean speech, ``(time,)``; without it most metrics are undefined.
    sample_rate : int
        In Hz.
    metrics : list of str
        Keys of ``METRICS``.

    Returns
    -------
    values : dict
        Metric -> float, NaN where it is undefined.
    failures : dict
        Metric -> why it is undefined.

    Example
    -------
    >>> target = np.array([1.0, 0.0])
    >>> measure(np.array([1.0, 0.1]), target, 16000, ["si_sdr"])
    ({'si_sdr': 20.0}, {})
    >>> measure(target, 0 * target, 16000, ["si_sdr"])
    ({'si_sdr': nan}, {'si_sdr': 'the target is silent'})
    """
    shapes = [signal.shape for signal in (estimate, target) if signal is not None]
    if len(set(shapes)) != 1 or estimate.ndim != 1:
        raise ValueError(f"estimate and target must be (time,) alike, not {shapes}")
    values, failures = {}, {}
    for name in metrics:
        try:
            if name not in WITHOUT_REFERENCE:
                if target is None:
                    raise UndefinedMetricError("there is no clean reference")
                if not np.any(target):
                    raise UndefinedMetricError("the target is silent")
            if not np.all(np.isfinite(estimate)):
                raise UndefinedMetricError("the estimate is not finite")
            if name in UNDEFINED_IN_SILENCE and not np.any(estimate):
                raise UndefinedMetricError("the estimate is silent")
            values[name] = round(METRICS[name](estimate, target, sample_rate), 6)
        except UndefinedMetricError as error:
            values[name] = float("nan")
            failures[name] = str(error)
    return values, failures


def measure_utterance(job):
    """Metrics of one utterance, before and after enhancement.

    Arguments
    ---------
    job : tuple
        ``row`` (a dict), ``estimate``, ``mixture``, ``target`` (waveforms,
        ``(time,)``; the last two may be None), ``sample_rate``, ``metrics``.

    Returns
    -------
    dict
        The row, with three values for each metric: of the mixture (``si_sdr_in``), of
        the estimate (``si_sdr``), and their difference (``si_sdri``); NaN where
        undefined, with the reasons in ``failures``. Without a mixture, of the estimate.
    """
    row, estimate, mixture, target, sample_rate, metrics = job
    after, failed_after = measure(estimate, target, sample_rate, metrics)
    if mixture is None:
        reasons = "; ".join(f"{name}: {why}" for name, why in failed_after.items())
        return {**row, **after, "failures": reasons}
    before, failed_before = measure(mixture, target, sample_rate, metrics)
    row = dict(row)
    for name in metrics:
        row[f"{name}_in"] = before[name]
        row[name] = after[name]
        row[f"{name}i"] = after[name] - before[name]
    reasons = {f"{name}_in": why for name, why in failed_before.items()} | failed_after
    row["failures"] = "; ".join(f"{name}: {why}" for name, why in reasons.items())
    return row


def measure_utterances(utterances, sample_rate, metrics, processes=None, total=None):
    """Metrics of many utterances, in parallel.

    Arguments
    ---------
    utterances : iterable of tuple
        ``row`` (a dict), ``estimate``, ``mixture`` and ``target`` (waveforms,
        ``(time,)``; the last two may be None). It may be a generator that runs the
        model: it is read only as far ahead as the processes need.
    sample_rate : int
        In Hz.
    metrics : list of str
        Keys of ``METRICS``.
    processes : int or None
        One for each core by default; 1 works in this process.
    total : int or None
        Number of utterances, for the progress bar.

    Returns
    -------
    list of dict
        See :func:`measure_utterance`; in the order of the utterances.
    """
    check_metrics(metrics)
    jobs = ((*utterance, sample_rate, tuple(metrics)) for utterance in utterances)
    processes = processes or os.cpu_count() or 1
    run = map if processes == 1 else partial(_map_ahead, processes)
    results = run(measure_utterance, jobs)
    rows = list(tqdm(results, total=total, unit="utterance", disable=None))
    for name in metrics:
        if count := sum(math.isnan(row[name]) for row in rows):
            logger.warning("%s is undefined for %d of %d", name, count, len(rows))
    return rows


def _map_ahead(processes, function, jobs):
    """Map in order, with a bounded number of jobs on their way."""
    # Not fork, for the parent has threads of PyTorch; the server imports only once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
        waiting = deque()
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) == 4 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
