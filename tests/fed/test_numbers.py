"""What recipes count outside of their modules: it travels, and is averaged."""

from types import SimpleNamespace

import numpy as np
import pytest
import speechbrain as sb
import torch
from speechbrain.nnet.schedulers import (
    CyclicLRScheduler,
    NewBobScheduler,
    NoamScheduler,
)
from speechbrain.processing.features import InputNormalization
from speechbrain.utils.epoch_loop import EpochCounter

from fed.brain import join
from fed.numbers import numbers_of, set_numbers
from fed.strategy import Mixture
from fedenhance.run_folder.states import load
from tests.fed import recipe


def numbers_after(tmp_path):
    return load(tmp_path / "out/save/federation.pt")["numbers"]


def test_numbers_are_put_back_as_what_they_were():
    bob = NewBobScheduler(0.5)
    for loss in (3.0, 2.0):
        bob(loss)
    other = NewBobScheduler(0.1)
    set_numbers(other, numbers_of(bob))
    assert (other.hyperparam_value, other.metric_values) == (0.5, [3.0, 2.0])


def test_truth_values_and_what_is_not_finite_stay():
    owner = SimpleNamespace(on=True, limit=float("inf"), name="x", losses=[], steps=2)
    found = numbers_of(owner)
    assert found.keys() == {"losses", "steps"}
    assert numbers_of(InputNormalization())["glob_mean"].shape == (0,)


def test_means_are_weighted_and_disagreement_is_settled_by_weight():
    mixture = Mixture()
    mixture.add({"steps": np.array(4), "mean": np.zeros(2)}, 1.0)
    mixture.add({"steps": np.array(8), "mean": np.ones(2)}, 3.0)
    mixture.add({"steps": np.array(7), "mean": np.zeros(0)}, 1e-9)
    found = mixture.arrays()
    assert found["steps"] == 7
    assert found["mean"].tolist() == [0.75, 0.75]


class Warms(recipe.Regression):
    """Steps a scheduler in each batch, and normalises by global statistics."""

    def __init__(self, modules, hparams, **kwargs):
        modules = {**modules, "norm": InputNormalization(norm_type="global")}
        hparams = {**hparams, "noam": NoamScheduler(0.05, n_warmup_steps=10)}
        super().__init__(modules, hparams=hparams, **kwargs)

    def compute_forward(self, batch, stage):
        inputs = batch.inputs.data.unsqueeze(1)
        lengths = torch.ones(len(inputs))
        return self.modules.model(self.modules.norm(inputs, lengths).squeeze(1))

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        self.hparams.noam(self.optimizer)


def test_a_schedule_by_steps_goes_on_from_round_to_round(train, tmp_path):
    train(brain="!name:tests.fed.test_numbers.Warms", rounds=3)
    found = numbers_after(tmp_path)
    # Eight rows and two batches a client and round; evaluation adds no step.
    assert found["noam.n_steps"] == 6
    assert found["brain.optimizer_step"] == 6
    assert found["modules.norm.count"] == 24
    assert found["modules.norm.glob_mean"].shape == (4,)


@pytest.mark.parametrize("keep", [True, False])
def test_a_cyclic_rate_goes_on_in_each_client(train, monkeypatch, keep):
    rates = []

    class Cycles(recipe.Regression):
        def __init__(self, *args, hparams, **kwargs):
            cyclic = CyclicLRScheduler(base_lr=0.01, max_lr=0.05, step_size=4)
            super().__init__(*args, hparams={**hparams, "cyclic": cyclic}, **kwargs)

        def on_fit_batch_end(self, batch, outputs, loss, should_step):
            self.hparams.cyclic.on_batch_end(self.optimizer)
            rates.append(self.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(recipe, "Cycles", Cycles, raising=False)
    options = {"keep_optimizer": keep, "rounds": 2}
    train(brain="!name:tests.fed.recipe.Cycles", federation=options)
    # After the rehearsal's batch four clients of two batches each, then again.
    assert rates[1:] == pytest.approx([0.02, 0.03] * 4 + [0.04, 0.05] * 4)


@pytest.mark.parametrize("keep", [True, False])
def test_a_schedule_by_validation_goes_on_on_the_server(train, tmp_path, keep):
    train(federation={"keep_optimizer": keep}, rounds=3)
    rows = load(tmp_path / "out/save/federation.pt")["rows"]
    kept = numbers_after(tmp_path)["annealing.metric_values"].tolist()
    assert kept == pytest.approx([row["valid_loss"] for row in rows])


class Average:
    """A moving average of weights, no module, as ``torch_ema`` has it."""

    def __init__(self, weights):
        self.weights, self.steps = list(weights), 0
        self.shadow = [weight.detach().clone() for weight in self.weights]

    def update(self):
        self.steps += 1
        self.shadow = [weight.detach().clone() for weight in self.weights]

    def state_dict(self):
        return {"steps": self.steps, "shadow": self.shadow, "stored": None}

    def load_state_dict(self, state):
        self.steps, self.shadow = state["steps"], state["shadow"]


class Averages(recipe.Regression):
    """Keeps a moving average of its weights, here of the newest ones alone."""

    def __init__(self, modules, *args, **kwargs):
        modules["model"].ema = Average(modules["model"].parameters())
        super().__init__(modules, *args, **kwargs)

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        self.modules.model.ema.update()


def test_moving_averages_of_weights_travel_as_the_weights_do(train, tmp_path):
    whole = {"clip_updates": None}  # of updates, not of what is counted beside them
    brain = train(
        brain="!name:tests.fed.test_numbers.Averages", rounds=2, federation=whole
    )
    state = load(tmp_path / "out/save/federation.pt")
    names = [name for name, _ in brain.modules.named_parameters()]
    assert state["numbers"]["modules.model.ema.steps"] == 4
    for i, name in enumerate(names):
        average = state["numbers"][f"modules.model.ema.shadow[{i}]"]
        np.testing.assert_allclose(average, state["arrays"][name], atol=1e-6)


def test_modules_travel_that_only_the_checkpointer_knows(tmp_path):
    model, teacher = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    kept = {"model": torch.nn.ModuleList([model]), "teacher": teacher}
    given = sb.utils.checkpoints.Checkpointer(tmp_path, kept)
    brain = recipe.Regression({"model": model}, hparams={}, checkpointer=given)
    join(brain)
    numbers = brain.numbers()
    assert {n for n in numbers if "." in n} == {
        "brain.optimizer_step",
        "teacher.weight",
        "teacher.bias",
    }
    brain.set_numbers({"teacher.bias": np.array([5.0])})
    assert teacher.bias.item() == 5.0


class Rises(recipe.Regression):
    """Begins at a learning rate of 0, as SpeechBrain's Transformers do."""

    def on_fit_batch_end(self, batch, outputs, loss, should_step):
        if RISES:
            sb.nnet.schedulers.update_learning_rate(self.optimizer, 0.05)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        self.train_loss = stage_loss


RISES = True


@pytest.mark.parametrize("rises", [True, False])
def test_a_rate_that_rises_from_0_may_leave_round_1_without_a_step(
    train, monkeypatch, rises
):
    monkeypatch.setattr("tests.fed.test_numbers.RISES", rises)
    brain = {"brain": "!name:tests.fed.test_numbers.Rises", "lr": 0.0}
    options = {**brain, "dataloader_options": "{batch_size: 16}", "rounds": 3}
    if rises:
        train(**options)
    else:
        with pytest.raises(RuntimeError, match="learnt nothing"):
            train(**options)


def test_rates_that_validation_changes_reach_the_clients(train, tmp_path, monkeypatch):
    rates = []

    class Bob(recipe.Regression):
        def on_fit_start(self):
            super().on_fit_start()
            rates.append(self.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(recipe, "Bob", Bob, raising=False)
    impatient = "!new:speechbrain.nnet.schedulers.NewBobScheduler"
    impatient += " {initial_value: 0.05, improvement_threshold: 10.0}"
    train(brain="!name:tests.fed.recipe.Bob", annealing=impatient, rounds=3)
    # A rehearsal, then four clients a round; the first validation compares with none.
    assert rates[1:] == [0.05] * 8 + [0.025] * 4
    assert numbers_after(tmp_path)["annealing.metric_values"].shape == (3,)


def test_round_1_starts_at_the_recipes_rate_not_where_the_rehearsal_ended(
    train, monkeypatch
):
    rates = []

    class Decays(recipe.Regression):
        def compute_forward(self, batch, stage):
            if stage == sb.Stage.TRAIN:
                rates.append(self.optimizer.param_groups[0]["lr"])
            return super().compute_forward(batch, stage)

        def on_fit_batch_end(self, batch, outputs, loss, should_step):
            self.optimizer.param_groups[0]["lr"] /= 2

    monkeypatch.setattr(recipe, "Decays", Decays, raising=False)
    keeps = "!name:tests.fed.test_numbers.keeps"
    train(brain="!name:tests.fed.recipe.Decays", annealing=keeps, rounds=1)
    # The rehearsal's batch, then four clients with two batches each.
    assert rates == [0.05] + [0.05, 0.025] * 4


def keeps(loss):
    """Stands for a scheduler that leaves the rate at what halving once gives."""
    return 0.025, 0.025


def test_epochs_are_counted_over_all_rounds(train, monkeypatch):
    seen = []

    class Counts(recipe.Regression):
        def __init__(self, *args, hparams, **kwargs):
            counter = EpochCounter(limit=9)
            super().__init__(*args, hparams={**hparams, "counter": counter}, **kwargs)

        def on_stage_start(self, stage, epoch=None):
            seen.append((stage, epoch, self.hparams.counter.current))

    monkeypatch.setattr(recipe, "Counts", Counts, raising=False)
    train(
        brain="!name:tests.fed.recipe.Counts",
        federation={"local_epochs": 2, "rounds": 2},
    )
    in_training = [epoch for stage, epoch, _ in seen[2:] if stage == sb.Stage.TRAIN]
    assert in_training == [1, 2] * 4 + [3, 4] * 4
    assert all(epoch == current for stage, epoch, current in seen if epoch)


def test_what_fails_is_told_before_round_1_with_the_recipes_line(train, tmp_path):
    with pytest.raises(RuntimeError, match=r"OSError: no such noise \(.*test_numbers"):
        train(brain="!name:tests.fed.test_numbers.Fails")
    assert not (tmp_path / "out/rounds.csv").exists()


class Decodes(recipe.Regression):
    """Fails on what an untrained network says, or once it has said it."""

    fails = "batch"

    def compute_objectives(self, predictions, batch, stage):
        if stage == sb.Stage.VALID and self.fails == "batch":
            raise KeyError(26)
        return super().compute_objectives(predictions, batch, stage)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == sb.Stage.VALID and self.fails == "end":
            raise KeyError("no column")
        super().on_stage_end(stage, stage_loss, epoch)


def test_what_an_untrained_network_says_is_no_reason_to_refuse(
    train, caplog, monkeypatch
):
    with pytest.raises(KeyError, match="26"):  # of round 1
        train(brain="!name:tests.fed.test_numbers.Decodes")
    (said,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert said.startswith("The untrained model could not be validated: KeyError: 26 (")
    assert "test_numbers.py" in said
    monkeypatch.setattr(Decodes, "fails", "end")
    with pytest.raises(RuntimeError, match="One batch .* KeyError: 'no column'"):
        train(brain="!name:tests.fed.test_numbers.Decodes")


class Fails(recipe.Regression):
    """Looks for a file that is not there."""

    def compute_forward(self, batch, stage):
        raise OSError("no such noise")


def test_a_brain_without_an_optimizer_is_refused_before_round_1(train):
    with pytest.raises(RuntimeError, match="no optimizer"):
        train(opt_class="null")


def test_the_brain_is_given_back_as_it_was(brain):
    leave = brain.checkpointer  # of the federation
    again = recipe.Regression({"model": torch.nn.Linear(1, 1)}, hparams={"x": 1})
    before = dict(vars(again.hparams)), type(again), again.checkpointer
    undo = join(again)
    assert again.checkpointer is not leave
    assert type(again).__name__ == "FederatedRegression"
    undo()
    assert (dict(vars(again.hparams)), type(again), again.checkpointer) == before
