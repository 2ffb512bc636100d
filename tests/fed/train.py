"""A SpeechBrain recipe's script: what it needs beside its YAML it does in main."""

import sys

import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml

from tests.fed import recipe

SCALE = None


class Scaled(recipe.Regression):
    """Needs an attribute that is set after the constructor, and a global."""

    def compute_forward(self, batch, stage):
        return SCALE * self.scale * super().compute_forward(batch, stage)


if __name__ == "__main__":
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    with open(hparams_file, encoding="utf-8") as file:
        hparams = load_hyperpyyaml(file, overrides)
    folder = hparams["output_folder"]
    sb.create_experiment_directory(folder, hparams_file, overrides)
    brain = Scaled(
        hparams["modules"],
        hparams["opt_class"],
        hparams,
        run_opts,
        sb.utils.checkpoints.Checkpointer(
            f"{folder}/save", {"model": hparams["model"]}
        ),
    )
    SCALE = brain.scale = 1.0
    data = recipe.datasets(hparams)
    loaders = {"train": data["train"], "valid": data["valid"]}
    if hparams["ready"]:
        loaders = {
            name: brain.make_dataloader(dataset, sb.Stage.VALID, batch_size=4)
            for name, dataset in loaders.items()
        }
    for _ in range(hparams["calls"]):
        brain.fit(
            hparams["epoch_counter"],
            loaders["train"],
            loaders["valid"],
            train_loader_kwargs=hparams["dataloader_options"],
            valid_loader_kwargs=hparams["dataloader_options"],
        )
    brain.evaluate(data["test"], min_key="loss", test_loader_kwargs={"batch_size": 4})
