"""Who holds which rows: partitions, and the account of them."""

from collections import Counter

import pytest

from fed import holdings, partition

ROWS = {f"r{i}": {"spk_id": f"s{i % 6}", "label": i % 3, "s": 4.0} for i in range(60)}


def dealt(clients):
    return Counter(i for ids in clients.values() for i in ids)


@pytest.mark.parametrize(
    "clients",
    [
        partition.by_column(ROWS, "spk_id"),
        partition.grouped(ROWS, 4),
        partition.iid(ROWS, 7),
        partition.dirichlet(ROWS, 5, "label"),
        partition.size_skew(ROWS, 6),
    ],
)
def test_every_row_has_one_owner(clients):
    assert dealt(clients) == Counter(list(ROWS))


def test_groups_are_never_split():
    owners = {}
    for client, ids in partition.grouped(ROWS, 4).items():
        for i in ids:
            assert owners.setdefault(ROWS[i]["spk_id"], client) == client


def test_more_clients_than_groups_is_refused():
    with pytest.raises(ValueError, match="spk_id.*6"):
        partition.grouped(ROWS, 7)


def test_a_missing_column_is_named():
    with pytest.raises(ValueError, match="'region'"):
        partition.by_column(ROWS, "region")


def test_iid_is_seeded():
    assert partition.iid(ROWS, 3, seed=1) == partition.iid(ROWS, 3, seed=1)
    assert partition.iid(ROWS, 3, seed=1) != partition.iid(ROWS, 3, seed=2)


def test_small_alpha_concentrates_labels():
    def labels(alpha):
        clients = partition.dirichlet(ROWS, 3, "label", alpha)
        return sum(len({ROWS[i]["label"] for i in ids}) for ids in clients.values())

    assert labels(0.05) < labels(1000) == 9


def test_hopeless_dirichlet_is_refused():
    with pytest.raises(ValueError, match="raise alpha"):
        partition.dirichlet(ROWS, 30, "label", alpha=1e-3, max_tries=5)


def test_sizes_follow_the_power_law():
    rows = dict.fromkeys(range(6000))
    sizes = [len(ids) for ids in partition.size_skew(rows, 3, alpha=1).values()]
    assert sizes[0] / sizes[1] == pytest.approx(2, rel=0.01)
    assert sizes[0] / sizes[2] == pytest.approx(3, rel=0.01)


def test_from_file(tmp_path):
    path = tmp_path / "who.csv"
    path.write_text("ID,client\nr0,a\nr5,b\nr1,a\n")
    assert partition.from_file(ROWS, path) == {"a": ["r0", "r1"], "b": ["r5"]}


@pytest.mark.parametrize("text", ["ID,who\nr0,a\n", "ID,client\nnobody,a\n"])
def test_from_a_wrong_file(tmp_path, text):
    path = tmp_path / "who.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="who.csv"):
        partition.from_file(ROWS, path)


def test_holdings_are_written(tmp_path):
    clients = partition.grouped(ROWS, 4)
    holdings.report(ROWS, clients, tmp_path, amount="s", columns=["spk_id", "s"])
    lines = (tmp_path / "clients_data.csv").read_text().splitlines()
    assert lines[0] == "client,rows,s,spk_id,s_q1,s_q2,s_q3"
    assert lines[1] == "0,20,80.0,2,4.0,4.0,4.0"
    assert (tmp_path / "figures" / "clients_spk_id.png").stat().st_size > 1000
