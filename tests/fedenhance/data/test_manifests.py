"""What each recording serves for."""

import pytest

from fedenhance.data.audio import Segment
from fedenhance.data.manifests import (
    assign_clients,
    assign_groups,
    choose_groups,
    load_manifest,
    save_manifest,
    take_isolated_noises,
)
from tests import damage


def recordings(speakers="aabb"):
    return {
        f"{speaker}{i}": {
            "spk_id": speaker,
            "speech": Segment("s.wav", 0, 4),
            "noise": Segment("n.wav", 0, 4),
            "noisy": None,
        }
        for i, speaker in enumerate(speakers)
    }


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_load_replaces_the_data_root(tmp_path):
    path = write(
        tmp_path / "train.csv",
        "ID,duration,spk_id,speech,speech_start,speech_stop,noise\n"
        "u,4.0,7,$data_root/s.flac,10,20,$data_root/n.wav\n",
    )
    row = load_manifest(path, "/data")["u"]
    assert row["speech"] == Segment("/data/s.flac", 10, 20)
    assert row["noise"] == Segment("/data/n.wav", 0, 0)
    assert row["noisy"] is None


def test_saved_manifests_load_again(tmp_path):
    rows = {
        "u": {
            "duration": 4.0,
            "spk_id": "7",
            "speech": None,
            "noise": None,
            "noisy": Segment("/x.wav", 1, 2),
            "extra": Segment("/y.wav", 3, 4),
            "noise_gain": 0.5,
        }
    }
    save_manifest(tmp_path / "m.csv", rows)
    loaded = load_manifest(tmp_path / "m.csv", "")
    assert loaded == rows


def test_saved_manifests_find_their_files_on_another_machine(tmp_path):
    rows = recordings("a")
    rows["a0"]["speech"] = Segment("/here/data/s.wav", 0, 4)
    save_manifest(tmp_path / "m.csv", rows, data_root="/here/data")
    row = load_manifest(tmp_path / "m.csv", "/there")["a0"]
    assert row["speech"].path == "/there/s.wav"
    assert row["noise"].path == "n.wav"  # not below the root: as it is


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        load_manifest(tmp_path / "none.csv", "")


def test_an_empty_manifest_is_named(tmp_path):
    path = write(tmp_path / "none.csv", "ID,duration,noisy\n")
    with pytest.raises(ValueError, match=r"none\.csv lists no recordings"):
        load_manifest(path, "")


def test_a_row_without_audio_is_named(tmp_path):
    path = write(tmp_path / "m.csv", "ID,duration,noisy,noise\nu7,4.0,,\n")
    with pytest.raises(ValueError, match="u7 has neither"):
        load_manifest(path, "")


def test_the_last_recordings_of_each_speaker_give_noise_alone():
    rows = take_isolated_noises(recordings("aaaabb"), 0.5)
    assert [bool(row["speech"]) for row in rows.values()] == [1, 1, 0, 0, 1, 0]
    assert all(row["noise"] for row in rows.values())


def test_real_recordings_keep_their_role():
    rows = recordings("aa")
    rows["r"] = {
        "spk_id": "a",
        "speech": None,
        "noise": None,
        "noisy": Segment("r", 0, 0),
    }
    assert take_isolated_noises(rows, 0.5)["r"]["noisy"]


@pytest.mark.parametrize("bad", [0, -1, 1.5])
def test_speech_percentage_is_a_fraction(bad):
    with pytest.raises(ValueError, match="available_speech_percentage"):
        take_isolated_noises(recordings(), bad)


def test_without_a_partition_one_client_holds_everything():
    assert {row["client"] for row in assign_clients(recordings()).values()} == {"all"}


def test_a_partition_decides_who_holds_what():
    rows = assign_clients(recordings("ab"), lambda rows: {"7": ["b1"], "8": ["a0"]})
    assert [row["client"] for row in rows.values()] == ["8", "7"]


def test_a_larger_share_contains_the_smaller():
    members = [str(i) for i in range(40)]
    chosen = [
        {
            m
            for m, g in choose_groups(members, {"supervised": p}, 3).items()
            if g != "unsupervised"
        }
        for p in (0.25, 0.5, 1.0)
    ]
    assert [len(c) for c in chosen] == [10, 20, 40]
    assert chosen[0] < chosen[1] < chosen[2]


def test_the_seed_chooses_not_the_order():
    members = [str(i) for i in range(16)]
    a, b = (choose_groups(members, {"supervised": 0.5}, seed) for seed in (0, 1))
    assert a != b
    assert a == dict(choose_groups(members[::-1], {"supervised": 0.5}, 0))


def test_groups_do_not_overlap():
    groups = choose_groups(list("abcd"), {"supervised": 0.5, "self_training": 0.25}, 0)
    counts = {g: list(groups.values()).count(g) for g in set(groups.values())}
    assert counts == {"supervised": 2, "self_training": 1, "unsupervised": 1}


def test_shares_beyond_one_are_refused():
    with pytest.raises(ValueError, match="p_supervised"):
        choose_groups(["a"], {"supervised": 1.5}, 0)


def test_clients_are_supervised_as_a_whole():
    rows = assign_groups(recordings("aabbccdd"), "spk_id", {"supervised": 0.5}, 0)
    by_speaker = {}
    for row in rows.values():
        by_speaker.setdefault(row["spk_id"], set()).add(row["group"])
    assert sorted(map(sorted, by_speaker.values())) == [
        ["supervised"],
        ["supervised"],
        ["unsupervised"],
        ["unsupervised"],
    ]


def test_partly_labelled_clients():
    rows = assign_groups(
        recordings("aaaa"), "spk_id", {"supervised": 1}, 0, p_labelled=0.5
    )
    groups = sorted(row["group"] for row in rows.values())
    assert groups == ["supervised"] * 2 + ["unsupervised"] * 2


def test_without_clean_speech_nothing_is_supervised():
    rows = recordings("a")
    rows["a0"].update(speech=None, noisy=Segment("r", 0, 0))
    assign_groups(rows, "spk_id", {"supervised": 1}, 0)
    assert rows["a0"]["group"] == "unsupervised"


@pytest.fixture
def people(tmp_path):
    """Writes and loads the manifest of two recordings of half a second."""
    for name in ("s", "n"):
        damage.save(tmp_path / f"{name}0.wav")
        damage.save(tmp_path / f"{name}1.wav")

    def load(*lines, head="ID,duration,spk_id,speech,noise", encoding="utf-8"):
        text = "\n".join([head, *lines])
        (tmp_path / "m.csv").write_text(text, encoding=encoding)
        return load_manifest(tmp_path / "m.csv", tmp_path)

    return load


HEAD = "ID,duration,spk_id,speech,noise"
ROWS = [f"u{i},0.5,p,$data_root/s{i}.wav,$data_root/n{i}.wav" for i in range(2)]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", ";").replace("0.5", "0,5"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace("/", "\\"),
        lambda text: text.replace(",", " , "),
        lambda text: text.replace("0.5", ""),
        lambda text: text.replace("duration,", "").replace("0.5,", ""),
        lambda text: text.replace("\n", ",\n\n") + ",,",
    ],
    ids="; decimal-comma tab backslash blanks no-duration no-column ragged".split(),
)
def test_manifests_are_read_as_people_write_them(edit, people):
    expected = people(*ROWS)
    assert expected["u1"]["duration"] == 0.5
    head, *lines = edit("\n".join([HEAD, *ROWS])).splitlines()
    assert people(*lines, head=head) == expected
    assert people(*lines, head=head, encoding="utf-8-sig") == expected


def test_numbers_may_be_those_of_pandas(people, tmp_path):
    head = f"{HEAD},speech_start,speech_stop"
    row = people(f"{ROWS[0]},1000.0,5000.0".replace("0.5", ""), head=head)["u0"]
    assert row["speech"] == Segment(f"{tmp_path}/s0.wav", 1000, 5000)
    assert row["duration"] == 0.25


def test_without_a_duration_a_damaged_recording_stays_to_be_named(people):
    row = people("u,,p,$data_root/lost.wav,$data_root/n0.wav")["u"]
    assert row["duration"] == 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*ROWS, ROWS[0]], "line 4, column ID: u0 is that of line 2"),
        ([ROWS[0].replace("u0", "")], "line 2, column ID: is empty"),
        (
            [ROWS[0].replace("0.5", "long")],
            "line 2, column duration: 'long' is",
        ),
        ([ROWS[0].replace("0.5", "-1")], "line 2, column duration: '-1' is not sec"),
        ([ROWS[0].replace("0.5", "nan")], "line 2, column duration: 'nan' is not sec"),
        ([ROWS[0].replace("0.5", "9e9")], "line 2, column duration: '9e9' is not sec"),
        ([ROWS[0], f"{ROWS[1]},x"], r"line 3, has more cells than .*\['x'\]"),
        (['u,"' + "x" * 200_000], "is no table in UTF-8: field larger"),
    ],
)
def test_what_a_cell_cannot_be_is_named_with_file_line_and_column(
    lines, message, people
):
    with pytest.raises(ValueError, match=rf"m\.csv,? {message}"):
        people(*lines)


def test_positions_are_whole_numbers(people):
    head = f"{HEAD},noise_start"
    with pytest.raises(ValueError, match="column noise_start: '0.5' is not a whole"):
        people(f"{ROWS[0]},0.5", head=head)


def test_another_encoding_is_named(people):
    with pytest.raises(ValueError, match=r"m\.csv is no table in UTF-8: 'utf-8' codec"):
        people("ü,1,p,s,n", encoding="latin-1")
