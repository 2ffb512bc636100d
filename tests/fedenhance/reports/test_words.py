"""A recogniser of SpeechBrain counts wrong words."""

import numpy as np
import pytest
import soundfile
import torch

from fedenhance.commands import evaluate
from fedenhance.data.tables import read_table
from fedenhance.reports.words import load_recogniser, measure_words, read_transcripts

RATE = 16000
#: Hears which of two tones is louder: YES or NO, by CTC.
RECOGNISER = """
sample_rate: 16000
model: !new:tests.fedenhance.reports.test_words.Ear
modules:
    encoder: !ref <model>
tokenizer: !new:tests.fedenhance.reports.test_words.Tokens
decoding_function: !name:speechbrain.decoders.ctc.ctc_greedy_decode
    blank_id: 0
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
"""
TONES = {"YES": 500, "NO": 1000}


class Ear(torch.nn.Module):
    """An encoder: (batch, time) to (batch, frame, token)."""

    def forward(self, wavs, wav_lens):
        spectra = torch.fft.rfft(wavs.unfold(1, 1600, 1600)).abs()
        heard = torch.stack([spectra[..., hz // 10] for hz in TONES.values()], -1)
        return torch.cat([torch.full_like(heard[..., :1], 20.0), heard], -1).log()


class Tokens:
    def decode_ids(self, tokens):
        return " ".join(list(TONES)[token - 1].lower() for token in tokens)


def say(*words):
    """Tones with silence between them, 0.1 s each."""
    time = np.arange(1600) / RATE
    parts = [0.1 * np.sin(2 * np.pi * TONES[word] * time) for word in words]
    return np.concatenate([[*part, *np.zeros(1600)] for part in parts])


@pytest.fixture
def asr(tmp_path):
    (tmp_path / "asr").mkdir()
    (tmp_path / "asr/hyperparams.yaml").write_text(RECOGNISER)
    return tmp_path / "asr"


def test_the_command_tells_word_error_rates(asr, tmp_path, capsys):
    """Of five words the noisy files have two wrong, the enhanced one one."""
    files = {"noisy": ("NO NO", "YES YES NO"), "enhanced": ("NO NO", "NO YES NO")}
    for folder, texts in files.items():
        for name, text in zip(("a", "day/b c"), texts, strict=True):
            path = tmp_path / folder / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, say(*text.split()), RATE)
    (tmp_path / "said.txt").write_text("a yes no\n\nday/b c\tNo, yes: no.\nother x\n")
    words = [f"--{kind}={tmp_path / kind}" for kind in files]
    words += [f"--recogniser={asr}", f"--transcripts={tmp_path / 'said.txt'}"]
    evaluate.main([*words, "--metrics", "dnsmos", "--processes", "1"])
    told = "WER 20.00 %, of the noisy files 40.00 %, over 5 words in 2 recordings"
    assert told in capsys.readouterr().out
    rows = read_table(tmp_path / "enhanced/evaluation/utterances.csv")
    assert [float(row["wer"]) for row in rows] == [50, 0]
    assert float(rows[1]["wer_noisy"]) == pytest.approx(100 / 3, abs=0.001)


def test_what_is_no_recogniser_or_transcript_is_said(asr, tmp_path):
    with pytest.raises(FileNotFoundError, match="is no recogniser of SpeechBrain"):
        load_recogniser(tmp_path)
    (tmp_path / "hyperparams.yaml").write_text("a: 1")
    with pytest.raises(ValueError, match="describes no recogniser"):
        load_recogniser(tmp_path)
    with pytest.raises(ValueError, match="takes 16000 Hz, not 8000 Hz"):
        load_recogniser(asr)(say("NO").astype("f"), 8000)
    (tmp_path / "said.txt").write_text("a yes\nb\n")
    with pytest.raises(ValueError, match="line 2: a new name and its words"):
        read_transcripts(tmp_path / "said.txt")
    with pytest.raises(SystemExit):
        evaluate.main(["--enhanced", "clean", "--recogniser", str(asr)])
    with pytest.raises(ValueError, match="no recording has the name"):
        measure_words([({"id": "a"}, None, None, None)], RATE, None, {"b": ["NO"]})
