"""The networks that are measured: ours, and the authors' with the same weights."""

import contextlib
import importlib
import sys
import warnings
from pathlib import Path
from unittest import mock

import torch
from hyperpyyaml import load_hyperpyyaml

from fedenhance.based_yaml import PACKAGE
from fedenhance.networks.authors import to_reference

SAMPLE_RATE = 16000
MODELS = PACKAGE / "hparams" / "models"
LISTS = (torch.nn.Sequential, torch.nn.ModuleList)
NAMES = sorted(path.stem for path in MODELS.glob("*.yaml"))
#: The authors' class of each member: checkout, module, class.
AUTHORS = {
    "original": ("sudo_rm_rf", "dnn.models.sudormrf", "SuDORMRF"),
    "improved": ("sudo_rm_rf", "dnn.models.improved_sudormrf", "SuDORMRF"),
    "groupcomm": ("fedenhance", "models.groupcomm_sudormrf_v2", "GroupCommSudoRmRf"),
    "causal": (
        "sudo_rm_rf",
        "dnn.models.causal_improved_sudormrf_v3",
        "CausalSuDORMRF",
    ),
}
#: The authors' names of sizes, by ours.
AUTHORS_SIZES = {
    "num_sources": "num_sources",
    "num_bases": "enc_num_basis",
    "kernel_size": "enc_kernel_size",
    "channels": "out_channels",
    "hidden_channels": "in_channels",
    "num_blocks": "num_blocks",
    "depth": "upsampling_depth",
    "num_groups": "group_size",
}


def checkout(authors, name):
    """Find a checkout of the authors' code.

    Arguments
    ---------
    authors : str or Path
        The folder that holds it.
    name : str
        "sudo_rm_rf" or "fedenhance".

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        When it is not there.
    """
    folder = Path(authors) / name
    if not (folder / name).is_dir():
        raise FileNotFoundError(
            f"--authors: {folder / name} is missing; clone github.com/etzinis/{name} "
            f"into {authors}"
        )
    return folder


@contextlib.contextmanager
def imports_from(folder, **stand_ins):
    """Let a package be imported from a checkout that has its name.

    FedEnhance's has the name of ours, which is put aside meanwhile.

    Arguments
    ---------
    folder : Path
        Of :func:`checkout`.
    **stand_ins : module
        Of other packages, in their place.
    """
    names = (folder.name, *stand_ins)
    aside = forget(names)
    sys.modules.update(stand_ins)
    try:
        with (
            mock.patch.object(sys, "path", [str(folder), *sys.path]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        forget(names)
        sys.modules.update(aside)


def forget(packages):
    """Let these packages be imported anew; return the modules that were there."""
    names = [name for name in sys.modules if name.split(".")[0] in packages]
    return {name: sys.modules.pop(name) for name in names}


def build_ours(name):
    """Build a separator from hparams/models, and its sizes."""
    torch.manual_seed(0)
    with open(MODELS / f"{name}.yaml", encoding="utf-8") as file:
        model = load_hyperpyyaml(file)
    return model.pop("separator"), model


def build_authors(name, authors):
    """Build the authors' network with our weights, or None if they have none."""
    member = name.removeprefix("sudormrf_").removesuffix("_small")
    if authors is None or member not in (*AUTHORS, "gtcrn"):
        return None
    if member == "gtcrn":
        try:
            return build_gtcrn(authors)
        except (FileNotFoundError, ModuleNotFoundError) as error:
            print(f"{name}: ours alone ({error})")
            return None
    package, module, class_name = AUTHORS[member]
    separator, sizes = build_ours(name)
    if separator.rest:  # a source that theirs do not have
        return None
    sizes = {AUTHORS_SIZES[key]: value for key, value in sizes.items()}
    with imports_from(checkout(authors, package)):
        module = importlib.import_module(f"{package}.{module}")
        network = getattr(module, class_name)(**sizes)
    network.load_state_dict(to_reference(separator.state_dict(), member))
    return AuthorsSeparator(network)


def build_gtcrn(authors):
    """Build the GTCRN of its authors' checkout with our weights."""
    folder = Path(authors) / "gtcrn"
    if not (folder / "gtcrn.py").is_file():
        raise FileNotFoundError(
            f"--authors: {folder / 'gtcrn.py'} is missing; clone "
            f"github.com/Xiaobin-Rong/gtcrn into {authors}"
        )
    separator, _ = build_ours("gtcrn")
    with mock.patch.object(sys, "path", [str(folder), *sys.path]):
        network = importlib.import_module("gtcrn").GTCRN()
    network.load_state_dict(to_reference(separator.state_dict(), "gtcrn"))
    return AuthorsGTCRN(network, separator)


class AuthorsGTCRN(torch.nn.Module):
    """The authors' GTCRN with our interface: between PyTorch's transforms, as theirs.

    The level of the mixture is followed as in ours, of which it is no weight.
    """

    def __init__(self, network, separator):
        super().__init__()
        self.network = network
        self.level = separator.level
        window = torch.hann_window(512).sqrt()
        self.register_buffer("window", window, persistent=False)

    def forward(self, mixture):
        """Map ``(batch, time)`` to ``(batch, source, time)``."""
        transform = {"n_fft": 512, "hop_length": 256, "window": self.window}
        spectrum = torch.stft(
            mixture, **transform, pad_mode="constant", return_complex=True
        )
        parts = torch.view_as_real(spectrum)
        latent = parts.transpose(2, 3).flatten(1, 2)
        rms, _ = self.level(latent, self.level.initial_state(latent))
        rms = rms.unsqueeze(-1)
        found = torch.view_as_complex((self.network(parts / rms) * rms).contiguous())
        speech = torch.istft(found, **transform, length=mixture.shape[-1])
        return torch.stack([speech, mixture - speech], dim=1)


class AuthorsSeparator(torch.nn.Module):
    """The authors' network with our interface."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, mixture):
        """Map ``(batch, time)`` to ``(batch, source, time)``."""
        return self.network(mixture.unsqueeze(1))


def build(name, code, args):
    """Build a network of one code ("ours" or "authors") on the device, or None."""
    if code == "ours":
        network, _ = build_ours(name)
    else:
        network = build_authors(name, args.authors)
    if network is None:
        return None
    network = network.to(args.device)
    if args.compile:
        compile_blocks(network)
    return network


def compile_blocks(network):
    """Let each repeated block be compiled, so that all copies share the code.

    Whole networks take minutes to compile. The blocks are those of the ``Sequential``
    or ``ModuleList`` of one class that holds most weights.

    Returns
    -------
    int
        How many there are.
    """
    lists = [m for m in network.modules() if isinstance(m, LISTS) and len(m) > 1]
    repeated = [m for m in lists if len({type(block) for block in m}) == 1]
    found = max(
        repeated, key=lambda m: sum(w.numel() for w in m.parameters()), default=()
    )
    for block in found:
        block.compile()
    return len(found)


def make_batch(args):
    """Draw a batch of noise, ``(batch, time)``."""
    num_samples = round(args.seconds * SAMPLE_RATE)
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(args.batch_size, num_samples, generator=generator)
    return batch.to(args.device)


def train(network, batch, args):
    """Run forward and backward."""
    network.zero_grad(set_to_none=True)
    with autocast(args):
        estimates = network(batch)
    estimates.float().square().mean().backward()


@torch.no_grad()
def infer(network, batch, args):
    """Run forward only."""
    with autocast(args):
        return network(batch)


def autocast(args):
    """Return the context of the precision."""
    device = torch.device(args.device).type
    return torch.autocast(device, torch.bfloat16, enabled=args.precision == "bf16")
