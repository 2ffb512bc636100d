#!/usr/bin/env python
"""What the preparation of LibriFSD50K costs, and how fast its storages are read.

    python -m benchmarks.data prepare         # against reading and rewriting every file
    python -m benchmarks.data scan            # headers of 5,000 and of 50,000 files
    python -m benchmarks.data load DATA       # batches a second of each storage

Each writes a table to benchmarks/results/. ``load`` takes any prepared or unprepared
data folder, such as data/MiniLibriFSD50K, and one core.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from speechbrain.dataio.dataset import FilteredSortedDynamicItemDataset

from local_modules.data_io import collate, training_set
from local_modules.manifests import (
    assign_clients,
    assign_groups,
    group_by,
    load_manifest,
    take_isolated_noises,
)
from local_modules.mixing import MixtureOfMixtures
from recipes.audio_files import list_files, read_headers, write_csv
from recipes.LibriFSD50K.prepare import prepare

RESULTS = Path(__file__).with_name("results")
UTTERANCES = {
    "train-clean-100": (1600, 20),
    "dev-clean": (200, 5),
    "test-clean": (200, 5),
}
CLIPS = {"dev": 1600, "eval": 400}
BATCH_SIZE = 6


def encoded(seconds, rate, form, seed):
    """One audio file of noise, as bytes."""
    data = io.BytesIO()
    wave = 0.05 * np.random.default_rng(seed).standard_normal(int(seconds * rate))
    soundfile.write(data, wave, rate, format=form, subtype="PCM_16")
    return data.getvalue()


def synthetic_tree(root):
    """Write 2,000 utterances of 8 s and 2,000 clips of 8 s in the corpora's layouts."""
    flac, wav = encoded(8.0, 16000, "FLAC", 0), encoded(8.0, 44100, "WAV", 1)
    for part, (subset, (number, speakers)) in enumerate(UTTERANCES.items()):
        for i in range(number):
            speaker = 1000 * (part + 1) + i % speakers
            place = root / "LibriSpeech" / subset / str(speaker) / "1"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{speaker}-1-{i:04d}.flac").write_bytes(flac)
    first = 1
    for part, number in CLIPS.items():
        place = root / "FSD50K" / f"FSD50K.{part}_audio"
        place.mkdir(parents=True)
        truth = root / "FSD50K" / "FSD50K.ground_truth"
        truth.mkdir(exist_ok=True)
        names = range(first, first + number)
        for name in names:
            (place / f"{name}.wav").write_bytes(wav)
        lines = ["fname,labels,mids", *(f"{name},Rain,/m/06mb1" for name in names)]
        (truth / f"{part}.csv").write_text("\n".join(lines))
        first += number


def rewrite(root, target):
    """Read and write every file with soundfile, one after the other."""
    for suffix in ("flac", "wav"):
        for path in sorted(root.rglob(f"*.{suffix}")):
            wave, rate = soundfile.read(path)
            soundfile.write(target / "x.wav", wave, rate)


def seconds_of(call):
    """Wall seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure_preparation(repeats=3):
    """Preparation against rewriting; medians of some repeats, taken in turns."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        synthetic_tree(root / "data")
        times = {"rewrite": [], "prepare": []}
        for number in range(repeats):
            times["rewrite"].append(seconds_of(lambda: rewrite(root / "data", root)))
            save = root / f"save{number}"
            call = lambda save=save: prepare(  # noqa: E731
                root / "data", save, built_in_corpus=None, jobs=2
            )
            times["prepare"].append(seconds_of(call))
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = [[name, 4000, f"{median:.2f}"] for name, median in medians.items()]
    rows.append(["speed-up", "", f"{medians['rewrite'] / medians['prepare']:.1f}"])
    report("preparation.csv", ["what", "files", "seconds"], rows)


def measure_scan(numbers=(5000, 50000)):
    """Listing and reading headers of files that are hardly more than headers."""
    data, rows = encoded(0.001, 16000, "WAV", 0), []
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            for i in range(number):
                place = Path(folder, "audio", str(i // 100))
                if i % 100 == 0:
                    place.mkdir(parents=True)
                (place / f"{i}.wav").write_bytes(data)

            def scan(folder=folder):
                read_headers(
                    folder, list(list_files(folder, "audio", {".wav"})), jobs=2
                )

            scan()  # the first one reads the directory from the disk
            seconds = statistics.median(seconds_of(scan) for _ in range(3))
        rows.append([number, f"{seconds:.2f}", f"{1e6 * seconds / number:.1f}"])
    report("scan.csv", ["files", "seconds", "microseconds_per_file"], rows)


def clients_of(data_folder, manifest):
    """The training set of a manifest and the ids of its clients, one a speaker."""
    rows = take_isolated_noises(load_manifest(manifest, data_folder), 0.5)
    assign_clients(rows, lambda rows: group_by(rows, "spk_id"))
    assign_groups(rows, "client", {"supervised": 0.5}, seed=0)
    dataset = training_set(rows, MixtureOfMixtures(segment=4.0))
    return dataset, list(group_by(dataset.data, "client").values())


def loader(dataset, ids):
    """Batches of some examples."""
    return torch.utils.data.DataLoader(
        FilteredSortedDynamicItemDataset(dataset, ids),
        batch_size=BATCH_SIZE,
        collate_fn=collate,
        drop_last=True,
    )


def batches_per_second(loaders, seconds):
    """Read loaders one after the other, again and again."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for batches in loaders():
            for batch in batches:
                count += 1
                assert batch.sources.data.shape == (BATCH_SIZE, 3, 64000)
    return count / (time.perf_counter() - start)


def measure_loading(data_folder, seconds=5.0):
    """Batches of 6 x (speech, noise, noise) x 4 s a second, by storage, on one core.

    ``one_client`` reads all examples through one loader; ``switching`` makes a new
    loader for every client, as a federated round does, in pieces of equal length.
    """
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = []
    for storage in ("files", "chunks", "packed"):
        with tempfile.TemporaryDirectory() as folder:
            prepare(data_folder, folder, built_in_corpus=None, storage=storage)
            dataset, clients = clients_of(data_folder, Path(folder) / "train.csv")
            whole = [ids[: len(ids) // BATCH_SIZE * BATCH_SIZE] for ids in clients]
            whole = [ids for ids in whole if ids]
            together = [example for ids in whole for example in ids]
            calls = {
                "one_client": lambda d=dataset, ids=together: [loader(d, ids)],
                "switching": lambda d=dataset, ids=whole: (loader(d, i) for i in ids),
            }
            batches_per_second(calls["one_client"], 1.0)  # fills the page cache
            rates = {name: [] for name in calls}
            for _ in range(3):  # in turns: the machine is not always equally fast
                for name, call in calls.items():
                    rates[name].append(batches_per_second(call, seconds))
            medians = [statistics.median(values) for values in rates.values()]
            rows.append([storage, *(f"{rate:.1f}" for rate in medians)])
    report("loading.csv", ["storage", "one_client", "switching"], rows)


def report(name, header, rows):
    """Write a table and show it."""
    write_csv(RESULTS / name, header, rows)
    print((RESULTS / name).read_text())


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("prepare")
    commands.add_parser("scan")
    load = commands.add_parser("load")
    load.add_argument("data_folder")
    load.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    if arguments.command == "load":
        measure_loading(arguments.data_folder, arguments.seconds)
    else:
        {"prepare": measure_preparation, "scan": measure_scan}[arguments.command]()


if __name__ == "__main__":
    main()
