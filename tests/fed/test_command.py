"""The command that federates a recipe: its script, or its YAML file."""

import json
import shutil
import subprocess
import sys

import pytest
import speechbrain as sb
import torch

from fed import command
from fed.command import Process, load, run, run_as_main
from fedenhance.run_folder.states import load as load_state
from tests.fed import recipe
from tests.fed.conftest import YAML

HERE = YAML.parent
ROOT = HERE.parents[1]
SCRIPT = [HERE / "train.py", HERE / "train.yaml", "--device", "cpu"]


@pytest.fixture
def as_main(monkeypatch):
    """Let this process be what it was, once a script has run in it."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def script(tmp_path, as_main, read):
    """Run the recipe's script federated; return the rows of rounds.csv."""

    def script(*options, federation=HERE / "federation.yaml"):
        folder = f"--output_folder={tmp_path / 'out'}"
        run([*SCRIPT, folder, *options, f"--federation={federation}"])
        return read("rounds.csv")

    return script


def test_the_command_trains_and_leaves_results(tmp_path, read):
    command = [sys.executable, "-m", "fed", YAML, "--device", "cpu"]
    options = ["--rounds", "2", "--output_folder", tmp_path / "out"]
    subprocess.run([*command, *options], cwd=ROOT, check=True, timeout=120)
    assert [row["round"] for row in read("rounds.csv")] == ["1", "2"]
    assert (tmp_path / "out/hyperparams.yaml").exists()
    assert list((tmp_path / "out/save").glob("CKPT+*/model.ckpt"))


def test_a_script_is_federated_as_it_is(script, tmp_path):
    rows = script()
    assert [row["examples"] for row in rows] == ["32"] * 3
    assert float(rows[-1]["valid_loss"]) < float(rows[0]["valid_loss"])
    # Its own evaluation follows, of the best model.
    log = (tmp_path / "out/train_log.txt").read_text().splitlines()
    assert [line.split(" - ")[0][:9] for line in log[-2:]] == ["round: 3,", "stage: te"]


def test_a_new_folder_holds_nothing_to_test(script):
    with pytest.raises(ValueError, match="save/federated holds no model to test"):
        script("--test_only")


def test_clients_get_what_a_ready_loader_has(script):
    whole = script()
    ready = script("--restart", "--ready", "True", f"--seed={7}")
    assert [row["examples"] for row in ready] == [row["examples"] for row in whole]


def test_a_run_of_a_script_goes_on_where_it_stopped(script, tmp_path):
    script("--train_size=16")
    before = (tmp_path / "out/clients.csv").read_bytes()
    script("--train_size=16")
    assert (tmp_path / "out/clients.csv").read_bytes() == before


def test_the_recipes_checkpoints_stay_its_own(script, tmp_path):
    folder = tmp_path / "out"
    words = [*SCRIPT, f"--output_folder={folder}", "--number_of_epochs=1"]
    run_as_main([str(word) for word in words])
    central = sorted(folder.glob("save/CKPT+*"))
    assert len(central) == 1
    script()
    assert sorted(folder.glob("save/CKPT+*")) == central
    assert len(sorted(folder.glob("save/federated/CKPT+*/model.ckpt"))) == 1


def test_one_client_equals_the_script_itself(script, tmp_path, as_main):
    one = tmp_path / "one.yaml"
    one.write_text(
        "federation: !new:fed.Federation\n    rounds: 3\n"
        "    partition: !name:fed.partition.iid {n_clients: 1}\n"
    )
    script(federation=one)
    ours = load_state(tmp_path / "out/save/federated/federation.pt")["arrays"]
    run_as_main([*map(str, SCRIPT), f"--output_folder={tmp_path / 'central'}"])
    newest = max((tmp_path / "central/save").glob("CKPT+*/model.ckpt"))
    for name, weight in torch.load(newest).items():
        assert weight.numpy() == pytest.approx(ours[f"model.{name}"], abs=1e-6), name


def test_the_server_of_a_script_trains_on_validation_data_or_others(
    script, tmp_path, read
):
    def federation(*lines):
        file = tmp_path / "server.yaml"
        lines = "\n    ".join(["federation: !new:fed.Federation", *lines])
        file.write_text(lines + "\n    rounds: 1\n")
        return file

    valid = federation("server_training: {dataset: valid}")
    assert script("--ready=True", federation=valid)[0]["server_num-examples"] == "16"
    others = federation(
        "datasets: !name:tests.fed.recipe.datasets", "server_training: {dataset: test}"
    )
    shutil.rmtree(tmp_path / "out")
    assert script(federation=others)[0]["server_num-examples"] == "16"
    shutil.rmtree(tmp_path / "out")
    absent = federation("server_training: {dataset: held_out}")
    with pytest.raises(ValueError, match="no 'held_out', only.*'datasets'"):
        script(federation=absent)


def test_a_second_call_of_fit_must_be_chosen(script, tmp_path):
    with pytest.raises(ValueError, match="Scaled and then Scaled.*--fit"):
        script("--calls=2")
    assert sb.Brain.fit.__module__ == "speechbrain.core"


def test_two_calls_in_a_script_are_refused_before_the_first_trains(
    tmp_path, as_main, script
):
    text = (HERE / "train.py").read_text()
    end = text.index("    brain.evaluate(")
    again = "    brain.fit(hparams['epoch_counter'], loaders['train'])\n"
    twice = tmp_path / "twice.py"
    twice.write_text(text[:end] + again + text[end:])
    words = [twice, *SCRIPT[1:], f"--output_folder={tmp_path / 'out'}"]
    words += [f"--federation={HERE / 'federation.yaml'}"]
    with pytest.raises(ValueError, match=r"in lines \d+ and \d+: say by --fit"):
        run(words)
    assert not (tmp_path / "out/rounds.csv").exists()
    run([*words, "--fit=1"])
    assert (tmp_path / "out/rounds.csv").exists()


def test_another_call_than_the_first_is_federated_on_request(script, tmp_path):
    script("--calls=2", "--fit=2")
    assert (tmp_path / "out/save/federated/federation.pt").exists()
    # The first call trained centrally: the second one's model goes on from there.
    central = list((tmp_path / "out/save").glob("CKPT+*"))
    assert len(central) == 1


def test_a_script_without_a_federation_is_told_what_to_add(script, tmp_path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("rounds: 1\n")
    with pytest.raises(ValueError, match=r"empty\.yaml has no key 'federation'"):
        script(federation=empty)


def test_other_processes_run_the_script_up_to_fit(script, tmp_path, monkeypatch):
    script()
    trained = load_state(tmp_path / "out/save/federated/federation.pt")
    monkeypatch.setattr("fed.command.Process.sites", {})
    monkeypatch.setattr("fed.command.Process.stops_at_fit", False)
    monkeypatch.setattr("fed.command.keep_freed_memory", lambda: None)
    folder = f"--output_folder={tmp_path / 'other'}"
    command = [*SCRIPT, folder, f"--federation={HERE / 'federation.yaml'}"]
    site = load(json.dumps([str(word) for word in command]))
    assert site.names() == ["client00", "client01", "client02", "client03"]
    assert site.brain.modules.state_dict().keys() == trained["arrays"].keys()
    assert not (tmp_path / "other/rounds.csv").exists()


@pytest.fixture
def serve(tmp_path, as_main, monkeypatch):
    """Run the recipe's script on a server whose clients learn nothing."""
    monkeypatch.setattr("fed.command.Process.sites", {})
    monkeypatch.setattr("fed.command.keep_freed_memory", lambda: None)
    script = f"--federation={HERE / 'federation.yaml'}"
    words = [*SCRIPT, f"--output_folder={tmp_path / 'out'}", script]

    def serve(train):
        command.serve(json.dumps([str(word) for word in words]), train)
        return (tmp_path / "out/train_log.txt").read_text()

    return serve


def train_here(site):
    """Train on clients in this process instead."""
    site.federation.simulate(site)


def test_a_server_runs_the_script_to_its_end(serve):
    assert serve(train_here).splitlines()[-1].startswith("stage: test")


def test_what_fails_on_a_server_after_training_is_told(serve, tmp_path):
    def train(site):
        train_here(site)
        site.brain.evaluate = None  # as where there are no test data

    assert serve(train).splitlines()[-1].startswith("round: 3")
    said = (tmp_path / "out/log.txt").read_text()
    assert "out; what the script does after fit() failed on this machine" in said


def test_a_script_that_exits_with_zero_is_done(serve, tmp_path):
    def train(site):
        train_here(site)
        site.brain.evaluate = lambda *args, **kwargs: sys.exit(0)

    serve(train)
    assert "failed on this machine" not in (tmp_path / "out/log.txt").read_text()


def test_what_fails_on_a_server_in_training_fails(serve):
    def train(site):
        raise RuntimeError("no nodes")

    with pytest.raises(RuntimeError, match="no nodes"):
        serve(train)
    assert Process.serve is None
    with pytest.raises(RuntimeError, match="the script exits: no data"):
        serve(lambda site: sys.exit("no data"))


def test_a_run_builds_its_brain_and_its_datasets_once(tmp_path, monkeypatch):
    built = []

    def count(owner, name):
        wrapped = getattr(owner, name)

        def counting(*args, **kwargs):
            built.append(name)
            return wrapped(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    count(recipe, "datasets")
    count(recipe.Regression, "__init__")
    run([YAML, "--rounds", "1", f"--output_folder={tmp_path}"])
    assert sorted(built) == ["__init__", "datasets"]


def test_a_file_without_a_federation_is_refused(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("output_folder: results\n")
    with pytest.raises(ValueError, match=r"train\.yaml.*federation"):
        run([path])


def test_a_misspelt_key_of_a_federation_is_named_before_anything_is_made(tmp_path):
    path = tmp_path / "federation.yaml"
    path.write_text("federation: !new:fed.Federation\n    roundz: 3\n")
    with pytest.raises(ValueError, match=r"has no key roundz; did you mean rounds\?"):
        run([*SCRIPT, "--federation", str(path)])
    with pytest.raises(ValueError, match=r"there is no file \S+none.yaml"):
        run([*SCRIPT, "--federation", str(tmp_path / "none.yaml")])


BARE = """
import sys
import torch
import speechbrain as sb

class Bare(sb.Brain):
    def compute_forward(self, batch, stage):
        return self.modules.model(batch["x"])
    def compute_objectives(self, predictions, batch, stage):
        return (predictions - batch["x"]).square().mean()

torch.manual_seed(0)
rows = [{"x": torch.full((2,), float(n))} for n in range(12)]
lr = float(sys.argv[1]) if len(sys.argv) > 1 else 0.001
model = torch.nn.Linear(2, 2)
brain = Bare({"model": model}, lambda weights: torch.optim.SGD(weights, lr))
brain.fit(range(2), rows, rows, train_loader_kwargs={"batch_size": 2})
"""


@pytest.fixture
def bare(tmp_path, as_main, monkeypatch):
    """Run a script without YAML, written down with other words in place of some."""
    monkeypatch.chdir(tmp_path)

    def bare(*words, **replaced):
        text = BARE
        for old, new in replaced.values():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "bare.py").write_text(text)
        (tmp_path / "fed.yaml").write_text(
            "federation: !new:fed.Federation\n    rounds: 3\n"
            "    partition: !name:fed.partition.iid {n_clients: 2}\n"
        )
        run(["bare.py", *words, "--federation=fed.yaml"])

    return bare


def test_a_script_without_yaml_is_federated_and_has_a_record(bare, tmp_path, read):
    bare()
    table = tmp_path / "results/rounds.csv"
    first = table.read_bytes()
    assert len(first.splitlines()) == 4
    bare()
    assert table.read_bytes() == first
    with pytest.raises(ValueError, match=r"arguments is \[\] there, not \['0\.002'\]"):
        bare("0.002")
    with pytest.raises(ValueError, match="script is .* --restart to remove"):
        bare(seed=("manual_seed(0)", "manual_seed(1)"))
    bare("0.002", "--restart")
    assert table.read_bytes() != first


@pytest.mark.parametrize(
    ("fit", "words", "told"),
    [
        ("lambda *_, **options: None", [], "was called for no Brain"),
        ("lambda *_, **options: sys.exit()", [], "was called for no Brain"),
        ("brain.fit", ["--fit=GAN"], "was called for Bare, and --fit says GAN"),
    ],
)
def test_a_script_in_which_nothing_is_federated_fails(bare, fit, words, told):
    with pytest.raises(ValueError, match=f"Nothing was federated: .*{told}"):
        bare(*words, fit=("brain.fit", f"({fit})"))


def test_a_script_may_call_the_federation_itself(as_main, tmp_path, read):
    """As train.py does; it trains and validates, in one process or on real machines."""
    text = "import sys\nfrom fed import recipe\nrecipe.main(sys.argv[1:])\n"
    (tmp_path / "own.py").write_text(text)
    out = f"--output_folder={tmp_path}/out"
    run([str(tmp_path / "own.py"), str(YAML), "--rounds=1", out])
    assert [row["round"] for row in read("rounds.csv")] == ["1"]


def test_a_fit_that_is_not_speechbrains_is_refused_before_it_trains(bare):
    own = """class Bare(sb.Brain):
    def fit(self, epochs, train_set, valid_set, **options):
        self.on_fit_start()
        raise AssertionError("it trains")
"""
    with pytest.raises(ValueError, match=r"Bare trains without Brain\.fit\(\)"):
        bare(fit=("class Bare(sb.Brain):\n", own))
