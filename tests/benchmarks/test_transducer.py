"""The transducer's loss, by all its paths."""

import itertools
import math

import torch

from benchmarks.transducer import Transducer


def likelihood(probabilities, labels):
    """Sum over all orders of emitting the labels and going on to the next frame."""
    frames, total = probabilities.shape[0], 0.0
    steps = frames - 1 + len(labels)
    for emits in itertools.combinations(range(steps), len(labels)):
        t = u = 0
        path = 1.0
        for step in range(steps):
            token = labels[u] if step in emits else 0
            path *= float(probabilities[t, u, token])
            t, u = (t, u + 1) if step in emits else (t + 1, u)
        total += path * float(probabilities[t, u, 0])
    return total


def test_the_likelihood_is_that_of_all_paths():
    torch.manual_seed(0)
    scores = torch.randn(2, 4, 4, 5, dtype=torch.double, requires_grad=True)
    labels = torch.tensor([[1, 3, 2], [4, 1, 0]])
    counts = torch.tensor([4, 3]), torch.tensor([3, 2])
    loss = Transducer.apply(scores.log_softmax(-1), labels, *counts, 0, "mean")
    own = scores.detach().softmax(-1)
    wanted = [
        likelihood(own[0], [1, 3, 2]),
        likelihood(own[1, :3, :3], [4, 1]),
    ]
    assert math.isclose(float(loss), -sum(map(math.log, wanted)) / 2)
    loss.backward()
    assert (scores.grad[1, 3:] == 0).all() and (scores.grad[1, :, 3:] == 0).all()
    assert (scores.grad[0] != 0).any()
