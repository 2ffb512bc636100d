"""Word error rate of a recogniser on what was enhanced, beside transcripts."""

import re
from pathlib import Path

import torch
from speechbrain.utils.metric_stats import ErrorRateStats


def read_transcripts(path):
    """Read what was said.

    Arguments
    ---------
    path : str or Path
        Text with a line for each recording: its path in its folder without the suffix,
        a tab, or a blank if the path has none, and the words, as in Kaldi's ``text``
        and LibriSpeech's ``.trans.txt``.

    Returns
    -------
    dict
        Name -> list of words, in upper case.

    Raises
    ------
    ValueError
        Naming the line that has no words, or whose name came before.
    """
    words = {}
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), start=1):
        name, _, said = line.strip().partition("\t" if "\t" in line else " ")
        if name and (name in words or not normalized(said)):
            raise ValueError(
                f"{path}, line {number}: a new name and its words are expected, not "
                f"{line!r}"
            )
        words[name] = normalized(said)
    return words


def normalized(text):
    """Words of a text without its punctuation.

    Example
    -------
    >>> normalized("Don't, he said.")
    ["DON'T", 'HE', 'SAID']
    """
    return re.sub(r"[^\w']+", " ", text.upper()).split()


def load_recogniser(folder):
    """Load a recogniser of SpeechBrain.

    Arguments
    ---------
    folder : str or Path
        With the ``hyperparams.yaml`` of SpeechBrain's ``EncoderASR`` (it has a
        ``decoding_function``) or ``EncoderDecoderASR``, and what that names. It may run
        any code: take it from whom you trust.

    Returns
    -------
    callable
        ``(waveform, sample_rate) -> list of words``, of ``(time,)``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is none of a recogniser; at another sample rate than its own.
    """
    from speechbrain.inference.ASR import EncoderASR, EncoderDecoderASR

    path = Path(folder) / "hyperparams.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no recogniser of SpeechBrain: no {path}")
    greedy = re.search(r"(?m)^decoding_function:", path.read_text("utf-8"))
    kind = EncoderASR if greedy else EncoderDecoderASR
    try:
        recogniser = kind.from_hparams(source=str(folder))
    except (AttributeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} describes no recogniser: {error}") from error
    rate = getattr(recogniser.hparams, "sample_rate", 16000)

    def transcribe(waveform, sample_rate):
        if sample_rate != rate:
            raise ValueError(f"{folder} takes {rate} Hz, not {sample_rate} Hz")
        batch = torch.from_numpy(waveform).unsqueeze(0)
        texts, _ = recogniser.transcribe_batch(batch, torch.ones(1))
        return normalized(texts[0] if isinstance(texts[0], str) else " ".join(texts[0]))

    return transcribe


def measure_words(utterances, sample_rate, transcribe, transcripts):
    """Word error rates of utterances, before and after enhancement.

    Arguments
    ---------
    utterances : iterable of tuple
        As ``measure_utterances`` of ``reports.metrics`` takes them.
    sample_rate : int
    transcribe : callable
        Of :func:`load_recogniser`.
    transcripts : dict
        Of :func:`read_transcripts`.

    Returns
    -------
    rows : dict
        Id -> ``words``, and in percent ``wer`` and, of a mixture, ``wer_noisy``.
    told : str
        Rates over all words.

    Raises
    ------
    ValueError
        If no utterance has a transcript.
    """
    after, before, rows = ErrorRateStats(), ErrorRateStats(), {}
    for row, estimate, mixture, _ in utterances:
        said = transcripts.get(row["id"])
        if said is None:
            continue
        known = {"words": len(said)}
        for name, stats, signal in (
            ("wer", after, estimate),
            ("wer_noisy", before, mixture),
        ):
            if signal is not None:
                heard = transcribe(signal, sample_rate)
                stats.append([row["id"]], [heard], [said])
                known[name] = round(stats.scores[-1]["WER"], 3)
        rows[row["id"]] = known
    if not rows:
        raise ValueError("no recording has the name of a transcript")
    told = f"WER {after.summarize('error_rate'):.2f} %"
    if before.scores:
        told += f", of the noisy files {before.summarize('error_rate'):.2f} %"
    total = sum(row["words"] for row in rows.values())
    return rows, f"{told}, over {total} words in {len(rows)} recordings"
