"""Names that changed, so that the YAML of runs made with older code still loads.

To train an older experiment again, convert its YAML::

    python -m fedenhance.deploy.renamed older/hyperparams.yaml > experiment.yaml

Whoever renames what a YAML file may name adds a line to ``RENAMED``.
"""

import hashlib
import os
import re
import sys
from pathlib import Path

from fedenhance.run_folder.files import whole_file

#: Beginnings of dotted names, old -> new. The longest that fits counts.
RENAMED = {
    "fedenhance.recipes.manifests": "fedenhance.recipes.BareFolder.prepare",
    "local_modules.consistency": "fedenhance.objectives.consistency",
    "local_modules.data_io": "fedenhance.data.datasets",
    "local_modules.encoders": "fedenhance.recognition.convolutional",
    "local_modules.filterbank": "fedenhance.networks.filterbank",
    "local_modules.html_report": "fedenhance.reports.html",
    "local_modules.inference": "fedenhance.deploy.sepformer_adapter",
    "local_modules.live": "fedenhance.reports.live",
    "local_modules.mixing": "fedenhance.data.mixing",
    "local_modules.objectives": "fedenhance.objectives.mixit",
    "local_modules.objectives.covariance": "fedenhance.objectives.penalties.covariance",
    "local_modules.objectives.regular": "fedenhance.objectives.penalties.regular",
    "local_modules.objectives.si_sdr": "fedenhance.objectives.levels.si_sdr",
    "local_modules.objectives.snr": "fedenhance.objectives.levels.snr",
    "local_modules.objectives.sparsity": "fedenhance.objectives.penalties.sparsity",
    "local_modules.objectives.thresholded": "fedenhance.objectives.levels.thresholded",
    "local_modules.packaging": "fedenhance.deploy.packaging",
    "local_modules.recognition": "fedenhance.recognition.brains",
    "local_modules.remixit": "fedenhance.training.remixit",
    "local_modules.results": "fedenhance.reports.results",
    "local_modules.separation": "fedenhance.training.separation",
    "local_modules.separator": "fedenhance.networks.separator",
    "local_modules.sudormrf": "fedenhance.networks.sudormrf",
    "local_modules.transcripts": "fedenhance.recognition.transcripts",
    "local_modules.transcripts.Tokenizer": "fedenhance.recognition.tokenizer.Tokenizer",
    "recipes.": "fedenhance.recipes.",
    "run_folder.": "fedenhance.run_folder.",
}
#: Mask networks that were classes of their own -> the block that tells them apart.
MASK_NETWORKS = {
    "OriginalMaskNet": "NormalizedUConvBlock",
    "ImprovedMaskNet": "UConvBlock",
    "GroupCommMaskNet": "GroupCommBlock",
    "CausalMaskNet": "CausalUConvBlock",
}
SIZES_OF_BLOCK = ("channels", "hidden_channels", "depth", "num_groups")

_OLD_NAME = re.compile(
    "(!(?:new|name|apply):)(" + "|".join(sorted(RENAMED, reverse=True)) + r")(?=[\w.])"
)
_OLD_MASK_NETWORK = re.compile(
    r"!new:local_modules\.sudormrf\.(\w+MaskNet)\n(( +)\w+: .*\n(?:\3\w+: .*\n)*)"
)


#: Now said once, to the Brain: ``frozen_statistics`` of the experiment.
_OLD_SETTING = re.compile(
    r"(!new:fedenhance\.networks\.gtcrn\.MaskNet\n( +).*\n(?:\2.*\n)*?)"
    r"\2frozen_statistics: .*\n"
)


def current_names(text):
    """Bring the names in an experiment's YAML up to date.

    Arguments
    ---------
    text : str
        ``hyperparams.yaml`` of a run or a package, of this code or older.

    Returns
    -------
    str

    Example
    -------
    >>> current_names("consistency: !name:local_modules.consistency.by_power")
    'consistency: !name:fedenhance.objectives.consistency.by_power'
    """
    text = _OLD_MASK_NETWORK.sub(_name_block, text)
    text = _OLD_SETTING.sub(r"\1", text)
    return _OLD_NAME.sub(lambda name: name[1] + RENAMED[name[2]], text)


def file_of(text, path):
    """Find a YAML file that holds a text, for others to include.

    Arguments
    ---------
    text : str
    path : Path

    Returns
    -------
    Path
        The path itself or, where its text is another, a copy in the user's cache.
    """
    if path.read_text(encoding="utf-8") == text:
        return path
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    with whole_file(Path(home) / "fedenhance" / f"{digest}.yaml") as file:
        file.write_text(text, encoding="utf-8")
    return Path(home).resolve() / "fedenhance" / f"{digest}.yaml"


def _name_block(old):
    """Write an old mask network's YAML, with the block named in it."""
    name, body, indent = old.groups()
    sizes = dict(line.strip().split(": ", 1) for line in body.splitlines())
    own = {key: sizes[key] for key in SIZES_OF_BLOCK if key in sizes}
    shared = {k: v for k, v in sizes.items() if k not in own or k == "channels"}
    lines = [f"{key}: {value}" for key, value in shared.items()]
    lines += [f"block: !name:fedenhance.networks.blocks.{MASK_NETWORKS[name]}"]
    lines += [f"  {key}: {value}" for key, value in own.items()]
    if name == "CausalMaskNet":
        lines += [
            "normalize: False",
            "activation: !new:fedenhance.networks.blocks.PReLU",
        ]
    new = "OriginalMaskNet" if name == "OriginalMaskNet" else "MaskNet"
    body = "".join(f"{indent}{line}\n" for line in lines)
    return f"!new:fedenhance.networks.sudormrf.{new}\n{body}"


if __name__ == "__main__":
    sys.stdout.write(current_names(Path(sys.argv[1]).read_text(encoding="utf-8")))
