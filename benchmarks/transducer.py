"""The transducer's loss in PyTorch, in place of SpeechBrain's, which is for GPUs.

It stands in a copy of SpeechBrain as `integrations/numba/transducer_loss.py`.
"""

import torch


class Transducer:
    """Called as SpeechBrain calls its own."""

    @staticmethod
    def apply(log_probs, labels, num_frames, num_labels, blank, reduction):
        """Computes the negative log-likelihood of label sequences.

        Graves, "Sequence transduction with recurrent neural networks" (2012), equation
        16; the sum over labels within a frame is a cumulative one.

        Arguments
        ---------
        log_probs : torch.Tensor
            Of shape (batch, frames, labels + 1, tokens).
        labels : torch.Tensor
            Without blanks, of shape (batch, labels).
        num_frames, num_labels : torch.Tensor
            Of each example, of shape (batch,).
        blank : int
            Which token is the blank.
        reduction : str
            ``mean``, ``sum`` or ``none``.

        Returns
        -------
        torch.Tensor

        Example
        -------
        >>> uniform = torch.full((1, 2, 2, 4), 0.25).log()
        >>> arguments = torch.tensor([[1]]), torch.tensor([2]), torch.tensor([1])
        >>> likelihood = (-Transducer.apply(uniform, *arguments, 0, "sum")).exp()
        >>> round(float(likelihood), 6) == round(2 * 0.25**3, 6)  # two paths of three
        True
        """
        batch, frames = log_probs.shape[:2]
        stay = log_probs[..., blank]
        index = labels.long()[:, None, :, None].expand(-1, frames, -1, 1)
        emit = log_probs[:, :, : labels.shape[1]].gather(3, index).squeeze(3)
        emitted = torch.nn.functional.pad(emit.cumsum(2), (1, 0))
        reached = [emitted[:, 0]]
        for t in range(1, frames):
            before = reached[-1] + stay[:, t - 1] - emitted[:, t]
            reached.append(emitted[:, t] + before.logcumsumexp(1))
        last = torch.arange(batch), num_frames.long() - 1, num_labels.long()
        losses = -(torch.stack(reached, 1)[last] + stay[last])
        return {"mean": losses.mean, "sum": losses.sum, "none": losses.clone}[
            reduction
        ]()
