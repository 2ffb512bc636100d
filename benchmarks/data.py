#!/usr/bin/env python
"""How fast recordings are read, and what switching clients costs.

    python -m benchmarks.data                      # everything, on the built-in corpus
    python -m benchmarks.data load --authors DIR   # DIR holds fedenhance
    python -m benchmarks.data switch

- ``load``: batches of 6 x (speech, noise, noise) x 4 s from each storage, for one
  client and for a new loader with every client. ``as recorded`` is the corpora, whose
  noise is resampled from 44.1 kHz; ``flac`` and ``wav`` are whole files at 16 kHz;
  ``original``, with ``--authors``, is the original's own loader, which reads whole wav
  files with SciPy;
- ``switch``: what going from one client to the next adds, beside a training step of
  the default experiment.

Files are in the page cache; all is read by one process on one thread.
"""

import collections
import statistics
import tempfile
from functools import partial
from pathlib import Path

import soundfile
import speechbrain as sb
import torch

from benchmarks import loops, measuring, original
from fed.loading import restrict
from fedenhance.data import audio
from fedenhance.data.datasets import collate, training_set
from fedenhance.data.manifests import (
    assign_clients,
    assign_groups,
    group_by,
    load_manifest,
    take_isolated_noises,
)
from fedenhance.data.mixing import MixtureOfMixtures
from fedenhance.recipes.LibriFSD50K.prepare import prepare
from fedenhance.recipes.storage import read_at_16k

BATCH_SIZE, SECONDS = 6, 4.0


# ------------------------------------------------------------------------- loading


def load(args, clock):
    """Batches a second of each storage."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, dataset in storages(args, Path(folder)):
            held = dataset.clients.values()
            whole = [ids[: len(ids) // BATCH_SIZE * BATCH_SIZE] for ids in held]
            whole = [ids for ids in whole if ids]
            together = [example for ids in whole for example in ids]
            passes = {
                "one_client": lambda d=dataset, i=together: [loader(d, i)],
                "many_clients": lambda d=dataset, w=whole: (loader(d, i) for i in w),
            }
            read_all(passes["one_client"])
            calls = {
                name: partial(batches_per_second, loaders, args.seconds, clock)
                for name, loaders in passes.items()
            }
            rates = measuring.alternate(calls, args.repeats)
            medians = {n: statistics.median(values) for n, values in rates.items()}
            rows.append({"storage": name, **medians})
        if args.authors:
            rows.append(load_original(args, Path(folder), clock))
    for row in rows:
        row["packed_to_this"] = rows[0]["one_client"] / row["one_client"]
    measuring.report(args, "loading", rows)


def storages(args, folder):
    """Yield name and dataset of each way to keep recordings."""
    for storage in ("packed", "files"):
        manifests = folder / storage
        prepare(
            args.data_folder,
            manifests,
            storage=storage,
            storage_folder=None if storage == "files" else folder / f"{storage} data",
        )
        rows = clients_of(args.data_folder, manifests / "train.csv")
        if args.quick:
            few = list(group_by(rows, "client"))[:4]
            rows = {key: row for key, row in rows.items() if row["client"] in few}
        yield {"files": "as recorded"}.get(storage, storage), dataset_of(rows)
    for suffix in ("wav", "flac"):
        yield f"{suffix} files", dataset_of(convert(rows, folder / suffix, suffix))
    original.write_tree(rows, folder / "tree", SECONDS)


def clients_of(data_folder, manifest):
    """The rows of a manifest, one client a speaker."""
    rows = take_isolated_noises(load_manifest(manifest, data_folder), 0.5)
    assign_clients(rows, lambda rows: group_by(rows, "spk_id"))
    return assign_groups(rows, "client", {"supervised": 0.5}, seed=0)


def dataset_of(rows):
    """The training set of some rows."""
    return training_set(rows, MixtureOfMixtures(segment=SECONDS))


def convert(rows, folder, suffix):
    """Copy every file that rows name to 16 kHz in one format; name the copies."""
    folder.mkdir()
    copies = {}

    def copy(segment):
        if segment.path not in copies:
            path = folder / f"{len(copies)}.{suffix}"
            soundfile.write(path, read_at_16k(segment.path), 16000, subtype="PCM_16")
            copies[segment.path] = path, soundfile.info(segment.path).samplerate
        path, rate = copies[segment.path]
        bounds = (edge * 16000 // rate for edge in segment[1:])
        return audio.Segment(str(path), *bounds)

    def moved(row):
        parts = {k: copy(v) for k, v in row.items() if isinstance(v, audio.Segment)}
        return {**row, **parts}

    return {key: moved(row) for key, row in rows.items()}


def loader(dataset, ids):
    """Batches of some examples."""
    return torch.utils.data.DataLoader(
        restrict(dataset, ids),
        batch_size=BATCH_SIZE,
        collate_fn=collate,
        drop_last=True,
    )


def batches_per_second(loaders, seconds, clock):
    """Read loaders one after the other, again and again."""
    count, start = 0, clock()
    while clock() - start < seconds:
        for batches in loaders():
            for _ in batches:
                count += 1
    return count / (clock() - start)


def read_all(loaders):
    """Read loaders once, which fills the page cache."""
    for batches in loaders():
        collections.deque(batches, maxlen=0)


def load_original(args, folder, clock):
    """The original's own loader, of the first client's files; it always shuffles."""
    size = len(list((folder / "tree/train/0/speech").iterdir())) // 2
    batches = original.loader(
        args.authors, folder / "tree", SECONDS, min(size, BATCH_SIZE)
    )
    read_all(lambda: [batches])
    rate = statistics.median(
        batches_per_second(lambda: [batches], args.seconds, clock)
        for _ in range(args.repeats)
    )
    return {"storage": "original", "one_client": rate}


# ----------------------------------------------------------------------- switching


def switch(args, clock):
    """What a change of client costs the default experiment.

    One loader reads the batches of all clients, or one loader for each client reads its
    own; both are made as ``fed`` makes them. The difference is the switches.
    """
    clients, batches = (2, 3) if args.quick else (8, 4)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"clients": clients, "batches": batches, "batch_size": 4}
        case = loops.recordings(args, folder, seconds=1.0, model=args.model, **sizes)
        hparams, _ = case.load(folder)
        dataset = hparams["datasets"](hparams)["train"]
        brain = sb.Brain({"x": torch.nn.Identity()})
        options = hparams["train_dataloader_opts"]

        def made(ids):
            view = restrict(dataset, ids)
            return brain.make_dataloader(view, sb.Stage.TRAIN, **options)

        held = list(dataset.clients.values())
        together = list(dataset.data_ids)
        passes = {
            "one": lambda: sum(1 for _ in made(together)),
            "many": lambda: [sum(1 for _ in made(ids)) for ids in held],
        }
        repeats = 3 if args.quick else 15
        best = measuring.median_seconds(passes, repeats - 1, clock, warm_up=1)
        step = step_seconds(hparams, next(iter(made(together))), clock)
    switches = (best["many"] - best["one"]) / (clients - 1)
    row = {
        "clients": clients,
        "batches": batches,
        "ms_of_a_batch": 1e3 * best["one"] / (clients * batches),
        "ms_of_a_switch": 1e3 * switches,
        "ms_of_a_step": 1e3 * step,
    }
    measuring.report(args, "switching", [row])


def step_seconds(hparams, batch, clock, repeats=10):
    """Median seconds of a training step on one batch."""
    modules = torch.nn.ModuleDict(hparams["modules"]).train()
    optimizer = hparams["opt_class"](modules.parameters())
    step = partial(
        loops.take_step, loops.separation_loss, modules, optimizer, batch, hparams
    )
    return measuring.median_seconds({"": step}, repeats - 1, clock, warm_up=1)[""]


SECTIONS = {"load": load, "switch": switch}


def parse(argv):
    """The command line."""
    parser = measuring.parser(__doc__, SECTIONS, data=True, authors=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="for each storage and repeat"
    )
    quick = {"repeats": 1, "seconds": 0.3}
    return measuring.parse(parser, argv, SECTIONS, quick)


def main(argv=None):
    """Run the sections."""
    measuring.run_sections(parse(argv), SECTIONS)


if __name__ == "__main__":
    main()
