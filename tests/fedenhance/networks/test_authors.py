"""Weights travel between the authors' code and ours without a change."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fedenhance.based_yaml import PACKAGE, load_hparams
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


def udase_checkpoint(num_bases=8, channels=4, hidden=6, num_blocks=2):
    """What the baseline of the CHiME-7 UDASE task saves: its names, kernel, depth."""
    norm = {"gamma": hidden, "beta": hidden}
    shapes = {"encoder.weight": (num_bases, 1, 81), "decoder.weight": (2 * 8, 2, 81)}
    shapes |= {"ln.gamma": num_bases, "ln.beta": num_bases, "mask_net.0.weight": 1}
    shapes |= {"bottleneck.weight": (channels, num_bases, 1), "bottleneck.bias": 4}
    shapes |= {"mask_net.1.weight": (2 * num_bases, channels, 1)}
    shapes |= {"mask_net.1.bias": 2 * num_bases}
    block = {"proj_1x1.conv.weight": (hidden, channels, 1), "proj_1x1.conv.bias": 6}
    block |= {f"proj_1x1.norm.{name}": size for name, size in norm.items()}
    block |= {"proj_1x1.act.weight": 1, "final_norm.act.weight": 1}
    block |= {f"final_norm.norm.{name}": size for name, size in norm.items()}
    block |= {"res_conv.weight": (channels, hidden, 1), "res_conv.bias": channels}
    for depth in range(7):
        place = f"spp_dw.{depth}"
        block |= {f"{place}.conv.weight": (hidden, 1, 5), f"{place}.conv.bias": hidden}
        block |= {f"{place}.norm.{name}": size for name, size in norm.items()}
    for number in range(num_blocks):
        shapes |= {f"sm.{number}.{name}": shape for name, shape in block.items()}
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def test_the_checkpoint_of_a_challenge_loads_and_starts_its_recipe():
    weights = udase_checkpoint()
    separator = load_reference(weights, "improved")
    sizes = {"kernel": separator.encoder.conv.kernel_size, "hop": separator.encoder.hop}
    assert sizes == {"kernel": (81,), "hop": 40}
    assert separator.encoder.padded_length(1) == 40 * 2**7
    assert separator(torch.randn(1, 6001)).shape == (1, 2, 6001)
    returned = to_reference(separator.state_dict(), "improved")
    assert all(returned[name].equal(weight) for name, weight in weights.items())
    recipe = PACKAGE / "recipes" / "UDASE" / "hparams" / "remixit.yaml"
    overrides = {"data_folder": ".", "initial_model": "."}
    ours = load_hparams(recipe, "\n".join(f"{k}: {v}" for k, v in overrides.items()))
    ours = to_reference(ours["models"]["separator"].state_dict(), "improved")
    assert {n for n in ours if not re.match(r"sm\.[2-7]\.", n)} == weights.keys()
    assert ours["encoder.weight"].shape == (512, 1, 81)


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
