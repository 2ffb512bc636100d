"""The second Brain: learns to transcribe speech, by CTC alone or with attention."""

from speechbrain import Stage
from speechbrain.dataio.dataio import append_eos_token, prepend_bos_token
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger

from fedenhance.recognition.tokenizer import BLANK
from fedenhance.training.brain import AudioBrain, reports

logger = get_logger(__name__)


class CTC(AudioBrain):
    """Transcribes with an encoder and connectionist temporal classification.

    A. Graves et al., "Connectionist temporal classification: labelling unsegmented
    sequence data with recurrent neural networks", ICML 2006.

    Batches have ``id``, ``wrd``, ``sig (batch, time)`` and ``tokens (batch, label)``,
    as ``fedenhance.recognition.transcripts`` makes them.

    ``modules`` has:

    - ``normalize``: ``(batch, frame, feature) -> (batch, frame, feature)``;
    - ``enc``: ``(batch, frame, feature) -> (batch, frame', feature')``;
    - ``ctc_lin``: ``(batch, frame', feature') -> (batch, frame', token)``;
    - ``tokenizer``: :class:`fedenhance.recognition.tokenizer.Tokenizer`.

    ``hparams`` has:

    - ``compute_features``: ``(batch, time) -> (batch, frame, feature)``;
    - ``log_softmax``; ``ctc_cost`` and ``ctc_decoder``, which is called with
      log-probabilities and relative lengths and returns token ids;
    - ``wer_computer``, ``cer_computer``, ``test_wer_file``;
    - ``sample_rate``, ``train_logger``.

    Statistics it logs in validation and test, beside those of ``AudioBrain``: ``WER``
    and ``CER`` in percent, against the transcript as it is: what no token stands for
    counts as an error.
    """

    def compute_forward(self, batch, stage):
        """Encode; return the encoder's output, lengths, and log-probabilities."""
        batch = batch.to(self.device)
        signals, lengths = batch.sig
        features = self.hparams.compute_features(signals)
        encoded = self.modules.enc(self.modules.normalize(features, lengths))
        ctc = self.hparams.log_softmax(self.modules.ctc_lin(encoded))
        return {"encoded": encoded, "lengths": lengths, "ctc": ctc}

    def compute_objectives(self, predictions, batch, stage):
        """Mean over the batch of each utterance's loss per token, in nats."""
        if stage != Stage.TRAIN:
            hypotheses = self.modules.tokenizer.decode(self.decode(predictions))
            references = [words.split() for words in batch.wrd]
            self.wer_metric.append(batch.id, hypotheses, references)
            self.cer_metric.append(batch.id, hypotheses, references)
        tokens, token_lengths = batch.tokens
        return self.hparams.ctc_cost(
            predictions["ctc"], tokens, predictions["lengths"], token_lengths
        )

    def decode(self, predictions):
        """Token ids of each utterance."""
        return self.hparams.ctc_decoder(predictions["ctc"], predictions["lengths"])

    def samples_of(self, batch):
        """Count the samples of the signals, without padding."""
        signals, lengths = batch.sig
        return float(lengths.sum()) * signals.shape[1]

    def on_stage_start(self, stage, epoch=None):
        """Use the tokenizer that came with the weights; count anew."""
        super().on_stage_start(stage, epoch)
        self.modules.tokenizer.refresh()
        if stage != Stage.TRAIN:
            self.wer_metric = self.hparams.wer_computer()
            self.cer_metric = self.hparams.cer_computer()

    @reports("CER", "WER")
    def evaluation_stats(self):
        """Error rates of the stage."""
        if not self.wer_metric.scores:
            raise ValueError("none of the recordings to evaluate on can be read")
        return {
            "CER": self.cer_metric.summarize("error_rate"),
            "WER": self.wer_metric.summarize("error_rate"),
        }

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Write the alignments of the test."""
        super().on_stage_end(stage, stage_loss, epoch)
        if stage == Stage.TEST and if_main_process():
            with open(self.hparams.test_wer_file, "w", encoding="utf-8") as file:
                self.wer_metric.write_stats(file)


class CTCAttention(CTC):
    """Transcribes with an attentional decoder, whose encoder learns by CTC as well.

    S. Watanabe et al., "Hybrid CTC/attention architecture for end-to-end speech
    recognition", IEEE JSTSP 11(8), 2017, equation 13.

    Beside what :class:`CTC` needs, ``modules`` has

    - ``emb``: ``(batch, label) -> (batch, label, embedding)``;
    - ``dec``: SpeechBrain's AttentionalRNNDecoder;
    - ``seq_lin``: ``(batch, label, feature) -> (batch, label, token)``;

    and ``hparams`` has ``seq_cost``, which is told its ``reduction``; ``ctc_weight``,
    from 0 to 1; and ``searcher``, called with the encoder's output and relative
    lengths, which returns token ids first.
    """

    def compute_forward(self, batch, stage):
        """Predict the next token after each of the transcript as well."""
        predictions = super().compute_forward(batch, stage)
        tokens, _ = batch.tokens
        embedded = self.modules.emb(prepend_bos_token(tokens, bos_index=BLANK))
        decoded, _ = self.modules.dec(
            embedded, predictions["encoded"], predictions["lengths"]
        )
        predictions["seq"] = self.hparams.log_softmax(self.modules.seq_lin(decoded))
        return predictions

    def compute_objectives(self, predictions, batch, stage):
        """Weighted sum of the losses of CTC and of attention, in nats."""
        ctc_loss = super().compute_objectives(predictions, batch, stage)
        tokens, lengths = batch.tokens
        counts = (lengths * tokens.shape[1]).round()
        targets = append_eos_token(tokens, counts.int(), eos_index=BLANK)
        # In training, a mean over the tokens of a batch, as in SpeechBrain's recipes.
        seq_loss = self.hparams.seq_cost(
            predictions["seq"],
            targets,
            length=(counts + 1) / targets.shape[1],
            reduction="mean" if stage == Stage.TRAIN else "batch",
        ).mean()
        weight = self.hparams.ctc_weight
        return weight * ctc_loss + (1 - weight) * seq_loss

    def decode(self, predictions):
        """Token ids of each utterance, by attention."""
        return self.hparams.searcher(predictions["encoded"], predictions["lengths"])[0]


def announce(brain, datasets, hparams):
    """Say what was reached and where to look; the last line of a run.

    Arguments
    ---------
    brain : CTC
        Just tested.
    datasets : dict
        Not used here.
    hparams : dict
        With ``test_wer_file``.
    """
    logger.info(
        "Test WER %.2f %%, CER %.2f %%. Alignments: %s.",
        brain.test_stats["WER"],
        brain.test_stats["CER"],
        hparams["test_wer_file"],
    )
