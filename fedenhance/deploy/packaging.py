"""The best model of a run as a folder that others load, without this repository.

    python -m fedenhance.deploy.packaging results/fedenhance/1234

writes ``package/`` there, as training does at its end (``write_package`` among the
``results`` of its YAML): the network in a small YAML file without training objects, its
weights as tensors alone (``torch.load`` with ``weights_only``), the sources of the
network, and a model card. SpeechBrain loads it::

    from speechbrain.inference.interfaces import foreign_class
    model = foreign_class(source="results/fedenhance/1234/package")
    estimates = model.separate_batch(mixture)  # (batch, time) -> (batch, time, source)
"""

import argparse
import re
import shutil
import sys
from importlib import metadata
from modulefinder import ModuleFinder
from pathlib import Path

import numpy as np
import torch
from jinja2 import StrictUndefined, Template

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
    package(hparams["output_folder"], command=" ".join(words) or None)


def package(folder, out=None, command=None):
    """Write the best model of a run as a folder to load.

    Arguments
    ---------
    folder : str or Path
        Output folder of ``train.py``.
    out : Path, optional
        Default: ``package/`` in the folder.
    command : str, optional
        That trained the model, for the card; default: what trains it again.

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
    trained = load_trained(folder)
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
    carry_sources(named, out / SOURCES.name)
    (out / "LICENSE").write_text(license_text(), encoding="utf-8")
    card = model_card(folder, trained, command, named)
    (out / "README.md").write_text(card, encoding="utf-8")
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
        "separator": experiment["modules"]["separator"],
        "consistency": experiment.get("consistency"),
    }
    text = "# For inference, see README.md.\n" + write_yaml(network)
    text += YAML_END.format(num_sources=num_sources)
    return text + "".join(f"        {name}: !ref <{name}>\n" for name in loadables)


def carry_sources(names, folder):
    """Copy the files of ``fedenhance`` that define names, and what they import.

    Arguments
    ---------
    names : Iterable of str
        Dotted names, of other packages too.
    folder : Path
        Becomes a package ``fedenhance``.
    """
    finder = ModuleFinder([str(SOURCES.parent)])
    for package_name, *parts in (name.split(".") for name in names):
        if package_name == SOURCES.name:
            finder.import_hook(".".join([package_name, *parts[:2]]))
    for name, module in finder.modules.items():
        if name.split(".")[0] == SOURCES.name:
            target = folder / Path(module.__file__).relative_to(SOURCES)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(module.__file__, target)


def license_text():
    """Read the license, of a clone or of what was installed."""
    file = SOURCES.parent / "LICENSE"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    return metadata.distribution("fedenhance").read_text("licenses/LICENSE")


def model_card(folder, trained, command, named):
    """Fill the model card from what a run left.

    Arguments
    ---------
    folder : Path
        Of the run.
    trained : fedenhance.deploy.trained.Trained
        Its best model.
    command : str or None
        That trained it.
    named : Iterable of str
        Dotted names that the network's YAML uses.

    Returns
    -------
    str
        Markdown.
    """
    header = (folder / "hyperparams.yaml").read_text(encoding="utf-8").splitlines()[:3]
    yaml_files = [line for line in header if line.endswith(".yaml")]
    run = Run(folder)
    packages = {name.split(".")[0] for name in named}
    page = Path(__file__).with_name("model_card.md.j2").read_text(encoding="utf-8")
    options = {"trim_blocks": True, "keep_trailing_newline": True}
    return Template(page, undefined=StrictUndefined, **options).render(
        experiment=Path(yaml_files[0]).stem if yaml_files else folder.name,
        sample_rate=trained.sample_rate,
        num_noises=trained.num_sources - 1,
        num_parameters=sum(p.numel() for p in trained.separator.parameters()),
        others=sorted(packages - {SOURCES.name, "torch", "speechbrain"}),
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


def main(argv=None):
    """Write the package of a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m fedenhance.deploy.packaging",
        description="Write the best model of a run as a folder that others load.",
    )
    parser.add_argument("folder", type=Path, help="output folder of train.py")
    parser.add_argument("--out", type=Path, help="default: package/ in the folder")
    args = parser.parse_args(argv)
    try:
        package(args.folder, args.out)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
