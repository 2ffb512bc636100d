"""What a folder of recordings amounts to, and what it suggests for training."""

import math

from fedenhance.data.folders import count_reasons
from fedenhance.recipes.preparation import hours_of

BUDGET, ROUNDS, PASSES = 1.5, 12, 60
"""Hours of audio that a proposal lets clients train on altogether, in how many rounds,
and how often, at most, a recording is trained on."""


def count(rows):
    """Count what a split holds."""
    return {
        "rows": len(rows),
        "hours": hours_of(rows),
        "people": len({row["spk_id"] for row in rows}),
        "files": len({row["source"] for row in rows}),
    }


def in_words(rows):
    """Say how much audio rows hold.

    Example
    -------
    >>> in_words([{"duration": 90.0, "spk_id": "a", "source": "a.wav"}] * 2)
    '1 file with 3.0 minutes of 1 person in 2 rows'
    """
    counts = count(rows)
    people, files = counts["people"], counts["files"]
    seconds = sum(row["duration"] for row in rows)
    units = ((3600, ".1f", "hours"), (60, ".1f", "minutes"), (1, ".0f", "seconds"))
    size, form, unit = next((u for u in units if seconds >= 2 * u[0]), units[-1])
    length = f"{seconds / size:{form}} {unit}"
    return (
        f"{files} file{'s' * (files != 1)} with {length} of {people} "
        f"{'person' if people == 1 else 'people'} in {len(rows)} rows"
    )


def propose(rows, cleanest=1.0):
    """Suggest clients, rounds and segment for the amount of data.

    Arguments
    ---------
    rows : list of dict
        Of training.
    cleanest : float
        Share of them whose speech is trained on.

    Returns
    -------
    dict
        ``clients``; ``segment`` in seconds, half of the rows are no shorter; ``rounds``
        and ``local_epochs``, with which clients train on ``BUDGET`` hours.

    Example
    -------
    >>> rows = [{"client": who, "duration": 10.0} for who in "ab" for _ in range(50)]
    >>> propose(rows)
    {'clients': 2, 'segment': 2.0, 'rounds': 12, 'local_epochs': 2}
    """
    median = sorted(row["duration"] for row in rows)[len(rows) // 2]
    segment = min(2.0, max(1.0, math.floor(2 * median) / 2))
    passes = min(PASSES, BUDGET * 3600 / (cleanest * len(rows) * segment))
    local_epochs = passes / ROUNDS
    return {
        "clients": len({row["client"] for row in rows}),
        "segment": segment,
        "rounds": ROUNDS,
        "local_epochs": round(local_epochs)
        if local_epochs >= 1
        else max(0.01, round(local_epochs, 2)),
    }


def account_of(tables, noises, skipped, held_out, proposal, by_pattern):
    """Say what was found, what was left out, and what is proposed; a line each."""
    parts = [tables[name] for name in ("train", "valid", "test")]
    everything = [row for rows in parts for row in rows]
    lines = [f"recordings: {in_words(everything)}"]
    if {row["spk_id"] for row in everything} == {"unknown"} and not by_pattern:
        lines += ["people: no sub-folders, so all is one person's; --person PATTERN"]
        lines[-1] += " finds them in the paths"
    lines += [
        f"left out: {count_reasons(skipped)[:-1]}; see skipped.csv)"
        if skipped
        else "left out: nothing"
    ]
    told = {"people": "people who are in no other split", "files": "some files of each"}
    told = told.get(held_out, "some rows of all files")
    lines += [f"held out, {told}: {in_words(parts[1])} to choose the model by"]
    lines += [f"held out, {told}: {in_words(parts[2])} to judge it by"]
    own = [row for row in noises if row["client"]]
    lines += [
        f"isolated noise: {sum(r['duration'] for r in noises) / 60:.1f} minutes, of "
        f"them {sum(row['duration'] for row in own) / 60:.1f} from pauses"
        if noises
        else "isolated noise: none; the model's own estimates of noise are remixed"
    ]
    text = ", ".join(f"{n.replace('_', ' ')} {v:g}" for n, v in proposal.items())
    return [*lines, f"proposed: {text}"]
