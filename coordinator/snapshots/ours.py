"""What in a PostgreSQL database is the coordinators', and what is somebody else's. Blocking.

Rules kept here:
- What is somebody else's is in no dump that is made here, and is neither dropped nor replaced, also
  where a dump that was made otherwise has it.
- Where it depends on a table of the coordinators, or stands in the place of one, nothing is done.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import URL

from coordinator.database.migrating import UNFINISHED
from coordinator.database.tables import metadata
from coordinator.errors import RestoreFailed
from coordinator.snapshots import postgres

VERSIONS: Final = "alembic_version"
# A table that a later version drops stays among these: older snapshots have it.
_TABLES: Final = frozenset({*metadata.tables, VERSIONS})
_FUNCTION: Final = "journal_sealed"
# Every version has had these.
_ALWAYS: Final = frozenset({"generation", "sleds", VERSIONS})
_NAMES: Final = ", ".join(f"'{table}'" for table in sorted({*_TABLES, UNFINISHED}))
_VISIBLE: Final = f"(relname IN ({_NAMES}) AND pg_table_is_visible(pg_class.oid))"
_KINDS: Final = "relkind IN ('r', 'p', 'v', 'm', 'S', 'f')"
_OTHERS: Final = (
    "SELECT format('\"%s\".\"%s\"', replace(nspname, '\"', '\"\"'), replace(relname, '\"', '\"\"'))"
    " FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid"
    f" WHERE {_KINDS} AND NOT {_VISIBLE}"
    " AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"
)
_PRESENT: Final = f"SELECT relname FROM pg_class WHERE {_KINDS} AND {_VISIBLE}"
# A line of `pg_restore --list`: number, two object ids, kind, schema, and what it is about.
_LISTED: Final = re.compile(
    r"(?P<id>\d+); \d+ \d+ "
    r"(?P<kind>TABLE DATA|TABLE|FK CONSTRAINT|CONSTRAINT|TRIGGER|ACL|INDEX|FUNCTION) "
    r"(?P<schema>\S+) (?:(?:TABLE|COLUMN) )?(?P<about>\S+)"
)


def dump(
    url: URL, target: Path, *, compressed: bool, check: Callable[[], None] = lambda: None
) -> None:
    """Dump what is the coordinators'; else as `postgres.dump`.

    Raises:
        LibraryMissing: the programs are not installed.
        Unfit: it could not be dumped, or the dump is not whole.
    """
    without = postgres.answer(url, _OTHERS)
    postgres.dump(url, target, compressed=compressed, check=check, without=without)


def script(snapshot: Path, target: Path) -> None:
    """Write the SQL that makes what is the coordinators' in a dump.

    Raises:
        LibraryMissing: the program is not installed.
        Unfit: the dump cannot be read.
    """
    chosen = target.with_name(f"{target.name}.list")
    chosen.write_text("".join(f"{number};\n" for number in numbers(listed(snapshot))))
    postgres.output(
        ["pg_restore", "--no-owner", f"--use-list={chosen}", f"--file={target}", str(snapshot)]
    )


def listed(snapshot: Path) -> str:
    """What a dump has, as `pg_restore` lists it.

    Raises:
        LibraryMissing: the program is not installed.
        Unfit: the dump cannot be read.
    """
    return postgres.output(["pg_restore", "--list", str(snapshot)])


def schemas(listing: str) -> frozenset[str]:
    """In which schema of a dump the coordinators' tables are; in several, where these are alike.

    Others may have a table of the same name in their own. There, not all that every version has is.
    """
    found = {
        (match["schema"], match["about"])
        for match in _matches(listing)
        if match["kind"] in ("TABLE", "TABLE DATA") and match["about"] in _ALWAYS
    }
    having = Counter(schema for schema, _ in found)
    most = max(having.values(), default=0)
    return frozenset(schema for schema, count in having.items() if count == most)


def numbers(listing: str) -> Iterator[str]:
    """Of what a dump has, in its order, what is the coordinators'."""
    where = schemas(listing)
    for match in _matches(listing):
        if match["schema"] in where and _is_ours(match["kind"], match["about"]):
            yield match["id"]


def _matches(listing: str) -> Iterator[re.Match[str]]:
    return filter(None, map(_LISTED.match, listing.splitlines()))


def _is_ours(kind: str, about: str) -> bool:
    if kind == "FUNCTION":
        return about == f"{_FUNCTION}()"
    if kind == "INDEX":
        # It is listed without its table; the tables' naming convention has it in the name.
        return any(about.startswith(f"ix_{table}_") for table in _TABLES)
    return about.partition(".")[0] in _TABLES


def clearing() -> str:
    """SQL that drops what is the coordinators', of whichever version, and fails over others'."""
    tables = ", ".join(sorted({*_TABLES, UNFINISHED}))
    return f"DROP TABLE IF EXISTS {tables};\nDROP FUNCTION IF EXISTS {_FUNCTION};\n"


def require_ours(url: URL) -> None:
    """Refuse a database in which tables that would be replaced are another program's.

    Raises:
        RestoreFailed: they are.
        LibraryMissing: the program is not installed.
        Unfit: the database cannot be reached.
    """
    present = set(postgres.answer(url, _PRESENT))
    if present and not present >= _ALWAYS:
        raise RestoreFailed(
            f"nothing was changed: database {url.database} is none of a coordinator, and has "
            f"tables that would be replaced ({', '.join(sorted(present))}); have database.url "
            "name another database"
        )
