"""The address of a server; apart from what talks to one, since configurations have some too."""

from __future__ import annotations

from yarl import URL

from depot.errors import InvalidRequest


def base_url(text: str) -> URL:
    """Read a server's address: `http://host:port`, perhaps with a path before the API's.

    Raises:
        InvalidRequest: anything else.
    """
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    plain = not (url.user or url.password or url.query_string or url.fragment)
    if url.scheme not in ("http", "https") or not url.host or not plain:
        raise InvalidRequest(f"expected a URL like http://host:port, found {text[:200]!r}")
    return url
