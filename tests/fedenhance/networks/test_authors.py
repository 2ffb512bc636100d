"""Weights travel between the authors' code and ours without a change."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fedenhance.networks.authors import (
    load_reference,
    main,
    read_weights,
    to_reference,
)

FIXTURES = Path(__file__).parents[2] / "fixtures"
MEMBERS = ["original", "improved", "groupcomm", "causal"]


def read_fixture(member):
    with np.load(FIXTURES / f"sudormrf_{member}.npz") as arrays:
        arrays = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    weights = {k[8:]: v for k, v in arrays.items() if k.startswith("weights/")}
    gradients = {k[10:]: v for k, v in arrays.items() if k.startswith("gradients/")}
    return weights, gradients, arrays["input"].squeeze(1), arrays["output"]


def relative_error(actual, expected):
    return (actual - expected).norm() / expected.norm()


@pytest.mark.parametrize("member", MEMBERS)
def test_output_and_gradients_are_the_authors(member):
    weights, gradients, mixture, expected = read_fixture(member)
    separator = load_reference(weights, member)
    estimates = separator(mixture)
    assert relative_error(estimates, expected) < 1e-5
    estimates.square().mean().backward()
    ours = {
        name: parameter.grad
        for name, parameter in separator.named_parameters()
        if parameter.grad is not None
    }
    ours = to_reference(ours, member)
    for name, gradient in gradients.items():
        assert relative_error(ours[name], gradient) < 1e-4, name


@pytest.mark.parametrize("member", MEMBERS)
def test_there_are_as_many_parameters_as_in_the_authors_network(member):
    weights, *_ = read_fixture(member)
    separator = load_reference(weights, member)
    assert sum(p.numel() for p in separator.parameters()) == sum(
        w.numel() for w in weights.values()
    )


@pytest.mark.parametrize("member", MEMBERS)
def test_a_round_trip_through_files_is_exact(member, tmp_path):
    weights, *_ = read_fixture(member)
    theirs, ours, back = (str(tmp_path / name) for name in ("a.pt", "b.ckpt", "c.pt"))
    torch.save(weights, theirs)
    main([theirs, "--member", member, "--out", ours])
    load_reference(weights, member).load_state_dict(read_weights(ours))
    main([ours, "--member", member, "--back", "--out", back])
    returned = read_weights(back)
    assert returned.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(returned[name], weight), name


def test_weights_saved_by_data_parallel_load():
    weights, *_ = read_fixture("improved")
    wrapped = {f"module.{name}": weight for name, weight in weights.items()}
    assert (
        to_reference(
            load_reference(wrapped, "improved").state_dict(), "improved"
        ).keys()
        == weights.keys()
    )


def test_a_pickled_module_is_refused(tmp_path):
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(ValueError, match="would run whatever code"):
        read_weights(path)


def test_a_file_without_a_state_dict_is_refused(tmp_path):
    path = tmp_path / "list.pt"
    torch.save([torch.zeros(1)], path)
    with pytest.raises(ValueError, match=r"list.pt does not hold a state dict"):
        read_weights(path)


@pytest.mark.parametrize("member", MEMBERS)
def test_weights_of_another_member_are_refused(member):
    other = "groupcomm" if member == "improved" else "improved"
    weights, *_ = read_fixture(other)
    with pytest.raises(ValueError, match=f"not the weights of the {member} member"):
        load_reference(weights, member)


def test_an_unknown_member_is_refused():
    with pytest.raises(ValueError, match="member must be one of causal, groupcomm"):
        load_reference({}, "attentive")


def test_the_command_line_names_the_file_it_cannot_convert(tmp_path, capsys):
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(SystemExit):
        main([str(path), "--member", "causal", "--out", str(tmp_path / "out")])
    assert "module.pt holds pickled" in capsys.readouterr().err
