"""Exchange of weights with the authors' Sudo rm -rf code.

Command line::

    python -m local_modules.reference theirs.pt --member groupcomm --out model.ckpt
    python -m local_modules.reference model.ckpt --member groupcomm --export theirs.pt
"""

import re

import torch

from local_modules import sudormrf
from local_modules.separator import Separator

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
        Name in the state dict of a :class:`local_modules.separator.Separator`.

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
    local_modules.separator.Separator
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
    local_modules.separator.Separator
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
