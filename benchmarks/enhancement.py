#!/usr/bin/env python
"""Time and memory of enhance.py on a long file.

    python -m benchmarks.enhancement results/fedenhance/1234
    python -m benchmarks.enhancement results/fedenhance/1234 --minutes 1    # a trial

The file is 44.1 kHz stereo, of mixtures of the run's test set one after the other. It
is enhanced by a command of its own, whose time is also given as that of all processors
together; the peak of resident memory is Linux's.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

import numpy as np
import soundfile
import torch

from benchmarks import COMMITTED, measuring
from fedenhance.data.manifests import load_manifest
from fedenhance.data.mixing import read_fixed_mixture
from fedenhance.deploy.trained import load_trained

FILE_RATE = 44100


def parse(argv):
    """The command line."""
    parser = measuring.describe(__doc__)
    parser.add_argument("folder", type=Path, help="output folder of train.py")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=COMMITTED / "enhancement.csv")
    return parser.parse_args(argv)


def conversation(folder, trained, seconds):
    """Join test mixtures, ``(time,)``, for some seconds."""
    path = folder / "test_mixtures.csv"
    rows = load_manifest(path, trained.hparams["data_folder"])
    parts, length = [], round(seconds * trained.sample_rate)
    for row in cycle(rows.values()):
        parts.append(read_fixed_mixture(row, trained.sample_rate).sum(0))
        if sum(map(len, parts)) >= length:
            return torch.cat(parts)[:length]


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


def main(argv=None):
    """Measure, print and write a CSV file."""
    args = parse(argv)
    trained, seconds = load_trained(args.folder), 60 * args.minutes
    mixture = conversation(args.folder, trained, min(seconds, 120.0))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        write_long(path, mixture, trained, seconds)
        costs = run_command(args.folder, path, Path(folder) / "out", args.threads)
    rows = [{"seconds": seconds, **costs}]
    machine = f"{measuring.processor_name()}, threads: {args.threads}, no GPU"
    measuring.save(args.out, rows, machine)
    print(measuring.table(rows))


if __name__ == "__main__":
    main()
