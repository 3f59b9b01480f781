"""Metadata of S3: what is not ASCII comes back as RFC 2047 encodes it."""

from email.header import Header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countermark.aws.content import S3UploadReader, decode_encoded_words
from tests.aws.deployed import Deployed

PRINTABLE = st.text(st.characters(min_codepoint=0x20, exclude_categories=["C", "Zl", "Zp"]), min_size=1)


@given(PRINTABLE, st.sampled_from([76, 2_000]))
def test_what_pythons_mail_library_encodes_is_decoded(text: str, width: int) -> None:
    encoded = Header(text, "utf-8", maxlinelen=width).encode(linesep="", maxlinelen=width)
    assert decode_encoded_words(encoded) == text


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)).filter(lambda text: "=?" not in text))
def test_plain_metadata_stays_as_it_is(text: str) -> None:
    assert decode_encoded_words(text) == text


@given(st.text(alphabet="=?UTF-8QB_ é", max_size=60))
def test_nothing_that_looks_like_it_fails(text: str) -> None:
    decode_encoded_words(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("=?UTF-8?Q?caf=C3=A9?=", "café"),
        ("=?UTF-8?B?Y2Fmw6k=?=", "café"),
        ("=?utf-8?q?a_b=5Fc?=", "a b_c"),
        ("=?UTF-8?Q?caf=C3=A9?= =?UTF-8?Q?_noir?=", "café noir"),
        ("=?UTF-8?Q?caf=C3=A9?==?UTF-8?Q?_noir?=", "café noir"),
        ("=?UTF-8?Q?caf=C3?= =?UTF-8?B?qQ==?=", "café"),
        ("=?UTF-8?Q?=F0=9F=91?= =?UTF-8?Q?=8D?=", "👍"),
        ("=?ISO-8859-1?Q?=E9?= =?UTF-8?Q?=C3=A9?=", "éé"),
        ("=?UTF-8*fr?Q?=C3=A9t=C3=A9?=", "été"),
        ("post =?UTF-8?Q?=C3=A9?= 7", "post é 7"),
        ("=?UTF-8?Q??=", ""),
    ],
)
def test_encoded_words_are_decoded_and_joined(value: str, expected: str) -> None:
    assert decode_encoded_words(value) == expected


@pytest.mark.parametrize(
    "malformed",
    [
        "=?UTF-8?Q?caf=C3?=",
        "=?UTF-8?Q?=ZZ?=",
        "=?UTF-8?Q?a b?=",
        "=?UTF-8?B?%%%?=",
        "=?UTF-8?B?Y2Fmw6?=",
        "=?no-such-charset?Q?a?=",
        "=?hex?Q?61?=",
        "=?UTF-8?X?a?=",
        "=?UTF-8?Q?a",
        "=?UTF-8?Q?a?b?=",
        "=?",
    ],
)
def test_what_is_malformed_stays_as_it_is_and_spoils_nothing_beside_it(malformed: str) -> None:
    assert decode_encoded_words(malformed) == malformed
    assert decode_encoded_words(f"=?UTF-8?Q?=C3=A9?= {malformed}") == f"é {malformed}"


def test_the_metadata_of_an_upload_is_decoded(deployment: Deployed) -> None:
    s3, bucket = deployment.clients.s3, deployment.settings.upload_bucket
    metadata = {"content-id": "=?UTF-8?B?w6k=?=", "other": "plain"}
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata=metadata)
    with S3UploadReader(s3, bucket).open("k", version_id=None, max_bytes=1) as upload:
        assert upload.metadata == {"content-id": "é", "other": "plain"}
