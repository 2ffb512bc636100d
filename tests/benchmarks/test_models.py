"""The authors' networks are built from checkouts, with our weights, beside our code."""

import sys

import pytest
import torch

from benchmarks import models

NETWORK = """
import fedenhance.models.part
import torch

class GroupCommSudoRmRf(torch.nn.Module):
    def __init__(self, **sizes):
        super().__init__()
        self.sizes = sizes
    def load_state_dict(self, weights):
        self.names = set(weights)
    def forward(self, mixture):
        return mixture.expand(-1, fedenhance.models.part.SOURCES, -1)
"""


@pytest.fixture
def authors(tmp_path):
    """A checkout whose package has the name of ours."""
    package = tmp_path / "fedenhance" / "fedenhance"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models" / "__init__.py").touch()
    (package / "models" / "part.py").write_text("SOURCES = 3")
    (package / "models" / "groupcomm_sudormrf_v2.py").write_text(NETWORK)
    return tmp_path


def test_the_authors_network_has_our_sizes_weights_and_interface(authors):
    network = models.build_authors("sudormrf_groupcomm_small", authors)
    _, sizes = models.build_ours("sudormrf_groupcomm_small")
    assert network.network.sizes["group_size"] == sizes["num_groups"]
    assert "encoder.weight" in network.network.names
    assert network(torch.ones(2, 5)).shape == (2, 3, 5)


def test_our_package_is_there_again(authors):
    before = {k: v for k, v in sys.modules.items() if k.startswith("fedenhance")}
    path = list(sys.path)
    models.build_authors("sudormrf_groupcomm_small", authors)
    after = {k: v for k, v in sys.modules.items() if k.startswith("fedenhance")}
    assert before.keys() <= after.keys() and "fedenhance.models" not in after
    assert all(after[name] is module for name, module in before.items())
    assert sys.path == path


def test_the_authors_code_is_optional():
    assert models.build_authors("sudormrf_groupcomm", None) is None
    assert models.build_authors("convtasnet", "/checkouts") is None


def test_without_gtcrn_or_what_it_needs_ours_is_measured_alone(tmp_path, capsys):
    assert models.build_authors("gtcrn", tmp_path) is None
    assert "clone github.com/Xiaobin-Rong/gtcrn" in capsys.readouterr().out
    (tmp_path / "gtcrn").mkdir()
    (tmp_path / "gtcrn" / "gtcrn.py").write_text("import not_installed")
    assert models.build_authors("gtcrn", tmp_path) is None
    assert "No module named 'not_installed'" in capsys.readouterr().out


def test_a_checkout_that_is_not_there_is_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match="clone github.com/etzinis/sudo_rm_rf"):
        models.checkout(tmp_path, "sudo_rm_rf")


def test_repeated_blocks_are_compiled_one_by_one(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    network, sizes = models.build_ours("sudormrf_groupcomm_small")
    assert models.compile_blocks(network) == sizes["num_blocks"] == len(compiled)
    assert len({type(block) for block in compiled}) == 1
