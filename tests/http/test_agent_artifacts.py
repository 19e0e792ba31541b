"""The agent API over a real store: configs and artifacts, each success and each refusal."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard

from depot import ArtifactHash, StoreOptions
from tests.http.sled import Sled, dataset_paths, prepare_datasets, sled_with_store, take_away

MAX_GENERATION = 2**63 - 1
CONTENT = b"an artifact's bytes"
NAME = ArtifactHash.of(CONTENT)
OTHER = ArtifactHash.of(b"another")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    prepare_datasets(tmp_path)
    return tmp_path


@pytest.fixture
async def sled(root: Path) -> AsyncIterator[Sled]:
    async with sled_with_store(root) as sled:
        yield sled


def config(generation: object, *artifacts: object) -> dict[str, object]:
    return {"generation": generation, "artifacts": [str(each) for each in artifacts]}


# ---- config


async def test_a_config_is_returned_sorted_in_lower_case(sled: Sled) -> None:
    names = sorted(str(ArtifactHash.of(bytes([n]))) for n in range(5))
    body = config(MAX_GENERATION, *(name.upper() for name in reversed(names)))
    assert (await sled.call("PUT", "/artifacts-config", body)).code == "204"
    reply = await sled.call("GET", "/artifacts-config")
    assert reply.body == {"generation": MAX_GENERATION, "artifacts": names}


async def test_without_a_config_there_is_none_to_get(sled: Sled) -> None:
    assert (await sled.call("GET", "/artifacts-config")).code == "404 NoConfig"


async def test_g2_the_same_config_again_changes_nothing(sled: Sled) -> None:
    for _ in range(2):
        await sled.put_config(3, NAME)


@pytest.mark.parametrize(
    ("attempted", "artifacts"), [(2, [NAME]), (0, []), (3, []), (3, [NAME, OTHER]), (3, [OTHER])]
)
async def test_a_config_that_is_older_or_differs_at_the_same_generation_is_refused(
    sled: Sled, attempted: int, artifacts: list[ArtifactHash]
) -> None:
    await sled.put_config(3, NAME)
    reply = await sled.call("PUT", "/artifacts-config", config(attempted, *artifacts))
    assert reply.code == "409 CONFIG_GENERATION"
    assert reply.body["details"] == {"attempted_generation": attempted, "current_generation": 3}


async def test_a_config_that_drops_a_pinned_artifact_is_refused(sled: Sled) -> None:
    await sled.put_config(1, NAME, OTHER)
    pin = {"artifacts": [str(NAME)]}
    assert (await sled.call("PUT", "/pins/vm", pin)).code == "204"
    reply = await sled.call("PUT", "/artifacts-config", config(2, OTHER))
    assert reply.code == "400 ArtifactInUse"
    assert reply.body["details"] == {"artifacts": [str(NAME)]}
    assert (await sled.call("GET", "/artifacts-config")).body["generation"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (config(True), "generation"),
        (config(1.0), "generation"),
        (config("1"), "generation"),
        (config(None), "generation"),
        (config(-1), "generation"),
        (config(MAX_GENERATION + 1), "generation"),
        ({"generation": 1}, "artifacts"),
        ({"artifacts": []}, "generation"),
        ({**config(1), "artifact": []}, "artifact"),
        ({"generation": 1, "artifacts": {}}, "artifacts"),
        ({"generation": 1, "artifacts": "ab"}, "artifacts"),
        (config(1, "ab"), "artifacts.0"),
        (config(1, NAME, "../../etc/passwd"), "artifacts.1"),
        (config(1, NAME, str(NAME).upper()), "artifacts"),
        ([], "body"),
        ("text", "body"),
        (7, "body"),
    ],
)
async def test_a_config_of_the_wrong_shape_is_refused_with_the_field_named(
    sled: Sled, body: object, field: str
) -> None:
    reply = await sled.call("PUT", "/artifacts-config", body)
    assert reply.code == "400 InvalidRequest"
    assert reply.body["message"].startswith(f"{field}: ")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"\0", b'{"generation": 1, "artif'])
async def test_a_body_that_is_no_json_is_refused(sled: Sled, content: bytes) -> None:
    reply = await sled.call("PUT", "/artifacts-config", data=content)
    assert reply.code == "400 InvalidRequest"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"garbage", "body: Invalid JSON: expected value at line 1 column 1"),
        (b'{"generation": 1}', "artifacts: Field required"),
        (
            f'{{"generation": 1, "artifacts": ["{NAME}", "{NAME}"]}}'.encode(),
            f"artifacts: expected each hash once, found {NAME} twice",
        ),
        (
            b'{"generation": "1", "artifacts": []}',
            "generation: Input should be a valid integer, found '1'",
        ),
    ],
)
async def test_a_mistake_in_a_body_is_named_once(sled: Sled, content: bytes, said: str) -> None:
    reply = await sled.call("PUT", "/artifacts-config", data=content)
    assert reply.body["message"] == said


async def test_a_config_of_100_000_artifacts_is_taken_and_returned(sled: Sled) -> None:
    names = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(100_000)]
    reply = await sled.call("PUT", "/artifacts-config", {"generation": 1, "artifacts": names})
    assert reply.code == "204"
    reply = await sled.call("GET", "/artifacts-config")
    assert reply.body["artifacts"] == sorted(names)


async def test_reset_forgets_the_config_and_its_generation(sled: Sled) -> None:
    await sled.put_config(9, NAME)
    reset = {"expected_generation": 9}
    assert (await sled.call("POST", "/artifacts-config/reset", reset)).code == "204"
    assert (await sled.call("GET", "/artifacts-config")).code == "404 NoConfig"
    await sled.put_config(1, NAME)


async def test_reset_is_refused_for_another_generation(sled: Sled) -> None:
    await sled.put_config(9, NAME)
    reply = await sled.call("POST", "/artifacts-config/reset", {"expected_generation": 8})
    assert reply.code == "409 CONFIG_GENERATION"
    assert reply.body["details"] == {"attempted_generation": 8, "current_generation": 9}


async def test_reset_is_refused_while_a_dataset_is_away(root: Path) -> None:
    async with sled_with_store(root) as sled:
        await sled.put_config(9, NAME)
    await take_away(root / "m2-b")
    async with sled_with_store(root) as sled:
        reply = await sled.call("POST", "/artifacts-config/reset", {"expected_generation": 9})
        assert reply.code == "503 NoDataset"


# ---- list


async def test_only_artifacts_of_the_config_that_are_here_are_listed(sled: Sled) -> None:
    await sled.put_config(1, NAME, OTHER)
    await sled.put(CONTENT)
    reply = await sled.call("GET", "/artifacts")
    assert reply.body == {"generation": 1, "list": {str(NAME): 2}}
    await sled.put_config(2, OTHER)
    assert (await sled.call("GET", "/artifacts")).body == {"generation": 2, "list": {}}


async def test_without_a_config_there_is_no_list(sled: Sled) -> None:
    assert (await sled.call("GET", "/artifacts")).code == "400 NoConfig"


# ---- put


@pytest.mark.parametrize("content", [b"", CONTENT, bytes(3 << 20)])
@pytest.mark.parametrize("expect100", [False, True])
async def test_a_put_stores_the_artifact_on_every_dataset(
    root: Path, sled: Sled, content: bytes, expect100: bool
) -> None:
    name = ArtifactHash.of(content)
    await sled.put_config(1, name)
    reply = await sled.put(content, expect100=expect100)
    assert reply.body == {"datasets": 2, "successful_writes": 2}
    for path in dataset_paths(root):
        assert await asyncio.to_thread((path / str(name)).read_bytes) == content


async def test_the_hash_in_the_path_may_be_upper_case(sled: Sled) -> None:
    await sled.put_config(1, NAME)
    path = f"/artifacts/{str(NAME).upper()}"
    assert (await sled.call("PUT", f"{path}?generation=1", data=CONTENT)).code == "200"
    assert (await sled.call("GET", path)).body["sha256"] == str(NAME)


async def test_a_put_reaches_the_dataset_that_is_left(root: Path) -> None:
    async with sled_with_store(root) as sled:
        await sled.put_config(1, NAME)
    await take_away(root / "m2-b")
    async with sled_with_store(root) as sled:
        assert (await sled.put(CONTENT)).body == {"datasets": 1, "successful_writes": 1}


async def test_a_held_artifact_is_a_success_whatever_the_body(sled: Sled) -> None:
    await sled.put_config(1, NAME)
    await sled.put(CONTENT)
    path = f"/artifacts/{NAME}?generation=1"
    for data, expect100 in ((CONTENT, False), (b"wrong", False), (bytes(4 << 20), True)):
        reply = await sled.call("PUT", path, data=data, expect100=expect100)
        assert reply.body == {"datasets": 2, "successful_writes": 2}


async def test_a_chunked_body_is_taken(sled: Sled) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield CONTENT[:5]
        yield CONTENT[5:]

    await sled.put_config(1, NAME)
    reply = await sled.call("PUT", f"/artifacts/{NAME}?generation=1", data=parts())
    assert reply.code == "200"


async def test_a_zstd_body_is_decoded_and_hashed_decoded(sled: Sled) -> None:
    await sled.put_config(1, NAME)
    coded = zstandard.compress(CONTENT)
    reply = await sled.call(
        "PUT", f"/artifacts/{NAME}?generation=1", data=coded, headers={"Content-Encoding": "zstd"}
    )
    assert reply.code == "200"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd, gzip", "x"])
async def test_another_content_coding_is_refused(sled: Sled, coding: str) -> None:
    await sled.put_config(1, NAME)
    headers = {"Content-Encoding": coding}
    path = f"/artifacts/{NAME}?generation=1"
    reply = await sled.call("PUT", path, data=CONTENT, headers=headers)
    assert reply.code == "415 UnsupportedEncoding"
    reply = await sled.call("PUT", "/artifacts-config", config(2, NAME), headers=headers)
    assert reply.code == "415 UnsupportedEncoding"


QUERIES = ["", "?generation=", "?generation=x", "?generation=-1", "?generation=1.0"]
QUERIES += ["?generation=%2B1", "?generation=1&generation=1", f"?generation={MAX_GENERATION + 1}"]
QUERIES += ["?generation=%D9%A1", "?generation=1%20", "?generation=0x1", "?generatoin=1"]


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("operation", ["PUT ", "POST /copy-from-depot"])
async def test_the_generation_is_required_once_and_in_digits(
    sled: Sled, query: str, operation: str
) -> None:
    method, suffix = operation.split(" ")
    reply = await sled.call(method, f"/artifacts/{NAME}{suffix}{query}", data=CONTENT)
    assert reply.code == "400 InvalidRequest"
    assert "generat" in reply.body["message"]


@pytest.mark.parametrize("name", ["ab", "a" * 63, "a" * 65, "g" * 64, "..%2f" + "a" * 61, "%00"])
@pytest.mark.parametrize(
    "operation", ["PUT ?generation=1", "GET ", "POST /copy-from-depot?generation=1"]
)
async def test_a_path_without_a_hash_is_refused(sled: Sled, name: str, operation: str) -> None:
    method, suffix = operation.split(" ")
    reply = await sled.call(method, f"/artifacts/{name}{suffix}")
    assert reply.code == "400 InvalidRequest"


async def test_wrong_bytes_are_refused_and_not_kept(sled: Sled) -> None:
    await sled.put_config(1, NAME)
    reply = await sled.call("PUT", f"/artifacts/{NAME}?generation=1", data=b"another")
    assert reply.code == "400 HashMismatch"
    assert reply.body["details"] == {"expected": str(NAME), "actual": str(OTHER)}
    assert (await sled.call("GET", "/artifacts")).body["list"] == {}


# ---- the order of refusals of a put

SMALL = StoreOptions(max_artifact_size_bytes=64, quota_bytes=80, max_concurrent_puts=0)


@pytest.mark.parametrize("expect100", [False, True])
async def test_refusals_of_a_put_come_in_the_order_of_the_contract(
    root: Path, expect100: bool
) -> None:
    held, large, crowded, fits = bytes(60), bytes(65), bytes(21), bytes(20)
    names = [ArtifactHash.of(content) for content in (held, large, crowded, fits)]

    async def code(sled: Sled, content: bytes, generation: int) -> str:
        return (await sled.put(content, generation, expect100=expect100)).code

    async with sled_with_store(root / "empty", options=SMALL) as sled:
        assert await code(sled, large, 4) == "503 NoDataset"
    async with sled_with_store(root) as sled:
        assert await code(sled, large, 4) == "400 NoConfig"
        await sled.put_config(5, names[0])
        assert await code(sled, held, 5) == "200"
    async with sled_with_store(root, options=SMALL) as sled:
        for generation in (0, 4, 6, MAX_GENERATION):
            assert await code(sled, large, generation) == "409 ARTIFACT_GENERATION"
        assert await code(sled, large, 5) == "400 NotInConfig"
        await sled.put_config(6, *names)
        assert await code(sled, large, 6) == "413 TooLarge"
        assert await code(sled, crowded, 6) == "507 QuotaExceeded"
        assert await code(sled, fits, 6) == "429 TooManyPuts"
        assert await code(sled, held, 6) == "200"


async def test_a_generation_that_is_not_current_is_told_the_current_one(sled: Sled) -> None:
    await sled.put_config(5, NAME)
    reply = await sled.put(CONTENT, 4)
    assert reply.body["details"] == {"attempted_generation": 4, "current_generation": 5}


@pytest.mark.parametrize("content", [bytes(21), bytes(20)], ids=["507", "429"])
async def test_refusals_that_pass_say_when_to_come_back(root: Path, content: bytes) -> None:
    async with sled_with_store(root) as sled:
        await sled.put_config(1, ArtifactHash.of(bytes(60)))
        await sled.put(bytes(60))
    async with sled_with_store(root, options=SMALL) as sled:
        await sled.put_config(2, ArtifactHash.of(bytes(60)), ArtifactHash.of(content))
        reply = await sled.put(content, 2)
        assert reply.status in (429, 507)
        assert int(reply.headers["Retry-After"]) > 0


async def test_fewer_copies_than_wanted_are_no_success_and_stay(root: Path) -> None:
    async with sled_with_store(root) as sled:
        await sled.put_config(1, NAME)
    await take_away(root / "m2-b")
    async with sled_with_store(root, options=StoreOptions(min_copies=2)) as sled:
        assert (await sled.put(CONTENT)).code == "503 TooFewCopies"
        assert (await sled.call("GET", "/artifacts")).body["list"] == {str(NAME): 1}


async def test_a_chunked_body_is_refused_when_it_grows_too_large(root: Path) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield bytes(10)

    async with sled_with_store(root, options=StoreOptions(max_artifact_size_bytes=64)) as sled:
        await sled.put_config(1, NAME)
        reply = await sled.call("PUT", f"/artifacts/{NAME}?generation=1", data=parts())
        assert reply.code == "413 TooLarge"
        assert (await sled.call("GET", "/artifacts")).body["list"] == {}


# ---- detail


async def test_the_detail_of_an_artifact_names_the_file_on_each_dataset(
    root: Path, sled: Sled
) -> None:
    await sled.put_config(1, NAME)
    await sled.put(CONTENT)
    reply = await sled.call("GET", f"/artifacts/{NAME}")
    assert reply.body["sha256"] == str(NAME)
    for path, copy in zip(dataset_paths(root), reply.body["copies"], strict=True):
        assert copy["dataset"] == str(path)
        assert copy["present"]
        assert copy["size_bytes"] == len(CONTENT)
        assert await asyncio.to_thread(Path(copy["path"]).read_bytes) == CONTENT
        assert copy["verified_at"].endswith("Z")


async def test_an_artifact_that_is_not_here_has_no_detail(sled: Sled) -> None:
    assert (await sled.call("GET", f"/artifacts/{NAME}")).code == "404 NotFound"
