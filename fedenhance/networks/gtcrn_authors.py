"""Exchange of GTCRN's weights with its authors' code, github.com/Xiaobin-Rong/gtcrn.

Transposed convolutions of stride 1 are convolutions with reversed taps, features of
neighbouring bands are a wider filter, and each group of a recurrent network is a
network of its own there.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from hyperpyyaml import load_hyperpyyaml

MODEL = Path(__file__).parents[1] / "hparams" / "models" / "gtcrn.yaml"
#: Blocks of ours: those of theirs, and the number of their first.
BLOCKS = {
    "analysis": ("encoder.en_convs.", 0),
    "before": ("encoder.en_convs.", 2),
    "dual_path": ("dpgrnn", 1),
    "after": ("decoder.de_convs.", 0),
    "synthesis": ("decoder.de_convs.", None),
}
LAYERS = {
    "conv": "conv",
    "norm": "bn",
    "activation": "act",
    "expand": "point_conv1",
    "expand_norm": "point_bn1",
    "expand_act": "point_act",
    "depthwise": "depth_conv",
    "depthwise_norm": "depth_bn",
    "depthwise_act": "depth_act",
    "reduce": "point_conv2",
    "reduce_norm": "point_bn2",
    "attention.gru": "tra.att_gru",
    "attention.linear": "tra.att_fc",
    "intra": "intra_rnn",
    "intra_linear": "intra_fc",
    "intra_norm": "intra_ln",
    "inter": "inter_rnn",
    "inter_linear": "inter_fc",
    "inter_norm": "inter_ln",
}
FILTERS = ("erb.erb_fc.weight", "erb.ierb_fc.weight")
OURS = re.compile(r"masknet\.(?P<block>\w+)\.(?P<number>\d+)\.(?P<layer>.+)\.(\w+)")


class Change(NamedTuple):
    """What a weight of theirs is in ours, and the reverse."""

    to_ours: Callable
    to_theirs: Callable


SAME = Change(*[lambda w: w] * 2)
#: Three neighbouring bands: of the features, or of the filter.
EXPAND = Change(
    lambda w: w.unflatten(1, (-1, 3)).squeeze(3).transpose(2, 3),
    lambda w: w.transpose(2, 3).flatten(1, 2).unsqueeze(3),
)
LINEAR = Change(lambda w: w[..., 0, 0], lambda w: w[..., None, None])
#: The direction of a channel comes before its group in ours, after it in theirs.
INTRA_LINEAR = Change(
    *[lambda w: w.unflatten(1, (2, 2, -1)).transpose(1, 2).flatten(1)] * 2
)
CHANGES = {
    "before.expand": EXPAND,
    "before.reduce": LINEAR,
    "dual_path.intra_linear": INTRA_LINEAR,
    "after.expand": Change(
        lambda w: EXPAND.to_ours(w.transpose(0, 1)),
        lambda w: EXPAND.to_theirs(w).transpose(0, 1),
    ),
    "after.depthwise": Change(*[lambda w: w.flip(2, 3)] * 2),
    "after.reduce": Change(lambda w: w[..., 0, 0].T, lambda w: w.T[..., None, None]),
}


def load(weights):
    """Build a separator from weights under the authors' names.

    Arguments
    ---------
    weights : dict
        Their state dict.

    Returns
    -------
    fedenhance.networks.separator.Separator
        That of ``hparams/models/gtcrn.yaml`` in these sizes.

    Raises
    ------
    ValueError
        If the weights are not GTCRN's; the message names the parameter.
    """
    weights = dict(weights)
    try:
        separator = _build(weights)
        filters = [weights.pop(name) for name in FILTERS]
        num_temporal = len(separator.masknet.after)
        ours = separator.state_dict()
        for name, weight in ours.items():
            names, change = _theirs(name, weight.shape, num_temporal)
            found = [weights.pop(each) for each in names]
            if change is None:
                ours[name] = torch.stack(found).view_as(weight)
            else:
                ours[name] = change.to_ours(found[0])
        if weights:
            raise KeyError(*list(weights)[:1])
        separator.load_state_dict(ours)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"These are not the weights of gtcrn: {error}") from None
    expected = separator.masknet.bands.filters
    for name, found in zip(FILTERS, (filters[0], filters[1].T), strict=True):
        if not torch.allclose(found, expected, atol=1e-5):
            raise ValueError(
                f"{name} does not hold the bands of {MODEL.name}: they are part of the "
                "network, and those of other sample rates or low bins are not known"
            )
    return separator


def to_theirs(weights):
    """Return a separator's weights under the authors' names.

    Arguments
    ---------
    weights : dict
        State dict of a separator of ``hparams/models/gtcrn.yaml``; the number of low
        bins and bands is the one there.

    Returns
    -------
    dict
        What :func:`load` takes, and their code.

    Raises
    ------
    ValueError
        If the weights are not GTCRN's; the message names the parameter.
    """
    num_temporal = len({n.split(".")[2] for n in weights if ".after." in n})
    theirs = {}
    for name, weight in weights.items():
        names, change = _theirs(name, weight.shape, num_temporal)
        if change is None:
            pieces = weight.flatten(0, 1).flatten(1, 2)
        else:
            pieces = [change.to_theirs(weight)]
        theirs.update(zip(names, pieces, strict=True))
    with open(MODEL, encoding="utf-8") as file:
        filters = load_hyperpyyaml(file)["separator"].masknet.bands.filters
    theirs.update(zip(FILTERS, (filters, filters.T), strict=True))
    return theirs


def _build(weights):
    """Build a separator of the sizes of the authors' weights."""
    num_bands, num_high_bins = weights[FILTERS[0]].shape
    channels = weights["encoder.en_convs.0.conv.weight"].shape[0]
    total = 4 * (weights["dpgrnn1.intra_ln.weight"].shape[0] - 1) + 1
    num_convs = len({n.split(".")[2] for n in weights if n.startswith("decoder.")})
    num_masks = weights[f"decoder.de_convs.{num_convs - 1}.conv.bias"].shape[0]
    sizes = {
        "num_sources": num_masks // 2 + 1,
        "fft_length": 2 * (total - num_bands + num_high_bins - 1),
        "num_low_bins": total - num_bands,
        "num_bands": num_bands,
        "channels": channels,
        "hidden_channels": weights["encoder.en_convs.2.depth_conv.bias"].shape[0],
        "num_blocks": len({n[:7] for n in weights if n.startswith("dpgrnn")}),
    }
    with open(MODEL, encoding="utf-8") as file:
        return load_hyperpyyaml(file, sizes)["separator"]


def _theirs(name, shape, num_temporal):
    """Name what a weight of ours is made of, and how; None for recurrent networks."""
    match = OURS.fullmatch(name)
    if match is None or match["layer"] not in LAYERS or match["block"] not in BLOCKS:
        raise ValueError(
            f"These are not the weights of gtcrn: it has no parameter {name!r}."
        )
    kind = name.rpartition(".")[2]
    prefix, first = BLOCKS[match["block"]]
    number = int(match["number"]) + (num_temporal if first is None else first)
    theirs = f"{prefix}{number}.{LAYERS[match['layer']]}"
    if kind.endswith(("_ih", "_hh")):
        directions = ("_l0", "_l0_reverse")[: shape[0]]
        groups = [""] if shape[1] == 1 else [f".rnn{i + 1}" for i in range(shape[1])]
        return [f"{theirs}{g}.{kind}{d}" for d in directions for g in groups], None
    layer = f"{match['block']}.{match['layer']}"
    change = CHANGES.get(layer, SAME) if kind == "weight" else SAME
    return [f"{theirs}.{kind}"], change
