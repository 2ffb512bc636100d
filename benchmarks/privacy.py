#!/usr/bin/env python
"""How many clients differential privacy needs.

    python -m benchmarks.privacy
    python -m benchmarks.privacy plan --parameters 1000000 --rounds 200

``plan`` trains nothing: for each number of clients, of whom a tenth or at most 1000 are
expected in a round, it gives the noise multiplier with which all rounds stay within
epsilon 8, and how long the noise on the mean is beside the longest update, in a model
of so many parameters; by default the default network. At 1 the noise is as long
as what all clients together could say in a round; training then takes many rounds.
``train`` trains benchmarks/privacy.yaml, a small linear model, and says how close it
comes to the rule that its data follow. Their noise leaves an error of 0.01.
"""

import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from benchmarks import measuring
from benchmarks.loops import HERE, Case, Layers, federate
from fed.privacy import noise_for

CLIENTS = [8, 100, 1000, 10_000, 100_000, 1_000_000]
EPSILON = 8.0
TRAININGS = {
    "not private": {"federation": "{privacy: null}"},
    "epsilon 8": {},
    "epsilon 8, adaptive clipping": {"clipping_norm": 0.03, "quantile": 0.5},
    "epsilon 1": {"max_epsilon": 1.0},
    "epsilon 8, 200 clients": {"registered": 200, "clients": 10},
}
"""Name -> what differs from benchmarks/privacy.yaml."""


class Regression(Layers):
    """Learns targets from inputs."""

    def compute_objectives(self, predictions, batch, stage):
        """Mean squared error."""
        return (predictions - batch.targets.data).square().mean()


def linear(hparams):
    """Make the datasets: one linear rule, and noise of standard deviation 0.1."""
    random = torch.Generator().manual_seed(hparams["seed"])
    rule = torch.randn(16, 4, generator=random) / 4
    each = hparams["batches"] * hparams["batch_size"]
    sizes = {"train": hparams["registered"] * each, "valid": 1000}
    datasets = {}
    for name, size in sizes.items():
        inputs = torch.randn(size, 16, generator=random)
        targets = inputs @ rule + 0.1 * torch.randn(size, 4, generator=random)
        rows = zip(inputs, targets, strict=True)
        datasets[name] = DynamicItemDataset(
            {
                str(i): {"inputs": x, "targets": y, "client": f"{i // each:07d}"}
                for i, (x, y) in enumerate(rows)
            }
        )
        datasets[name].set_output_keys(["id", "inputs", "targets"])
    return datasets


def plan(args, clock):
    """Rows: what a number of clients takes."""
    rows = []
    for clients in CLIENTS:
        delta = min(1e-5, 0.1 / clients)
        expected = min(1000, max(clients // 10, min(clients, 8)))
        noise = noise_for(EPSILON, delta, expected / clients, args.rounds)
        row = {"clients": clients, "expected": expected, "rounds": args.rounds}
        row |= {"epsilon": EPSILON, "delta": delta, "noise_multiplier": noise}
        row["parameters"] = args.parameters
        row["noise_to_update"] = noise * args.parameters**0.5 / expected
        rows.append(row)
    measuring.report(args, "privacy_clients", rows)


def train(args, clock):
    """Rows: what is reached."""
    rows = []
    for name, settings in TRAININGS.items():
        case = Case(str(HERE / "privacy.yaml"), settings=dict(settings))
        rounds = 2 if args.quick else 40
        last = federate(case, rounds)[-1]
        clients, expected = (settings.get(k, v) for k, v in SIZES.items())
        row = {"training": name, "clients": clients, "expected": expected}
        row |= {"rounds": rounds, "epsilon": float(last.get("epsilon", "inf"))}
        rows.append({**row, "error": float(last["valid_loss"])})
    measuring.report(args, "privacy", rows)


SIZES = {"registered": 4000, "clients": 200}
SECTIONS = {"plan": plan, "train": train}


def main(argv=None):
    """Run what is asked for."""
    made = measuring.parser(__doc__, SECTIONS)
    made.add_argument("--parameters", type=int, default=166_100)
    made.add_argument("--rounds", type=int, default=100)
    args = measuring.parse(made, argv, SECTIONS)
    measuring.run_sections(args, SECTIONS)


if __name__ == "__main__":
    main()
