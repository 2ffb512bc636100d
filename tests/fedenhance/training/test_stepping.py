"""Training steps that do not wait for a GPU: which are done, and what they ask."""

from functools import partial

import pytest
import speechbrain as sb
import torch

from fedenhance.training.stepping import Stepping, leaves_out


class Regression(Stepping):
    """Fits targets."""

    def compute_forward(self, batch, stage):
        return self.modules.model(batch[0].to(self.device))

    def compute_objectives(self, predictions, batch, stage):
        return (predictions - batch[1].to(self.device)).square().mean()


@pytest.fixture
def make():
    """Make a Brain with the same weights each time."""

    def make(brain_class=Regression, opt_class=torch.optim.SGD, device="cpu"):
        torch.manual_seed(0)
        options = {"device": device, "grad_accumulation_factor": 2}
        return brain_class(
            {"model": torch.nn.Linear(4, 2)},
            partial(opt_class, lr=0.1),
            run_opts={**options, "skip_nonfinite_grads": True},
        )

    return make


@pytest.fixture
def batches():
    inputs = torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(1))
    return [(batch, batch[:, :2]) for batch in inputs]


def weights_of(brain):
    return [weight.detach().clone() for weight in brain.modules.parameters()]


def test_only_gradients_that_are_not_finite_are_dropped(make):
    brain = make()
    first, *others = brain.modules.parameters()
    for weight in (first, *others):
        weight.grad = torch.ones_like(weight)
    brain.check_gradients()
    assert all(weight.grad is not None for weight in (first, *others))
    first.grad.view(-1)[0] = torch.inf
    brain.check_gradients()
    assert first.grad is None
    assert all((weight.grad == 1).all() for weight in others)


@pytest.mark.parametrize("fused", [True, False])
def test_steps_that_are_not_finite_are_left_out(make, monkeypatch, caplog, fused):
    looks = []
    monkeypatch.setattr(sb.Brain, "check_gradients", lambda self: looks.append(1))
    brain = make(opt_class=partial(torch.optim.Adam, fused=fused))
    brain.device_type = "cuda"
    brain.init_optimizers()
    before, moved = weights_of(brain), []
    for value in (torch.nan, 1.0, torch.inf, 1.0):
        for weight in brain.modules.parameters():
            weight.grad = torch.full_like(weight, value)
        if fused:
            brain.optimizers_step()
            after = weights_of(brain)
            moved.append(not all(map(torch.equal, before, after)))
            before = after
        else:
            brain.check_gradients()
    assert moved == ([False, True, False, True] if fused else [])
    assert len(looks) == (0 if fused else 2)
    assert all(weight.isfinite().all() for weight in before)
    assert not hasattr(brain.optimizer, "found_inf")
    if fused:
        with caplog.at_level("WARNING"):
            brain.on_stage_end(sb.Stage.TRAIN, 0.0)
        assert "2 steps left out" in caplog.text


def test_other_fused_optimizers_are_looked_at():
    weights = [torch.nn.Parameter(torch.ones(2))]
    adam, sgd = torch.optim.Adam, torch.optim.SGD
    assert leaves_out(adam(weights, fused=True))
    assert leaves_out(torch.optim.AdamW(weights, fused=True))
    assert not leaves_out(adam(weights))
    assert not leaves_out(sgd(weights, lr=0.1, momentum=0.9, fused=True))


def test_steps_that_do_not_wait_are_the_same_steps(make, batches, monkeypatch):
    class Stream:
        def record_event(self):
            events.append("recorded")
            return self

        def synchronize(self):
            events.append("arrived")

    def train(brain_class=Regression, device_type="cuda"):
        brain = make(brain_class)
        brain.device_type = device_type
        brain.fit(range(1, 3), torch.utils.data.DataLoader(batches, batch_size=None))
        return weights_of(brain)

    events = []
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    expected = train(device_type="cpu")
    assert not events
    assert all(map(torch.equal, train(), expected))
    assert events == 16 * ["recorded", "arrived"]

    class Stops(Regression):
        def check_loss_isfinite(self, loss):
            """Want to see the loss before the backward pass."""

    train(Stops)
    assert len(events) == 32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_steps_on_a_gpu_ask_for_no_value(make, batches):
    brain = make(opt_class=partial(torch.optim.Adam, fused=True), device="cuda")
    brain.init_optimizers()
    brain.modules.train()
    batch = tuple(part.to("cuda") for part in batches[0])
    brain.fit_batch(batch)
    before = weights_of(brain)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = brain.fit_batch(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()
    assert not all(map(torch.equal, before, weights_of(brain)))


def loader(batches):
    return torch.utils.data.DataLoader(batches, batch_size=None)


def test_an_epoch_without_a_step_is_refused(make, batches):
    brain = make()
    with pytest.raises(ValueError, match=r"factor is 2, .* 1 batches: no step"):
        brain.fit([1], loader(batches[:1]))
    brain.debug, brain.debug_batches, brain.step = True, 1, 0
    brain.fit([1], loader(batches))


@pytest.mark.parametrize(
    ("rate", "factor", "reason"),
    [(0.0, 1.0, "learning rates are [0.0]"), (0.1, torch.inf, "1 steps left out")],
)
def test_an_epoch_that_teaches_nothing_is_said(
    make, batches, caplog, rate, factor, reason
):
    class Steep(Regression):
        def on_fit_batch_start(self, batch, should_step):
            for weight in self.modules.parameters():
                weight.register_hook(lambda grad: grad * factor)

    brain = make(Steep, opt_class=lambda weights, lr: torch.optim.SGD(weights, rate))
    brain.fit([1], loader(batches[:3]))
    assert reason in caplog.text
    assert "Nothing was learnt in this epoch of 3 batches" in caplog.text
    caplog.clear()
    make().fit([1], loader(batches[:3]))
    assert "Nothing was learnt" not in caplog.text
