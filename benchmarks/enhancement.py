#!/usr/bin/env python
"""Time and memory of enhance.py on a long file, and what cutting it changes.

    python -m benchmarks.enhancement results/fedenhance/1234
    python -m benchmarks.enhancement results/fedenhance/1234 --minutes 1    # a trial

The long file is 44.1 kHz stereo, of mixtures of the run's test set one after the other.
It is enhanced by a command of its own, whose time is also given as that of all
processors together; the peak of resident memory is Linux's.
Then the first 30 s and the first minutes are enhanced at once and in pieces of several
lengths: the difference is relative to what comes out at once, and SI-SDR says which of
the two is nearer to the clean speech.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from itertools import chain, cycle
from pathlib import Path

import numpy as np
import soundfile
import torch

from benchmarks import COMMITTED, measuring
from fedenhance.data.manifests import load_manifest
from fedenhance.data.mixing import read_fixed_mixture
from fedenhance.deploy.enhancement import MIN_PIECE, enhance_blocks
from fedenhance.deploy.trained import load_trained
from fedenhance.objectives.levels import si_sdr

FILE_RATE = 44100
COLUMNS = ["measured", "seconds", "piece", "wall_seconds", "cpu_seconds", "peak_mb"]
COLUMNS += ["difference_db", "si_sdr_input", "si_sdr"]


def parse(argv):
    """The command line."""
    parser = measuring.describe(__doc__)
    parser.add_argument("folder", type=Path, help="output folder of train.py")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the long file")
    parser.add_argument(
        "--compared", nargs="+", type=float, default=[30.0, 120.0], metavar="SECONDS"
    )
    parser.add_argument(
        "--pieces", nargs="+", type=float, default=[MIN_PIECE, 10.0, 20.0, 40.0]
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=COMMITTED / "enhancement.csv")
    return parser.parse_args(argv)


def conversation(folder, trained, seconds):
    """Join test mixtures and their clean speech, each ``(time,)``, for some seconds."""
    path = folder / "test_mixtures.csv"
    rows = load_manifest(path, trained.hparams["data_folder"])
    parts, length = [], round(seconds * trained.sample_rate)
    for row in cycle(rows.values()):
        sources = read_fixed_mixture(row, trained.sample_rate)
        parts.append(torch.stack([sources.sum(0), sources[0]]))
        if sum(part.shape[1] for part in parts) >= length:
            return torch.cat(parts, dim=1)[:, :length].unbind()


def write_long(path, mixture, trained, seconds):
    """Repeat a mixture as 44.1 kHz stereo, the second channel later and fainter."""
    from torchaudio.functional import resample

    signal = resample(mixture, trained.sample_rate, FILE_RATE)
    stereo = torch.stack([signal, 0.3 * signal.roll(FILE_RATE)], dim=1)
    stereo = np.clip(stereo.numpy(), -1, 1)
    with soundfile.SoundFile(path, "w", FILE_RATE, 2, "PCM_16") as file:
        left = round(seconds * FILE_RATE)
        while left > 0:
            file.write(stereo[:left])
            left -= len(stereo)


def run_command(folder, path, out, threads):
    """Run enhance.py; return its costs, memory being the peak of what is resident."""
    command = [sys.executable, "enhance.py", str(folder), str(path), "--out", str(out)]
    environment = {"OMP_NUM_THREADS": str(threads)}
    start, peak = time.perf_counter(), 0
    with subprocess.Popen(command, env={**os.environ, **environment}) as process:
        while process.poll() is None:
            peak = max(peak, measuring.peak_resident_mb(process.pid))
            time.sleep(0.2)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_seconds": time.perf_counter() - start,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mb": peak,
    }


def measure_long(args, trained):
    """A row on the long file."""
    seconds = 60 * args.minutes
    mixture, _ = conversation(args.folder, trained, min(seconds, 120.0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        write_long(path, mixture, trained, seconds)
        costs = run_command(args.folder, path, Path(folder) / "out", args.threads)
    what = {"measured": "enhance.py, 44.1 kHz stereo", "seconds": seconds}
    return {**what, "piece": "default", **costs}


def in_pieces(mixture, trained, piece):
    """The speech of a mixture ``(time,)`` that is cut into pieces."""
    parts = mixture.unsqueeze(0).split(1 << 18, dim=1)
    blocks = enhance_blocks(parts, len(mixture), Fraction(1), trained, piece, 1, 1)
    return torch.cat(list(blocks), dim=-1)[0, 0]


def measure_pieces(args, trained):
    """Rows on what cutting changes."""
    for seconds in args.compared:
        mixture, speech = conversation(args.folder, trained, seconds)
        once = trained(mixture.unsqueeze(0))[0, 0]
        for piece in [*args.pieces, seconds]:
            if piece > seconds:
                continue
            estimate = once if piece == seconds else in_pieces(mixture, trained, piece)
            ratio = (estimate - once).square().sum() / once.square().sum()
            yield {
                "measured": "pieces beside all at once",
                "seconds": seconds,
                "piece": piece,
                "difference_db": float(10 * torch.log10(ratio)),
                "si_sdr_input": float(si_sdr(mixture[None], speech[None])),
                "si_sdr": float(si_sdr(estimate[None], speech[None])),
            }


def main(argv=None):
    """Measure, print and write a CSV file."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    trained = load_trained(args.folder)
    machine = f"{measuring.processor_name()}, threads: {args.threads}, no GPU"
    rows = []
    for row in chain([measure_long(args, trained)], measure_pieces(args, trained)):
        rows.append(row)
        measuring.save(args.out, rows, machine, COLUMNS)
    print(measuring.table(rows))


if __name__ == "__main__":
    main()
