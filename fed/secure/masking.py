"""Sums of vectors of which nobody sees a single one.

The cryptography of secure aggregation, after Bonawitz et al., "Practical Secure
Aggregation for Privacy-Preserving Machine Learning" (CCS 2017), figure 4. Each member
of a session has a place, 0, 1, ... Member u sends its vector x with masks, modulo 2^64:

    y_u = x_u + own_u + sum over v > u of pair_uv - sum over v < u of pair_uv

A pair's mask comes from a key that only the two can agree on, and cancels in the sum.
If v vanishes, those who are left give the server shares (Shamir, 1979) of the seed of
its keys, and it takes its pairs' masks off; of those who are left, they give it shares
of the seeds of their own masks. Nobody gives both for one member, so that no y is bare.

X25519, HKDF with SHA-256, ChaCha20 and ChaCha20-Poly1305 are from ``cryptography``,
Shamir's shares from ``pycryptodome``, whose secrets have 16 bytes: seeds have these,
and keys follow from them. All are made anew for each session.
"""

import os
from math import ceil, log2

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SEED_BYTES = 16
KEY_BYTES = 32
SHARE_BYTES = 2 * SEED_BYTES + 16
"""Of two seeds, encrypted, with Poly1305's tag."""
LARGEST = 2.0**24
"""Of values that are summed."""


# ----------------------------------------------------------------- numbers in a sum


def scale(members):
    """Say how much a value of 1 is, so that a sum of all members stays below 2^62.

    Example
    -------
    >>> scale(64) == 2.0**32
    True
    """
    return 2.0 ** (62 - log2(LARGEST) - ceil(log2(members)))


def encode(values, members):
    """Write real numbers as integers modulo 2^64.

    Arguments
    ---------
    values : numpy.ndarray
        float64, ``(values,)``.
    members : int
        How many vectors are added at most.

    Returns
    -------
    numpy.ndarray
        uint64, ``(values,)``.

    Raises
    ------
    ValueError
        When a value is not finite, or too large to be added.

    Example
    -------
    >>> a, b = (encode(np.array([x]), members=2) for x in (0.5, -2.0))
    >>> decode(a + b, members=2)
    array([-1.5])
    """
    if not (np.abs(values) <= LARGEST).all():
        raise ValueError(f"not finite, or above {LARGEST:.3g}: cannot be summed")
    return np.rint(values * scale(members)).astype(np.int64).view(np.uint64)


def decode(total, members):
    """Read a sum of vectors of :func:`encode`."""
    return total.view(np.int64) / scale(members)


# --------------------------------------------------------------------------- keys


def new_seed():
    """Draw a seed from the operating system."""
    return os.urandom(SEED_BYTES)


def expand(secret, purpose):
    """Derive a key, as RFC 5869 says."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose).derive(secret)


def private_key(seed):
    """Make the key pair that follows from a seed."""
    return X25519PrivateKey.from_private_bytes(expand(seed, b"key pair"))


def public_key(seed):
    """Return the half of a key pair that everybody may know."""
    return private_key(seed).public_key().public_bytes_raw()


def agree(seed, key, purpose):
    """Derive the key that two members share, from one's seed and the other's half.

    Raises
    ------
    ValueError
        When the other's half is a point of small order.
    """
    secret = private_key(seed).exchange(X25519PublicKey.from_public_bytes(key))
    return expand(secret, purpose)


def is_key(key):
    """Tell whether something can be agreed with."""
    try:
        agree(bytes(SEED_BYTES), key, b"")
    except (TypeError, ValueError):
        return False
    return True


# -------------------------------------------------------------------------- masks


def keystream(key, size):
    """Draw a vector of uint64 that looks random to who has no key.

    A key is used for one vector only, so that the nonce may be constant.
    """
    cipher = Cipher(algorithms.ChaCha20(key, nonce=bytes(16)), mode=None)
    return np.frombuffer(cipher.encryptor().update(bytes(8 * size)), np.dtype("<u8"))


def own_mask(seed, size):
    """Draw a member's own mask."""
    return keystream(expand(seed, b"own mask"), size)


def pair_mask(key, place, other, size):
    """Draw what one member adds for another, which is minus what that one adds."""
    stream = keystream(key, size)
    return stream if place < other else np.negative(stream)


def mask(vector, own_seed, key_seed, place, keys, session):
    """Hide a vector.

    Arguments
    ---------
    vector : numpy.ndarray
        uint64, ``(values,)``.
    own_seed, key_seed : bytes
        Of the member's own mask, and of its key pair for pairs' masks.
    place : int
        The member's.
    keys : dict of bytes
        Public keys for pairs' masks by place, of all who have dealt shares.
    session : bytes

    Returns
    -------
    numpy.ndarray
    """
    hidden = vector + own_mask(own_seed, len(vector))
    for other, key in keys.items():
        if other != place:
            shared = agree(key_seed, key, b"pair mask" + session)
            hidden += pair_mask(shared, place, other, len(vector))
    return hidden


def unmask(total, own_seeds, key_seeds, keys, session):
    """Take the masks off a sum.

    Arguments
    ---------
    total : numpy.ndarray
        The sum of what members sent, uint64, ``(values,)``.
    own_seeds : dict of bytes
        By place, of those who sent a vector.
    key_seeds : dict of bytes
        By place, of those who have dealt shares and sent none.
    keys : dict of bytes
        Public keys for pairs' masks, by place.
    session : bytes

    Returns
    -------
    numpy.ndarray
    """
    total = total.copy()
    for place, seed in own_seeds.items():
        total -= own_mask(seed, len(total))
        for gone, key_seed in key_seeds.items():
            shared = agree(key_seed, keys[place], b"pair mask" + session)
            total -= pair_mask(shared, place, gone, len(total))
    return total


# ------------------------------------------------------------------------- shares


def direction(session, sender, receiver):
    """Name the purpose of the key by which one sends to another."""
    return b"shares" + session + bytes(f" {sender} {receiver}", "ascii")


def deal(key_seed, own_seed, cipher_seed, place, keys, threshold, session):
    """Deal shares of a member's two seeds, encrypted for each member.

    Arguments
    ---------
    key_seed, own_seed, cipher_seed : bytes
        The first two are shared; the last is of the key pair for encryption.
    place : int
        The member's.
    keys : list of bytes
        Public keys for encryption of all members, by place.
    threshold : int
        Shares from which a seed can be made again.
    session : bytes

    Returns
    -------
    list of bytes
    """
    seeds = (key_seed, own_seed)
    shares = [Shamir.split(threshold, len(keys), seed) for seed in seeds]
    dealt = []
    for other, ((_, of_key), (_, of_own)) in enumerate(zip(*shares, strict=True)):
        key = agree(cipher_seed, keys[other], direction(session, place, other))
        # The key is for this one message, so that the nonce may be constant.
        cipher = ChaCha20Poly1305(key)
        dealt.append(cipher.encrypt(bytes(12), of_key + of_own, None))
    return dealt


def receive(dealt, cipher_seed, sender, place, key, session):
    """Decrypt what another member has dealt to one.

    Returns
    -------
    of_key, of_own : bytes
        Shares of its two seeds; empty if they were not meant for this member.
    """
    shared = agree(cipher_seed, key, direction(session, sender, place))
    try:
        both = ChaCha20Poly1305(shared).decrypt(bytes(12), dealt, None)
    except InvalidTag:
        return b"", b""
    return both[:SEED_BYTES], both[SEED_BYTES:]


def recover(shares, threshold):
    """Make a seed again.

    Arguments
    ---------
    shares : dict of bytes
        From the place of who held it; an empty one counts as none.
    threshold : int

    Returns
    -------
    bytes or None
        None if there are too few.
    """
    held = [(place + 1, share) for place, share in shares.items() if share]
    return Shamir.combine(held[:threshold]) if len(held) >= threshold else None
