"""What was rounded away: taken up as it was written, or not at all."""

import numpy as np
import pytest

from fedmedlora.errors import AdapterError
from fedmedlora.federation.own_rounding import OwnRounding

LEFT = np.array([0.25, -0.5, 0.125], np.float32)


@pytest.fixture
def folder(tmp_path):
    own = OwnRounding(tmp_path / "rounding")
    own.keep(LEFT, round=1)
    return tmp_path / "rounding"


def test_what_a_round_rounded_away_is_added_to_the_next(folder):
    assert OwnRounding(folder).recall(before=1) is None
    assert OwnRounding(folder).recall(before=2).tolist() == LEFT.tolist()


def test_a_flipped_bit_is_not_sent_even_where_the_value_could_be_one(folder):
    file = folder / "round-0001" / "rounding.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 0x01  # another finite number
    file.write_bytes(bytes(data))
    with pytest.raises(AdapterError, match="its hash is another"):
        OwnRounding(folder).recall(before=2)


@pytest.mark.parametrize("name", ["rounding.npy", "rounding.sha256"])
def test_nothing_is_taken_up_without_its_hash(folder, name):
    (folder / "round-0001" / name).unlink()
    with pytest.raises(AdapterError, match="remove the folder to go on without it"):
        OwnRounding(folder).recall(before=2)


def test_an_array_of_another_kind_is_refused_though_its_hash_is_right(folder):
    OwnRounding(folder).keep(np.array([0.5]), round=2)
    with pytest.raises(AdapterError, match="not what is written there"):
        OwnRounding(folder).recall(before=3)
