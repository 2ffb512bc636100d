"""A recipe as a SpeechBrain user would write it, which knows nothing of federation."""

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset


class Regression(sb.Brain):
    """Fits targets; reports the loss at each stage and saves its best checkpoint."""

    def compute_forward(self, batch, stage):
        inputs = batch.inputs.data.to(self.device)
        return self.modules.model(inputs)

    def compute_objectives(self, predictions, batch, stage):
        targets = batch.targets.data.to(self.device)
        return torch.nn.functional.mse_loss(predictions, targets)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == sb.Stage.TRAIN:
            self.train_loss = stage_loss
        elif stage == sb.Stage.VALID:
            old, new = self.hparams.annealing(stage_loss)
            sb.nnet.schedulers.update_learning_rate(self.optimizer, new)
            self.hparams.train_logger.log_stats(
                {"epoch": epoch, "lr": old},
                train_stats={"loss": self.train_loss},
                valid_stats={"loss": stage_loss, "rmse": stage_loss**0.5},
            )
            self.checkpointer.save_and_keep_only(
                meta={"loss": stage_loss}, min_keys=["loss"]
            )
        else:
            self.hparams.train_logger.log_stats(
                {"stage": "test"}, test_stats={"loss": stage_loss}
            )


class TwoSteps(Regression):
    """Overrides fit_batch: two steps of the optimizer for each batch."""

    def fit_batch(self, batch):
        for _ in range(2):
            self.optimizer.zero_grad()
            loss = self.compute_objectives(
                self.compute_forward(batch, sb.Stage.TRAIN), batch, sb.Stage.TRAIN
            )
            loss.backward()
            self.optimizer.step()
        return loss.detach().cpu()


def rows(count, clients, seed=0):
    """Random inputs and targets, linear in them but for an offset by client."""
    mixing = torch.randn(4, 2, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for i in range(count):
        client = i % clients
        inputs = torch.randn(4, generator=generator)
        made[f"{seed}_{i}"] = {
            "inputs": inputs,
            "targets": inputs @ mixing + 0.1 * client,
            "client": f"client{client:02d}",
        }
    return made


def datasets(hparams):
    """As a recipe's dataio_prep."""
    sizes = {"train": hparams["train_size"], "valid": 16, "test": 16}
    clients = hparams.get("n_clients", 4)
    made = {}
    for seed, (name, size) in enumerate(sizes.items()):
        dataset = DynamicItemDataset(rows(size, clients, seed))
        dataset.set_output_keys(["id", "inputs", "targets", "client"])
        made[name] = dataset
    return made
