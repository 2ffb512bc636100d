"""The best model of a run as a folder that others load, without this repository.

The network in a small YAML file without training objects, its weights as tensors alone,
the sources of the network, and a model card. Training writes it at its end
(``write_package`` among the ``results`` of its YAML), ``fedenhance package`` later.
"""

import re
import shutil
import sys
from contextlib import suppress
from importlib import import_module, metadata
from modulefinder import ModuleFinder
from pathlib import Path

import numpy as np
import torch

from fedenhance.data.available import require
from fedenhance.deploy import trained as trained_models
from fedenhance.deploy.description import MARK, is_own, vouch
from fedenhance.deploy.trained import (
    find_best,
    load_trained,
    read_experiment,
    write_yaml,
)
from fedenhance.reports import markdown
from fedenhance.reports.runs import Run

SOURCES = Path(__file__).parents[1]

YAML_END = """
num_spks: {num_sources}
modules:
    separator: !ref <separator>
    encoder: !new:fedenhance.deploy.sepformer_adapter.MixtureEncoder
    masknet: !new:fedenhance.deploy.sepformer_adapter.EstimateMasks
        separator: !ref <separator>
        consistency: !ref <consistency>
    decoder: !new:fedenhance.deploy.sepformer_adapter.EstimateDecoder
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    loadables:
"""

CUSTOM = '''"""What ``speechbrain.inference.interfaces.foreign_class`` loads."""

import sys
from pathlib import Path

from speechbrain.inference.separation import SepformerSeparation

sys.path.append(str(Path(__file__).resolve().parent))
CustomInterface = SepformerSeparation
'''


def write_package(brain, datasets, hparams):
    """Write the package of a run that just ended; for ``results`` in YAML.

    Arguments
    ---------
    brain, datasets
        Not used here.
    hparams : dict
        With ``output_folder``.
    """
    program, *words = sys.argv
    if Path(program).name == "train.py":
        words = ["python train.py", *words]
    elif words[:1] == ["train"]:
        words = ["fedenhance", *words]
    else:
        words = []
    # What was trained here may run its own code.
    package(hparams["output_folder"], command=" ".join(words) or None, trust=True)


def package(folder, out=None, command=None, trust=False):
    """Write the best model of a run as a folder to load.

    Arguments
    ---------
    folder : str or Path
        Output folder of ``train.py``.
    out : Path, optional
        Default: ``package/`` in the folder.
    command : str, optional
        That trained the model, for the card; default: what trains it again.
    trust : bool
        See :func:`fedenhance.deploy.trained.load_trained`.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    FileNotFoundError
        If the folder is not one of a finished run.
    """
    folder = Path(folder)
    out = Path(out) if out else folder / "package"
    trained = load_trained(folder, trust=trust)
    out.mkdir(parents=True, exist_ok=True)
    weighted = []
    for name in ("separator", "consistency"):
        module = getattr(trained, name)
        if isinstance(module, torch.nn.Module) and module.state_dict():
            torch.save(module.state_dict(), out / f"{name}.ckpt")
            weighted.append(name)
    text = inference_yaml(folder / "hyperparams.yaml", trained.num_sources, weighted)
    (out / "hyperparams.yaml").write_text(text, encoding="utf-8")
    (out / "custom.py").write_text(CUSTOM, encoding="utf-8")
    named = set(re.findall(r"!(?:new|name|apply):([\w.]+)", text))
    others = carry_sources(named, out)
    (out / "LICENSE").write_text(license_text(), encoding="utf-8")
    card = model_card(folder, trained, command, others)
    (out / "README.md").write_text(card, encoding="utf-8")
    if trust or is_own(folder):
        vouch(out)
    return out


def inference_yaml(path, num_sources, loadables):
    """Take the network out of an experiment's YAML file.

    Arguments
    ---------
    path : Path
        ``hyperparams.yaml`` of a run, whose references are resolved.
    num_sources : int
    loadables : Iterable of str
        Which of ``separator`` and ``consistency`` have weights.

    Returns
    -------
    str
        YAML for SpeechBrain's inference interfaces.
    """
    experiment = read_experiment(path)
    network = {
        "sample_rate": experiment["sample_rate"],
        "clean_above": experiment.get("clean_above"),
        "separator": experiment["modules"]["separator"],
        "consistency": experiment.get("consistency"),
    }
    text = "# For inference, see README.md.\n" + write_yaml(network)
    text += YAML_END.format(num_sources=num_sources)
    return text + "".join(f"        {name}: !ref <{name}>\n" for name in loadables)


def carry_sources(names, folder):
    """Copy the files that define names, and what these import from beside them.

    Of fedenhance, and of modules of the user's own; what is installed with Python or
    by pip is not carried.

    Arguments
    ---------
    names : Iterable of str
        Dotted names, whose modules are imported or of fedenhance.
    folder : Path
        Where they go.

    Returns
    -------
    list of str
        Packages to install, beside PyTorch and SpeechBrain.
    """
    installed = set()
    for name in names:
        module = module_of(name)
        top = module.split(".")[0]
        file = getattr(sys.modules[top], "__file__", None)
        site = {"site-packages", "dist-packages"} & set(Path(file or "").parts)
        if top != SOURCES.name and (not file or site or top in sys.stdlib_module_names):
            installed.add(top)
            continue
        root = Path(file).resolve().parent
        root = root.parent if hasattr(sys.modules[top], "__path__") else root
        # What fedenhance.load needs is not the network's.
        finder = ModuleFinder([str(root)], excludes=[trained_models.__name__])
        finder.import_hook(module)
        for found in finder.modules.values():
            if found.__file__ and Path(found.__file__).is_relative_to(root):
                target = folder / Path(found.__file__).relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found.__file__, target)
    return sorted(installed - {"torch", "speechbrain"} - sys.stdlib_module_names)


def module_of(name):
    """Import the module that a dotted name lies in; return its name.

    Example
    -------
    >>> module_of("pathlib.Path.exists")
    'pathlib'
    """
    module = name
    while module:
        module = module.rpartition(".")[0]
        with suppress(ModuleNotFoundError):
            return import_module(module).__name__
    raise ImportError(f"there is no module of {name}")


def license_text():
    """Read the license, of a clone or of what was installed."""
    file = SOURCES.parent / "LICENSE"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return metadata.distribution("fedenhance").read_text("licenses/LICENSE")


def model_card(folder, trained, command, others):
    """Fill the model card from what a run left.

    Arguments
    ---------
    folder : Path
        Of the run.
    trained : fedenhance.deploy.trained.Trained
        Its best model.
    command : str or None
        That trained it.
    others : list of str
        Packages to install.

    Returns
    -------
    str
        Markdown.
    """
    from jinja2 import StrictUndefined, Template

    header = (folder / "hyperparams.yaml").read_text(encoding="utf-8").splitlines()[:3]
    yaml_files = [line for line in header if line.endswith(".yaml")]
    run = Run(folder)
    page = Path(__file__).with_name("model_card.md.j2").read_text(encoding="utf-8")
    options = {"trim_blocks": True, "keep_trailing_newline": True}
    return Template(page, undefined=StrictUndefined, **options).render(
        experiment=Path(yaml_files[0]).stem if yaml_files else folder.name,
        sample_rate=trained.sample_rate,
        num_noises=trained.num_sources - 1,
        num_parameters=sum(p.numel() for p in trained.separator.parameters()),
        others=others,
        command=command,
        data=Path(trained.hparams.get("data_folder") or "unknown").name,
        hparams=trained.hparams,
        rounds=run.rounds,
        hours=np.nansum(run.rounds.get("hours", 0.0)),
        best=find_best(folder / "save").meta,
        results=_results(run.test_scores),
    )


def _results(scores):
    """A Markdown table of the test metrics, by number of noises."""
    rows = []
    for count, columns in scores.items():
        before, gain = columns["si_sdr_in"], columns["si_sdri"].tolist()
        rows.append((count, len(gain), f"{before.mean():.2f}", markdown.spread(gain)))
    head = ("noises", "test mixtures", "SI-SDR of the input", "improvement (dB)")
    return markdown.table(head, rows) if rows else ""


def push_to_hub(folder, name):
    """Upload a package to Hugging Face, where ``load("hf:user/model")`` finds it.

    Arguments
    ---------
    folder : Path
        Of :func:`package`.
    name : str
        ``user/model``; made if it is not there. The account is the one of
        ``hf auth login``.
    """
    require("--push_to_hub", "huggingface_hub")
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(name, exist_ok=True)
    ignored = ["**/__pycache__/**", MARK]
    api.upload_folder(repo_id=name, folder_path=folder, ignore_patterns=ignored)
