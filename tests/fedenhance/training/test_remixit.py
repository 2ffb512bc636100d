"""RemixIT: what the student learns from, and how the teacher follows it."""

from types import SimpleNamespace

import pytest
import torch
from speechbrain import Stage
from speechbrain.dataio.batch import PaddedBatch
from torch import nn
from torch.utils.data import DataLoader

from fedenhance.objectives.consistency import uniform
from fedenhance.objectives.mixit import mixit, supervised
from fedenhance.training.remixit import RemixIT, Teacher, remix


class Gains(nn.Module):
    """The simplest separator: one gain per source."""

    def __init__(self, gains=(0.5, 0.3, 0.2)):
        super().__init__()
        self.gains = nn.Parameter(torch.tensor(gains))

    def forward(self, mixture):
        return self.gains[:, None] * mixture[:, None]


class Log:
    def log_stats(self, *args, **kwargs):
        pass


def make_brain(gains=(0.5, 0.3, 0.2), **modules):
    return RemixIT(
        modules={"separator": Gains(gains), **modules},
        opt_class=lambda weights: torch.optim.SGD(weights, lr=0.01),
        hparams={
            "objectives": {
                "unsupervised": mixit,
                "supervised": supervised,
                "self-training": supervised,
            },
            "consistency": uniform,
            "mixing": SimpleNamespace(seed=1, epoch=1),
            "sample_rate": 16000,
            "train_logger": Log(),
            "teacher_decay": 0.5,
        },
    )


def make_batch(sources, groups):
    batch = PaddedBatch(
        [
            {"id": f"u{i}", "group": group, "sources": s}
            for i, (s, group) in enumerate(zip(sources, groups, strict=True))
        ]
    )
    batch.skipped = []
    return batch


def test_speech_stays_and_noises_move_together():
    estimates = torch.randn(8, 3, 10)
    generator = torch.Generator().manual_seed(3)
    pseudo = remix(estimates, generator)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(pseudo[:, 0], estimates[:, 0])
    assert torch.equal(pseudo[:, 1:], estimates[order, 1:])
    assert not torch.equal(order, torch.arange(8))


def test_pseudo_targets_pass_no_gradient_to_the_teacher():
    estimates = torch.randn(2, 3, 10, requires_grad=True)
    assert not remix(estimates).requires_grad


def test_remix_needs_a_noise():
    with pytest.raises(ValueError, match="speech and noise"):
        remix(torch.randn(2, 1, 10))


def test_moving_average_by_hand():
    student = Gains([0.0, 0.0, 0.0])
    teacher = Teacher(student, decay=0.75)
    student.gains.data.fill_(1.0)
    teacher.update(student)  # 0.75 * 0 + 0.25 * 1
    teacher.update(student)  # 0.75 * 0.25 + 0.25 * 1
    assert teacher.network.gains.tolist() == [0.4375] * 3
    teacher.reset(student)
    assert teacher.network.gains.tolist() == [1.0] * 3


def test_teacher_copies_counters_and_never_trains():
    student = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    teacher = Teacher(student)
    student(torch.randn(4, 3))
    teacher.train()
    teacher.update(student)
    assert teacher.network[0].num_batches_tracked == 1
    assert not teacher.training
    assert not teacher.network[1].training
    assert not any(weight.requires_grad for weight in teacher.parameters())


def test_teacher_decay_is_checked():
    with pytest.raises(ValueError, match="decay"):
        Teacher(Gains(), decay=2)


def test_student_separates_mixtures_of_the_teachers_estimates():
    brain = make_brain()
    brain.on_fit_start()
    sources = torch.randn(4, 3, 100)
    batch = make_batch(sources, ["self-training"] * 3 + ["unsupervised"])
    estimates, pseudo = brain.compute_forward(batch, Stage.TRAIN)
    # Whoever was not asked to self-train keeps its sources.
    assert torch.equal(pseudo[3], sources[3])
    recordings = sources[:3, :2].sum(1)
    recordings = recordings - recordings.mean(-1, keepdim=True)
    torch.testing.assert_close(pseudo[:3, 0], 0.5 * recordings)
    # Uniform consistency: what leaves one mixture enters another.
    torch.testing.assert_close(pseudo[:3].sum((0, 1)), recordings.sum(0))
    assert estimates.shape == (4, 3, 100)


@pytest.mark.parametrize("num_sources", [2, 4])
def test_a_network_of_any_number_of_sources_trains(num_sources):
    brain = make_brain(gains=[1 / num_sources] * num_sources)
    brain.on_fit_start()
    batch = make_batch(torch.randn(3, 3, 100), ["self-training"] * 3)
    estimates, pseudo = brain.compute_forward(batch, Stage.TRAIN)
    # The student is given the sum of all that the teacher estimates.
    torch.testing.assert_close(estimates.sum(1), pseudo.sum(1), atol=1e-5, rtol=1e-5)
    loss = brain.compute_objectives((estimates, pseudo), batch, Stage.TRAIN)
    assert loss.isfinite()


def test_references_are_never_asked_for():
    sources = torch.randn(4, 3, 100)
    noisy = torch.zeros_like(sources)
    noisy[:, 0] = sources[:, :2].sum(1)  # as for a recording without clean parts
    losses = []
    for given in (sources, noisy):
        brain = make_brain()
        brain.on_fit_start()
        batch = make_batch(given, ["self-training"] * 4)
        predictions = brain.compute_forward(batch, Stage.TRAIN)
        losses.append(brain.compute_objectives(predictions, batch, Stage.TRAIN))
    torch.testing.assert_close(*losses)


def test_validation_sees_the_true_sources():
    brain = make_brain()
    brain.on_fit_start()
    sources = torch.randn(2, 3, 100)
    batch = make_batch(sources, ["self-training"] * 2)
    _, targets = brain.compute_forward(batch, Stage.VALID)
    assert torch.equal(targets, sources)


def fit_one(brain):
    batch = make_batch(torch.randn(2, 3, 100), ["self-training"] * 2)
    loader = DataLoader([batch], batch_size=None, collate_fn=lambda batch: batch)
    brain.fit([1], loader, progressbar=False)


def test_teacher_starts_from_the_student_and_follows():
    brain = make_brain()
    with torch.no_grad():
        brain.modules.separator.gains.fill_(0.25)  # as a server's model comes in
    fit_one(brain)
    student = brain.modules.separator.gains.detach()
    assert not torch.equal(student, torch.full((3,), 0.25))
    teacher = brain.modules.teacher.network.gains
    torch.testing.assert_close(teacher, (0.25 + student) / 2)


def test_teacher_lives_across_fits():
    brain = make_brain()
    fit_one(brain)
    first = brain.modules.teacher.network.gains.clone()
    fit_one(brain)
    student = brain.modules.separator.gains.detach()
    assert brain.modules.teacher.num_updates == 2
    torch.testing.assert_close(
        brain.modules.teacher.network.gains, (first + student) / 2
    )


def test_a_teacher_that_yaml_names_is_taken():
    teacher = Teacher(Gains([0.0, 0.0, 0.0]), decay=0.5)
    brain = make_brain(teacher=teacher)
    fit_one(brain)
    assert brain.modules.teacher is teacher
    assert (teacher.network.gains > 0.05).all()  # not from zeros


def test_a_teacher_of_epochs_moves_once_in_each():
    brain = make_brain()
    brain.hparams.teacher_each_epoch = True
    batch = make_batch([torch.randn(3, 100) for _ in range(2)], ["supervised"] * 2)
    before = brain.modules.separator.gains.detach().clone()
    loader = DataLoader([batch] * 3, batch_size=None)
    brain.fit(range(1, 3), loader, progressbar=False)
    assert brain.modules.teacher.num_updates == 2
    after = brain.modules.separator.gains.detach()
    teacher = brain.modules.teacher.network.gains
    # Two halves of the way, the second of them from the end of the first epoch.
    assert not teacher.equal(before) and not teacher.equal(after)
