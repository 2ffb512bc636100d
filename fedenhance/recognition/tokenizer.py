"""The tokenizer: a SentencePiece model that travels with the weights."""

import hashlib
import io
from pathlib import Path

import sentencepiece
import torch

from fedenhance.data.tables import read_table, whole_file

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
        self.pieces = self.digest = self.required = None
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
        if self.content.any() or not (self.file or self.text):
            return
        if self.file:
            content = existing("tokenizer_file", self.file).read_bytes()
            self.required = hashlib.sha256(content).hexdigest()
        else:
            lines = read_text(self.text)
            content = train_tokenizer(lines, self.vocab_size, self.model_type)
            if save_folder:
                with whole_file(Path(save_folder) / "tokenizer.model") as file:
                    file.write_bytes(content)
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


def existing(key, path):
    """The path of a file that a key of the YAML names."""
    if not Path(path).is_file():
        raise ValueError(f"{key}: there is no {path}")
    return Path(path)


def read_text(path):
    """Sentences of a manifest's column ``wrd``, or of the lines of a text."""
    path = existing("tokenizer_text", path)
    if path.suffix == ".csv":
        lines = [row["wrd"] for row in read_table(path, ["wrd"])]
    else:
        lines = path.read_text(encoding="utf-8").splitlines()
    lines = [line.strip() for line in lines if line and line.strip()]
    if not lines:
        raise ValueError(f"tokenizer_text: {path} has no text")
    return lines
