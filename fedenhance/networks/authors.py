r"""Exchange of weights with the authors' code: Sudo rm -rf, and GTCRN.

Command line::

    python -m fedenhance.networks.authors theirs.pt --member groupcomm --out ours.ckpt
    python -m fedenhance.networks.authors ours.ckpt --member groupcomm --out theirs.pt \
        --back
"""

import argparse
import pickle
import re
from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml

from fedenhance.networks import gtcrn_authors

MODELS = Path(__file__).parents[1] / "hparams" / "models"

# From the authors' modules to ours. ``slope`` is a parameter of our normalisation, and
# ``{}`` the number of a resolution.
NETWORK = {
    "encoder": "encoder.conv",
    "ln": "masknet.norm",
    "bottleneck": "masknet.bottleneck",
    "mask_net.0": "masknet.mask_act",
    "mask_net.1": "masknet.mask_linear",
    "decoder": "decoder.conv",
}
BLOCK = {
    "proj_1x1.conv": "expand",
    "proj_1x1.norm": "expand_norm",
    "proj_1x1.act": "expand_norm.slope",
    "spp_dw.{}.conv": "downsample.{}",
    "spp_dw.{}.norm": "downsample_norm.{}",
    "final_norm.norm": "merge_norm",
    "final_norm.act": "merge_norm.slope",
}
IMPROVED = BLOCK | {"res_conv": "reduce"}
#: The number of a block, or of a resolution in it.
NUMBERED = "sm blocks spp_dw downsample downsample_norm downsample_act".split()
NUMBER = re.compile("|".join(rf"(?<=\b{name}\.)\d+" for name in NUMBERED))
#: The network and a block of each member.
MEMBERS = {
    "original": (
        {
            "encoder.0": "encoder.conv",
            "ln": "masknet.norm",
            "l1": "masknet.bottleneck",
            "reshape_before_masks": "masknet.reshape",
            "m": "masknet.mask_conv",
            "ln_mask_in": "masknet.unused_norm",
            "decoder": "decoder.conv",
        },
        BLOCK
        | {
            "conv_1x1_exp.conv": "reduce",
            "conv_1x1_exp.norm": "reduce_norm",
            "module_act.norm": "output_norm",
            "module_act.act": "output_norm.slope",
        },
    ),
    "improved": (NETWORK, IMPROVED),
    "groupcomm": (
        NETWORK,
        {f"UBlock.{theirs}": f"block.{ours}" for theirs, ours in IMPROVED.items()}
        | {
            "TAC.TAC_input.0": "tac.transform",
            "TAC.TAC_input.1": "tac.transform_act",
            "TAC.TAC_mean.0": "tac.average",
            "TAC.TAC_mean.1": "tac.average_act",
            "TAC.TAC_output.0": "tac.concatenate",
            "TAC.TAC_output.1": "tac.concatenate_act",
            "TAC.TAC_norm": "tac.norm",
        },
    ),
    "causal": (
        NETWORK | {"mask_nl_class": "masknet.activation"},
        {
            "proj_1x1.conv": "expand",
            "proj_1x1.act": "expand_act",
            "spp_dw.{}.conv": "downsample.{}.conv",
            "spp_dw.{}.act": "downsample_act.{}",
            "res_conv": "reduce",
            "skipinit_gain": "skip_gain",
        },
    ),
}

#: What ``--member`` takes.
NAMES = sorted([*MEMBERS, "gtcrn"])


def _names(member):
    """Map the authors' names of a member's parameters, and of some more, to ours."""
    if member not in MEMBERS:
        raise ValueError(f"member must be one of {', '.join(NAMES)}, got {member!r}.")
    network, block = MEMBERS[member]
    blocks = {f"sm.{{}}.{t}": f"masknet.blocks.{{}}.{o}" for t, o in block.items()}
    affine = ("weight", "bias") if member == "original" else ("gamma", "beta")
    parameters = {}
    for theirs, ours in (network | blocks).items():
        if ours.endswith(".skip_gain"):
            parameters[theirs] = ours
        elif ours.endswith(".slope"):
            parameters[f"{theirs}.weight"] = ours
        else:
            weight, bias = affine if "norm" in ours else ("weight", "bias")
            parameters[f"{theirs}.{weight}"] = f"{ours}.weight"
            parameters[f"{theirs}.{bias}"] = f"{ours}.bias"
    return parameters


def _rename(weights, names, member):
    renamed = {}
    for name, weight in weights.items():
        known = names.get(NUMBER.sub("{}", name))
        if known is None:
            raise ValueError(
                f"These are not the weights of the {member} member: it has no "
                f"parameter {name!r}."
            )
        renamed[known.format(*NUMBER.findall(name))] = weight
    return renamed


def _count(names, pattern):
    return len({found[1] for found in map(re.compile(pattern).search, names) if found})


def _read_sizes(weights, member):
    """Read the sizes of a network off the shapes of its weights."""
    num_bases = weights["encoder.conv.weight"].shape[0]
    num_latents, _, kernel_size = weights["decoder.conv.weight"].shape
    channels = weights["masknet.bottleneck.weight"].shape[0]
    block = "masknet.blocks.0." + ("block." if member == "groupcomm" else "")
    hidden_channels, group_channels = weights[f"{block}expand.weight"].shape
    num_groups = channels // group_channels
    sizes = {
        "num_sources": num_latents // num_bases,
        "num_bases": num_bases,
        "kernel_size": kernel_size,
        "channels": channels,
        "hidden_channels": hidden_channels * num_groups,
        "num_blocks": _count(weights, r"\.blocks\.(\d+)\."),
        "depth": _count(weights, r"\.downsample\.(\d+)\."),
    }
    return sizes | ({"num_groups": num_groups} if member == "groupcomm" else {})


def load_reference(state_dict, member):
    """Build a separator from weights of the authors' code.

    Arguments
    ---------
    state_dict : dict
        Weights under the authors' parameter names; the sizes of the network are read
        off their shapes.
    member : str
        ``original`` (their ``sudormrf.SuDORMRF``), ``improved``
        (``improved_sudormrf.SuDORMRF``), ``groupcomm``
        (``groupcomm_sudormrf_v2.GroupCommSudoRmRf``, as FedEnhance has it) or
        ``causal`` (``causal_improved_sudormrf_v3.CausalSuDORMRF``). Or ``gtcrn``.

    Returns
    -------
    fedenhance.networks.separator.Separator
        That of ``hparams/models/sudormrf_{member}.yaml``, or ``gtcrn.yaml``, in these
        sizes; maps ``(batch, time)`` to ``(batch, source, time)``.

    Raises
    ------
    ValueError
        If the weights are not those of the member; the message names the parameter.
    """
    weights = {name.removeprefix("module."): w for name, w in state_dict.items()}
    if member == "gtcrn":
        return gtcrn_authors.load(weights)
    weights = _rename(weights, _names(member), member)
    # Their layers of one frame are convolutions, ours are linear.
    weights = {n: w.squeeze(-1) if w.dim() == 3 else w for n, w in weights.items()}
    try:
        sizes = _read_sizes(weights, member)
        with open(MODELS / f"sudormrf_{member}.yaml", encoding="utf-8") as file:
            separator = load_hyperpyyaml(file, sizes)["separator"]
        separator.load_state_dict(weights)
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"These are not the weights of the {member} member: {error}"
        ) from None
    return separator


def to_reference(weights, member):
    """Return a separator's weights under the authors' parameter names.

    Arguments
    ---------
    weights : dict
        State dict of a separator as :func:`load_reference` or the member's YAML in
        ``hparams/models`` builds it.
    member : str
        ``original``, ``improved``, ``groupcomm``, ``causal`` or ``gtcrn``.

    Returns
    -------
    dict
        The state dict that :func:`load_reference` takes, and their code.

    Raises
    ------
    ValueError
        If the weights are not of that member; the message names the parameter.
    """
    if member == "gtcrn":
        return gtcrn_authors.to_theirs(weights)
    names = {ours: theirs for theirs, ours in _names(member).items()}
    theirs = _rename(weights, names, member)
    linear = {n for n, w in theirs.items() if w.dim() == 2 and ".TAC." not in n}
    return {n: w.unsqueeze(-1) if n in linear else w for n, w in theirs.items()}


def read_weights(path):
    """Read a state dict from a file without running code that the file holds.

    Arguments
    ---------
    path : str or pathlib.Path
        File that ``torch.save`` wrote, with a state dict of tensors, or a checkpoint
        that has it under ``model``.

    Returns
    -------
    dict
        Tensors by name.

    Raises
    ------
    ValueError
        If the file holds a pickled module, as the authors' published files do, or
        anything else than tensors by name.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds pickled Python objects, and loading it would run whatever "
            "code it names. If you trust it, convert it once beside the authors' "
            "code: torch.save(torch.load(path, weights_only=False).state_dict(), out)"
        ) from error
    if isinstance(weights, dict) and isinstance(weights.get("model"), dict):
        weights = weights["model"]
    if not isinstance(weights, dict) or not all(
        isinstance(weight, torch.Tensor) for weight in weights.values()
    ):
        raise ValueError(f"{path} does not hold a state dict: tensors by name.")
    return weights


def main(argv=None):
    """Convert a file of weights from the authors' names to ours, or back."""
    parser = argparse.ArgumentParser(
        prog="python -m fedenhance.networks.authors",
        description="Convert weights between the authors' code and ours.",
    )
    parser.add_argument("checkpoint", help="file with a state dict to convert")
    parser.add_argument("--member", required=True, choices=NAMES)
    parser.add_argument("--out", required=True, help="file to write")
    parser.add_argument(
        "--back", action="store_true", help="convert from our names to the authors'"
    )
    args = parser.parse_args(argv)
    try:
        weights = read_weights(args.checkpoint)
        if args.back:
            weights = to_reference(weights, args.member)
            load_reference(weights, args.member)
        else:
            weights = load_reference(weights, args.member).state_dict()
    except (OSError, ValueError) as error:
        parser.error(str(error))
    torch.save(weights, args.out)


if __name__ == "__main__":
    main()
