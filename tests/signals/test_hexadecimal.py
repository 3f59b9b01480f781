import pytest

from countermark.domain.signal import PacksKeys
from countermark.signals import SIGNAL_TYPES
from countermark.signals.hexadecimal import keys_of_hex

PACKING = {name: kind for name, kind in SIGNAL_TYPES.items() if isinstance(kind, PacksKeys)}


def test_types_of_hex_digits_give_the_keys_of_many_values_at_once() -> None:
    assert {"pdq", "photo_md5", "photo_sha256", "video_md5", "video_sha256"} <= PACKING.keys()


@pytest.mark.parametrize("name", PACKING)
def test_keys_of_many_are_those_of_each_one_after_the_other(name: str) -> None:
    kind = SIGNAL_TYPES[name]
    assert isinstance(kind, PacksKeys)
    for values in ([], kind.examples[:1], list(kind.examples) * 3):
        assert kind.keys(values) == b"".join(map(kind.key, values))


@pytest.mark.parametrize(
    "values", [["abcd", "ab"], ["abcd", "abcdef"], ["ab", "abcdef"], ["abcd", "ab d"], ["abcd", "abcg"], ["abc\u0661"]]
)
def test_a_value_of_another_length_or_with_other_digits_is_refused_whatever_stands_beside_it(values: list[str]) -> None:
    with pytest.raises(ValueError, match=r"digit|ASCII|hex"):
        keys_of_hex(values, digits=4)
