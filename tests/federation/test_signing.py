"""Keys in files that only their owner reads; signatures of one writing, one purpose, one key."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from fedmedlora.canonical import canonical
from fedmedlora.errors import ConfigError, RunError
from fedmedlora.federation.signing import (
    is_signed,
    make_key,
    public_file,
    public_key,
    read_key,
    read_public_key,
    sign,
)


def test_a_new_pair_is_the_owners_alone_and_its_halves_fit(tmp_path):
    path = tmp_path / "keys" / "north.key"
    public = make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_public_key(public_file(path)) == public == public_key(read_key(path))
    signature = sign(b"statement", read_key(path), purpose="reply")
    assert is_signed(b"statement", signature, public, purpose="reply")


def test_a_key_is_never_overwritten(tmp_path):
    public = make_key(tmp_path / "key")
    with pytest.raises(RunError, match="exists already"):
        make_key(tmp_path / "key")
    assert public_key(read_key(tmp_path / "key")) == public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666, 0o610, 0o601])
def test_a_private_key_that_others_may_use_is_refused_saying_what_to_do(tmp_path, mode):
    path = tmp_path / "key"
    make_key(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"0{mode:o}.*chmod 600"):
        read_key(path)
    path.chmod(0o400)
    read_key(path)


def test_what_is_no_key_of_the_kind_is_named(tmp_path):
    def written(data, name="key"):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o600)
        return tmp_path / name

    with pytest.raises(ConfigError, match="cannot be read"):
        read_key(tmp_path / "none")
    with pytest.raises(ConfigError, match="no private key"):
        read_key(written(b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n"))
    other = generate_private_key(SECP256R1())
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    with pytest.raises(ConfigError, match="another kind"):
        read_key(written(other.private_bytes(*pem, serialization.NoEncryption())))
    locked = other.private_bytes(*pem, serialization.BestAvailableEncryption(b"word"))
    with pytest.raises(ConfigError, match="passphrase"):
        read_key(written(locked))
    for text in (b"ab" * 31, b"AB" * 32, b"\xff" * 64):
        with pytest.raises(ConfigError):
            read_public_key(written(text, "key.pub"))


def test_a_signature_fits_one_statement_one_key_and_one_purpose(tmp_path):
    public, other = make_key(tmp_path / "1"), make_key(tmp_path / "2")
    signature = sign(b"statement", read_key(tmp_path / "1"), purpose="reply")
    assert not is_signed(b"statemenT", signature, public, purpose="reply")
    assert not is_signed(b"statement", signature, other, purpose="reply")
    assert not is_signed(b"statement", signature, public, purpose="log-head")
    for bit in range(0, 512, 37):
        bits = bytearray.fromhex(signature)
        bits[bit // 8] ^= 1 << bit % 8
        assert not is_signed(b"statement", bits.hex(), public, purpose="reply")
    for text in ("", "zz", signature.upper(), f" {signature}", signature[:-2]):
        assert not is_signed(b"statement", text, public, purpose="reply")


def test_equal_values_have_one_writing():
    told = {"b": [1, 1.0, -0.0, True, None], "a": {"é": float("nan"), "x": -float("inf")}}
    turned = {"a": dict(reversed(told["a"].items())), "b": tuple(told["b"])}
    assert canonical(told) == canonical(turned)
    assert canonical(told) == (rb'{"a":{"x":"-inf","\u00e9":"nan"},"b":[1,1.0,-0.0,true,null]}')
    with pytest.raises(TypeError, match="object"):
        canonical({"a": object()})


def test_a_key_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        make_key(tmp_path / "file" / "key")
