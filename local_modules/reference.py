"""Exchange of weights with the authors' Sudo rm -rf code."""

import re

from local_modules.separator import Separator
from local_modules.sudormrf import Decoder, Encoder, GroupCommMaskNet

#: From the authors' parameter names to ours, as regular expressions.
RENAMES = [
    (r"^encoder\.", "encoder.conv."),
    (r"^decoder\.", "decoder.conv."),
    (r"^(ln|bottleneck|sm|mask_net)\b", r"masknet.\1"),
    (r"\bln\.", "norm."),
    (r"\bsm\.", "blocks."),
    (r"\bTAC\.TAC_norm\.", "tac.norm."),
    (r"\bTAC\.TAC_input\.0\.", "tac.transform."),
    (r"\bTAC\.TAC_input\.1\.", "tac.transform_act."),
    (r"\bTAC\.TAC_mean\.0\.", "tac.average."),
    (r"\bTAC\.TAC_mean\.1\.", "tac.average_act."),
    (r"\bTAC\.TAC_output\.0\.", "tac.concatenate."),
    (r"\bTAC\.TAC_output\.1\.", "tac.concatenate_act."),
    (r"\bUBlock\.", "block."),
    (r"\bproj_1x1\.conv\.", "expand."),
    (r"\bproj_1x1\.", "expand_"),
    (r"\bspp_dw\.(\d+)\.conv\.", r"downsample.\1."),
    (r"\bspp_dw\.(\d+)\.norm\.", r"downsample_norm.\1."),
    (r"\bfinal_norm\.", "merge_"),
    (r"\bres_conv\.", "reduce."),
    (r"\bmask_net\.0\.", "mask_act."),
    (r"\bmask_net\.1\.", "mask_conv."),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
]


def our_name(name):
    """Translate an authors' parameter name to ours."""
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _count(names, pattern):
    indices = [int(m[1]) for m in (re.search(pattern, name) for name in names) if m]
    return max(indices, default=-1) + 1


def load_reference(state_dict, member):
    """Build a separator with the weights of the authors' code."""
    shapes = {name: tuple(value.shape) for name, value in state_dict.items()}
    num_bases, _, kernel_size = shapes["encoder.weight"]
    depth = _count(shapes, r"spp_dw\.(\d+)\.")
    sizes = dict(num_sources=shapes["decoder.weight"][1], num_bases=num_bases)
    channels = shapes["bottleneck.weight"][0]
    num_groups = channels // shapes["sm.0.TAC.TAC_norm.gamma"][0]
    separator = Separator(
        Encoder(num_bases, kernel_size, depth),
        GroupCommMaskNet(
            **sizes,
            channels=channels,
            hidden_channels=shapes["sm.0.UBlock.proj_1x1.conv.weight"][0] * num_groups,
            num_blocks=_count(shapes, r"^sm\.(\d+)\."),
            depth=depth,
            num_groups=num_groups,
        ),
        Decoder(**sizes, kernel_size=kernel_size),
    )
    separator.load_state_dict({our_name(k): v for k, v in state_dict.items()})
    return separator
