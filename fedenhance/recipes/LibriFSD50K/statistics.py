"""Statistics of a prepared corpus: sizes, classes, and the distribution of input SNR.

From the root of the repository::

    python -m fedenhance.recipes.LibriFSD50K.statistics /data manifests statistics
"""

import argparse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy.stats import gaussian_kde
from tqdm import tqdm

from fedenhance.data.audio import read_segment
from fedenhance.data.manifests import group_by, load_manifest
from fedenhance.data.mixing import input_snr
from fedenhance.data.opening import DamagedAudioError
from fedenhance.data.tables import whole_file, write_table
from fedenhance.recipes.chunks import count
from fedenhance.recipes.LibriFSD50K.corpora import SPEECH_SUBSETS

SAMPLE_RATE = 16000
QUARTILES = (25, 50, 75)


def statistics(data_folder, manifest_folder, save_folder, jobs=2):
    """Write tables and the figure of a prepared corpus.

    ``statistics.csv`` has one row a split: chunks, hours, speakers, utterances, noises,
    classes and the quartiles of the input SNR in dB with one and with two noises.
    ``noise_classes.csv`` counts the chunks of each class, ``input_snr.csv`` has the
    SNR of every chunk, ``input_snr.png`` is the split violin figure of the paper.

    Arguments
    ---------
    data_folder : str
        Replaces ``$data_root``.
    manifest_folder : str
        Holds train.csv, valid.csv and test.csv.
    save_folder : str
        Where the results go.
    jobs : int
        Threads.

    Returns
    -------
    dict
        Split -> {1: SNR with one noise, 2: with two}, arrays of (chunks,) in dB.
    """
    save_folder = Path(save_folder)
    ratios, sizes, classes, snrs = {}, [], [], []
    for split in SPEECH_SUBSETS:
        rows = load_manifest(Path(manifest_folder) / f"{split}.csv", data_folder)
        ratios[split] = input_snrs(rows, jobs, split)
        one, two = ratios[split].values()
        counts = count([{"ID": key, **row} for key, row in rows.items()])
        levels = {**_named_quartiles("one", one), **_named_quartiles("two", two)}
        sizes.append({"split": split, **counts, **levels})
        chunks = Counter(row["noise_class"] for row in rows.values())
        classes += [
            {"split": split, "noise_class": name, "chunks": number}
            for name, number in sorted(chunks.items())
        ]
        snrs += [
            {
                "split": split,
                "ID": key,
                "noise_class": row["noise_class"],
                "snr_one_noise": f"{first:.3f}",
                "snr_two_noises": f"{second:.3f}",
            }
            for (key, row), first, second in zip(rows.items(), one, two, strict=True)
        ]
    write_table(save_folder / "statistics.csv", sizes)
    write_table(save_folder / "noise_classes.csv", classes)
    write_table(save_folder / "input_snr.csv", snrs)
    plot(ratios, save_folder / "input_snr.png")
    return ratios


def _named_quartiles(noises, values):
    pairs = zip(QUARTILES, quartiles(values), strict=True)
    return {f"snr_{noises}_q{q}": f"{value:.2f}" for q, value in pairs}


def quartiles(ratios):
    """Quartiles in dB of the finite ratios.

    Example
    -------
    >>> [float(q) for q in quartiles(np.array([0.0, 1.0, 2.0, 3.0, 4.0, np.inf]))]
    [1.0, 2.0, 3.0]
    """
    return np.percentile(ratios[np.isfinite(ratios)], QUARTILES)


def input_snrs(rows, jobs=2, name="chunks"):
    """Measure the input SNR of every chunk of a split.

    The second noise of a chunk is the noise of the chunk half the speaker's rows
    further on: another one of the same client.

    Arguments
    ---------
    rows : dict
        Id -> row, as :func:`fedenhance.data.manifests.load_manifest` gives them.
    jobs : int
        Threads.
    name : str
        What the progress bar says.

    Returns
    -------
    dict
        {1: with one noise, 2: with two}, arrays of (chunks,) in dB; NaN where a file
        cannot be read.
    """

    def measure(row, other):
        count = round(row["duration"] * SAMPLE_RATE)
        segments = (row["speech"], row["noise"], other["noise"])
        try:
            speech, noise, extra = (
                read_segment(*segment, SAMPLE_RATE, count).double()
                for segment in segments
            )
        except DamagedAudioError:
            return np.nan, np.nan
        return input_snr(speech, noise), input_snr(speech, noise + extra)

    others = {}
    for own in group_by(rows, "spk_id").values():
        half = len(own) // 2
        others.update(zip(own, own[half:] + own[:half], strict=True))
    with ThreadPoolExecutor(jobs) as pool:
        second = [rows[others[key]] for key in rows]
        found = pool.map(measure, rows.values(), second)
        found = list(tqdm(found, name, len(rows), leave=False, disable=None))
    one, two = np.array(found).T
    return {1: one, 2: two}


def plot(ratios, path):
    """Draw the split violin figure: one noise on the left, two on the right.

    Arguments
    ---------
    ratios : dict
        Split -> {1: array, 2: array} in dB.
    path : pathlib.Path
        Image to write, ``.png``; it is written as PDF as well.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    sides = ((1, "one noise", -0.4, "C0"), (2, "two noises", 0.4, "C1"))
    for place, split in enumerate(ratios):
        for number, label, width, colour in sides:
            values = ratios[split][number]
            values = values[np.isfinite(values)]
            levels = np.linspace(values.min(), values.max(), 100)
            density = gaussian_kde(values)(levels) if np.ptp(values) else np.ones(100)
            edge = place + width * density / density.max()
            label = None if place else label
            axes.fill_betweenx(
                levels, place, edge, color=colour, alpha=0.6, label=label
            )
            for q, style in zip(quartiles(values), (":", "-", ":"), strict=True):
                axes.plot([place, place + width / 2], [q, q], f"k{style}", linewidth=1)
    axes.set_xticks(range(len(ratios)), list(ratios))
    axes.set_ylabel("input SNR [dB]")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper right")
    for name in (path, path.with_suffix(".pdf")):
        with whole_file(name) as partial:
            figure.savefig(partial, dpi=150)


def main(argv=None):
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_folder")
    parser.add_argument("manifest_folder")
    parser.add_argument("save_folder")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args(argv)
    statistics(**vars(arguments))
    table = Path(arguments.save_folder) / "statistics.csv"
    tqdm.write(table.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
