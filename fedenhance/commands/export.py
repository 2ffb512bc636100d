"""Write a trained model as one file that runs without Python: torch.export or ONNX.

    fedenhance export results/fedenhance/1234 --out model.onnx
    fedenhance export results/fedenhance/1234 --out model.pt2

The file takes one mixture ``(1, time)`` at the network's sample rate, of any level, and
gives its sources ``(1, source, time)``, speech first. ``time`` is any multiple of
``--multiple`` samples or, where the network cannot be exported that way, fixed to
``--seconds``; what it became is said. The file is compared with PyTorch, and removed if
it differs. ``.pt2`` is what ``torch.export.load`` and ExecuTorch's converter read;
``.onnx`` needs onnx, onnxscript and onnxruntime (requirements-extra.txt).

    fedenhance export results/live --out live.onnx --block 16

With ``--block`` the file takes a signal block by block, for a causal network: a block
and the state that the last one left, at first zeros. ``fedenhance.deploy.blocks`` says
what it holds.
"""

from pathlib import Path

from fedenhance.__main__ import program
from fedenhance.run_folder.arguments import Parser, above_zero


def parse(argv):
    """The command line."""
    parser = Parser(prog=program("export"), description=__doc__)
    about = "output folder of train.py, package, or name of a model that comes along"
    parser.add_argument("folder", help=about)
    about = ".pt2 or .onnx file"
    parser.add_argument("--out", type=Path, required=True, help=about)
    about = "default: 4"
    parser.add_argument("--seconds", type=above_zero(float), default=4.0, help=about)
    about = "samples; the network's hop times 2 ** depth (default: 1280)"
    parser.add_argument("--multiple", type=above_zero(int), default=1280, help=about)
    about = "milliseconds: export a causal network block by block"
    parser.add_argument("--block", type=above_zero(float), help=about)
    about = "run a model's own code"
    parser.add_argument("--trust", action="store_true", help=about)
    options = parser.parse_args(argv)
    if options.out.suffix not in (".onnx", ".pt2"):
        parser.error(f"--out must end in .pt2 or .onnx, not be {options.out}")
    return options


def main(argv):
    """Export a model; say what the file takes and how exact it is."""
    options = parse(argv)
    from fedenhance.deploy.export import export, export_blocks

    model, out = (options.folder, options.out), options.out
    if options.block is not None:
        difference, about = export_blocks(*model, options.block, options.trust)
        takes = f"blocks of {about['block']} samples; latency {about['latency']}"
    else:
        sizes = options.seconds, options.multiple
        difference, lengths = export(*model, *sizes, options.trust)
        takes = f"multiples of {sizes[1]}" if lengths[1:] else f"{lengths[0]}"
        takes += " samples"
    print(
        f"{out}: takes {takes}; largest difference from PyTorch on whole signals "
        f"{difference:.1e} of the peak"
    )
