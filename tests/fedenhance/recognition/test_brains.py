"""The Brain of recognition, on decoders and losses that can be checked by hand."""

import math
from functools import partial

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.decoders.ctc import ctc_greedy_decode
from speechbrain.nnet.losses import ctc_loss
from speechbrain.utils.metric_stats import ErrorRateStats
from torch.utils.data import DataLoader

from fedenhance.data.datasets import UnreadableBatch
from fedenhance.recognition.brains import CTC
from fedenhance.recognition.tokenizer import Tokenizer, train_tokenizer


class Logger:
    """Keeps what is logged."""

    def log_stats(self, meta, **stats):
        self.stats = stats


@pytest.fixture
def brain(tmp_path):
    """Its network copies its input: signals are token ids, one a frame."""
    tokenizer = Tokenizer(vocab_size=8, model_type="char")
    tokenizer.keep(train_tokenizer(["AB CD", "DC BA"] * 9, 8, "char"))
    size = tokenizer.vocab_size

    class Lookup(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(20.0))

        def forward(self, ids):
            return self.scale * torch.nn.functional.one_hot(ids.long(), size)

    hparams = {
        "compute_features": lambda signals: signals,
        "log_softmax": partial(torch.log_softmax, dim=-1),
        "ctc_cost": partial(ctc_loss, blank_index=0),
        "ctc_decoder": partial(ctc_greedy_decode, blank_id=0),
        "wer_computer": ErrorRateStats,
        "cer_computer": partial(ErrorRateStats, split_tokens=True),
        "test_wer_file": tmp_path / "wer_test.txt",
        "sample_rate": 1,
        "train_logger": Logger(),
        "skip_nonfinite_grads": True,
    }

    class Plain(torch.nn.Module):
        def forward(self, features, lengths):
            return features

    modules = {
        "normalize": Plain(),
        "enc": torch.nn.Identity(),
        "ctc_lin": Lookup(),
        "tokenizer": tokenizer,
    }
    sgd = partial(torch.optim.SGD, lr=0.1)
    return CTC(modules, sgd, hparams, {"device": "cpu", "noprogressbar": True})


def make_batch(brain, skipped=(), **spoken):
    """Utterances that are heard as one thing, and are another: words of letters."""
    brain.modules.tokenizer.refresh()
    encode = brain.modules.tokenizer.encode
    batch = PaddedBatch(
        [
            {
                "id": words.replace(" ", "_"),
                "wrd": words,
                "sig": torch.tensor(encode(heard), dtype=torch.float),
                "tokens": torch.tensor(encode(words)),
            }
            for words, heard in (pair.split("|") for pair in spoken.values())
        ]
    )
    batch.skipped = list(skipped)
    return batch


def loader(*batches):
    """Hands batches over as they are."""
    return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


def test_error_rates_by_hand(brain, tmp_path):
    batch = make_batch(brain, one="AB CD|AB CD", two="AB|AD")
    brain.evaluate(loader(batch))
    stats = brain.hparams.train_logger.stats["test_stats"]
    assert stats["WER"] == pytest.approx(100 / 3)  # one word of three
    assert stats["CER"] == pytest.approx(100 / 7)  # one of A B _ C D and A B
    text = (tmp_path / "wer_test.txt").read_text()
    assert text.startswith("%WER 33.33 [ 1 / 3, 0 ins, 0 del, 1 sub ]")


def test_a_perfect_transcript_costs_nothing(brain):
    right, wrong = ({"one": f"AB CD|{heard}"} for heard in ("AB CD", "DC BA"))
    brain.on_stage_start(Stage.VALID)
    costs = [
        brain.evaluate_batch(make_batch(brain, **spoken), Stage.VALID)
        for spoken in (right, wrong)
    ]
    assert costs[0] == pytest.approx(0, abs=1e-5)
    assert costs[1] > 1


def test_examples_hours_and_skips_are_counted(brain):
    batch = make_batch(brain, skipped=["bad"], one="AB|AB", two="AB CD|AB CD")
    brain.fit([1], loader(batch, UnreadableBatch(["worse", "worst"])))
    assert brain.num_examples == 2
    assert brain.train_stats["skipped"] == 3
    # "▁AB" is three frames of a second, "▁AB▁CD" six.
    assert brain.train_stats["hours"] == pytest.approx(9 / 3600)


def test_a_batch_of_damaged_recordings_has_no_loss(brain):
    assert math.isnan(brain.evaluate_batch(UnreadableBatch(["bad"]), Stage.TEST))


def test_an_evaluation_of_nothing_is_an_error(brain):
    with pytest.raises(ValueError, match="none of the recordings"):
        brain.evaluate(loader(UnreadableBatch(["bad"])))


def test_there_is_no_training_without_a_tokenizer(brain):
    batch = make_batch(brain, one="AB|AB")
    brain.modules.tokenizer.content.zero_()
    with pytest.raises(ValueError, match="no tokenizer"):
        brain.fit([1], loader(batch))
