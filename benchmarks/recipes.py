"""Runs SpeechBrain's own recipes from a checkout, centrally and federated.

    python -m benchmarks.recipes --speechbrain DIR [--only NAME ...] [--central]

DIR/tests/recipes/*.csv say how each recipe is tried on the few recordings of
DIR/tests/samples. Here each is run so twice, unmodified and each time in a fresh
process: centrally for two epochs, and by `python -m fed` on two clients for two rounds.
It runs in a copy of the checkout, with the SpeechBrain of that checkout. Rows that the
table has are not run again. Nothing is downloaded: noise and impulse responses are the
samples' own, and what needs more says so.
"""

import glob
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_CPU, setrlimit

from benchmarks import measuring
from fedenhance.data.tables import read_table as table
from fedenhance.data.tables import write_table
from fedenhance.reports.markdown import table as in_markdown

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks/results/recipes.csv"
ROWS = 4
"""The fewest that a list of training examples has: two batches of one per client."""
REPLACED = {
    "NOISE_DATASET_URL": "tests/tmp/noise.zip",
    "RIR_DATASET_URL": "tests/tmp/RIRs.zip",
    "verification_file": "tests/samples/annotation/verification.txt",
    "limit_training_signal_len": "True",
    "training_signal_len": "8000",
    "segment_size": "2560",
    "grad_accumulation_factor": "1",
    "number_of_samples": "4",
    "max_decode_ratio": "0.2",
    **dict.fromkeys(
        "beam_size slu_beam_size valid_beam_size test_beam_size".split(), "2"
    ),
}
"""Keys of a YAML: samples for what would be downloaded, less work for a processor, and
an epoch of one batch makes a step."""
PACKAGE = r"(?:No module named '|Failed to import |dependency )(\w+)"
DOWNLOAD = r"^(\w+): *[\"']?https?://\S*?([\w-]+\.(?:ckpt|model))\b"
"""A line of a YAML: a key with the address of a file."""
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TQDM_DISABLE": "1",
}
FEDERATION = """\
federation: !new:fed.Federation
    partition: !name:fed.partition.iid
        n_clients: 2
    rounds: 2
"""
CENTRAL = "--debug --debug_persistently --debug_batches=10 --debug_epochs=2"
CHOSEN = """
AISHELL-1_row_03 AISHELL-1_row_04 Aishell1Mix_row_02 AudioMNIST_row_02
BinauralWSJ0Mix_row_02 CommonLanguage_row_02 CommonVoice_row_11 CommonVoice_row_17
CommonVoice_row_18 GigaSpeech_row_03 Google-speech-commands_row_02 IEMOCAP_row_03
LJSpeech_row_02 LJSpeech_row_04 LJSpeech_row_05 LJSpeech_row_06 LJSpeech_row_07
Libri-Light_row_02 LibriMix_row_02 LibriParty_row_02 LibriSpeech_row_07
LibriSpeech_row_13 LibriSpeech_row_16 LibriSpeech_row_17 LibriSpeech_row_27
LibriSpeech_row_31 LibriSpeech_row_32 LibriSpeech_row_40 LibriSpeech_row_41
LibriSpeech_row_45 LibriSpeech_row_46 LibriSpeech_row_47 LibriTTS_row_02 LibriTTS_row_05
LibriTTS_row_06 SLURP_row_02 SLURP_row_03 Switchboard_row_04 TIMIT_row_02 TIMIT_row_03
TIMIT_row_05 TIMIT_row_07 Tedlium2_row_03 UrbanSound8k_row_02 Voicebank_row_02
Voicebank_row_04 Voicebank_row_07 Voicebank_row_09 Voicebank_row_10 Voicebank_row_11
Voicebank_row_12 VoxCeleb_row_02 VoxCeleb_row_04 VoxLingua107_row_02 VoxPopuli_row_03
WHAMandWHAMR_row_02 WHAMandWHAMR_row_11 WSJ0Mix_row_02 fluent-speech-commands_row_02
timers-and-such_row_02 timers-and-such_row_05
""".split()
"""One row for each script that runs without downloads; the others are much alike."""
WAYS = "central", "federated"
KEYS = "Task", "Script_file", "Hparam_file", "test_debug_flags"
COLUMNS = (
    "recipe",
    "task",
    "script",
    "yaml",
    *(way + what for way in WAYS for what in ("", "_losses", "_seconds")),
)


def recipes(checkout):
    """Reads what a checkout says of its recipes.

    Arguments
    ---------
    checkout : Path

    Returns
    -------
    list of dict
        Of those with flags for a trial whose scripts call ``fit()``: ``recipe``, a name
        as SpeechBrain's tests use it; ``task``, ``script``, ``yaml``, ``flags``.

    Raises
    ------
    ValueError
        If there are no lists.
    """
    lists = sorted((checkout / "tests/recipes").glob("*.csv"))
    if not lists:
        raise ValueError(f"{checkout} has no tests/recipes/*.csv: give a checkout.")
    found = []
    for path in lists:
        for number, row in enumerate(table(path), start=2):
            name = f"{path.stem}_row_{number:02d}"
            values = [row[key].strip() for key in KEYS]
            recipe = dict(zip([*COLUMNS[:4], "flags"], [name, *values], strict=True))
            script = checkout / recipe["script"]
            if recipe["flags"] and script.exists() and ".fit(" in script.read_text():
                found.append(recipe)
    return found


def lengthened(path, folder, samples, rows=ROWS):
    """Writes a list of examples again, repeated until there are enough.

    Arguments
    ---------
    path : Path
        A csv whose first column is ``ID``, or a JSON from id to example.
    folder : Path
        Where to.
    samples : Path
        Where files that are named after examples are copied for the new ones.
    rows : int

    Returns
    -------
    Path
        Of the new list; the old one where it is long enough, or no such list.
    """
    text, header = path.read_text(), ""
    if path.suffix == ".json":
        examples = json.loads(text)
    else:
        header, *lines = text.splitlines()
        examples = dict(line.split(",", 1) for line in lines if line)
    named = isinstance(examples, dict) and header[:3] in ("", "ID,")
    if not named or not 0 < len(examples) < rows:
        return path
    longer = {
        f"{name}_{n}" if n else name: example
        for n in range(-(-rows // len(examples)))
        for name, example in examples.items()
    }
    if header:
        text = "\n".join([header, *map(",".join, longer.items())])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / path.name).write_text(text if header else json.dumps(longer))
    for name in longer.keys() - examples.keys():
        old = name.rpartition("_")[0]
        for file in [*samples.rglob(f"{glob.escape(old)}.*")]:
            shutil.copyfile(file, file.with_name(name + file.suffix))
    return folder / path.name


def arguments(recipe, checkout):
    """Makes a recipe's command line: flags for a CPU without a network, no folder.

    Arguments
    ---------
    recipe : dict
    checkout : Path
        The copy to run in.
    """
    text = (checkout / recipe["yaml"]).read_text()
    words = []
    for word in shlex.split(recipe["flags"]):
        key, _, value = word.partition("=")
        listed = "train" in key and value.endswith((".csv", ".json"))
        if listed and (checkout / value).is_file():
            folders = checkout / "tests/tmp/lists", checkout / "tests/samples"
            longer = lengthened(checkout / value, *folders)
            word = f"{key}={os.path.relpath(longer, checkout)}"
        if "train" in key and value.endswith(".tar"):  # a shard for each client
            for number in range(2):
                shutil.copyfile(checkout / value, checkout / f"tests/tmp/{number}.tar")
            word = f"{key}=tests/tmp/{{0..1}}.tar"
        words.append(re.sub(r"(--(?:number_of_|N_)?epochs)=1$", r"\1=2", word))
    for key, value in REPLACED.items():
        if re.search(rf"^{key}:", text, re.M) and key not in recipe["flags"]:
            words.append(f"--{key}={value}")
    for key in re.findall(r"^((?:eval_)?precision): *[\"']?fp16", text, re.M):
        words.append(f"--{key}=fp32")
    for key, name in re.findall(DOWNLOAD, text, re.M):
        words.append(f"--{key}=tests/tmp/{name}")
    return [recipe["script"], recipe["yaml"], *words, "--device=cpu"]


def copied(checkout, folder):
    """Copies what the recipes need of a checkout, and adds what their trials expect."""
    for name in ("recipes", "templates", "speechbrain", "tests"):
        if (checkout / name).exists():
            shutil.copytree(checkout / name, folder / name, symlinks=True)
    for name in ("noise", "RIRs"):
        archive = folder / "tests/tmp" / name
        shutil.make_archive(archive, "zip", folder / "tests/samples" / name)
    (folder / "tests/samples/ASR/fold1").mkdir(parents=True, exist_ok=True)
    (folder / "fed.yaml").write_text(FEDERATION)
    for path in (folder / "speechbrain").glob("integrations/numba/transducer_loss.py"):
        shutil.copyfile(ROOT / "benchmarks/transducer.py", path)
    return folder


def run(command, folder, environment, limit):
    """Runs a command in a folder until it ends or its time is up.

    Arguments
    ---------
    command : list of str
    folder : Path
    environment : dict
        Added to that of this process.
    limit : float
        Seconds of a processor, for each of its processes, so that other load does not
        decide; by the clock ten times as much, or a minute.

    Returns
    -------
    tuple
        Exit status (None: time was up), output, seconds by the clock.
    """
    begin, most = time.monotonic(), int(limit) + 1
    try:
        ended = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(60, 10 * limit),
            preexec_fn=lambda: setrlimit(RLIMIT_CPU, (most, RLIM_INFINITY)),
        )
        status, output = ended.returncode, ended.stdout
        status = None if status == -signal.SIGXCPU else status
    except subprocess.TimeoutExpired as late:
        status, output = None, late.stdout or b""
    return status, output.decode(errors="replace"), time.monotonic() - begin


def verdict(status, output, found):
    r"""Says in a line what became of a run.

    Arguments
    ---------
    status : int or None
        Of :func:`run`.
    output : str
    found : list of str
        Losses of what is done; SpeechBrain says 0 where none was finite.

    Example
    -------
    >>> verdict(1, "Traceback\\nModuleNotFoundError: No module named 'pandas'", [])
    'needs package pandas'
    >>> verdict(0, "", ["0.95", "0.00e+00"])
    'diverged: no loss is finite'
    """
    if (trained := len(found) >= 2) and not float(found[-1]):
        return "diverged: no loss is finite"
    if status == 0 and trained:
        return "trained"
    if status is None:
        return "trained, not evaluated in time" if trained else "took too long"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    if package := re.search(PACKAGE, output):
        return f"needs package {package[1]}"
    if re.search(r"LocalEntryNotFoundError|OfflineMode|URLError", output):
        return "needs download"
    errors = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception|Exit): .+)", output, re.M)
    last = (errors or output.strip().splitlines() or ["no output"])[-1]
    last = last[:400].replace("fed: ", "refused: ")
    return ("trained, then " if trained else "") + last


def losses(folder):
    """Reads the training losses of a run, whatever its recipe calls them.

    Arguments
    ---------
    folder : Path
        Its output.

    Returns
    -------
    list of str
        Of rounds, or else of epochs.
    """
    for path in folder.rglob("rounds.csv"):
        return [f"{float(row['train_loss']):.3g}" for row in table(path)]
    logs = sorted(folder.rglob("*train*log*.txt"))
    lines = logs[0].read_text().splitlines() if logs else []
    epochs = [dict(re.findall(r"train (\S+): ([^ ,]+)", line)) for line in lines]
    return [
        stats.get("loss") or stats.get("total_loss") or next(iter(stats.values()))
        for stats in epochs
        if stats
    ]


def prepared(recipe, checkout, limit):
    """Makes a recipe ready to run: its files, words and environment.

    Arguments
    ---------
    recipe : dict
    checkout : Path
        A copy.
    limit : float
        Seconds for its stand-ins.

    Returns
    -------
    list of str
        Script, YAML and options.
    dict
        Of the environment.
    """
    script, *words = arguments(recipe, checkout)
    paths = checkout / Path(script).parent, checkout, ROOT
    environment = {**OFFLINE, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    text = (checkout / recipe["yaml"]).read_text()
    if re.search(r"Pretrainer|: speechbrain/", text):
        make = [sys.executable, "-m", "benchmarks.stand_ins", *words]
        run(make, checkout, environment, limit)
    return [script, *words], environment


def tried(recipe, checkout, ways, limit):
    """Runs a recipe.

    Arguments
    ---------
    recipe : dict
    checkout : Path
        A copy.
    ways : list of str
        ``central``, ``federated`` or both.
    limit : float
        Seconds for each.

    Returns
    -------
    dict
        Its part of the table's row.
    """
    words, environment = prepared(recipe, checkout, limit)
    commands = {
        "central": [sys.executable, *words, *CENTRAL.split()],
        "federated": [sys.executable, "-m", "fed", *words, "--federation=fed.yaml"],
    }
    row = {}
    for way in ways:
        folder = checkout / "tests/tmp" / f"{recipe['recipe']}_{way}"
        command = [*commands[way], f"--output_folder={folder}"]
        status, output, seconds = run(command, checkout, environment, limit)
        found = losses(folder)
        row[way] = verdict(status, output, found)
        row[f"{way}_losses"] = " ".join(found[:: max(1, len(found) - 1)])
        row[f"{way}_seconds"] = f"{seconds:.0f}"
    return row


def moved(losses):
    """Tells whether a loss that is written in a cell differs at the end.

    Example
    -------
    >>> moved("4.49 3.26"), moved("150 150"), moved("")
    (True, False, False)
    """
    values = losses.split()
    return values[-1:] != values[:1]


def counted(rows):
    """Says in a sentence what the rows of the CSV come to.

    Example
    -------
    >>> row = {"central": "trained", "federated": "trained, then an error"}
    >>> counted([row | {"script": "a.py"}, row | {"script": "a.py"}])
    'Of 2 rows 2 train centrally here, and of these 2 train federated (1 scripts).'
    """
    central = [row for row in rows if row["central"].startswith("trained")]
    both = [row for row in central if row["federated"].startswith("trained")]
    return (
        f"Of {len(rows)} rows {len(central)} train centrally here, and of these "
        f"{len(both)} train federated ({len({row['script'] for row in both})} scripts)."
    )


def markdown(rows):
    """Makes the sentence and the table of docs/recipes.md of the rows of the CSV."""
    lines = []
    for row in rows:
        path = f"`{row['script'].removeprefix('recipes/')} {Path(row['yaml']).name}`"
        cells = [path, row["task"]]
        cells += [row[way + what] for way in WAYS for what in ("", "_losses")]
        lines.append([c.replace("|", "\\|").replace("<", "&lt;") for c in cells])
    heads = "recipe", "task", "central", "losses", "federated", "losses of rounds"
    return f"{counted(rows)}\n\n{in_markdown(heads, lines)}"


def main(argv=None):
    """Runs what the table lacks, and writes it after each recipe."""
    made = measuring.describe(__doc__)
    made.add_argument("--speechbrain", type=Path, required=True, metavar="DIR")
    made.add_argument("--only", nargs="+", default=[], metavar="NAME")
    made.add_argument("--central", action="store_true", help="not federated")
    made.add_argument("--restart", action="store_true", help="run all again")
    made.add_argument(
        "--limit", type=float, default=300, metavar="SECONDS", help="of a processor"
    )
    made.add_argument("--out", type=Path, default=OUT)
    args = made.parse_args(argv)
    known = args.out.exists() and not args.restart
    rows = {row["recipe"]: row for row in table(args.out)} if known else {}
    names = args.only or CHOSEN
    chosen = [r for r in recipes(args.speechbrain) if r["recipe"] in names]
    with tempfile.TemporaryDirectory() as folder:
        checkout = copied(args.speechbrain, Path(folder))
        for recipe in chosen:
            row = rows.setdefault(recipe["recipe"], dict.fromkeys(COLUMNS, ""))
            row.update(recipe)
            ways = [way for way in WAYS[: 1 if args.central else 2] if not row[way]]
            row.update(tried(recipe, checkout, ways, args.limit) if ways else {})
            print(*(row[name] for name in COLUMNS), sep=" | ", flush=True)
            write_table(args.out, [row for _, row in sorted(rows.items())], COLUMNS)
    print(counted([*rows.values()]))


if __name__ == "__main__":
    main()
