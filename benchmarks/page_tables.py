"""Tables within pages that are CSVs, as ``benchmarks.tables`` writes them."""

from benchmarks import (
    attacks,
    experiments,
    findings,
    from_scratch,
    personal,
    recipes,
    self_training,
)
from benchmarks.tables import Table, cells, those
from fedenhance.data.tables import grouped
from fedenhance.reports import markdown
from fedenhance.reports.markdown import spread

FULL, SMALL = "sudormrf_groupcomm", "sudormrf_groupcomm_small"
BENCHMARKS, REPRODUCE = "benchmarks/README.md", "docs/reproduce.md"
OBJECTIVES = {
    "noisy_target": "noisy target",
    "mixit": "MixIT",
    "constrained_mixit": "constrained MixIT",
    "remixit": "RemixIT, 24 rounds more",
    "supervised": "supervised",
}
MEMBERS = ["groupcomm", "improved", "original", "causal"]
RATIOS = [(f"{name}_ratio", "{:.2f}") for name in ("forward", "train", "memory")]
PEERS = {
    "nothing": "the mixture itself",
    "noisereduce": "noisereduce",
    "rnnoise": "RNNoise",
    "gtcrn": "GTCRN, authors' weights",
    "deepfilternet3": "DeepFilterNet 3",
    "pretrained": "ours, as it comes along",
}
MEASURES = (("si_sdri", 1), ("pesq", 2), ("estoi", 2), ("dnsmos", 2))


def objectives(rows):
    """The table of docs/reproduce.md."""
    lines = []
    for name, title in OBJECTIVES.items():
        own = those(rows, {"experiment": name})
        gains = [[float(row[f"si_sdri_{n}"]) for row in own] for n in (1, 2)]
        lines.append([title, len(own), *map(spread, gains)])
    return markdown.table(["objective", "seeds", "one noise", "two noises"], lines)


def networks(rows):
    """What networks take of their authors' time and memory."""
    names = [f"sudormrf_{member}" for member in MEMBERS]
    found = those(rows, {"code": "ours"})
    found = [row for row in found if row["network"] in names]
    heads = ["ours / theirs", "forward", "training step", "peak memory"]
    name = lambda row: row["network"].removeprefix("sudormrf_")  # noqa: E731
    return cells(found, heads, [name, *RATIOS])


def peers(rows):
    """Enhancers side by side, with one and with two noises."""
    rows = [row for row in rows if row["n_noises"] in ("1", "2")]
    lines = []
    for name, pair in grouped(rows, lambda row: row["enhancer"]).items():
        found = [both(pair, key, digits) for key, digits in MEASURES]
        count = int(float(pair[0]["parameters"]))
        took = float(pair[0]["realtime_factor"])
        last = [f"{took:.3f}" if name != "nothing" else "–", f"{count:,}" or "–"]
        lines.append([PEERS.get(name, name), *found, *last])
    heads = ["enhancer", "SI-SDRi, dB", "PESQ", "ESTOI", "DNSMOS", "of real time"]
    return markdown.table([*heads, "weights"], lines)


def enhanced(rows):
    """What the model that comes along makes of noisy recordings."""
    names = {"nothing": "noisy", "pretrained": "enhanced"}
    pairs = {name: those(rows, {"enhancer": name})[:2] for name in names}
    lines = [
        [names[name], *(both(pair, key, digits) for key, digits in MEASURES)]
        for name, pair in pairs.items()
    ]
    heads = ["", "SI-SDR improvement, dB", "PESQ", "ESTOI", "DNSMOS"]
    return markdown.table(heads, lines)


def both(pair, key, digits):
    """A number with one and with two noises."""
    return " / ".join(f"{float(row[key]):.{digits}f}" for row in pair)


def pretrained(rows):
    """What the model that comes along gains, by number of noises and input."""
    lines = []
    for row in those(rows, {"metric": "si_sdri"}):
        same = {key: row[key] for key in ("grouping", "group")}
        if row["grouping"] in ("n_noises", "input_snr"):
            noises = {"1": "one noise", "2": "two noises"}
            title = noises.get(row["group"], f"input of {row['group']} dB")
            gain, low, high = (float(row[key]) for key in ("mean", "low", "high"))
            estoi = float(those(rows, {"metric": "estoii", **same})[0]["mean"])
            reached = f"{gain:.2f} ({low:.2f} to {high:.2f})"
            lines.append([title, row["n"], reached, f"{estoi:.3f}"])
    heads = ["", "recordings", "SI-SDR gained, dB (95 % interval)", "ESTOI gained"]
    return markdown.table(heads, lines)


def live(rows):
    """What a block takes, and after what time it is heard."""
    heads = ["network", "runtime", "ms a block", "of real time", "heard after, ms"]
    of_real_time, heard = ("real_time_factor", "{:.2f}"), ("heard_after_ms", "{:.0f}")
    took = ("ms_a_block", "{:.1f}")
    return cells(rows, heads, ["model", "runtime", took, of_real_time, heard])


def compared(rows):
    """What a round takes of other codes' time."""
    names = {"bare": "bare loop", "flower": "Flower's own", "original": "the original"}
    lines = [
        [
            title,
            *(
                f"{float(row['ours_to_this']):.2f}"
                for model in (SMALL, FULL)
                for row in those(rows, {"code": code, "model": model})
            ),
        ]
        for code, title in names.items()
    ]
    heads = ["ours / this code, a round", "default network, 4 clients x 10 batches"]
    return markdown.table([*heads, "full network, 1 x 2"], lines)


def simulators(rows):
    """Rounds of ours, of a bare loop and of pfl-research's, by clients."""
    lines = []
    for row in those(rows, {"code": "ours"}):
        same = {key: row[key] for key in ("network", "clients", "batches")}
        other = {code: those(rows, {"code": code, **same})[0] for code in SIMULATED}
        lines.append(
            [
                row["network"],
                f"{int(row['clients']):,}",
                row["batches"],
                f"{float(row['seconds']):.3g}",
                *(f"{float(other[c]['ours_to_this']):.2f}" for c in SIMULATED),
                *(found["peak_memory_mb"] for found in (row, *other.values())),
            ]
        )
    heads = ["network", "clients", "batches of each", "ours, s", "ours / bare loop"]
    heads += ["ours / pfl-research", "ours, MB", "bare, MB", "pfl-research, MB"]
    return markdown.table(heads, lines)


MANIFESTS = {
    "train.csv": "CHiME-5, chunks of up to 10 s, right ear, the wearer silent",
    "train.csv, by voice": "of these where the task's detector finds speech",
    "valid.csv": "reverberant LibriCHiME-5, development",
    "test.csv": "reverberant LibriCHiME-5, evaluation",
    "real_valid.csv": "CHiME-5, development, at most one speaks",
    "real_test.csv": "CHiME-5, evaluation, at most one speaks",
}


def manifests(rows):
    """What the manifests of the UDASE recipe hold."""
    lines = []
    for name, title in MANIFESTS.items():
        for row in those(rows, {"what": name}):
            count = f"{int(row['number']):,}"
            name = f"`{name}`".replace(", by voice`", "` with `--vad True`")
            lines.append([name, title, count, f"{float(row['hours']):.2f}"])
    return markdown.table(["manifest", "", "recordings", "hours"], lines)


CODES = {
    "ours": "ours",
    "bare": "bare loop, without CUDA graphs",
    "flower": "Flower's own around the same Brain",
    "original": "the original",
    "authors": "the authors'",
}


def code(row):
    """The code of a row in words."""
    return CODES[row["code"]]


def busy(rows):
    """What a GPU does while clients train."""
    heads = ["", "examples a second", "the GPU is busy, %"]
    columns = [("examples_per_second", "{:.0f}"), ("busy_percent", "{:.0f}")]
    return cells(rows, heads, [code, *columns])


def steps(rows):
    """What a training step is on a GPU."""
    heads = ["", "ms", "kernels", "ms in them"]
    ms = [lambda row, key=key: f"{1e3 * float(row[key]):.0f}" for key in SECONDS]
    return cells(rows, heads, [code, ms[0], "kernels", ms[1]])


SECONDS = ("seconds", "kernel_seconds")
SIMULATED = ("bare", "pfl-research")
SPLITS = ("train", "test")
THOUSANDS = ("clients", "{:,.0f}")
TABLES = {
    "experiments": Table(
        "README.md",
        "experiments.csv",
        lambda rows: experiments.table(those(rows, {"seed": "?"})),
    ),
    "from_scratch": Table(
        "fedenhance/recipes/PackagedRecordings/RESULTS.md",
        "from_scratch.csv",
        from_scratch.table,
    ),
    "attacks": Table("docs/federate.md", "attacks.csv", attacks.table),
    "live": Table("docs/live.md", "live.csv", live),
    "recipes": Table("docs/recipes.md", "recipes.csv", recipes.markdown),
    "personal": Table("docs/federate.md", "personal.csv", personal.table),
    "batch_normalisation": Table(
        "docs/federate.md", "batch_normalisation.csv", personal.table
    ),
    "self_training": Table(
        "docs/your-data.md", "self_training.csv", self_training.table
    ),
    "udase": Table("fedenhance/recipes/UDASE/README.md", "udase.csv", manifests),
    "objectives": Table(REPRODUCE, "objectives.csv", objectives),
    "networks": Table(REPRODUCE, "networks.csv", networks),
    "networks_gpu": Table(BENCHMARKS, "networks_gpu.csv", networks),
    "rounds": Table(BENCHMARKS, "rounds.csv", compared),
    "rounds_gpu": Table(BENCHMARKS, "rounds_gpu.csv", compared),
    "rounds_pfl": Table(BENCHMARKS, "rounds_pfl.csv", simulators),
    "gpu_training": Table(BENCHMARKS, "gpu_training.csv", busy),
    "gpu_steps": Table(BENCHMARKS, "gpu_steps.csv", steps),
    "peers": Table(BENCHMARKS, "peers.csv", peers),
    "enhanced": Table("README.md", "peers.csv", enhanced),
    "pretrained": Table(
        "fedenhance/pretrained/gtcrn/README.md",
        "fedenhance/recipes/PackagedRecordings/results/pretrained.csv",
        pretrained,
    ),
    "input_snr": Table(
        "fedenhance/recipes/MiniLibriFSD50K/README.md",
        "fedenhance/recipes/MiniLibriFSD50K/results/statistics.csv",
        lambda rows: cells(
            rows,
            ["split", "chunks", "lower quartile", "median", "upper quartile"],
            ["split", "chunks", *(f"snr_one_q{q}" for q in (25, 50, 75))],
        ),
    ),
    "recognition": Table(
        "fedenhance/recipes/LibriSpeech/ASR/README.md",
        "recognition.csv",
        lambda rows: cells(
            rows,
            ["training", "rounds or epochs", "training speech", "test speakers"],
            ["training", "epochs", *((f"{s}_WER", "{:.1f}") for s in SPLITS)],
        ),
    ),
    "deployed": Table(
        "docs/real-machines.md",
        "deployed.csv",
        lambda rows: cells(
            rows,
            ["round", "in all", "training", "the rest"],
            ["round", *((name, "{:.1f}") for name in ("seconds", "training", "rest"))],
        ),
    ),
    "privacy_clients": Table(
        "docs/privacy.md",
        "privacy_clients.csv",
        lambda rows: cells(
            rows,
            [
                "clients",
                "expected in a round",
                "noise multiplier z",
                "noise / longest update",
            ],
            [THOUSANDS, "expected", "noise_multiplier", "noise_to_update"],
        ),
    ),
    "privacy": Table(
        "docs/privacy.md",
        "privacy.csv",
        lambda rows: cells(
            rows,
            ["", "clients", "expected", "error"],
            ["training", "clients", "expected", "error"],
        ),
    ),
}
"""Name of a table -> where it is, and what it is made of."""
TABLES |= {
    f"{name} {recipe}": Table(
        f"fedenhance/recipes/{recipe}/RESULTS.md",
        f"fedenhance/recipes/{recipe}/results/{csv}.csv",
        make,
    )
    for recipe in ("MiniLibriFSD50K", "PackagedRecordings")
    for name, csv, make in (
        ("findings", "findings", findings.table),
        ("reached", "experiments", findings.reached),
    )
}
