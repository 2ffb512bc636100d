"""The original FedEnhance training script, from a checkout, as it is but for the GPU.

Nothing of it is in this repository. Its script runs with its own loop, loader, loss,
network and arguments; replaced, for as long as it runs, are:

- ``.cuda()``, which returns its tensor or module unchanged, unless there is a GPU;
- Comet, the logger that needs an account, by an object that does nothing;
- the module glob2, by the same function of Python's glob, sorted;
- the paths of its configuration;
- the validation after each round, which is left out, and its report, where the clock
  is read.
"""

import contextlib
import glob
import importlib
import io
import os
import random
import runpy
import sys
import tempfile
import types
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import torch

from benchmarks.models import (
    AUTHORS_SIZES,
    SAMPLE_RATE,
    build_ours,
    checkout,
    imports_from,
)
from fedenhance.data.audio import read_segment
from fedenhance.data.manifests import is_isolated_noise
from fedenhance.data.mixing import gain_for_snr
from fedenhance.networks.authors import to_reference

PACKAGE = "fedenhance"
SCRIPT = Path(PACKAGE) / "experiments" / "run_federated.py"


def write_tree(rows, folder, seconds, snr_range=None, loop_noise=False):
    """Write recordings in the layout of the original: a folder for each client.

    As many isolated noises as noisy recordings, so that half of the files hold speech.

    Arguments
    ---------
    rows : dict
        Of a manifest, with ``client``; see ``fedenhance.data.manifests``.
    folder : str or Path
    seconds : float
        Of each file; longer ones are cut, shorter ones padded.
    snr_range : list of two float, optional
        Each noise is scaled to a ratio drawn from this range of dB: to its speech or,
        if it is isolated, to that of one of the client's recordings.
    loop_noise : bool
        Whether shorter noises are repeated instead.

    Returns
    -------
    dict
        Client -> number of its folder below ``train``.
    """
    clients = sorted({row["client"] for row in rows.values()})
    for number, client in enumerate(clients):
        mine = [row for row in rows.values() if row["client"] == client]
        noisy = [row for row in mine if not is_isolated_noise(row)]
        alone = [row for row in mine if is_isolated_noise(row)]
        # The original takes the last files for their noise alone.
        mine = noisy + [alone[i % len(alone)] for i in range(len(noisy))]
        target = Path(folder) / "train" / str(number)
        for place in ("speech", "noise"):
            (target / place).mkdir(parents=True)
        levels = random.Random(number)
        for i, row in enumerate(mine):
            num_samples = round(seconds * SAMPLE_RATE)
            speech = read(row["speech"], num_samples)
            noise = read(row["noise"], num_samples, loop_noise)
            if snr_range:
                beside = read(noisy[i % len(noisy)]["speech"], num_samples)
                noise = at_snr(beside, noise, levels.uniform(*snr_range))
                # Room for noise that is louder than the speech. Not as floats: below
                # 1, the original's MixIT takes everything for silent, and is 0.
                speech, noise = speech / 4, noise / 4
            for place, wave in (("speech", speech), ("noise", noise)):
                soundfile.write(target / place / f"{i:05d}.wav", wave, SAMPLE_RATE)
    return {client: number for number, client in enumerate(clients)}


def read(segment, num_samples, loop=False):
    """Read part of a file, or silence, as an array."""
    if segment is None:
        return np.zeros(num_samples, np.float32)
    return read_segment(*segment, SAMPLE_RATE, num_samples, loop=loop).numpy()


def at_snr(speech, noise, snr):
    """Scale a noise to a ratio in dB to the speech; both are arrays."""
    return noise * gain_for_snr(torch.from_numpy(speech), torch.from_numpy(noise), snr)


class Silent:
    """Takes any call and does nothing, as an object, a context, and in print."""

    def __init__(self, *args, **kwargs):
        pass

    def __getattr__(self, name):
        return lambda *args, **kwargs: contextlib.nullcontext()


@contextlib.contextmanager
def without_gpu(device):
    """Let ``.cuda()`` change nothing, unless a GPU is what to run on."""
    with contextlib.ExitStack() as stack:
        if torch.device(device).type != "cuda":
            for owner in (torch.Tensor, torch.nn.Module):
                stays = mock.patch.object(owner, "cuda", lambda self: self)
                stack.enter_context(stays)
        yield


@contextlib.contextmanager
def importable(authors, tree):
    """Let the original's modules be imported from a checkout.

    Arguments
    ---------
    authors : Path
        Holds the checkout.
    tree : str or Path
        Its corpus, as :func:`write_tree` leaves it.
    """
    comet, globbing = types.ModuleType("comet_ml"), types.ModuleType("glob2")
    comet.Experiment = Silent
    globbing.glob = lambda pattern: sorted(glob.glob(pattern))
    with (
        tempfile.TemporaryDirectory() as logs,
        mock.patch.dict(os.environ),
        imports_from(checkout(authors, PACKAGE), comet_ml=comet, glob2=globbing),
    ):
        config = importlib.import_module(f"{PACKAGE}.__config__")
        config.CHUNK_LIBRI_FS50K, config.FED_LOG_DIR = str(tree), logs
        yield


def loader(authors, tree, seconds, batch_size):
    """Make the original's loader of the first client.

    Returns
    -------
    torch.utils.data.DataLoader
        Of speech, noise and extra noise, each ``(batch, time)``.
    """
    with importable(authors, tree):
        module = importlib.import_module(f"{PACKAGE}.dataset_loader.chunked_libri_fsd")
        dataset = module.Dataset(
            root_dirpath=str(tree),
            speaker_ids=[0],
            available_speech_percentage=0.5,
            split="train",
            sample_rate=SAMPLE_RATE,
            timelength=float(seconds),
            zero_pad=True,
            augment=True,
        )
        return dataset.get_generator(batch_size=batch_size, num_workers=0)


def arguments(warm_up, model, **sizes):
    """Write the command line of the original's script.

    Arguments
    ---------
    warm_up : Path
        Where weights go, for the original to start from.
    model : str
        A groupcomm network of hparams/models.
    **sizes : dict
        ``clients``, ``batch_size``, ``seconds``, ``num_workers``; others are arguments
        of the script by their own names.

    Returns
    -------
    list of str
    """
    separator, numbers = build_ours(model)
    torch.save(to_reference(separator.state_dict(), "groupcomm"), warm_up)
    options = {AUTHORS_SIZES[name]: value for name, value in numbers.items()}
    options["max_num_sources"] = options.pop("num_sources")
    options |= {
        "model_type": "sudo_groupcomm_v2",
        "warmup_checkpoint": warm_up,
        "n_fed_nodes": sizes["clients"],
        "batch_size": sizes["batch_size"],
        "audio_timelength": float(sizes["seconds"]),
        "n_jobs": sizes.get("num_workers", 0),
        "p_supervised": 0.0,
        "p_single_mix": 0.1,
        "clip_grad_norm": 5.0,
        "cuda_available_devices": 0,
        "cometml_tags": "benchmark",
    }
    known = {"clients", "batch_size", "seconds", "num_workers"}
    options |= {name: sizes[name] for name in sizes if name not in known}
    pairs = ((f"--{name}", str(value)) for name, value in options.items())
    return [word for pair in pairs for word in pair]


def rounds_of(authors, tree, argv, clock, device="cpu", after_round=None):
    """Run the original's script; by default all clients train one epoch a round.

    Arguments
    ---------
    authors : Path
    tree : Path
    argv : list of str
        Of :func:`arguments`.
    clock : callable
    device : str
        "cpu" or "cuda".
    after_round : callable, optional
        Called with the averaged model after each round.

    Returns
    -------
    list of float
        Seconds of each round, from the choice of clients to the averaged model.

    Raises
    ------
    RuntimeError
        When the script ends by itself, with what it said.
    """
    marks = {"start": [], "end": []}

    class Experiment(Silent):
        def get_key(self):
            """Is what the script prints first in each round."""
            marks["start"].append(clock())

    def report(losses, *_):
        marks["end"].append(clock())
        if after_round:
            script = sys._getframe(1).f_globals
            after_round(script["global_model"])
        return losses

    with importable(authors, tree):
        sys.modules["comet_ml"].Experiment = Experiment
        utils = f"{PACKAGE}.experiments.utils"
        setup = importlib.import_module(f"{utils}.dataset_setup")
        losses = importlib.import_module(f"{utils}.cometml_loss_report")
        losses.report_losses_mean_and_std = report
        setup.enhancement_federated_setup = training_alone(setup)
        said, script = io.StringIO(), checkout(authors, PACKAGE) / SCRIPT
        with (
            without_gpu(device),
            mock.patch.object(sys, "argv", [SCRIPT.name, *argv]),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(said),
        ):
            try:
                runpy.run_path(str(script), run_name="original")
            except SystemExit as end:
                raise RuntimeError(f"the original ended: {said.getvalue()}") from end
    return np.subtract(marks["end"], marks["start"]).tolist()


def training_alone(setup):
    """Wrap the original's set-up of data, so that there is nothing to validate on."""
    whole = setup.enhancement_federated_setup

    def without_validation(hparams):
        made = setup.chunked_libri_fsd.Dataset
        training = types.SimpleNamespace(
            Dataset=lambda **options: made(**{**options, "split": "train"})
        )
        with mock.patch.object(setup, "chunked_libri_fsd", training):
            clients, _ = whole(hparams)
        return clients, {"val": None, "test": None}

    return without_validation
