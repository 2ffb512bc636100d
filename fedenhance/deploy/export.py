"""A trained model as one file that runs without Python: torch.export or ONNX.

``fedenhance export`` is its command.
"""

import importlib.metadata
import json
import logging
import warnings
from pathlib import Path

import torch
from torch import nn

from fedenhance.deploy.blocks import Step, check_live
from fedenhance.deploy.trained import load_trained
from fedenhance.networks.recurrent import GRU
from fedenhance.networks.scaling import separate
from fedenhance.networks.spectrum import Spectrum

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference from PyTorch that is accepted, relative to the mixture's peak."""

LICENCE = "Apache-2.0; the recordings it was trained on have licences of their own"


class Enhancer(nn.Module):
    """What is exported: scaling, network and mixture consistency.

    Arguments
    ---------
    trained : fedenhance.deploy.trained.Trained
    """

    def __init__(self, trained):
        super().__init__()
        self.separator = trained.separator
        self.consistency = trained.consistency

    def forward(self, mixture):
        """Map ``(1, time)`` to ``(1, source, time)``."""
        return separate(self.separator, mixture, self.consistency)


def capture(enhancer, length, multiple):
    """Trace an enhancer for lengths that are multiples, else for one length.

    Arguments
    ---------
    enhancer : Enhancer
    length : int
        Samples of the example; also the one length.
    multiple : int
        Samples; a multiple of the network's stride, so that it never pads.

    Returns
    -------
    program : torch.export.ExportedProgram
    lengths : list of int
        That it takes, among those to check.
    """
    length = max(length // multiple, 2) * multiple
    example = torch.randn(1, length)
    blocks = torch.export.Dim("blocks", min=2, max=2**20)
    try:
        program = torch.export.export(
            enhancer, (example,), dynamic_shapes=({1: multiple * blocks},)
        )
        lengths = [length, length + multiple, 2 * multiple, 3 * length]
    except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
        logger.debug("not of variable length: %s", error)
        program = torch.export.export(enhancer, (example,))
        lengths = [length]
    return program, lengths


def write_program(program, path, names, metadata):
    """Write ``.pt2``; return a function that runs the file."""
    extra = {"metadata.json": json.dumps(metadata)}
    torch.export.save(program, path, extra_files=extra)
    return torch.export.load(path).module()


def write_onnx(program, path, names, metadata):
    """Write ``.onnx``; return a function that runs the file.

    Arguments
    ---------
    program : torch.export.ExportedProgram
    path : Path
    names : tuple of list of str
        Of the inputs and of the outputs.
    metadata : dict
        Text or numbers by name.

    Returns
    -------
    Callable
        Takes and gives tensors; one alone, or a list.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{error.name} is needed to write and check ONNX: pip install onnx "
            "onnxscript onnxruntime"
        ) from error
    # The exporter's optimizer takes 1e-8 for 0, and silence would become 0 / 0.
    # onnxruntime has an optimizer of its own.
    # What torchvision would add is no matter here.
    registration = "torch.onnx._internal.exporter._registration"
    logging.getLogger(registration).setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        exported = torch.onnx.export(
            program,
            input_names=names[0],
            output_names=names[1],
            verbose=False,
            optimize=False,
        )
    exported.model.metadata_props.update({k: str(v) for k, v in metadata.items()})
    exported.save(path, external_data=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # not what it cannot fold
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"]
    )

    def run(*inputs):
        given = zip(names[0], (x.numpy() for x in inputs), strict=True)
        outputs = [torch.from_numpy(y) for y in session.run(None, dict(given))]
        return outputs if outputs[1:] else outputs[0]

    return run


WRITERS = {".pt2": write_program, ".onnx": write_onnx}


def prepare(separator, out):
    """Let a network use what the runtimes of a file have.

    Arguments
    ---------
    separator : torch.nn.Module
    out : Path
        File to write.

    Raises
    ------
    ValueError
        If the suffix is unknown.
    """
    if out.suffix not in WRITERS:
        raise ValueError(f"{out} must end in one of {', '.join(WRITERS)}")
    for module in separator.modules():
        if isinstance(module, Spectrum):
            module.use_matrix()
        if isinstance(module, GRU) and out.suffix == ".onnx":
            module.use_onnx()


def describe(trained, **more):
    """What a file says of itself.

    Arguments
    ---------
    trained : fedenhance.deploy.trained.Trained
    **more
        Further entries.

    Returns
    -------
    dict
    """
    names = ["speech", *(f"noise{i}" for i in range(1, trained.num_sources))]
    return {
        "sample_rate": trained.sample_rate,
        "sources": ", ".join(names),
        "licence": LICENCE,
        "fedenhance_version": version(),
        **more,
    }


def version():
    """Return the version of the installed package, or ``unknown`` in a clone."""
    try:
        return importlib.metadata.version("fedenhance")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def signals(length):
    """Mixtures that recordings hold, sooner or later: noise is not all.

    Arguments
    ---------
    length : int
        Samples.

    Returns
    -------
    dict
        Name -> ``(1, length)``.
    """
    noise = torch.randn(1, length, generator=torch.Generator().manual_seed(0))
    return {
        "noise": 0.1 * noise,
        "silence": torch.zeros(1, length),
        "a constant": torch.full((1, length), 0.1),
        "tiny noise": 1e-8 * noise,
        "clipped noise": (10 * noise).clamp(-1, 1),
        "noise after silence": 0.1 * noise * (torch.arange(length) >= length // 2),
    }


@torch.no_grad()
def differences(run, enhancer, lengths):
    """Compare a file with PyTorch.

    Arguments
    ---------
    run, enhancer : Callable
        ``(1, time) -> (1, source, time)``.
    lengths : list of int
        Samples.

    Returns
    -------
    dict
        Name of the test signal -> the largest absolute difference, relative to the
        signal's peak; NaN where one of the two is not a number.
    """
    found = {}
    for length in lengths:
        for name, mixture in signals(length).items():
            difference = (run(mixture) - enhancer(mixture)).abs().max()
            relative = difference / (mixture.abs().max() or 1.0)
            found.setdefault(name, []).append(relative)
    return {name: float(torch.stack(each).max()) for name, each in found.items()}


def export(folder, out, seconds=4.0, multiple=1280, trust=False):
    """Write a trained model as ``.pt2`` or ``.onnx``, checked against PyTorch.

    Arguments
    ---------
    folder : str or Path
        Output folder of ``train.py``, or a package.
    out : Path
        File to write; its suffix says how.
    seconds : float
        Length of the example.
    multiple : int
        Samples that lengths are multiples of.

    Returns
    -------
    difference : float
        The largest difference from PyTorch, relative to the mixture's peak.
    lengths : list of int
        Lengths that were checked; one if the length is fixed.

    Raises
    ------
    ValueError
        If the suffix is unknown, or the file differs from PyTorch; then it is removed.
    """
    out, trained = Path(out), load_trained(folder, trust=trust)
    metadata = describe(trained)
    prepare(trained.separator, out)
    enhancer = Enhancer(trained).eval()
    length = round(seconds * trained.sample_rate)
    program, lengths = capture(enhancer, length, multiple)
    out.parent.mkdir(parents=True, exist_ok=True)
    names = ["mixture"], ["sources"]
    run = WRITERS[out.suffix](program, out, names, metadata)
    found = differences(run, enhancer, lengths)
    keep_if_equal(out, found)
    return max(found.values()), lengths


def keep_if_equal(out, found):
    """Remove a file that differs from PyTorch.

    Arguments
    ---------
    out : Path
    found : dict
        Name of a signal -> largest difference.

    Raises
    ------
    ValueError
        If one of them is too large.
    """
    for name, difference in found.items():
        if not difference <= TOLERANCE:
            out.unlink()
            raise ValueError(
                f"{out} would differ from PyTorch on {name} by {difference:.1e} of its "
                f"peak, more than {TOLERANCE:.0e}: it is not written"
            )


@torch.no_grad()
def export_blocks(folder, out, milliseconds, trust=False):
    """Write a causal model that takes a signal block by block.

    Inputs are ``samples (1, block)`` and ``state``, outputs ``sources (1, source,
    block)`` and ``next_state``. The file says ``sample_rate``, ``block`` and ``delay``
    in Hz and samples, and the ``latency`` in milliseconds.

    Arguments
    ---------
    folder : str or Path
        Output folder of ``train.py``, or a package.
    out : Path
        ``.onnx`` or ``.pt2`` file to write.
    milliseconds : float
        Of a block.

    Returns
    -------
    difference : float
        The largest difference from the network on the whole signal, relative to its
        peak.
    metadata : dict
        What the file says.

    Raises
    ------
    ValueError
        If the model cannot run live or in such blocks, or the file differs.
    """
    out, trained = Path(out), load_trained(folder, trust=trust)
    check_live(trained)
    step = Step(trained.separator, round(milliseconds / 1000 * trained.sample_rate))
    latency = 1000 * (step.block + step.delay) / trained.sample_rate
    about = {"block": step.block, "delay": step.delay, "latency": f"{latency:g} ms"}
    if trained.clean_above is not None:
        about["clean_above"] = trained.clean_above
    metadata = describe(trained, **about)
    length = 24 * step.block
    signal = {name: x[:, :length] for name, x in signals(length + 1).items()}
    plain = trained.keeping(0.0)
    expected = {name: plain(mixture) for name, mixture in signal.items()}
    prepare(trained.separator, out)
    example = torch.randn(1, step.block), step.initial_state()
    program = torch.export.export(step.eval(), example)
    out.parent.mkdir(parents=True, exist_ok=True)
    names = ["samples", "state"], ["sources", "next_state"]
    run = WRITERS[out.suffix](program, out, names, metadata)
    found = {}
    for name, mixture in signal.items():
        sources, state = [], step.initial_state()
        for samples in mixture.split(step.block, dim=1):
            block, state = run(samples, state)
            sources.append(block)
        given = torch.cat(sources, dim=-1)[..., step.delay :]
        difference = (given - expected[name][..., : -step.delay]).abs().max()
        found[name] = float(difference / (mixture.abs().max() or 1.0))
    keep_if_equal(out, found)
    return max(found.values()), metadata
