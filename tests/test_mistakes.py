"""What newcomers do wrong ends in one line that says what is wrong, and what to do."""

import shlex
import sys

import numpy as np
import pytest
import soundfile

from fed.__main__ import main as fed
from fedenhance.__main__ import COMMANDS, start

TRAIN = "train hparams/fedenhance.yaml"
OWN = f"{TRAIN} --prepare null --data_folder . --manifest_folder"
ADAPT = "train hparams/adapt.yaml"

MISTAKES = {
    # --------------------------------------------------------------- files of YAML
    "train": "which YAML file",
    "train hparams/fedenhanse.yaml": "no hparams/fedenhanse.yaml; did you mean fedenh",
    "train misspelt.yaml": "no key learning_rat, and nothing refers",
    "train broken.yaml": "broken.yaml, line 2, is no YAML: expected",
    "train nobody.yaml": "there is no base hparams/nobody.yaml",
    "train unknown.yaml": "no such entity as fedenhance.training.separation.Separatoin",
    "train missing.yaml": "no such entity as my_module.MyBrain",
    "train wrong.yaml": "did you mean sample_rate",
    # ----------------------------------------------------------- settings of training
    f"{TRAIN} --n_client 4": "no key n_client; did you mean n_clients?",
    f"{TRAIN} rounds=5": "rounds=5: options begin with --, as --rounds=5",
    f"{TRAIN} -rounds 5": "-rounds: options begin with --, as --rounds",
    f"{TRAIN} --rounds 5 --seed 1 --rounds=50": "--rounds is given twice: 5, and 50",
    f"{OWN} good --noise_folder . --n_clients 2 --maximize pesq": "by 'pesq', but vali",
    f"{TRAIN} --batch_size 0": "batch_size is 0; it must be a whole number, 1 or more",
    f"{TRAIN} --learning_rate -0.1": "learning_rate is -0.1; it must be a number, 0 or",
    f"{TRAIN} --sample_rate -8000": "sample_rate is -8000; it must be a whole number",
    f"{TRAIN} --p_supervised half": "p_supervised is 'half'; it must be a number from",
    f"{TRAIN} --p_supervised": "p_supervised is None; it must be a number from 0 to 1",
    f"{TRAIN} --snr_range [10,-5]": "snr_range must be null or [low, high] in dB",
    f"{TRAIN} --snr_range 5": "snr_range must be null or [low, high]",
    f"{TRAIN} --device gpu": "device is 'gpu'; it must be cpu, cuda, cuda:N or mps",
    f"{TRAIN} --models gtcrn": "such as '!include:models/gtcrn.yaml'",
    f"{TRAIN} --models '!include:models/x.yaml'": "models/x.yaml: no such file",
    f"{TRAIN} --live '[!name:fedenhance.reports.live.Tensor]'": "live.Tensor",
    f"{TRAIN} --live tensorboard": "live is 'tensorboard'; it must be a list",
    f"{TRAIN} --output_folder noisy.wav": "noisy.wav: file exists",
    # --------------------------------------------------------------- data of training
    f"{TRAIN} --data_folder nowhere": "There is no folder nowhere; expected",
    f"{OWN} good --noise_folder . --n_clients 2": "maximize is si_sdri, which needs cl",
    f"{OWN} nowhere": "no manifest nowhere/train.csv",
    f"{OWN} lists": "no file of column noisy exists, such as ./a0.wav, ./a1.wav, ./b0",
    f"{OWN} strange": "strange/train.csv lacks the columns ['ID']; it has ['name']",
    f"{OWN} good --noise_folder x --n_clients 2": "noise_folder: there is no folder x",
    ADAPT: "needs --recordings VALUE (folder; each sub-folder is a person",
    f"{ADAPT} --recordings nowhere": "there is no folder nowhere",
    f"{ADAPT} --recordings empty": "there are no recordings in empty",
    f"{ADAPT} --recordings noisy.wav": "no folder noisy.wav: it is a file; name the",
    f"{ADAPT} --recordings packed": "in packed: 1 left out (1 archive that is not",
    f"{ADAPT} --recordings silent": "silent holds no recording that can be used: too",
    f"{ADAPT} --recordings people": "too little to train on; it takes 6 rows",
    f"{ADAPT} --recordings people --start people": "people is no trained model",
    # -------------------------------------------------------------------- enhancement
    "enhance noisy.wav": "the following arguments are required: --out",
    "enhance nowhere.wav --out clean": "there is no nowhere.wav",
    "enhance empty --out clean": "there are no recordings in empty",
    "enhance gtcrn --out clean": "gtcrn is a model: which recordings",
    "enhance noisy.wav --out noisy.wav": "noisy.wav: file exists",
    "enhance noisy.wav --out clean --dry 2": "--dry must lie between 0 and 1, not 2",
    "enhance noisy.wav --out clean --piece 0": "it must be above 0, not 0",
    "enhance noisy.wav --out clean --overwite": "unrecognized arguments: --overwite",
    "enhance people noisy.wav --out people": "would be overwritten: give another --out",
    "live nowhere": "no model nowhere (those that come along: gtcrn)",
    "live nowhere.onnx": "there is no nowhere.onnx",
    "live --block 0": "it must be above 0, not 0",
    "live --block 10 --raw wav": "invalid choice: 'wav' (choose from",
    "export gtcrn --out model.tflite": "--out must end in .pt2 or .onnx",
    "export nowhere --out model.onnx": "there is no model nowhere",
    "package people": "people is not the output folder of train.py",
    # ---------------------------------------------------------------------- scores
    "evaluate": "name one: an output folder of train.py, or --enhanced",
    "evaluate people": "people is not the output folder of train.py",
    "evaluate --enhanced nowhere": "there is no folder nowhere",
    "evaluate --enhanced people --references empty": "there are no recordings in empty",
    "evaluate --enhanced people --metrics pesq": "pesq needs --references",
    "evaluate --enhanced people --references people --metrics mos": "no metric mos",
    "evaluate compare nowhere people": "there is no nowhere",
    "figures convergance people": "invalid choice: 'convergance'",
    "figures convergence nowhere": "nowhere",
    # ------------------------------------------------------------ lists and manifests
    "manifests": "the following arguments are required: data_folder",
    "manifests noisy.wav": "there is no folder noisy.wav",
    "manifests people --person [": "person: '[' is no regular expression",
    "manifests people --person xyz": "'xyz' finds nobody in ann.wav",
    "manifests people --row_seconds -1": "it must be above 0, not -1",
    "experiments nowhere.yaml": "nowhere.yaml: no such file or directory",
    "experiments misspelt.yaml": "misspelt.yaml lists no experiments",
    "experiments broken.yaml": "broken.yaml is no YAML",
    "experiments recipes/MiniLibriFSD50K/experiments.yaml x": "no experiment x; it has",
    "experiments recipes/MiniLibriFSD50K/experiments.yaml --jobs 0": "it must be above",
    # ------------------------------------------------------------------- federations
    "fed": "which script, or which YAML file?",
    "fed nowhere.py": "there is no script nowhere.py",
    "fed nowhere.yaml": "there is no nowhere.yaml",
    "fed plain.yaml": "plain.yaml needs the keys 'brain' and 'federation'",
    "fed hparams/fedenhance.yaml --federation x.yaml": "--federation is for scripts",
}
"""Command -> what must be said."""

FILES = {
    "misspelt.yaml": "base: hparams/fedenhance.yaml\nlearning_rat: 0.1\n",
    "broken.yaml": "a: [1, 2\nb: 3\n",
    "nobody.yaml": "base: hparams/nobody.yaml\n",
    "unknown.yaml": "base: hparams/fedenhance.yaml\n"
    "brain: !name:fedenhance.training.separation.Separatoin\n",
    "missing.yaml": "base: hparams/fedenhance.yaml\nbrain: !name:my_module.MyBrain\n",
    "wrong.yaml": "base: hparams/fedenhance.yaml\nmixing:\n  sample_rat: 8000\n",
    "plain.yaml": "seed: 1\noutput_folder: out\n",
    "strange/train.csv": "name\na.wav\n",
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with what a newcomer may have in it."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("empty", "people", "lists", "good", "strange", "packed", "silent"):
        (folder / name).mkdir()
    (folder / "packed/a.zip").touch()
    soundfile.write(folder / "silent/a.wav", np.zeros(24000), 16000)
    noise = 0.1 * np.random.default_rng(0).standard_normal(24000)
    for name in ("noisy.wav", "people/ann.wav", "people/bob.wav"):
        soundfile.write(folder / name, noise, 16000)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for split in ("train", "valid", "test"):
        rows = [f"{who}{i},1,{who},$data_root/" for who in "ab" for i in range(2)]
        missing = [row + row.partition(",")[0] + ".wav" for row in rows]
        head = "ID,duration,spk_id,noisy"
        (folder / f"lists/{split}.csv").write_text("\n".join([head, *missing]))
        there = [row + "noisy.wav" for row in rows]
        (folder / f"good/{split}.csv").write_text("\n".join([head, *there]))
    return folder


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_ends_in_one_line(command, desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    name, *words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [name, *words])
    with pytest.raises(SystemExit) as end:
        if name == "fed":
            fed()
        else:
            start(name, words)
    said = capsys.readouterr().err
    if isinstance(end.value.code, str):
        said = end.value.code
    assert end.value.code
    assert len(said.splitlines()) == 1
    assert said.startswith(f"{name}:" if name == "fed" else f"fedenhance {name}: ")
    assert MISTAKES[command] in said


def test_every_command_is_tried():
    assert {line.split()[0] for line in MISTAKES} == {*COMMANDS, "fed"}
