"""Two experiments, one folder: what is there is the one or the other, never a mixture.

Real runs of a federation, in seconds. With ``FUZZ=200`` in the environment, two hundred
pairs are tried instead of four.
"""

import json
import os
import random
import shutil

from benchmarks.left import left_by
from fedenhance.commands import train
from tests.fedenhance.commands.test_train import arguments  # noqa: F401
from tests.fedenhance.run_folder.test_record import snapshot

NUMBER = int(os.environ.get("FUZZ", "4"))
CHOICES = {
    "seed": [1234, 2],
    "n_clients": [4, 2],
    "p_supervised": [0, 0.5, 1],
    "p_available_users": [0.5, 1],
    "learning_rate": [0.001, "1e-3", 0.01],
    "maximize": ["si_sdri", "valid_si_sdr", "null"],
    "weighting": ["!name:fed.weighting.uniform", "!name:fed.weighting.by_examples"],
    "keep_optimizer": [True, False],
    "average": [0, 0.8],
    "local_epoch_p": [1, 2],
    "batch_size": [4, 2],
    "rounds": [1, 2, 3],
    "device": ["cpu"],
    "live": ["[]"],
    "train_dataloader_opts": ["{num_workers: 0}", "{drop_last: True}"],
    "federation": [
        "{fraction: 1.0}",
        "{min_clients: 1}",
        "{strategy: !name:flwr.serverapp.strategy.FedMedian }",
    ],
}


def draw(generator):
    """A few settings of the menu."""
    keys = generator.sample(sorted(CHOICES), generator.randint(0, 3))
    return {key: generator.choice(CHOICES[key]) for key in sorted(keys)}


def test_two_settings_in_one_folder_never_mix(arguments, tmp_path):  # noqa: F811
    common = {"results": "[]", "evaluate_every": 1, "valid_size": 1, "test_size": 1}
    common |= {"n_clients": 4, "rounds": 1, "p_supervised": 0}
    generator, outcomes, alone = random.Random(0), [], {}

    def words(settings, folder):
        return arguments(folder=folder, **{**common, **settings})

    def trained(settings):
        """Train settings in a folder of their own, if that is not done."""
        key = json.dumps(settings)
        if key not in alone:
            alone[key] = tmp_path / f"alone{len(alone)}"
            train.main(words(settings, alone[key].name))
        return alone[key]

    for number in range(NUMBER):
        first, second = draw(generator), draw(generator)
        if number % 2:  # mostly, pairs differ in little
            second = first | dict(list(second.items())[:1])
        folder = tmp_path / f"out{number}"
        shutil.copytree(trained(first), folder)
        before = snapshot(folder)
        try:
            train.main(words(second, folder.name))
        except ValueError as error:
            assert "another --output_folder, or --restart" in str(error)
            assert len(str(error).splitlines()) == 1
            after = snapshot(folder)
            assert after | {folder / ".lock": b""} == before | {folder / ".lock": b""}
            outcomes.append("refused")
        else:
            assert left_by(folder) == left_by(trained(second)), (first, second)
            outcomes.append("went on")
        shutil.rmtree(folder)
    assert {*outcomes} == {"refused", "went on"}
