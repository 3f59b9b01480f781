"""Events of API Gateway in, its responses out."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from countermark.api.messages import Answer
from countermark.api.payload2 import request_of, response_of
from tests.api.house import event_of, scope_of


@given(body=st.binary(max_size=50))
def test_the_bytes_of_a_body_arrive_as_they_were_sent_and_leave_as_they_are(body: bytes) -> None:
    event = event_of(*scope_of("POST", "/h/hash", body, None))
    assert request_of(event).body == body
    response = response_of(Answer(body=body))
    sent = response["body"]
    assert (base64.b64decode(sent) if response["isBase64Encoded"] else sent.encode()) == body


def test_text_is_sent_as_text() -> None:
    response = response_of(Answer(status=201, headers={"Content-Type": "text/plain"}, body="é".encode()))
    assert response == {
        "statusCode": 201,
        "headers": {"Content-Type": "text/plain"},
        "body": "é",
        "isBase64Encoded": False,
        "cookies": [],
    }


def test_a_body_that_is_not_what_its_encoding_says_is_none() -> None:
    event = event_of(*scope_of("POST", "/h/hash", b"", None))
    assert request_of({**event, "body": "!"}).body is None
    assert request_of({**event, "body": "\ud800", "isBase64Encoded": False}).body is None
    assert request_of({**event, "body": None}).body == b""


def test_the_query_is_read_from_the_parameters_where_there_is_no_raw_one() -> None:
    event = event_of(*scope_of("GET", "/m/lookup?a=1", None, None))
    assert request_of(event).query == {"a": "1"}
    del event["rawQueryString"]
    assert request_of({**event, "queryStringParameters": {"a": "2"}}).query == {"a": "2"}
    assert request_of({**event, "queryStringParameters": None}).query == {}


def test_a_method_is_in_upper_case_and_a_path_has_single_slashes() -> None:
    event = event_of(*scope_of("get", "/c/banks", None, {"X-Name": "v"}))
    request = request_of({**event, "rawPath": "//c///banks"}, request_id="7")
    assert (request.method, request.path, request.headers, request.id) == ("GET", "/c/banks", {"x-name": "v"}, "7")
