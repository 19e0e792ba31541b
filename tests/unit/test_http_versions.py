from __future__ import annotations

import pytest

from depot.errors import ApiVersion
from depot.http.versions import ANY, ApiInfo, Version


def api(newest: Version) -> ApiInfo:
    return ApiInfo(title="t", description="d", version="1.0.0", oldest=(1, 0, 0), newest=newest)


AGENT = api((48, 0, 0))
DEPOT = api((1, ANY, ANY))


@pytest.mark.parametrize("header", [None, "1.0.0", "1.0.1", "47.99.99", "48.0.0", " 48.0.0 "])
def test_supported_versions_pass(header: str | None) -> None:
    AGENT.check(header)


@pytest.mark.parametrize(
    "header",
    ["", "1", "1.0", "1.0.0.0", "01.0.0", "v1.0.0", "1.0.x", "-1.0.0", "0.9.9", "48.0.1", "49.0.0"],
)
def test_other_versions_are_refused(header: str) -> None:
    with pytest.raises(ApiVersion, match="api-version"):
        AGENT.check(header)


def test_a_range_may_be_open_in_its_minor_versions() -> None:
    DEPOT.check("1.999999999.0")
    with pytest.raises(ApiVersion, match=r"expected 1\.0\.0 \.\. 1\.x, found 2\.0\.0"):
        DEPOT.check("2.0.0")
