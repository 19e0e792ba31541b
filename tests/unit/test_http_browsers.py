"""What a web page that an operator looks at can make a browser do: nothing here."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from depot.errors import CrossSite, DepotError, InvalidRequest, UnknownHost
from depot.http.browsers import FORM_TYPES, OwnNames, refuse_strangers

ADDRESS = "10.0.0.7:12345"
NAMED = OwnNames.of(("fleet.example",), "0.0.0.0")
UNNAMED = OwnNames.of(None, "0.0.0.0")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")

Header = tuple[str, str]


def request(method: str, *headers: Header) -> web.Request:
    return make_mocked_request(method, "/", headers=CIMultiDict(headers))


def refusals(own: OwnNames, *headers: Header) -> set[type[DepotError] | None]:
    """What becomes of the request with each method."""
    return {refusal(own, method, *headers) for method in METHODS}


def refusal(own: OwnNames, method: str, *headers: Header) -> type[DepotError] | None:
    try:
        refuse_strangers(request(method, *headers), own)
    except DepotError as error:
        return type(error)
    return None


def host(name: str) -> Header:
    return "Host", name


def origin(name: str) -> Header:
    return "Origin", name


@pytest.mark.parametrize("own", [NAMED, UNNAMED])
@pytest.mark.parametrize("name", ["10.0.0.7", ADDRESS, "[fd00::7]:12345", "localhost:12345"])
def test_a_program_is_served_at_every_address(own: OwnNames, name: str) -> None:
    said = (host(name), ("User-Agent", "curl/8.5.0"), ("Accept", "*/*"))
    assert refusals(own, *said) == {None}


@pytest.mark.parametrize("name", ["sled-7", "sled-7.example:12345", "sled_7", "a b", ""])
def test_a_program_may_use_any_name_where_nothing_is_said_of_names(name: str) -> None:
    assert refusals(UNNAMED, host(name)) == {None}
    assert refusals(NAMED, host(name)) == {UnknownHost}


@pytest.mark.parametrize("own", [NAMED, UNNAMED])
def test_http_1_0_need_not_say_whom_it_is_for(own: OwnNames) -> None:
    assert refusal(own, "GET") is None
    assert refusal(own, "POST", origin("http://evil")) is CrossSite
    assert refusal(own, "POST", origin("null")) is CrossSite


@pytest.mark.parametrize("own", [NAMED, UNNAMED])
@pytest.mark.parametrize(
    "found",
    [
        "https://evil.example",
        "null",
        "",
        "10.0.0.7:12345",
        "http://",
        "http://[evil",
        "http://10.0.0.7",
        "http://10.0.0.7:3000",
        "http://evil.10.0.0.7:12345",
        "http://10.0.0.7:12345, http://10.0.0.7:12345",
    ],
)
def test_somebody_elses_page_is_refused_whatever_it_asks(own: OwnNames, found: str) -> None:
    assert refusals(own, host(ADDRESS), origin(found)) == {CrossSite}


@pytest.mark.parametrize("own", [NAMED, UNNAMED])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_page_of_ones_own_is_no_stranger(own: OwnNames, scheme: str) -> None:
    for name in (ADDRESS, "[fd00::7]:1", "localhost:1"):
        assert refusals(own, host(name), origin(f"{scheme}://{name}")) == {None}


def test_a_page_behind_a_proxy_that_passes_its_name_on_is_ones_own() -> None:
    said = host("Fleet.Example."), origin("https://fleet.example.")
    assert refusals(NAMED, *said) == {None}
    assert refusals(UNNAMED, *said) == {UnknownHost}


@pytest.mark.parametrize("own", [NAMED, UNNAMED])
@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:12345", "fleet.example.evil", "10.0.0.7.evil", "", "a b"]
)
def test_a_page_whose_name_was_rebound_to_our_address_is_refused(own: OwnNames, name: str) -> None:
    assert refusals(own, host(name), origin(f"http://{name}")) == {UnknownHost}


def test_two_hosts_are_none_of_ours() -> None:
    assert refusal(NAMED, "GET", host("localhost"), host("localhost")) is UnknownHost


@pytest.mark.parametrize("own", [NAMED, UNNAMED])
@pytest.mark.parametrize(
    ("method", "site", "mode", "refused"),
    [
        ("GET", "none", "navigate", False),
        ("GET", "same-origin", "cors", False),
        ("PUT", "same-origin", "cors", False),
        ("GET", "cross-site", "navigate", False),
        ("HEAD", "same-site", "navigate", False),
        ("GET", "cross-site", "no-cors", True),
        ("GET", "cross-site", None, True),
        ("GET", "same-site", "cors", True),
        ("GET", "something new", "cors", True),
        ("POST", "cross-site", "navigate", True),
        ("POST", "same-site", "no-cors", True),
        ("DELETE", "cross-site", "cors", True),
    ],
)
def test_links_may_be_followed_and_nothing_else_be_asked_from_another_site(
    own: OwnNames, method: str, site: str, mode: str | None, refused: bool
) -> None:
    said = [host(ADDRESS), ("Sec-Fetch-Site", site)]
    if mode is not None:
        said.append(("Sec-Fetch-Mode", mode))
    assert refusal(own, method, *said) is (CrossSite if refused else None)


@pytest.mark.parametrize("own", [NAMED, UNNAMED])
@pytest.mark.parametrize("form", [*sorted(FORM_TYPES), "Text/Plain; charset=utf-8"])
def test_a_form_can_post_nothing(own: OwnNames, form: str) -> None:
    said = host(ADDRESS), ("Content-Type", form)
    assert refusal(own, "POST", *said) is InvalidRequest
    assert refusal(own, "PUT", *said) is None, "no form can: curl --upload-file does"


@pytest.mark.parametrize("body", ["application/json", "application/zip", "a/b"])
def test_other_types_are_for_the_endpoint_to_judge(body: str) -> None:
    assert refusal(NAMED, "POST", host(ADDRESS), ("Content-Type", body)) is None


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "10.0.0.7:12340", "[fd00::7]:1", "[fe80::1%eth0]:1", "localhost:9"]
)
def test_addresses_and_the_local_host_cannot_be_rebound(name: str) -> None:
    assert OwnNames.of(()).include(name)


def test_s1_a_long_name_is_none_of_ours() -> None:
    names = OwnNames.of(("a" * 300, "a" * 301))
    assert names.include("a" * 300)
    assert not names.include("a" * 301)


def test_a_dot_alone_is_no_address() -> None:
    assert not OwnNames.of(()).include(".")
    assert not OwnNames.of(()).include(".:12345")


def test_the_name_that_is_listened_on_is_ones_own() -> None:
    names = OwnNames.of((), "fleet.example")
    assert names.include("fleet.example:12340")
    assert not names.include("fleet.example.evil:12340")
