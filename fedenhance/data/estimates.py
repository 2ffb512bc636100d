"""Training on what a trained model estimates of recordings, speech and noise.

RemixIT (Tzinis et al., "RemixIT: continual self-training of speech enhancement models
via bootstrapped remixing", IEEE Journal of Selected Topics in Signal Processing, 2022)
with a teacher that stays what it is. It needs to hear each recording but once, so it
hears it whole, twice, and backwards. What it leaves of noise in its speech would be
taught as speech, and what it takes of speech for noise as noise: the cleanest
recordings of each client give their speech, the others their noise.
"""

import hashlib
import math
import os

import numpy as np
import soundfile
import torch
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from fedenhance.data.audio import Segment, read_segment
from fedenhance.data.manifests import group_by
from fedenhance.data.opening import DamagedAudioError, naming, open_audio, read_blocks
from fedenhance.run_folder.files import sweep, whole_file

PIECE = 30
"""Seconds that are heard at once, at most."""

logger = get_logger(__name__)


def estimate_parts(rows, model, folder, cleanest):
    """Replace noisy recordings by estimates of their parts.

    Arguments
    ---------
    rows : dict
        Id -> row, with ``client``. Those whose speech is known stay as they are.
    model : fedenhance.deploy.trained.Trained
    folder : Path
        Gets a file for each recording; what is there is not made again.
    cleanest : float
        Share of each client's recordings, in (0, 1], rounded up, that give their
        speech: those in which, by the estimates, noise is least beside speech.

    Returns
    -------
    dict
        Id -> row. Of the cleanest the rows have ``speech`` alone; of the others, at
        least one of each client, ``noise`` alone. Recordings that cannot be read, or
        are silent, have no row.

    Raises
    ------
    ValueError
        If ``cleanest`` is no such share.
    """
    check_share(cleanest)
    sweep(folder)
    noisy = {k: row for k, row in rows.items() if row["noisy"] and not row["speech"]}
    found = {key: row for key, row in rows.items() if key not in noisy}
    digest = hashlib.sha256()
    for weight in model.separator.state_dict().values():
        digest.update(weight.cpu().numpy().tobytes())
    ratios, parts = {}, {}
    for key in tqdm(noisy, "separating", unit="recording", leave=False, disable=None):
        try:
            path = folder / file_name(digest.hexdigest(), noisy[key]["noisy"])
            ratios[key], length = measured(path, noisy[key], model)
            if math.isnan(ratios[key]):
                raise DamagedAudioError(noisy[key]["noisy"].path, "silent")
        except DamagedAudioError as error:
            logger.warning_once(f"a recording is left out: {error}")
            continue
        parts[key] = [Segment(str(path), n, n + length) for n in (0, length)]
    for keys in group_by({key: noisy[key] for key in parts}, "client").values():
        keys.sort(key=ratios.get, reverse=True)
        count = math.ceil(cleanest * len(keys))
        for key in keys[:count]:
            own = {"noisy": None, "speech": parts[key][0], "noise": None}
            found[key] = noisy[key] | own
        for key in keys[min(count, len(keys) - 1) :]:
            own = {"noisy": None, "noise": parts[key][1]}
            name = f"{key} noise"
            while name in rows or name in found:
                name += "'"
            found[name] = noisy[key] | own
    return found


def check_share(cleanest):
    """Return the share, or raise ValueError, see :func:`estimate_parts`."""
    if isinstance(cleanest, int | float) and 0 < cleanest <= 1:
        return cleanest
    raise ValueError(f"cleanest must lie in (0, 1], not {cleanest}")


def file_name(model, segment):
    """Name a file after a model and a recording: another name if either changes."""
    with naming(segment.path):
        status = os.stat(segment.path)
    known = f"{model}|{segment}|{status.st_size}|{status.st_mtime_ns}"
    return f"{hashlib.sha256(known.encode()).hexdigest()[:16]}.flac"


def measured(path, row, model):
    """Measure a file of estimates; write it first if it is not there, or damaged."""
    try:
        return measure(path)
    except DamagedAudioError:
        write_parts(path, row, model)
        return measure(path)


def write_parts(path, row, model):
    """Write a model's estimates of a recording: the speech, and after it the noise."""
    samples = round(row["duration"] * model.sample_rate)
    recording = read_segment(*row["noisy"], model.sample_rate, samples)
    recording = (recording - recording.mean()).unsqueeze(0)  # as examples have none
    parts = torch.empty(2, samples)  # of hours, so once in memory
    count = math.ceil(samples / (PIECE * model.sample_rate))
    pieces = (signal.tensor_split(count, dim=-1) for signal in (recording, parts))
    for piece, part in zip(*pieces, strict=True):
        estimates = hear_well(model, piece)[0].cpu()
        part[0], part[1] = estimates[0], estimates[1:].sum(0)
    parts /= max(1.0, *map(abs, torch.stack(parts.aminmax()).tolist()))
    with whole_file(path) as partial:
        soundfile.write(partial, parts.flatten().numpy(), model.sample_rate, "PCM_16")


def measure(path):
    """By how many dB a recording's speech is louder than its noise; its samples.

    NaN, if it is silent.
    """
    levels, position = [0.0, 0.0], 0
    with open_audio(path) as file:
        length, odd = divmod(file.frames, 2)
        if odd:
            raise DamagedAudioError(path, "damaged: cut short")
        for block in read_blocks(file, path):
            speech = max(0, length - position)
            for source, part in enumerate((block[:speech], block[speech:])):
                levels[source] += float(np.square(part, dtype=np.float64).sum())
            position += len(block)
    if not any(levels):
        return math.nan, length
    return 10 * math.log10((levels[0] + 1e-9) / (levels[1] + 1e-9)), length


def hear_well(model, recordings):
    """Separate recordings as well as a model can that need not hurry.

    A causal network begins each recording without knowing the voice and the noise. It
    hears it a second time, when it does know them; and the same backwards. The mean of
    both is better than each.

    Arguments
    ---------
    model : callable
        ``(batch, time)`` to ``(batch, source, time)``.
    recordings : torch.Tensor
        ``(batch, time)``

    Returns
    -------
    torch.Tensor
        ``(batch, source, time)``

    Example
    -------
    >>> last = lambda x: torch.stack([x.cumsum(-1), x], dim=1)
    >>> hear_well(last, torch.tensor([[1.0, 2.0]]))
    tensor([[[5.0000, 5.5000],
             [1.0000, 2.0000]]])
    """
    length = recordings.shape[-1]
    forwards, backwards = (
        model(torch.cat([signal, signal], dim=-1))[..., length:]
        for signal in (recordings, recordings.flip(-1))
    )
    return (forwards + backwards.flip(-1)) / 2
