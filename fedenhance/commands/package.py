"""Write the best model of a run as a folder that others load, without this repository.

    fedenhance package results/fedenhance/1234

writes ``package/`` there, as training does at its end: the network in a small YAML file
without training objects, its weights as tensors alone (``torch.load`` with
``weights_only``), the sources of the network, and a model card. SpeechBrain loads it::

    from speechbrain.inference.interfaces import foreign_class
    model = foreign_class(source="results/fedenhance/1234/package")
    estimates = model.separate_batch(mixture)  # (batch, time) -> (batch, time, source)
"""

from pathlib import Path

from fedenhance.__main__ import program
from fedenhance.run_folder.arguments import Parser


def parse(argv):
    """The command line."""
    parser = Parser(prog=program("package"), description=__doc__)
    parser.add_argument("folder", type=Path, help="output folder of train.py")
    about = "default: package/ in the folder"
    parser.add_argument("--out", type=Path, help=about)
    about = "run a model's own code"
    parser.add_argument("--trust", action="store_true", help=about)
    about = "upload it to Hugging Face"
    parser.add_argument("--push_to_hub", metavar="USER/MODEL", help=about)
    return parser.parse_args(argv)


def main(argv):
    """Write the package of a folder; upload it, if asked to."""
    options = parse(argv)
    from fedenhance.data.available import require
    from fedenhance.deploy.packaging import package, push_to_hub

    if options.push_to_hub:
        require("--push_to_hub", "huggingface_hub")
    out = package(options.folder, options.out, trust=options.trust)
    if options.push_to_hub:
        push_to_hub(out, options.push_to_hub)
        print(f'{out} is on Hugging Face: load("hf:{options.push_to_hub}")')
    else:
        print(out)
