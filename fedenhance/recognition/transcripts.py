"""Transcribed speech: the tokenizer, and datasets from the manifests of recognition."""

import csv
import hashlib
import io
from pathlib import Path

import sentencepiece
import torch
from speechbrain.dataio.dataio import load_data_csv
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.logger import get_logger

from fedenhance.data import datasets as data_io
from fedenhance.data.audio import DamagedAudioError, read_segment

logger = get_logger(__name__)

COLUMNS = ("duration", "wav", "wrd")
BLANK = 0
"""CTC's blank; also the unknown token, and the start and end of sentences."""


class Tokenizer(torch.nn.Module):
    """A SentencePiece model as a part of the network: it travels with the weights.

    The bytes of the model file are a buffer. So whoever receives the weights, or loads
    a checkpoint, has the tokenizer that they were trained with; who has a file of their
    own is told when it is another one.

    Arguments
    ---------
    vocab_size : int
        Tokens at most, as many as the network has outputs. Token 0 is the unknown one.
    file : str or None
        A SentencePiece model to use; any other that comes with weights is refused.
    text : str or None
        What to train one on where there is no file: a manifest (``.csv``, its column
        ``wrd``), or a text with a sentence on each line. ``None``: wait for the one
        that comes with the weights, as clients do.
    model_type : str
        ``unigram``, ``bpe`` or ``char``.
    capacity : int
        Bytes of the buffer; the same on all machines.

    Example
    -------
    >>> tokenizer = Tokenizer(vocab_size=10, model_type="char")
    >>> tokenizer.keep(train_tokenizer(["A BAD CAB"] * 9, 10, "char"))
    >>> tokenizer.refresh()
    >>> tokenizer.decode([tokenizer.encode("A CAD")])
    [['A', 'CAD']]
    """

    def __init__(
        self, vocab_size, file=None, text=None, model_type="unigram", capacity=65536
    ):
        super().__init__()
        self.vocab_size = vocab_size
        self.file = file
        self.text = text
        self.model_type = model_type
        self.pieces = None
        self.digest = None
        self.required = None
        self.register_buffer("content", torch.zeros(capacity, dtype=torch.uint8))

    def prepare(self, save_folder=None):
        """Read the file, or train on the text, unless there is a tokenizer already.

        Arguments
        ---------
        save_folder : str or None
            Where ``tokenizer.model`` is written if it is trained here.

        Raises
        ------
        ValueError
            If the file or the text cannot be used.
        """
        if self.content.any():
            return
        if self.file:
            if not Path(self.file).is_file():
                raise ValueError(f"tokenizer_file: there is no {self.file}")
            content = Path(self.file).read_bytes()
            self.required = hashlib.sha256(content).hexdigest()
        elif self.text:
            lines = read_text(self.text)
            content = train_tokenizer(lines, self.vocab_size, self.model_type)
            if save_folder:
                Path(save_folder).mkdir(parents=True, exist_ok=True)
                (Path(save_folder) / "tokenizer.model").write_bytes(content)
        else:
            return
        self.keep(content)
        self.refresh()

    def keep(self, content):
        """Write the bytes of a SentencePiece model and their number into the buffer."""
        packed = len(content).to_bytes(8, "little") + content
        if len(packed) > len(self.content):
            raise ValueError(
                f"the tokenizer has {len(content)} bytes: set tokenizer_capacity to "
                f"{len(packed)} or more, on all machines"
            )
        packed = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        self.content.zero_()[: len(packed)] = packed

    def refresh(self):
        """Use the model that is in the buffer now.

        Raises
        ------
        ValueError
            If there is none, or it is not the one of ``file``, or has too many tokens.
        """
        packed = self.content.cpu().numpy().tobytes()
        content = packed[8 : 8 + int.from_bytes(packed[:8], "little")]
        if not content:
            raise ValueError(
                "there is no tokenizer: give the server a tokenizer_file or a "
                "tokenizer_text"
            )
        digest = hashlib.sha256(content).hexdigest()
        if digest == self.digest:
            return
        if self.required not in (None, digest):
            raise ValueError(
                f"tokenizer_file {self.file} (sha256 {self.required[:12]}) is not the "
                f"tokenizer of the model (sha256 {digest[:12]}): use that one, or set "
                "tokenizer_file and tokenizer_text to null to take it from the model"
            )
        self.pieces = load_pieces(content, self.vocab_size)
        self.digest = digest

    def encode(self, words):
        """Token ids of a transcript."""
        return self.pieces.encode_as_ids(words)

    def decode(self, sequences):
        """Words of sequences of token ids; ids that stand for nothing are left out.

        Arguments
        ---------
        sequences : list of list of int

        Returns
        -------
        list of list of str
        """
        known = range(1, self.pieces.vocab_size())
        return [
            self.pieces.decode_ids([i for i in ids if i in known]).split()
            for ids in sequences
        ]

    def unknown(self, words):
        """Characters of a transcript that no token stands for.

        Returns
        -------
        str
        """
        pieces = self.pieces.encode_as_pieces(words)
        ids = self.pieces.piece_to_id(pieces)
        return "".join(p for p, i in zip(pieces, ids, strict=True) if i == BLANK)


def load_pieces(content, vocab_size):
    """Load the bytes of a SentencePiece model; check that a network can use it."""
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
        raise ValueError("the tokenizer is no SentencePiece model") from error
    if pieces.vocab_size() > vocab_size:
        raise ValueError(
            f"the tokenizer has {pieces.vocab_size()} tokens, and the network "
            f"{vocab_size} outputs: set output_neurons"
        )
    if pieces.unk_id() != BLANK:
        raise ValueError("the tokenizer must have the unknown token as its number 0")
    return pieces


def train_tokenizer(lines, vocab_size, model_type="unigram"):
    """Train SentencePiece; the same lines give the same bytes.

    Arguments
    ---------
    lines : list of str
        Sentences.
    vocab_size : int
        Tokens at most; with little text there are fewer.
    model_type : str
        ``unigram``, ``bpe`` or ``char``.

    Returns
    -------
    bytes
        A SentencePiece model. It leaves the text as it is: the recipes normalise it.

    Raises
    ------
    ValueError
        If SentencePiece cannot do it, for instance with fewer tokens than characters.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            max_sentencepiece_length=10,
            normalization_rule_name="identity",
            num_threads=1,
            unk_id=BLANK,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            minloglevel=2,
        )
    except (OSError, RuntimeError) as error:
        characters = len(set("".join(lines)))
        raise ValueError(
            f"no tokenizer of {vocab_size} tokens from {len(lines)} sentences with "
            f"{characters} different characters ({error}); set output_neurons to more "
            "than there are characters, or give a longer tokenizer_text"
        ) from error
    return model.getvalue()


def read_text(path):
    """Sentences of a manifest's column ``wrd``, or of the lines of a text."""
    if not Path(path).is_file():
        raise ValueError(f"tokenizer_text: there is no {path}")
    with open(path, newline="", encoding="utf-8") as file:
        if Path(path).suffix == ".csv":
            lines = [row.get("wrd", "") for row in csv.DictReader(file)]
        else:
            lines = file.read().splitlines()
    lines = [line.strip() for line in lines if line and line.strip()]
    if not lines:
        raise ValueError(f"tokenizer_text: {path} has no text (a csv needs wrd)")
    return lines


def load_transcripts(path, data_root):
    """Load a manifest of transcribed speech.

    Arguments
    ---------
    path : str
        CSV with ``ID``, ``duration`` in seconds, ``wav``, ``wrd``, and ``spk_id``.
    data_root : str
        Replaces ``$data_root``.

    Returns
    -------
    dict
        Id -> row. Rows without words are left out, and counted in the log.

    Raises
    ------
    FileNotFoundError, ValueError
        If the manifest is missing, lacks a column, or has no words.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no manifest at {path}: run the preparation first")
    try:
        rows = load_data_csv(path, {"data_root": data_root})
    except ValueError as error:
        raise ValueError(f"{path}: every row needs ID and duration ({error})") from None
    for key, row in rows.items():
        lacking = [name for name in COLUMNS if name not in row]
        if lacking:
            raise ValueError(f"{path} lacks the columns {lacking}")
        if not row["wav"]:
            raise ValueError(f"{path}: {key} names no wav")
        row.setdefault("spk_id", "unknown")
    spoken = {key: row for key, row in rows.items() if row["wrd"].strip()}
    if not spoken:
        raise ValueError(f"{path} has no transcripts")
    if len(spoken) < len(rows):
        count = len(rows) - len(spoken)
        logger.warning("%s: %d empty transcripts are left out", path, count)
    return spoken


def transcribed_set(rows, tokenizer, sample_rate, frame_shift):
    """The dataset of a manifest.

    Arguments
    ---------
    rows : dict
        As :func:`load_transcripts` gives them.
    tokenizer : Tokenizer
        Asked when an item is read: by then it has come with the weights.
    sample_rate : int
        In Hz; files of another rate are resampled.
    frame_shift : float
        Seconds from one output of the network to the next.

    Returns
    -------
    DynamicItemDataset
        ``id``; ``wrd``; ``sig (time,)``, ``None`` for a damaged file; ``tokens
        (label,)`` without unknown ones; ``fault``, why it cannot be trained on, or
        ``None``.
    """

    def read(wav, duration):
        try:
            samples = max(1, round(float(duration) * sample_rate))
            return read_segment(wav, 0, 0, sample_rate, samples)
        except DamagedAudioError as error:
            logger.warning_once(f"a recording is left out: {error}")
            return None

    def encode(wrd, duration):
        ids = tokenizer.encode(wrd)
        known = [i for i in ids if i != BLANK]
        yield torch.tensor(known, dtype=torch.long)
        if len(known) < len(ids):
            yield f"unknown character {tokenizer.unknown(wrd)!r}"
        elif float(duration) < frames_needed(ids) * frame_shift:
            yield f"{duration} s are too short for {len(ids)} tokens"
        else:
            yield None

    dataset = DynamicItemDataset(rows)
    dataset.add_dynamic_item(read, takes=["wav", "duration"], provides="sig")
    dataset.add_dynamic_item(
        encode, takes=["wrd", "duration"], provides=["tokens", "fault"]
    )
    dataset.set_output_keys(["id", "wrd", "sig", "tokens", "fault"])
    return dataset


def frames_needed(ids):
    """The least number of frames from which CTC can spell a label.

    One for each token, and a blank between two that are alike (Graves et al., 2006,
    section 3.1).

    Example
    -------
    >>> frames_needed([5, 7, 7])
    4
    """
    return len(ids) + sum(a == b for a, b in zip(ids, ids[1:], strict=False))


def collate(examples):
    """Batch for validation and test: all that can be read.

    Arguments
    ---------
    examples : list of dict
        Of :func:`transcribed_set`.

    Returns
    -------
    PaddedBatch or UnreadableBatch
        ``skipped`` lists the ids of those that are left out.
    """
    return data_io.collate(examples, "sig")


def collate_for_training(examples):
    """Batch for training: without utterances that CTC cannot learn from.

    Those with an unknown character, or too short for their transcript, are left out;
    the batch counts them in ``skipped``, and the log says why.
    """
    usable = []
    for example in examples:
        if example["fault"]:
            logger.warning_once(f"{example['id']} is left out: {example['fault']}")
        else:
            usable.append(example)
    batch = collate(usable)
    batch.skipped = batch.skipped + [e["id"] for e in examples if e["fault"]]
    return batch


def dataio_prepare(hparams):
    """The datasets of an experiment, as SpeechBrain's recipes prepare theirs.

    Arguments
    ---------
    hparams : dict
        ``train_csv``, ``valid_csv``, ``test_csv`` and ``server_csv``, ``None`` for what
        this machine does not hold; ``data_folder``, ``save_folder``, ``sample_rate``;
        ``hop_length`` in milliseconds, and how many of them, ``time_pooling_size``, the
        encoder makes one; ``modules`` with the ``tokenizer``, which is trained here if
        it is to be.

    Returns
    -------
    dict
        ``train``, ``valid``, ``test``, ``server``: a DynamicItemDataset each.
    """
    tokenizer = hparams["modules"]["tokenizer"]
    tokenizer.prepare(hparams["save_folder"])
    shift = hparams["hop_length"] / 1000 * hparams["time_pooling_size"]
    sets = {}
    for split in ("train", "valid", "test", "server"):
        path = hparams[f"{split}_csv"]
        if path is not None:
            rows = load_transcripts(path, hparams["data_folder"])
            sets[split] = transcribed_set(
                rows, tokenizer, hparams["sample_rate"], shift
            )
    return sets
