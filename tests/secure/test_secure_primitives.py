"""Published vectors for what is taken from libraries; Shamir's shares by hand."""

import hmac

import numpy as np
import pytest
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from fedmedlora.errors import FederationError
from fedmedlora.federation.flower import combine_shares
from fedmedlora.federation.secure import keys
from fedmedlora.federation.secure.masks import add_mask, take_mask

# RFC 7748, section 6.1.
ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def b(text):
    return bytes.fromhex(text)


def expanded(secret, about):
    """HKDF-SHA256 (RFC 5869) without salt, of one block, from HMAC alone."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    info = b"fedmedlora secure aggregation 1\n" + about
    return hmac.digest(extracted, info + b"\x01", "sha256")


def test_public_halves_are_those_of_rfc_7748():
    assert keys.public_half(b(ALICE)).hex() == ALICE_PUBLIC
    assert keys.public_half(b(BOB)).hex() == BOB_PUBLIC


def test_an_agreed_key_is_made_of_the_shared_secret_of_rfc_7748():
    shared = X25519PrivateKey.from_private_bytes(b(ALICE)).exchange(
        X25519PublicKey.from_public_bytes(b(BOB_PUBLIC))
    )
    assert shared.hex() == SHARED
    wanted = expanded(b(SHARED), b'{"for":"pair"}')
    assert keys.agreed_key(b(ALICE), b(BOB_PUBLIC), {"for": "pair"}) == wanted
    assert keys.agreed_key(b(BOB), b(ALICE_PUBLIC), {"for": "pair"}) == wanted
    assert keys.agreed_key(b(BOB), b(ALICE_PUBLIC), {"for": "own"}) != wanted


def test_the_derivation_is_that_of_rfc_5869():
    # Test case 3, to check the check: no salt, no info, the first 32 bytes.
    extracted = hmac.digest(bytes(32), b"\x0b" * 22, "sha256")
    okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert hmac.digest(extracted, b"\x01", "sha256").hex() == okm
    assert keys.derived_key(b"\x0b" * 22, {}) == expanded(b"\x0b" * 22, b"{}")


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), bytes(31), b""])
def test_a_public_key_of_small_order_or_another_length_is_refused(public):
    with pytest.raises(FederationError, match="cannot be used"):
        keys.agreed_key(b(ALICE), public, {})


def test_the_stream_is_the_counter_mode_of_sp_800_38a():
    # F.5.5, CTR-AES256: what the library makes of NIST's key, counter and text.
    key = b("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    text = b(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    counter = b("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    assert Cipher(AES256(key), CTR(counter)).encryptor().update(text).hex() == (
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )


def test_a_mask_begins_with_nists_block_of_zeros():
    # AESAVS, KeySbox 256, first: the cipher of 16 zero bytes.
    key = b("c47b0294dbbbee0fec4757f22ffeee3587ca4730c3d33b691df38bab076bc558")
    row = np.zeros(2, np.uint64)
    add_mask(row, key)
    assert row.astype("<u8").tobytes().hex() == "46f2fb342d6f0ab477476fc501242c5f"


def test_a_mask_of_many_chunks_is_one_stream():
    key, size = b(ALICE), 3 * (1 << 15) + 5
    row = np.zeros(size, np.uint64)
    add_mask(row, key)
    stream = Cipher(AES256(key), CTR(bytes(16))).encryptor().update(bytes(8 * size))
    assert row.astype("<u8").tobytes() == stream


def test_a_mask_that_was_added_is_taken_away_again():
    row = np.arange(100_000, dtype=np.uint64)
    masked = row.copy()
    add_mask(masked, b(ALICE))
    assert not np.array_equal(masked, row)
    take_mask(masked, b(BOB))
    add_mask(masked, b(BOB))
    take_mask(masked, b(ALICE))
    assert np.array_equal(masked, row)


def test_masks_go_round_at_the_end_of_the_ring():
    row = np.array([2**64 - 1], np.uint64)
    add_mask(row, b(ALICE))
    plain = np.zeros(1, np.uint64)
    add_mask(plain, b(ALICE))
    assert (int(row[0]) + 1) % 2**64 == int(plain[0])


def test_shamir_by_hand():
    # GF(2^128), a line: the secret 5 and the slope 3. At 1: 5 + 3 = 6 (exclusive or). At 2: 2 * 3
    # is 6 shifted once, 5 + 6 = 3. At 3: 3 * 3 = 6 + 3 = 5, 5 + 5 = 0. Two of them give 5 again;
    # a padded secret of 15 bytes is 15 bytes and a 1.
    def share(number, block):
        return number.to_bytes(4, "little") + block.to_bytes(16, "big")

    line = {1: 6, 2: 3, 3: 0}
    secret = (5).to_bytes(16, "big")
    padded = {1: secret[:15] + b"\x06", 2: secret[:15] + b"\x03", 3: secret[:15] + b"\x00"}
    assert {n: int.from_bytes(block, "big") for n, block in padded.items()} == line
    for pair in ((1, 2), (1, 3), (2, 3)):
        assert Shamir.combine([(n, line[n].to_bytes(16, "big")) for n in pair]) == secret
    # And through Flower's blocks: the same line with the secret 1, which is 15 zeros and the pad.
    ones = {1: 1 ^ 3, 2: 1 ^ 6, 3: 1 ^ 5}
    assert combine_shares([share(n, ones[n]) for n in (3, 1)]) == bytes(15)


@pytest.mark.parametrize(("threshold", "count"), [(2, 3), (3, 4), (6, 8)])
def test_any_threshold_of_shares_gives_the_key_back_and_fewer_do_not(threshold, count):
    secret = keys.new_key()
    shares = keys.split(secret, threshold=threshold, shares=count)
    assert all(keys.is_share(one, number) for number, one in enumerate(shares, 1))
    assert keys.join(shares[-threshold:]) == secret
    assert keys.join(shares[:threshold][::-1]) == secret
    assert keys.join(shares) == secret
    try:
        found = keys.join(shares[: threshold - 1])
    except FederationError:
        found = b""
    assert found != secret


def test_shares_of_two_keys_or_one_twice_do_not_fit():
    one = keys.split(keys.new_key(), threshold=2, shares=3)
    with pytest.raises(FederationError, match="do not fit"):
        keys.join([one[0], one[0]])
    short = keys.split(b"short", threshold=2, shares=3)
    with pytest.raises(FederationError, match="do not fit"):
        keys.join(short[:2])


@pytest.mark.parametrize("number", [1, 2, 300])
def test_the_form_of_a_share_is_looked_at(number):
    good = number.to_bytes(4, "little") + bytes(48)
    assert keys.is_share(good, number)
    assert not keys.is_share(good, number + 1)
    assert not keys.is_share(good[:-1], number)
    assert not keys.is_share(good.hex(), number)


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def test_what_is_sealed_opens_with_its_key_and_about_its_matter_alone():
    key, about = keys.new_key(), {"from": "ash", "to": "elm"}
    sealed = keys.seal(key, b"plain", about)
    assert keys.unseal(key, sealed, about) == b"plain"
    assert keys.seal(key, b"plain", about) != sealed
    for wrong in (
        (keys.new_key(), sealed, about),
        (key, sealed, {"from": "elm", "to": "ash"}),
        (key, sealed[:-1], about),
        (key, b"", about),
        *(
            (key, sealed[:n] + bytes([sealed[n] ^ 1]) + sealed[n + 1 :], about)
            for n in range(len(sealed))
        ),
    ):
        with pytest.raises(FederationError, match="cannot be opened"):
            keys.unseal(*wrong)


def test_keys_are_new_every_time():
    made = {keys.new_key() for _ in range(100)}
    assert len(made) == 100
    assert {len(key) for key in made} == {32}
