"""What a command line asks for: which values are refused, where results go."""

import re
from pathlib import Path

import pytest

from fedenhance.based_yaml import sources_of
from fedenhance.data.available import check_device
from fedenhance.training.settings import read_command
from tests.test_yaml import ROOT

HPARAMS = str(ROOT / "hparams/fedenhance.yaml")


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("rounds", "0", "a whole number, 1 or more"),
        ("rounds", "ten", "a whole number, 1 or more"),
        ("epochs", "2.5", "a whole number, 1 or more"),
        ("n_clients", "-1", "a whole number, 1 or more"),
        ("batch_size", "true", "a whole number, 1 or more"),
        ("segment", "0", "a number above 0"),
        ("segment", "null", "a number above 0"),
        ("p_supervised", "1.5", "a number from 0 to 1"),
        ("max_grad_norm", "-1", "a number, 0 or more"),
        ("seed", "-3", "a whole number, 0 or more"),
        ("loop_noise", "3", "true or false"),
        ("built_in_corpus", "[1]", "text"),
        ("models", "foo", "a mapping or an object"),
        ("weighting", "uniform", "a mapping or an object, such as '!name:fed"),
        ("save_folder", "elsewhere", "results/fedenhance/1234/save"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named_with_what_is_allowed(
    key, value, allowed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=rf"^{key} is .*; it must be {allowed}"
    ) as told:
        read_command([HPARAMS, f"--{key}", value])
    assert len(str(told.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--max_grad_norm", "much"], "--max_grad_norm: invalid float value: 'much'"),
        (["--precision", "fp8"], "--precision: invalid choice: 'fp8'"),
    ],
)
def test_what_speechbrain_refuses_is_told_in_a_line(options, told):
    with pytest.raises(ValueError, match=told) as error:
        read_command([HPARAMS, *options])
    assert len(str(error.value).splitlines()) == 1


def test_a_mapping_that_is_new_is_told_in_a_line():
    strategy = "{strategy: !name:flwr.serverapp.strategy.FedAvgM {server_momentum: 1}}"
    with pytest.raises(ValueError, match="another structure.*strategy") as told:
        read_command([HPARAMS, "--federation", strategy])
    assert len(str(told.value).splitlines()) == 1


def test_what_is_no_yaml_is_told_in_a_line():
    with pytest.raises(ValueError, match="is no YAML") as told:
        read_command([HPARAMS, "--live", "["])
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("path", sorted(ROOT.glob("**/hparams/*.yaml")), ids=str)
def test_the_values_of_every_experiment_are_allowed(path):
    given = {"output_folder": "out"}
    for source in map(Path, sources_of(path)):
        for key in re.findall(r"(?m)^(\w+): *!PLACEHOLDER", source.read_text()):
            given.setdefault(key, "here")
    read_command([str(path), *(f"--{key}={value}" for key, value in given.items())])


@pytest.mark.parametrize(
    ("options", "folder"),
    [
        ("", "1234"),
        ("--p_supervised 0", "1234"),  # as the YAML has it
        ("--p_supervised 0.5", "1234-p_supervised_0.5"),
        ("--seed 3", "3"),
        ("--rounds 5 --device cpu --runtime ray", "1234"),
        ("--n_clients 4 --maximize null", "1234-maximize_null-n_clients_4"),
        ("--models !include:models/convtasnet.yaml", "1234-models_convtasnet"),
        ("--weighting !name:fed.weighting.uniform --seed 2", "2-weighting_fed.weight"),
        ("--max_grad_norm 3 --p_labelled 0.5", "1234-max_grad_norm_3.0-p_labelled_0.5"),
        ("--debug", "1234/debug"),
        ("--debug --output_folder results/fedenhance/x", "x/debug"),
    ],
)
def test_folders_differ_where_settings_do(options, folder):
    found = read_command([HPARAMS, *options.split()]).folder
    assert str(found).startswith(f"results/fedenhance/{folder}")


def test_many_settings_still_make_a_name_that_file_systems_take():
    options = [f"--{key}=0.25" for key in ("p_supervised", "p_labelled", "segment")]
    options += ["--snr_range", "[-5, 10]", "--noise_folder", "/data/" + "n" * 300]
    options += ["--available_speech_percentage", "0.3", "--p_single_mix", "0.2"]
    names = {
        read_command([HPARAMS, *options, "--valid_size", size]).folder.name
        for size in ("10", "20")
    }
    assert len(names) == 2
    assert max(map(len, names)) < 120


@pytest.mark.parametrize("name", ["cudaa", "cuda:x", "gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_named(name):
    with pytest.raises(
        ValueError, match=f"device is '{name}'; (it must be cpu|PyTorch)"
    ):
        check_device(name)
    check_device("cpu")


def test_a_run_option_counts_where_it_differs_from_what_holds_without_it():
    plain = read_command([HPARAMS]).settings
    same = ["--max_grad_norm", "5", "--grad_accumulation_factor", "1"]
    assert read_command([HPARAMS, *same]).settings == plain
    changed = read_command([HPARAMS, "--precision", "bf16"]).settings
    assert changed == {**plain, "precision": "bf16"}


@pytest.mark.parametrize("model", ["out", "out/package", "out/save/CKPT+1"])
@pytest.mark.parametrize("words", [[], ["--restart"]])
def test_no_run_takes_the_place_of_the_model_that_it_starts_from(
    words, model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    others = ["--output_folder", str(tmp_path / "out"), *words]
    with pytest.raises(
        ValueError, match=re.escape(f"{model} lies in the output_folder")
    ):
        read_command([HPARAMS, "--initial_model", model, *others])
    read_command([HPARAMS, "--initial_model", "out/weights", *others])
