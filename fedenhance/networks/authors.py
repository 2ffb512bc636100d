r"""Exchange of weights with the authors' Sudo rm -rf code.

Command line::

    python -m fedenhance.networks.authors theirs.pt --member groupcomm --out ours.ckpt
    python -m fedenhance.networks.authors ours.ckpt --member groupcomm --out theirs.pt \
        --back
"""

import argparse
import pickle
import re

import torch

from fedenhance.networks import sudormrf
from fedenhance.networks.separator import Separator

#: From the authors' parameter names to ours, as regular expressions applied in turn.
RENAMES = [
    (r"^encoder\.(0\.)?", "encoder.conv."),
    (r"^decoder\.", "decoder.conv."),
    (r"^mask_nl_class\.", "masknet.activation."),
    (r"^ln_mask_in\.", "masknet.unused_norm."),
    (r"^ln\.", "masknet.norm."),
    (r"^(bottleneck|l1)\.", "masknet.bottleneck."),
    (r"^reshape_before_masks\.", "masknet.reshape."),
    (r"^m\.", "masknet.mask_conv."),
    (r"^mask_net\.0\.", "masknet.mask_act."),
    (r"^mask_net\.1\.", "masknet.mask_linear."),
    (r"^sm\.", "masknet.blocks."),
    (r"\.TAC\.TAC_norm\.", ".tac.norm."),
    (r"\.TAC\.TAC_input\.0\.", ".tac.transform."),
    (r"\.TAC\.TAC_input\.1\.", ".tac.transform_act."),
    (r"\.TAC\.TAC_mean\.0\.", ".tac.average."),
    (r"\.TAC\.TAC_mean\.1\.", ".tac.average_act."),
    (r"\.TAC\.TAC_output\.0\.", ".tac.concatenate."),
    (r"\.TAC\.TAC_output\.1\.", ".tac.concatenate_act."),
    (r"\.UBlock\.", ".block."),
    (r"\.skipinit_gain$", ".skip_gain"),
    (r"\.proj_1x1\.conv\.", ".expand."),
    (r"\.res_conv\.", ".reduce."),
    (r"\.conv_1x1_exp\.conv\.", ".reduce."),
    (r"\.conv_1x1_exp\.norm\.", ".reduce_norm."),
    (r"\.final_norm\.norm\.", ".merge_norm."),
    (r"\.final_norm\.act\.weight$", ".merge_norm.slope"),
    (r"\.module_act\.norm\.", ".output_norm."),
    (r"\.module_act\.act\.weight$", ".output_norm.slope"),
    (r"\.spp_dw\.(\d+)\.norm\.", r".downsample_norm.\1."),
    (r"\.spp_dw\.(\d+)\.act\.", r".downsample_act.\1."),
    (r"\.proj_1x1\.norm\.", ".expand_norm."),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
]
#: The same where it depends on the member.
MEMBER_RENAMES = {
    "original": [
        (r"\.spp_dw\.(\d+)\.conv\.", r".downsample.\1."),
        (r"\.proj_1x1\.act\.weight$", ".expand_norm.slope"),
    ],
    "causal": [
        (r"\.spp_dw\.(\d+)\.conv\.", r".downsample.\1.conv."),
        (r"\.proj_1x1\.act\.", ".expand_act."),
    ],
}
MEMBER_RENAMES["improved"] = MEMBER_RENAMES["original"]
MEMBER_RENAMES["groupcomm"] = MEMBER_RENAMES["original"]

#: Layers of the authors that are convolutions with a kernel of one frame, and linear
#: layers here.
POINTWISE = re.compile(
    r"^(bottleneck|l1|reshape_before_masks|mask_net\.1)\.weight$"
    r"|\.(proj_1x1\.conv|res_conv|conv_1x1_exp\.conv)\.weight$"
)


def our_name(name, member):
    """Translate a parameter's name from the authors' code to this package.

    Arguments
    ---------
    name : str
        Name in the authors' state dict.
    member : str
        ``original``, ``improved``, ``groupcomm`` or ``causal``.

    Returns
    -------
    str
        Name in the state dict of a :class:`fedenhance.networks.separator.Separator`.

    Example
    -------
    >>> our_name("sm.3.UBlock.proj_1x1.act.weight", "groupcomm")
    'masknet.blocks.3.block.expand_norm.slope'
    """
    for pattern, replacement in RENAMES + MEMBER_RENAMES[member]:
        name = re.sub(pattern, replacement, name)
    return name


def _check_member(member):
    if member not in MEMBER_RENAMES:
        raise ValueError(
            f"member must be one of {', '.join(sorted(MEMBER_RENAMES))}, got "
            f"{member!r}."
        )


def _count(names, pattern):
    indices = [int(m[1]) for m in (re.search(pattern, name) for name in names) if m]
    return max(indices, default=-1) + 1


def _read_sizes(state_dict, member):
    """Read the sizes of the network off the shapes of its weights."""
    shapes = {name: tuple(value.shape) for name, value in state_dict.items()}
    block = "sm.0.UBlock." if member == "groupcomm" else "sm.0."
    try:
        kernel_size = shapes["decoder.weight"][2]
        if member == "original":
            num_bases = shapes["encoder.0.weight"][0]
            num_sources = shapes["decoder.bias"][0]
            channels = shapes["l1.weight"][0]
        else:
            num_bases = shapes["encoder.weight"][0]
            num_sources = shapes["decoder.weight"][1]
            channels = shapes["bottleneck.weight"][0]
        hidden_channels, group_channels = shapes[f"{block}proj_1x1.conv.weight"][:2]
    except KeyError as error:
        raise ValueError(
            f"These are not the weights of the {member} member: no parameter is "
            f"named {error.args[0]!r}."
        ) from None
    sizes = {
        "num_sources": num_sources,
        "num_bases": num_bases,
        "channels": channels,
        "hidden_channels": hidden_channels * channels // group_channels,
        "num_blocks": _count(shapes, r"^sm\.(\d+)\."),
        "depth": _count(shapes, r"\.spp_dw\.(\d+)\."),
    }
    if member == "groupcomm":
        sizes["num_groups"] = channels // group_channels
    return kernel_size, sizes


def build(member, kernel_size, sizes):
    """Build a separator of one member of the family.

    Arguments
    ---------
    member : str
        ``original``, ``improved``, ``groupcomm`` or ``causal``.
    kernel_size : int
        Samples in a filter of the encoder.
    sizes : dict
        Arguments of the member's mask network.

    Returns
    -------
    fedenhance.networks.separator.Separator
        With random weights.
    """
    _check_member(member)
    encoder_sizes = {"kernel_size": kernel_size, "depth": sizes["depth"]}
    encoders = {
        "original": lambda **kwargs: sudormrf.Encoder(
            **kwargs, bias=True, activation=torch.nn.ReLU()
        ),
        "improved": lambda **kwargs: sudormrf.Encoder(**kwargs, minimal_padding=False),
        "groupcomm": sudormrf.Encoder,
        "causal": sudormrf.CausalEncoder,
    }
    masknets = {
        "original": sudormrf.OriginalMaskNet,
        "improved": sudormrf.ImprovedMaskNet,
        "groupcomm": sudormrf.GroupCommMaskNet,
        "causal": sudormrf.CausalMaskNet,
    }
    return Separator(
        encoders[member](num_bases=sizes["num_bases"], **encoder_sizes),
        masknets[member](**sizes),
        sudormrf.Decoder(
            sizes["num_sources"],
            sizes["num_bases"],
            kernel_size,
            grouped=member == "original",
        ),
        masking=member != "causal",
    )


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
        ``causal`` (``causal_improved_sudormrf_v3.CausalSuDORMRF``).

    Returns
    -------
    fedenhance.networks.separator.Separator
        Maps ``(batch, time)`` to ``(batch, source, time)``.

    Raises
    ------
    ValueError
        If the weights are not those of the member; the message names the parameter.
    """
    _check_member(member)
    state_dict = {name.removeprefix("module."): w for name, w in state_dict.items()}
    separator = build(member, *_read_sizes(state_dict, member))
    weights = {
        our_name(name, member): weight.squeeze(-1) if POINTWISE.search(name) else weight
        for name, weight in state_dict.items()
    }
    try:
        separator.load_state_dict(weights)
    except RuntimeError as error:
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
        ``original``, ``improved``, ``groupcomm`` or ``causal``.

    Returns
    -------
    dict
        The state dict that :func:`load_reference` takes, and their code.

    Raises
    ------
    ValueError
        If the weights are not of that member; the message names the parameter.
    """
    _check_member(member)
    num_levels = _count(weights, r"\.downsample\.(\d+)\.")
    num_blocks = _count(weights, r"^masknet\.blocks\.(\d+)\.")
    names = {
        our_name(name, member): name
        for name in _their_names(member, num_blocks, num_levels)
    }
    unknown = [name for name in weights if name not in names]
    if unknown:
        raise ValueError(
            f"These are not the weights of the {member} member: their code has no "
            f"parameter for {unknown[0]!r}."
        )
    theirs = {names[name]: weight for name, weight in weights.items()}
    return {
        name: weight.unsqueeze(-1) if POINTWISE.search(name) else weight
        for name, weight in theirs.items()
    }


def _their_names(member, num_blocks, num_levels):
    """List the names their parameters can have (optional layers included)."""
    affine = ("weight", "bias") if member == "original" else ("gamma", "beta")
    layer, slope = ("weight", "bias"), ("weight",)
    block = {
        "proj_1x1.conv": layer,
        "proj_1x1.norm": affine,
        "proj_1x1.act": slope,
        "final_norm.norm": affine,
        "final_norm.act": slope,
        "res_conv": layer,
    }
    for level in range(num_levels):
        block[f"spp_dw.{level}.conv"] = layer
        block[f"spp_dw.{level}.norm"] = affine
        block[f"spp_dw.{level}.act"] = slope
    if member == "original":
        del block["res_conv"]
        block |= {"conv_1x1_exp.conv": layer, "conv_1x1_exp.norm": affine}
        block |= {"module_act.norm": affine, "module_act.act": slope}
    if member == "groupcomm":
        block = {f"UBlock.{name}": kinds for name, kinds in block.items()}
        for part in ("input", "mean", "output"):
            block |= {f"TAC.TAC_{part}.0": layer, f"TAC.TAC_{part}.1": slope}
        block["TAC.TAC_norm"] = affine
    if member == "original":
        network = {"encoder.0": layer, "ln": affine, "l1": layer, "m": layer}
        network |= {"reshape_before_masks": layer, "ln_mask_in": affine}
    else:
        network = {"encoder": slope, "ln": affine, "bottleneck": layer}
        network |= {"mask_net.0": slope, "mask_net.1": layer, "mask_nl_class": slope}
    network["decoder"] = layer
    for index in range(num_blocks):
        network |= {f"sm.{index}.{name}": kinds for name, kinds in block.items()}
    names = [f"{name}.{kind}" for name, kinds in network.items() for kind in kinds]
    if member == "causal":
        names += [f"sm.{index}.skipinit_gain" for index in range(num_blocks)]
    return names


def read_weights(path):
    """Read a state dict from a file without running code that the file holds.

    Arguments
    ---------
    path : str or pathlib.Path
        File that ``torch.save`` wrote, with a state dict of tensors.

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
    if not isinstance(weights, dict) or not all(
        isinstance(weight, torch.Tensor) for weight in weights.values()
    ):
        raise ValueError(f"{path} does not hold a state dict: tensors by name.")
    return weights


def main(argv=None):
    """Convert a file of weights from the authors' names to ours, or back."""
    parser = argparse.ArgumentParser(
        prog="python -m fedenhance.networks.authors",
        description="Convert Sudo rm -rf weights between the authors' code and ours.",
    )
    parser.add_argument("checkpoint", help="file with a state dict to convert")
    parser.add_argument("--member", required=True, choices=sorted(MEMBER_RENAMES))
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
