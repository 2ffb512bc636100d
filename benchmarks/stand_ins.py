"""Untrained files in the places where a SpeechBrain recipe looks before it downloads.

    python -m benchmarks.stand_ins train.yaml [overrides]

A recipe's Pretrainer asks for a tokenizer, a language model, an encoder: of a folder
such as ``speechbrain/asr-crdnn-rnnlm-librispeech``, which it takes from the net unless
there is one here. It is written: modules with their first weights, tokenizers of the
letters, small networks where a whole model is asked for. So the recipe runs as it is;
what it learns means nothing.
"""

import sys
from pathlib import Path

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.parameter_transfer import Pretrainer

LETTERS = "abcdefghijklmnopqrstuvwxyz '"
RARE = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
"""Follow the letters in a tokenizer, so that whatever a network says is a token."""
RECOGNISER = """\
encoder: !new:speechbrain.nnet.containers.LengthsCapableSequential
    features: !new:speechbrain.lobes.features.Fbank {n_mels: 40}
    normalize: !new:speechbrain.processing.features.InputNormalization
        norm_type: sentence
    model: !new:speechbrain.lobes.models.CRDNN.CRDNN
        input_shape: [null, null, 40]
        cnn_channels: [8, 8]
        rnn_layers: 1
        rnn_neurons: 32
        dnn_blocks: 1
        dnn_neurons: 512
tokenizer: !new:sentencepiece.SentencePieceProcessor
modules:
    encoder: !ref <encoder>
    decoder: !new:torch.nn.Identity
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
"""
VOCODER = """\
generator: !new:speechbrain.lobes.models.HifiGAN.HifiganGenerator
    in_channels: 80
    out_channels: 1
    resblock_type: "1"
    resblock_dilation_sizes: [[1, 3, 5]]
    resblock_kernel_sizes: [3]
    upsample_kernel_sizes: [16, 16, 4, 4]
    upsample_initial_channel: 32
    upsample_factors: [8, 8, 2, 2]
modules:
    generator: !ref <generator>
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
"""
MODELS = {
    "speechbrain/asr-crdnn-rnnlm-librispeech": RECOGNISER,
    "speechbrain/tts-hifigan-libritts-16kHz": VOCODER,
}
"""For SpeechBrain's inference interfaces, by the names that recipes have for them."""


TOKENS = 3 + len(LETTERS) + len(RARE)


def tokenizer(path, size=TOKENS):
    """Trains a SentencePiece tokenizer whose tokens are the letters.

    Arguments
    ---------
    path : Path
        Of its file.
    size : int
        Most tokens: as many as a network knows. Letters beyond that are unknown.
    """
    rare = RARE[: max(0, size - len(LETTERS) - 3)]
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([LETTERS, LETTERS, *[rare] * bool(rare)]),
        model_prefix=str(path),
        model_type="char",
        vocab_size=size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        max_sentence_length=4 * len(RARE),
        normalization_rule_name="nmt_nfkc_cf",  # letters of either case are one
        minloglevel=2,
    )
    Path(f"{path}.model").replace(path)
    Path(f"{path}.vocab").unlink()


def write(hparams):
    """Writes what the Pretrainers of a recipe want, where it is missing.

    Arguments
    ---------
    hparams : dict
        The recipe's, loaded.

    Returns
    -------
    list of Path
        What was written.
    """
    written = []
    for pretrainer in hparams.values():
        if not isinstance(pretrainer, Pretrainer):
            continue
        for name, wanted in pretrainer.loadables.items():
            path = Path(str(pretrainer.paths.get(name, "")))
            if not path.suffix or path.exists() or "http" in path.parts[0]:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(wanted, torch.nn.Module):
                torch.save(wanted.state_dict(), path)
            else:
                own = hparams.get("output_neurons")
                tokenizer(path, *[own] * (own in range(4, len(LETTERS) + 4)))
            written.append(path)
    return written


def write_models(text):
    """Writes the whole models that a YAML names, where they are missing.

    Arguments
    ---------
    text : str
        The YAML.

    Returns
    -------
    list of Path
        What was written.
    """
    written = []
    for name, model in MODELS.items():
        path = Path(name, "hyperparams.yaml")
        if name in text and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(model)
            written.append(path)
    return written


def main(argv):
    """Loads a recipe's YAML, and writes what it wants."""
    file, _, overrides = sb.parse_arguments(argv)
    text = Path(file).read_text(encoding="utf-8")
    written = write_models(text)
    hparams = load_hyperpyyaml(text, overrides)
    print(*written, *write(hparams), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
