"""Recipes of a checkout: read from its lists, adapted, run, told in a table."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import recipes
from benchmarks.stand_ins import LETTERS, MODELS, tokenizer, write, write_models

SCRIPT = """\
import sys
import speechbrain as sb
from hyperpyyaml import load_hyperpyyaml


class Line(sb.Brain):
    def compute_forward(self, batch, stage):
        return self.modules.line(batch.x.float()[:, None])

    def compute_objectives(self, predictions, batch, stage):
        return (predictions[:, 0] - batch.y.float()).square().mean()

    def on_stage_end(self, stage, loss, epoch):
        if stage == sb.Stage.TRAIN:
            self.train_loss = loss
        else:
            self.hparams.train_logger.log_stats(
                {"epoch": epoch},
                train_stats={"loss": self.train_loss},
                valid_stats={"loss": loss},
            )


if __name__ == "__main__":
    file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    with open(file) as stream:
        hparams = load_hyperpyyaml(stream, overrides)
    sb.create_experiment_directory(hparams["output_folder"], file, overrides)
    data = sb.dataio.dataset.DynamicItemDataset.from_csv(hparams["train_csv"])
    data.add_dynamic_item(float, takes="left", provides="x")
    data.add_dynamic_item(float, takes="right", provides="y")
    data.set_output_keys(["id", "x", "y"])
    brain = Line(hparams["modules"], hparams["optimizer"], hparams, run_opts)
    brain.fit(range(1, 10), data, data)
"""
YAML = """\
output_folder: results
train_csv: absent.csv
precision: fp16
modules: {line: !new:torch.nn.Linear {in_features: 1, out_features: 1}}
optimizer: !name:torch.optim.Adam {lr: 0.1}
train_logger: !new:speechbrain.utils.train_logger.FileTrainLogger
    save_file: !ref <output_folder>/train_log.txt
"""


@pytest.fixture
def checkout(tmp_path):
    """Lists of a recipe, of one without flags, and of one that calls no fit()."""
    root = tmp_path / "checkout"
    for folder in ("tests/recipes", "tests/samples/noise", "tests/samples/RIRs"):
        (root / folder).mkdir(parents=True)
    (root / "recipes/Line").mkdir(parents=True)
    (root / "recipes/Line/train.py").write_text(SCRIPT)
    (root / "recipes/Line/prepare.py").write_text("pass")
    (root / "recipes/Line/line.yaml").write_text(YAML)
    (root / "tests/samples/line.csv").write_text("ID,left,right\na,1,2\nb,2,4\n")
    flags = "--train_csv=tests/samples/line.csv"
    (root / "tests/recipes/Line.csv").write_text(
        "Task, Script_file, Hparam_file, test_debug_flags\n"
        f"Line, recipes/Line/train.py, recipes/Line/line.yaml, {flags}\n"
        "Line, recipes/Line/train.py, recipes/Line/line.yaml,\n"
        f"Line, recipes/Line/prepare.py, recipes/Line/line.yaml, {flags}\n"
    )
    return root


def test_recipes_are_what_has_flags_and_a_fit(checkout):
    (found,) = recipes.recipes(checkout)
    assert (found["recipe"], found["task"]) == ("Line_row_02", "Line")
    assert found["script"] == "recipes/Line/train.py"


def test_a_folder_without_lists_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no tests/recipes/\*\.csv"):
        recipes.recipes(tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_short_list_is_repeated_with_new_ids(tmp_path, suffix):
    path = tmp_path / f"short{suffix}"
    if suffix == ".csv":
        path.write_text("ID, wav\na, 1\nb, 2\nc, 3\n")
    else:
        path.write_text(json.dumps({"a": {"wav": 1}, "b": {"wav": 2}, "c": {}}))
    samples = tmp_path / "samples"
    samples.mkdir()
    (samples / "b.npy").write_text("codes")
    longer = recipes.lengthened(path, tmp_path / "lists", samples, rows=4)
    if suffix == ".csv":
        ids = [row["ID"] for row in recipes.table(longer)]
    else:
        ids = list(json.loads(longer.read_text()))
    assert ids == ["a", "b", "c", "a_1", "b_1", "c_1"]
    assert recipes.lengthened(longer, tmp_path, samples, rows=6) == longer
    assert (samples / "b_1.npy").read_text() == "codes"


def test_flags_become_those_of_a_processor_without_a_network(checkout):
    (recipe,) = recipes.recipes(checkout)
    with open(checkout / recipe["yaml"], "a") as file:
        file.write("tokenizer_file: https://example.org/a/letters.model?dl=1\n")
        file.write("NOISE_DATASET_URL: https://example.org/noise.zip\n")
    _, _, *words = recipes.arguments(recipe, checkout)
    assert words == [
        "--train_csv=tests/tmp/lists/line.csv",
        "--NOISE_DATASET_URL=tests/tmp/noise.zip",
        "--precision=fp32",
        "--tokenizer_file=tests/tmp/letters.model",
        "--device=cpu",
    ]


def test_each_client_gets_a_shard_and_two_rounds_their_epochs(checkout):
    (checkout / "tests/samples/s.tar").write_text("shard")
    (recipe,) = recipes.recipes(checkout)
    recipe["flags"] = "--train_shards=tests/samples/s.tar --N_epochs=1 --ctc_epochs=1"
    (checkout / "tests/tmp").mkdir()
    _, _, *words = recipes.arguments(recipe, checkout)
    assert words[:3] == [
        "--train_shards=tests/tmp/{0..1}.tar",
        "--N_epochs=2",
        "--ctc_epochs=1",
    ]
    assert (checkout / "tests/tmp/1.tar").read_text() == "shard"


@pytest.mark.parametrize(
    ("status", "output", "said"),
    [
        (0, "", "trained"),
        (None, "", "trained, not evaluated in time"),
        (-9, "", "killed by SIGKILL"),
        (1, "x.y.LocalEntryNotFoundError: no file", "needs download"),
        (1, "log\nfed: no rows", "trained, then refused: no rows"),
        (1, "a.ValueError: first\nKeyError: 'b'\n", "trained, then KeyError: 'b'"),
    ],
)
def test_verdicts(status, output, said):
    assert recipes.verdict(status, output, ["2", "1"]) == said


def test_a_command_has_its_time_of_a_processor(tmp_path):
    code = "import time\ntime.sleep(1.2)\nprint('slept', flush=True)\nwhile True: pass"
    status, output, seconds = recipes.run([sys.executable, "-c", code], tmp_path, {}, 0)
    assert (status, output) == (None, "slept\n")
    assert seconds > 2


def test_a_recipe_is_run_both_ways_once(checkout, tmp_path, capsys):
    command = ["--speechbrain", str(checkout), "--only", "Line_row_02", "--out"]
    recipes.main([*command, str(tmp_path / "recipes.csv")])
    (row,) = recipes.table(tmp_path / "recipes.csv")
    assert (row["central"], row["federated"]) == ("trained", "trained")
    for way in recipes.WAYS:
        first, last = map(float, row[f"{way}_losses"].split())
        assert last < first
    assert not (checkout / "tests/tmp").exists()

    (tmp_path / "recipes.csv").write_text(
        (tmp_path / "recipes.csv").read_text().replace("trained,", "known,")
    )
    recipes.main([*command, str(tmp_path / "recipes.csv")])
    assert "| known |" in capsys.readouterr().out
    assert (
        recipes.markdown([row])
        .splitlines()[4]
        .startswith("| `Line/train.py line.yaml` | Line | trained | ")
    )


def test_every_loss_of_the_table_that_moves_centrally_moves_federated():
    table = recipes.table(recipes.OUT)
    both = [r for r in table if r["central_losses"] and r["federated_losses"]]
    assert both
    for row in both:
        if recipes.moved(row["central_losses"]):
            assert recipes.moved(row["federated_losses"]), row["recipe"]


def test_the_stand_in_of_a_tokenizer_knows_letters_and_any_token(tmp_path):
    import sentencepiece

    tokenizer(tmp_path / "tokenizer.ckpt")
    processor = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.ckpt"))
    known = processor.encode("THE CHILD")
    assert max(known) <= len(LETTERS) + 3
    assert processor.decode(known) == "the child"
    assert processor.decode([4999])
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.ckpt"]


def test_the_stand_in_of_a_tokenizer_has_no_more_tokens_than_a_network(tmp_path):
    import sentencepiece
    from speechbrain.utils.parameter_transfer import Pretrainer

    paths = {"tokenizer": str(tmp_path / "tokenizer.ckpt")}
    loadables = {"tokenizer": sentencepiece.SentencePieceProcessor()}
    write({"p": Pretrainer(loadables=loadables, paths=paths), "output_neurons": 23})
    processor = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.ckpt"))
    assert max(processor.encode(LETTERS)) == 22


def test_stand_ins_are_written_where_files_are_missing(tmp_path):
    import torch
    from speechbrain.utils.parameter_transfer import Pretrainer

    line = torch.nn.Linear(1, 1)
    paths = {"line": str(tmp_path / "a/line.ckpt"), "net": "https://example.org/a.ckpt"}
    hparams = {"p": Pretrainer(loadables={"line": line, "net": line}, paths=paths)}
    assert write(hparams) == [tmp_path / "a/line.ckpt"]
    assert torch.load(tmp_path / "a/line.ckpt").keys() == {"weight", "bias"}
    assert write(hparams) == []


def test_stand_ins_of_models_serve_speechbrains_interfaces(tmp_path, monkeypatch):
    import torch
    from speechbrain.inference.ASR import EncoderDecoderASR
    from speechbrain.inference.vocoders import HIFIGAN

    monkeypatch.chdir(tmp_path)
    recogniser, vocoder = MODELS
    (written,) = write_models(f"source: {recogniser}\n")
    assert written.parent == Path(recogniser)
    write_models(f"source: {vocoder}\n")
    encoder = EncoderDecoderASR.from_hparams(recogniser)
    encoded = encoder.encode_batch(torch.zeros(1, 16000), torch.ones(1))
    assert encoded.shape[-1] == 512  # what the recipes of understanding expect
    waves = HIFIGAN.from_hparams(vocoder).decode_batch(torch.zeros(1, 80, 10))
    assert waves.shape[:2] == (1, 1)
