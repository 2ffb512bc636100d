"""The script of recipes that name their Brain and their datasets in YAML."""

import speechbrain as sb

from fed.loading import as_dict, loader_options
from fedenhance.based_yaml import build, load_hparams
from fedenhance.run_folder.environment import write_environment


def main(argv):
    """Load a YAML file, train, and leave the results in its output folder.

    Arguments
    ---------
    argv : list of str
        YAML file, then overrides and SpeechBrain's run options.

    Returns
    -------
    Brain
        With the best model.
    """
    hparams_file, run_opts, overrides = sb.parse_arguments(argv)
    hparams = load_hparams(hparams_file, overrides)
    if "federation" not in hparams:
        raise ValueError(f"{hparams_file} needs the keys 'brain' and 'federation'.")
    sb.create_experiment_directory(hparams["output_folder"], save_env_desc=False)
    write_environment(hparams["output_folder"])
    if hparams.get("prepare"):
        sb.utils.distributed.run_on_main(hparams["prepare"])
    return train(hparams, run_opts)


def train(hparams, run_opts=None, datasets=None):
    """Federate the Brain and the datasets of a loaded YAML file.

    Arguments
    ---------
    hparams : dict
        With ``brain``, ``modules``, ``opt_class``, ``federation`` and options of
        loaders by one of SpeechBrain's usual names.
    run_opts : dict
        Of ``speechbrain.parse_arguments``.
    datasets : dict
        What the federation's ``datasets`` makes of hparams, if it is there already.

    Returns
    -------
    Brain
        With the best model.
    """
    brain, federation = build(hparams, run_opts), hparams["federation"]
    datasets = as_dict(datasets or federation.datasets(hparams))
    federation.fit(
        brain,
        None,
        datasets.get("train"),
        datasets.get("valid"),
        train_loader_kwargs=loader_options(hparams, "train"),
        valid_loader_kwargs=loader_options(hparams, "valid"),
        datasets=datasets,
    )
    return brain
