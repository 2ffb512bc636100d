"""RemixIT: self-training on remixed estimates of a teacher (Tzinis et al., 2022).

A teacher separates noisy recordings. Its speech estimates are mixed anew with its
noise estimates for other recordings of the batch; the student learns to undo this
mixture, whose parts are known. Neither clean speech nor isolated noise is needed. The
teacher follows the student as an exponential moving average.

Tzinis, Adi, Ithapu, Xu, Smaragdis and Kumar, "RemixIT: continual self-training of
speech enhancement models via bootstrapped remixing", IEEE Journal of Selected Topics in
Signal Processing, 2022.
"""

import copy

import torch
import torch.nn.functional as F
from speechbrain import Stage
from torch import nn

from fedenhance.data.manifests import example_generator
from fedenhance.networks.scaling import separate
from fedenhance.training.separation import Separation


def remix(estimates, generator=None):
    """Shuffle the noises of a batch: the pseudo targets of RemixIT.

    Their sum over sources is the bootstrapped mixture that the student separates.

    Arguments
    ---------
    estimates : torch.Tensor
        The teacher's estimates, speech first, ``(batch, source, time)``.
    generator : torch.Generator or None
        Draws the permutation of the batch; all noises of a recording move together.

    Returns
    -------
    torch.Tensor
        ``(batch, source, time)``, detached from the teacher.

    Raises
    ------
    ValueError
        If there is no noise to shuffle.

    Example
    -------
    >>> estimates = torch.tensor([[[1.0], [0.1]], [[2.0], [0.2]]])
    >>> remix(estimates, torch.Generator().manual_seed(1)).sum(1)
    tensor([[1.2000],
            [2.1000]])
    """
    if estimates.dim() != 3 or estimates.shape[1] < 2:
        raise ValueError(
            "remix needs estimates of speech and noise, (batch, source, time), not "
            f"{tuple(estimates.shape)}"
        )
    estimates = estimates.detach()
    order = torch.randperm(len(estimates), generator=generator).to(estimates.device)
    return torch.cat([estimates[:, :1], estimates[order, 1:]], dim=1)


class Teacher(nn.Module):
    """A copy of a network that follows it as an exponential moving average.

    It never trains and is always in evaluation mode.

    Arguments
    ---------
    student : torch.nn.Module
    decay : float
        Share of the teacher that an update keeps, in [0, 1].

    Example
    -------
    >>> student = nn.Linear(1, 1)
    >>> teacher = Teacher(student, decay=0.75)
    >>> before = student.bias.item()
    >>> _ = student.bias.data.add_(4)
    >>> teacher.update(student)
    >>> round(teacher.network.bias.item() - before, 4)
    1.0
    """

    def __init__(self, student, decay=0.999):
        super().__init__()
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie in [0, 1], not {decay}")
        self.decay = decay
        self.network = copy.deepcopy(student).requires_grad_(False).eval()
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, *inputs):
        """Apply the averaged network, without gradients."""
        return self.network(*inputs)

    def train(self, mode=True):
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def reset(self, student):
        """Take over the weights and buffers of the student."""
        self.network.load_state_dict(student.state_dict())
        self.num_updates.zero_()

    @torch.no_grad()
    def update(self, student):
        """Move towards the student: ``decay * teacher + (1 - decay) * student``.

        Buffers that are not floating point, such as counters, are copied.
        """
        theirs = student.state_dict()
        for name, ours in self.network.state_dict().items():
            if ours.is_floating_point():
                ours.lerp_(theirs[name].to(ours), 1 - self.decay)
            else:
                ours.copy_(theirs[name])
        self.num_updates += 1


class RemixIT(Separation):
    """Trains a separator on pseudo targets where an example's group says so.

    The recordings of the group ``"self-training"`` are replaced by bootstrapped
    mixtures before anything else looks at them; their objective then is
    ``fedenhance.objectives.mixit.supervised``. Other groups train as in
    ``Separation``, so that clients of all kinds meet in one federation.

    In addition to those of ``Separation``, ``hparams`` may have ``teacher_decay``, and
    ``teacher_each_epoch``: whether the teacher follows once an epoch, as in the CHiME-7
    UDASE task, instead of with each step.

    The ``teacher`` becomes one of ``modules`` (unless YAML has put one there), so that
    it lives across rounds and checkpoints: in a federation it travels with the student
    and is averaged too, or stays with each client that has ``local: [teacher.*]``. Its
    first training starts it from the student. A teacher that became the student in each
    round would soon teach what it was taught: that there is no noise.
    """

    group = "self-training"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if "teacher" not in self.modules:
            decay = getattr(self.hparams, "teacher_decay", 0.999)
            teacher = Teacher(self.modules.separator, decay)
            self.modules["teacher"] = teacher.to(self.device)
            if self.checkpointer is not None:
                self.checkpointer.add_recoverable("teacher", teacher)

    @property
    def each_epoch(self):
        """bool: whether the teacher follows epochs, not steps."""
        return getattr(self.hparams, "teacher_each_epoch", False)

    def on_fit_start(self):
        """Start a new teacher."""
        super().on_fit_start()
        if self.modules.teacher.num_updates == 0:
            self.modules.teacher.reset(self.modules.separator)

    def compute_forward(self, batch, stage):
        """Replace the sources of self-training examples, then separate their sum."""
        if stage == Stage.TRAIN and self.group in batch.group:
            self.bootstrap(batch)
        return super().compute_forward(batch, stage)

    def bootstrap(self, batch):
        """Put the teacher's remixed estimates in the place of the sources."""
        members = [i for i, name in enumerate(batch.group) if name == self.group]
        sources = batch.sources.data.to(self.device, copy=True)
        recordings = sources[members, :2].sum(1)
        estimates = separate(self.modules.teacher, recordings, self.hparams.consistency)
        mixing = self.hparams.mixing
        draws = example_generator(mixing.seed, mixing.epoch, "remix", *batch.id)
        generator = torch.Generator().manual_seed(draws.getrandbits(63))
        targets = remix(estimates, generator).to(sources)
        missing = targets.shape[1] - sources.shape[1]
        sources = F.pad(sources, (0, 0, 0, max(0, missing)))
        sources[members] = F.pad(targets, (0, 0, 0, max(0, -missing)))
        batch.sources = batch.sources._replace(data=sources)

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        """Let the teacher follow each step of the student."""
        super().on_fit_batch_end(batch, outputs, loss, should_step)
        if should_step and not self.each_epoch:
            self.modules.teacher.update(self.modules.separator)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Let the teacher follow the student's epoch."""
        if stage == Stage.TRAIN and self.each_epoch:
            self.modules.teacher.update(self.modules.separator)
        super().on_stage_end(stage, stage_loss, epoch)
