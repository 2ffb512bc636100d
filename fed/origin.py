"""Where a site comes from: the YAML file, overrides and options that load it anew."""

import io
import json
from pathlib import Path

import torch

from based_yaml import load_hparams
from fed.memory import keep_freed_memory
from fed.site import Site


def describe(hparams_file, overrides, run_opts):
    """Writes down how to load a site in another process."""
    return json.dumps([hparams_file and str(hparams_file), overrides, run_opts])


def describe_deployed(context):
    """Writes down which experiment Flower's run config and node config speak of.

    Relative paths of YAML files are relative to the app.
    """
    run, node = context.run_config, context.node_config
    path = Path(__file__).resolve().parents[1] / str(run["hparams"])
    overrides = merge(str(run["overrides"]), str(node.get("overrides", "")))
    device = node.get("device", run.get("device"))
    return describe(path, overrides, {"device": device} if device else {})


def merge(overrides, others):
    """Joins two sets of overrides; where both name a key, the second one counts.

    Arguments
    ---------
    overrides, others : str
        YAML, with HyperPyYAML's tags; may be empty.

    Returns
    -------
    str

    Example
    -------
    >>> print(merge("{rounds: 2, lr: 0.1}", "lr: 0.2"), end="")
    {rounds: 2, lr: 0.2}
    """
    from ruamel.yaml import YAML

    yaml, text = YAML(), io.StringIO()
    merged = yaml.load(overrides) or {}
    merged.update(yaml.load(others) or {})
    yaml.dump(merged, text)
    return text.getvalue()


_loaded = {}


def register(origin, site):
    """Make this process use a site that it has loaded already."""
    for old in _loaded.values():
        old.brain.loaders.clear()
    _loaded.clear()
    _loaded[origin] = site


def load(origin):
    """Load a site, or find it loaded.

    Arguments
    ---------
    origin : str
        Of :func:`describe`.

    Returns
    -------
    Site
    """
    if origin not in _loaded:
        hparams_file, overrides, run_opts = json.loads(origin)
        keep_freed_memory()
        torch.set_num_threads(int(run_opts.pop("num_threads", 1)))
        hparams = load_hparams(hparams_file, overrides)
        if hparams.get("prepare"):
            hparams["prepare"]()
        register(origin, Site(hparams, hparams["federation"], run_opts))
    return _loaded[origin]
