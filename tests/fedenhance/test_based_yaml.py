"""A YAML file with a base is what it would be if it were written out."""

import pytest

from fedenhance.based_yaml import (
    check_overrides,
    load_hparams,
    open_hparams,
    save_hparams,
    sources_of,
)

BASE = """
seed: 1   # of all draws
folder: !ref results/<seed>
model: !include:parts/model.yaml
loader:
    batch_size: 4
    shuffle: True
"""


@pytest.fixture
def write(tmp_path):
    """Write files below a folder; the base and what it includes are there."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    write("base.yaml", BASE)
    write("parts/model.yaml", "width: 8\n")
    return write


def test_a_key_replaces_the_bases_or_is_added(write):
    own = write("recipe/own.yaml", "base: ../base.yaml\nloader: null\nnew: 2\n")
    assert load_hparams(own) == {
        **{"seed": 1, "folder": "results/1", "model": {"width": 8}},
        **{"loader": None, "new": 2},
    }


def test_a_file_that_changes_is_read_anew(write):
    own = write("own.yaml", "base: base.yaml\n")
    assert load_hparams(own)["seed"] == 1
    write("base.yaml", BASE.replace("seed: 1", "seed: 2"))
    assert load_hparams(own)["seed"] == 2
    write("own.yaml", "base: other.yaml\n")
    write("other.yaml", BASE.replace("seed: 1", "seed: 3"))
    assert load_hparams(own)["seed"] == 3
    assert sources_of(own) == [str(own.with_name("other.yaml")), str(own)]


def test_a_mapping_changes_what_it_names_within_the_bases(write):
    own = write("own.yaml", "base: base.yaml\nloader: {batch_size: 5, drop: 1}\n")
    loader = {"batch_size": 5, "shuffle": True, "drop": 1}
    assert load_hparams(own)["loader"] == loader


def test_a_mapping_with_a_tag_replaces_the_bases(write):
    own = write("own.yaml", "base: base.yaml\nloader: !new:dict {drop: 1}\n")
    assert load_hparams(own)["loader"] == {"drop": 1}


def test_references_of_the_base_see_the_new_values(write):
    own = write("own.yaml", "base: base.yaml\nseed: 2\n")
    assert load_hparams(own)["folder"] == "results/2"
    assert load_hparams(own, "seed: 3")["folder"] == "results/3"


def test_of_several_bases_the_later_counts(write):
    write("a.yaml", "base: base.yaml\nseed: 2\nnew: 2\n")
    write("b.yaml", "new: 3\n")
    own = write("own.yaml", "base: [a.yaml, b.yaml]\n")
    assert load_hparams(own)["folder"] == "results/2"
    assert load_hparams(own)["new"] == 3


def test_files_are_included_from_where_they_are_named(write):
    """By the base from beside it; by the file, and the command line, from beside it."""
    write("recipe/wide.yaml", "width: 16\n")
    own = write("recipe/own.yaml", "base: ../base.yaml\n")
    assert load_hparams(own)["model"] == {"width": 8}
    assert load_hparams(own, "model: !include:wide.yaml")["model"] == {"width": 16}
    own.write_text("base: ../base.yaml\nmodel: !include:wide.yaml\n")
    assert load_hparams(own)["model"] == {"width": 16}


def test_what_is_saved_stands_alone(write, tmp_path):
    own = write("recipe/own.yaml", "base: ../base.yaml\nseed: 2\n")
    (tmp_path / "out").mkdir()
    save_hparams(own, "loader: {batch_size: 5}", tmp_path / "out")
    saved = tmp_path / "out" / "hyperparams.yaml"
    assert saved.read_text().splitlines()[1] == f"# {own}"
    assert "# of all draws" in saved.read_text()
    expected = load_hparams(own, "loader: {batch_size: 5}")
    (tmp_path / "base.yaml").unlink()
    assert load_hparams(saved) == expected


@pytest.mark.parametrize("text", [BASE, "base: 64\nwidth: !ref 2 * <base>\n"])
def test_a_file_without_a_base_is_read_as_it_is(write, text):
    path = write("alone.yaml", text)
    assert open_hparams(path).getvalue() == text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("base: none.yaml", "own.yaml: there is no base none.yaml"),
        ("base: own.yaml", "own.yaml: its base own.yaml is based on it"),
        ("base: [base.yaml, loop.yaml]", "loop.yaml: its base own.yaml is based on it"),
        ("base: list.yaml", "list.yaml is no YAML mapping"),
    ],
)
def test_what_is_wrong_with_a_base_is_said(write, text, fault):
    write("loop.yaml", "base: own.yaml\n")
    write("list.yaml", "- 1\n")
    with pytest.raises((FileNotFoundError, ValueError), match=fault):
        load_hparams(write("own.yaml", text))


def test_an_unknown_override_is_named(write):
    own = write("own.yaml", "base: base.yaml\n")
    with pytest.raises(ValueError, match=r"own.yaml has no key sed; did you mean seed"):
        load_hparams(own, "sed: 2")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "p_superviced: 1",
            r"child.yaml: its base has no key p_superviced, .* p_superv",
        ),
        (
            "groups: {unsupervized: 1}",
            "groups has no key unsupervized; did you mean uns",
        ),
        ("groups: {semi-supervised: 1}", None),
        ("p_supervised_too: 1\nmine: !ref <p_supervised_too>", None),
        ("other: 1", None),
    ],
)
def test_a_misspelt_key_of_a_child_is_not_added_in_silence(tmp_path, line, said):
    text = "p_supervised: 0\ngroups:\n    unsupervised: 1\n"
    (tmp_path / "base.yaml").write_text(text)
    child = tmp_path / "child.yaml"
    child.write_text(f"base: base.yaml\n{line}\n")
    if said is None:
        assert open_hparams(child)
    else:
        with pytest.raises(ValueError, match=said):
            open_hparams(child)


def test_a_misspelt_key_within_a_mapping_of_the_command_line_is_named(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("groups:\n    unsupervised: 1\n")
    assert check_overrides(path, "groups: {supervised: 1}")
    with pytest.raises(ValueError, match="did you mean unsupervised"):
        check_overrides(path, "groups: {unsupervsied: 1}")


@pytest.mark.parametrize(
    ("live", "options"),
    [
        ("[!name:fedenhance.reports.live.TensorBoard]", {}),
        ("[!name:fedenhance.reports.live.WandB {project: mine}]", {"project": "mine"}),
    ],
)
def test_what_watches_may_be_named_on_the_command_line(live, options, tmp_path):
    words = f"live: {live}\noutput_folder: {tmp_path}"
    (sink,) = load_hparams("hparams/fedenhance.yaml", words)["live"]
    assert getattr(sink, "keywords", {}) == options
