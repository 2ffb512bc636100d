"""The cryptography of secure aggregation."""

import numpy as np
import pytest

from fed.secure import masking

SESSION = b"session of a test"


def test_numbers_keep_what_single_precision_has():
    values = np.random.default_rng(0).normal(size=1000)
    for members in (2, 3, 64, 1000):
        error = masking.decode(masking.encode(values, members), members) - values
        assert np.abs(error).max() <= 0.5 / masking.scale(members) <= 2.0**-28


def test_sums_of_the_largest_values_do_not_wrap():
    for members in (2, 3, 64, 1000):
        largest = masking.encode(np.array([masking.LARGEST, -masking.LARGEST]), members)
        with np.errstate(over="raise"):
            total = sum(largest for _ in range(members))
        expected = [members * masking.LARGEST, -members * masking.LARGEST]
        assert masking.decode(total, members).tolist() == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, 2 * masking.LARGEST])
def test_values_that_cannot_be_summed_are_refused(value):
    with pytest.raises(ValueError, match="cannot be summed"):
        masking.encode(np.array([0.0, value]), members=2)


def test_keystreams_are_chacha20():
    # RFC 8439, appendix A.1, test vectors 1 and 2: key and nonce zero, counter 0 and 1.
    stream = masking.keystream(bytes(32), 16).tobytes()
    assert stream[:8].hex() == "76b8e0ada0f13d90"
    assert stream[64:72].hex() == "9f07e7be5551387a"


def test_both_sides_agree_and_nobody_else_does():
    a, b, c = (masking.new_seed() for _ in range(3))
    keys = [masking.public_key(seed) for seed in (a, b, c)]
    assert masking.agree(a, keys[1], b"x") == masking.agree(b, keys[0], b"x")
    assert masking.agree(a, keys[1], b"x") != masking.agree(a, keys[1], b"y")
    assert masking.agree(a, keys[1], b"x") != masking.agree(c, keys[1], b"x")


@pytest.mark.parametrize("key", [b"", bytes(32), b"short", 7, None])
def test_what_is_no_key_is_none(key):
    assert not masking.is_key(key)
    assert masking.is_key(masking.public_key(masking.new_seed()))


def test_shares_make_a_seed_again_if_there_are_enough():
    seeds = [[masking.new_seed() for _ in range(3)] for _ in range(5)]
    ciphers = [masking.public_key(cipher) for _, _, cipher in seeds]
    dealt = masking.deal(*seeds[2], 2, ciphers, 3, SESSION)
    assert {len(share) for share in dealt} == {masking.SHARE_BYTES}
    got = {
        place: masking.receive(dealt[place], cipher, 2, place, ciphers[2], SESSION)
        for place, (_, _, cipher) in enumerate(seeds)
    }
    for kind in (0, 1):
        shares = {place: both[kind] for place, both in got.items()}
        assert masking.recover(shares, 3) == seeds[2][kind]
        few = {place: shares[place] for place in (1, 4)}
        assert masking.recover(few, 3) is None
        assert masking.recover(few, 2) != seeds[2][kind]
        assert masking.recover({**few, 0: b"", 3: shares[3]}, 3) == seeds[2][kind]


def test_shares_are_for_one_member_and_session_only():
    seeds = [[masking.new_seed() for _ in range(3)] for _ in range(2)]
    ciphers = [masking.public_key(cipher) for _, _, cipher in seeds]
    dealt = masking.deal(*seeds[0], 0, ciphers, 2, SESSION)
    cipher = seeds[1][2]
    right = dealt[1], cipher, 0, 1, ciphers[0], SESSION
    assert all(masking.receive(*right))
    for place, wrong in ((0, dealt[0]), (2, 1), (5, b"another session"), (0, b"short")):
        arguments = [*right]
        arguments[place] = wrong
        assert masking.receive(*arguments) == (b"", b"")
