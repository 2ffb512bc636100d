"""Arrays that travel in one piece arrive as they were."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fed.arrays import pack as pack_array
from fed.arrays import to_record, view
from fed.packing import LENGTH, NAME, pack, unpack

ARRAYS = {"b": np.arange(6.0).reshape(2, 3), "a": np.array(3), "none": np.zeros((0, 2))}


def content():
    metrics, config = MetricRecord({"loss": 0.5}), ConfigRecord({"client": "a"})
    records = {"arrays": to_record(ARRAYS), "metrics": metrics, "config": config}
    return RecordDict(records | {"numbers": ArrayRecord()})


def test_what_was_packed_is_what_arrives():
    packed = content()
    pack(packed)
    assert {*packed} == {"metrics", "config", NAME}
    assert unpack(packed)
    before, after = content(), packed
    assert {k: dict(v) for k, v in before.items()} == {
        k: dict(v) for k, v in after.items()
    }
    arrays = view(after["arrays"])
    assert [*arrays] == [*ARRAYS]  # their order is part of it
    assert all(
        (arrays[n] == a).all() and arrays[n].dtype == a.dtype for n, a in ARRAYS.items()
    )


def test_the_same_arrays_are_the_same_bytes_whoever_gets_them():
    one, other = content(), content()
    other["config"]["client"] = "b"
    pack(one), pack(other)
    assert one[NAME][NAME].data == other[NAME][NAME].data


def test_what_has_no_arrays_stays_as_it_is():
    only = RecordDict({"config": ConfigRecord({"client": "a"})})
    pack(only)
    assert [*only] == ["config"] and not unpack(only)


def hidden(value):
    """Put something where packed arrays are expected."""
    return RecordDict({NAME: value})


def described(head, data=b""):
    """Pack bytes under a description of one's own."""
    whole = LENGTH.pack(len(head)) + head + data
    return hidden(ArrayRecord({NAME: pack_array(np.frombuffer(whole, "uint8"))}))


@pytest.mark.parametrize(
    "forged",
    [
        hidden(MetricRecord()),
        hidden(ArrayRecord()),
        hidden(to_record({"other": np.zeros(3)})),
        hidden(ArrayRecord({NAME: pack_array(np.full(9, 255, "uint8"))})),
        described(b""),
        described(b"[1]"),
        described(b'{"arrays": 3}'),
        described(b'{"arrays": [[1, 2, 3, 4, 5]]}'),
        described(b'{"arrays": [["a", "int8", [2], "numpy.ndarray", 2]]}', b"1"),
        described(b'{"arrays": [["a", "int8", [2], "numpy.ndarray", 2]]}', b"123"),
        described(b'{"arrays": [["a", "int8", [2], "numpy.ndarray", -2]]}'),
        described(b'{"arrays": [["a", "int8", [2], "numpy.ndarray", 1e300]]}'),
    ],
)
def test_what_cannot_be_unpacked_is_refused(forged):
    with pytest.raises(ValueError, match=f"'{NAME}'"):
        unpack(forged)


def test_a_record_is_not_sent_twice():
    packed = content()
    pack(packed)
    packed["arrays"] = ArrayRecord()
    with pytest.raises(ValueError, match="'arrays', which was sent beside"):
        unpack(packed)
