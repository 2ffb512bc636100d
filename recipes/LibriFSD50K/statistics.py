"""Statistics of a prepared corpus: sizes, classes, and the distribution of input SNR.

From the root of the repository::

    python -m recipes.LibriFSD50K.statistics /data manifests statistics
"""

import argparse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fedenhance.data.audio import DamagedAudioError, read_segment
from fedenhance.data.manifests import group_by, load_manifest
from fedenhance.data.mixing import input_snr
from fedenhance.data.tables import whole_file, write_table
from recipes.LibriFSD50K.corpora import SPEECH_SUBSETS

SAMPLE_RATE = 16000
QUARTILES = (25, 50, 75)


def statistics(data_folder, manifest_folder, save_folder, jobs=2):
    """Write tables and the figure of a prepared corpus.

    ``statistics.csv`` has one row a split: chunks, hours, speakers, noises, classes and
    the quartiles of the input SNR in dB with one and with two noises.
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
    tables = {
        split: load_manifest(Path(manifest_folder) / f"{split}.csv", data_folder)
        for split in SPEECH_SUBSETS
    }
    ratios = {split: input_snrs(rows, jobs, split) for split, rows in tables.items()}
    sizes = [
        {"split": split, **_sizes(list(rows.values()), ratios[split])}
        for split, rows in tables.items()
    ]
    classes = [
        {"split": split, "noise_class": name, "chunks": number}
        for split, rows in tables.items()
        for name, number in sorted(
            Counter(row["noise_class"] for row in rows.values()).items()
        )
    ]
    snrs = [
        {
            "split": split,
            "ID": key,
            "noise_class": row["noise_class"],
            "snr_one_noise": f"{one:.3f}",
            "snr_two_noises": f"{two:.3f}",
        }
        for split, rows in tables.items()
        for (key, row), one, two in zip(
            rows.items(), *ratios[split].values(), strict=True
        )
    ]
    write_table(save_folder / "statistics.csv", sizes)
    write_table(save_folder / "noise_classes.csv", classes)
    write_table(save_folder / "input_snr.csv", snrs)
    plot(ratios, save_folder / "input_snr.png")
    return ratios


def _sizes(rows, ratios):
    distinct = {
        name: len({row[column] for row in rows})
        for name, column in (
            ("speakers", "spk_id"),
            ("noises", "noise_id"),
            ("noise_classes", "noise_class"),
        )
    }
    quartiles = {
        f"snr_{noises}_q{q}": f"{value:.2f}"
        for noises, values in zip(("one", "two"), ratios.values(), strict=True)
        for q, value in zip(QUARTILES, quartile(values), strict=True)
    }
    hours = sum(row["duration"] for row in rows) / 3600
    return {"chunks": len(rows), "hours": f"{hours:.3f}", **distinct, **quartiles}


def quartile(ratios):
    """Quartiles in dB of the finite ratios.

    Example
    -------
    >>> [float(q) for q in quartile(np.array([0.0, 1.0, 2.0, 3.0, 4.0, np.inf]))]
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
        found = list(tqdm(found, name, len(rows), leave=False))
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
    sides = ((1, "low", "C0"), (2, "high", "C1"))
    for place, split in enumerate(ratios):
        for number, side, colour in sides:
            values = ratios[split][number]
            values = values[np.isfinite(values)]
            body = axes.violinplot(values, [place], widths=0.8, showextrema=False)
            _keep_half(body["bodies"][0], place, side, colour)
            marks = place + (-0.2 if side == "low" else 0.2)
            for q, style in zip(quartile(values), (":", "-", ":"), strict=True):
                axes.plot([place, marks], [q, q], "k", linestyle=style, linewidth=1)
    axes.set_xticks(range(len(ratios)), list(ratios))
    axes.set_ylabel("input SNR [dB]")
    axes.grid(axis="y", alpha=0.3)
    for number, _, colour in sides:
        label = "one noise" if number == 1 else "two noises"
        axes.fill_between([], [], color=colour, alpha=0.6, label=label)
    axes.legend(loc="upper right")
    for name in (path, path.with_suffix(".pdf")):
        with whole_file(name) as partial:
            figure.savefig(partial, dpi=150)


def _keep_half(body, place, side, colour):
    """Clip a violin to the left ("low") or right ("high") of its axis."""
    vertices = body.get_paths()[0].vertices
    limits = (None, place) if side == "low" else (place, None)
    vertices[:, 0] = np.clip(vertices[:, 0], *limits)
    body.set(facecolor=colour, alpha=0.6)


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
