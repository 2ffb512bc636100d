"""Training steps for which a processor need not wait for its GPU."""

import torch
from speechbrain import Brain, Stage
from speechbrain.utils.logger import get_logger

logger = get_logger(__name__)


class Stepping(Brain):
    """A base of Brains: of a step on a GPU, the processor waits for the loss alone.

    So it does if batches lie in pinned memory and optimizers are fused Adams; else it
    waits for more. On a CPU, steps are SpeechBrain's.

    Attributes
    ----------
    steps_left_out : int or torch.Tensor
        Of this stage of training, as gradients were not finite.
    """

    steps_left_out = 0
    weights_before = ()

    def on_fit_start(self):
        """Count anew."""
        super().on_fit_start()
        self.steps_left_out = 0

    def fit_batch(self, batch):
        """Do as SpeechBrain does, but ask for the loss before the backward pass.

        It is here by the time all work of the step is queued, so that the next batch is
        prepared while a GPU is at this one. The loss is looked at when it is here.
        """
        looks = type(self).check_loss_isfinite is not Brain.check_loss_isfinite
        if self.device_type != "cuda" or self.scaler.is_enabled() or looks:
            return super().fit_batch(batch)
        should_step = self.step % self.grad_accumulation_factor == 0
        self.on_fit_batch_start(batch, should_step)
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self.compute_forward(batch, Stage.TRAIN)
                loss = self.compute_objectives(outputs, batch, Stage.TRAIN)
            sent = loss.detach().to("cpu", non_blocking=True)
            arrived = torch.cuda.current_stream().record_event()
            (loss / self.grad_accumulation_factor).backward()
        if should_step:
            self.optimizers_step()
        arrived.synchronize()
        self.check_loss_isfinite(sent)
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        return sent

    def check_gradients(self):
        """Look at all gradients at once, and one by one where not all are finite.

        On a GPU each look waits for it, and a network has hundreds of weights. Fused
        Adams are told by what means ``torch.amp.GradScaler`` tells them, and leave the
        step out without a look.
        """
        optimizers = list((self.optimizers_dict or {}).values())
        if (
            self.device_type == "cuda"
            and optimizers
            and all(map(leaves_out, optimizers))
        ):
            for optimizer in optimizers:
                groups = [group["params"] for group in optimizer.param_groups]
                optimizer.found_inf = 1 - all_finite(sum(groups, [])).float()
            found = torch.stack([optimizer.found_inf for optimizer in optimizers])
            self.steps_left_out = self.steps_left_out + found.amax()
        elif not all_finite(self.modules.parameters()):
            self.steps_left_out = self.steps_left_out + 1
            super().check_gradients()

    def optimizers_step(self):
        """Step, and forget what optimizers were told of it."""
        super().optimizers_step()
        for optimizer in (self.optimizers_dict or {}).values():
            vars(optimizer).pop("found_inf", None)

    def on_stage_start(self, stage, epoch=None):
        """Note what is to be trained, to see whether it is."""
        super().on_stage_start(stage, epoch)
        if stage == Stage.TRAIN:
            weights = [w for w in self.modules.parameters() if w.requires_grad]
            self.weights_before = [(w, w.detach().clone()) for w in weights]

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Say how many steps were left out, and whether nothing was learnt.

        Raises
        ------
        ValueError
            If an epoch of training has fewer batches than a step needs.
        """
        super().on_stage_end(stage, stage_loss, epoch)
        if stage != Stage.TRAIN:
            return
        count, self.steps_left_out = int(self.steps_left_out), 0
        before, self.weights_before = self.weights_before, ()
        if self.step and not self.debug and self.step < self.grad_accumulation_factor:
            raise ValueError(
                f"grad_accumulation_factor is {self.grad_accumulation_factor}, and the "
                f"epoch had {self.step} batches: no step was taken; set it to at most "
                f"{self.step}"
            )
        if count:
            logger.warning("%d steps left out: gradients were not finite.", count)
        if self.step and all(torch.equal(now, then) for now, then in before):
            rates = [
                group["lr"]
                for optimizer in (self.optimizers_dict or {}).values()
                for group in optimizer.param_groups
            ]
            logger.warning(
                "Nothing was learnt in this epoch of %d batches: no weight has "
                "changed; learning rates are %s.",
                self.step,
                rates,
            )


def all_finite(weights):
    """Tell whether the gradients of all weights are finite, as a tensor."""
    grads = [weight.grad for weight in weights if weight.grad is not None]
    return torch.nn.utils.get_total_norm(grads).isfinite()


def leaves_out(optimizer):
    """Tell whether an optimizer leaves out a step for which it has ``found_inf``.

    Fused SGD does so too, but keeps momentum that it has not initialised.
    """
    fused = all(group.get("fused") for group in optimizer.param_groups)
    return fused and isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW))
