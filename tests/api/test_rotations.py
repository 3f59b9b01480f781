"""Lookups of photos that were turned or mirrored."""

import io

import pytest
from PIL import Image

from tests.api.house import Caller, House
from tests.api.photos import FLAT, PHOTO


def turned() -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(PHOTO)).rotate(90, expand=True).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("asked", ["", "?rotations=false"])
def test_a_turned_photo_does_not_match_unless_it_is_asked_for(house: House, call: Caller, asked: str) -> None:
    bank(house, call)
    assert call("POST", f"/m/lookup{asked}", [("photo", turned())]).json()["pdq"] == {}


def test_a_turned_photo_matches_by_the_rotation_that_it_is_told_of(house: House, call: Caller) -> None:
    bank(house, call)
    found = call("POST", "/m/lookup?rotations=true", [("photo", turned())]).json()
    assert found["pdq"] == {"A": [{"bank_content_id": 1, "distance": "0", "rotation": "ROTATE270"}]}
    assert found["photo_md5"] == {}
    detailed = call("POST", "/m/lookup?rotations=true&include=detail", [("photo", turned())]).json()
    assert detailed["pdq"]["A"][0]["detail"]["distance"] == 0


def test_a_photo_as_it_is_tells_no_rotation(house: House, call: Caller) -> None:
    bank(house, call)
    found = call("POST", "/m/lookup?rotations=true", [("photo", PHOTO)]).json()
    assert {"bank_content_id": 1, "distance": "0"} in found["pdq"]["A"]


def test_what_has_no_signal_has_none_turned_either(house: House, call: Caller) -> None:
    bank(house, call)
    assert call("POST", "/m/lookup?rotations=true", [("photo", FLAT)]).json()["pdq"] == {}


def bank(house: House, call: Caller) -> None:
    assert call("POST", "/c/banks", {"name": "A", "enabled_ratio": 1}).status == 201
    assert call("POST", "/c/bank/A/content", [("photo", PHOTO)]).status == 200
    house.build_index()
