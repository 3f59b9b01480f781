from collections.abc import Sequence

import pytest

from countermark.domain.signal import IndexKind
from countermark.errors import InvalidSignal
from countermark.indexes.keys import MIN_PACKED_VALUES, pack_keys
from tests.indexes.small_types import MD5, Digests


class Packed(Digests):
    """Digests whose keys may be had together."""

    def keys(self, values: Sequence[str]) -> bytes:
        together.append(len(values))
        keys = [self.key(value) for value in values]
        if {len(key) for key in keys} != {16}:
            raise ValueError("not all of them are digests")
        return b"".join(keys)


together: list[int] = []
PACKED = Packed(name="packed", index_kind=IndexKind.EXACT, examples=("0" * 32,))


@pytest.mark.parametrize("count", [0, 1, MIN_PACKED_VALUES - 1, MIN_PACKED_VALUES, MIN_PACKED_VALUES + 1, 1_000])
def test_keys_are_the_same_had_together_or_one_by_one(count: int) -> None:
    together.clear()
    values = [f"{n:032x}" for n in range(count)]
    assert pack_keys(PACKED, values).tolist() == pack_keys(MD5, values).tolist()
    assert together == ([count] if count >= MIN_PACKED_VALUES else [])


def test_of_many_values_the_one_that_is_no_signal_is_named() -> None:
    values = [f"{n:032x}" for n in range(MIN_PACKED_VALUES)]
    with pytest.raises(InvalidSignal, match="'abcd' is not a packed signal"):
        pack_keys(PACKED, [*values, "abcd"])
