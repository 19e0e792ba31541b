"""Opening artifacts: a good copy on some dataset, whose bytes are checked before they leave if due.

A copy that cannot be opened, has another size or does not verify is noted and passed over for the
next. Copies that differ in size are verified whole first: a short one must not say how long the
artifact is. Block digests that are missing are derived from a full verification of the copy.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import replace
from enum import StrEnum
from typing import Final

from depot.artifact import ArtifactHash
from depot.concurrency.keyed_lock import KeyedLock
from depot.errors import DatasetUnusable, NotFound
from depot.mirrors.condition import casts_doubt, is_own_want
from depot.mirrors.inventory import Copy
from depot.mirrors.kept_digests import keep_digests, read_digests
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.mirrors.open_artifact import OpenArtifact
from depot.mirrors.verify import Verdict, derive_digests, judge_file, verify_copy, works
from depot.os_errors import describe_error
from depot.quarantine.keeper import QuarantineKeeper
from depot.streams.block_digests import BlockDigests
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.verified_read import VerifiedRead

SMALL_BYTES: Final = 64 << 10
"""What is no longer is read in the call that opens it, where that is in another process."""
_OF_THE_DEVICE: Final = frozenset({errno.ETIMEDOUT, errno.ENODEV})
"""It hangs or is gone: that says nothing about the copy."""


class VerifyReads(StrEnum):
    """Whether bytes are checked against their block digests before they leave."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"

    def is_due(self, checksums_data: bool) -> bool:
        """Tell for a copy; `auto` trusts a filesystem that checks its data itself."""
        if self is VerifyReads.AUTO:
            return not checksums_data
        return self is VerifyReads.ALWAYS


class Reader:
    """Opens good copies and remembers which turned out not to be.

    Args:
        verify_reads: whether bytes are checked before they leave.
        quarantine: knows of the damaged copies that were set aside.
        on_damage: called when a copy was found damaged.
    """

    def __init__(
        self,
        mirrors: MirrorSet,
        verify_reads: VerifyReads,
        quarantine: QuarantineKeeper,
        on_damage: Callable[[], None],
    ) -> None:
        self._mirrors = mirrors
        self._quarantine = quarantine
        self._deriving: KeyedLock[ArtifactHash] = KeyedLock()
        self._known_bad: dict[tuple[int, ArtifactHash], Copy] = {}
        self._verify_reads = verify_reads
        self._on_damage = on_damage

    async def open(
        self, artifact: ArtifactHash, exclude: Collection[int] = (), *, to_read: bool = True
    ) -> OpenArtifact:
        """Open a copy, preferably on a healthy dataset and never on one of `exclude`.

        Unless it is opened `to_read`, nothing is made ready for checking its bytes.

        Raises:
            NoDataset, NotFound.
        """
        self._mirrors.require_readable()
        if self._sizes_differ(artifact):
            await self._judge_copies(artifact)
        if opened := await self._open_good(artifact, exclude, to_read=to_read):
            return opened
        if await self._look_again(artifact, exclude) and (
            opened := await self._open_good(artifact, exclude, to_read=to_read)
        ):
            return opened
        raise NotFound(f"{artifact} is not here", damaged=self._damaged_copies(artifact))

    def failed(self, opened: OpenArtifact, error: OSError) -> None:
        """Note that an open copy could not be read, so that it is not counted or served again.

        What was put or verified under the name since it was opened is another file, and not to
        blame for this one.
        """
        mirror = self._mirrors.all[opened.dataset]
        if isinstance(error.__cause__, DatasetUnusable):
            return  # its process has ended, as the mirror knows: another may be in its place by now
        if is_own_want(error):
            return
        if error.errno in _OF_THE_DEVICE:
            mirror.failed(error)
            return
        if not mirror.readable:
            return  # the dataset has gone, which says nothing about its copy
        mirror.last_error = f"reading {opened.sha256}: {describe_error(error)}"
        if mirror.artifacts.get(opened.sha256) is opened.copy:
            self._damaged(mirror, opened.sha256)

    async def _open_good(
        self, artifact: ArtifactHash, exclude: Collection[int], *, to_read: bool
    ) -> OpenArtifact | None:
        for mirror in self._mirrors.readable():
            copy = mirror.good_copy(artifact)
            if copy is None or mirror.index in exclude:
                continue
            if opened := await self._try_open(mirror, artifact, copy, to_read):
                return opened
        return None

    async def _look_again(self, artifact: ArtifactHash, exclude: Collection[int]) -> bool:
        """Read the copies that are said to be damaged, when there are no others.

        A read that fails may have told of a dying device and not of the copy. Each is read once:
        until the healer has set it aside, it is not read for everybody who asks for it.
        """
        async with self._deriving.hold(artifact):
            found = False
            for mirror in self._mirrors.readable():
                copy = mirror.artifacts.get(artifact)
                if copy is None or not copy.damaged or mirror.index in exclude:
                    continue
                if self._known_bad.get((mirror.index, artifact)) is copy:
                    continue
                found = await self._is_good(mirror, artifact, copy) or found
        return found or any(m.good_copy(artifact) for m in self._mirrors.readable())

    async def _is_good(self, mirror: Mirror, artifact: ArtifactHash, copy: Copy) -> bool:
        try:
            async with mirror.verifying:
                verdict = await judge_file(mirror, artifact, copy.size_bytes)
        except OSError:
            verdict = Verdict.BAD
        if mirror.artifacts.get(artifact) is not copy:
            return mirror.good_copy(artifact) is not None
        if verdict is Verdict.GOOD:
            mirror.record(artifact, replace(copy, damaged=False, verified_at_s=time.time()))
        elif verdict is Verdict.BAD:
            mirrors = self._mirrors.all
            still = {
                k: c for k, c in self._known_bad.items() if mirrors[k[0]].artifacts.get(k[1]) is c
            }
            self._known_bad = {**still, (mirror.index, artifact): copy}
        return verdict is Verdict.GOOD

    async def _try_open(
        self, mirror: Mirror, artifact: ArtifactHash, copy: Copy, to_read: bool
    ) -> OpenArtifact | None:
        try:
            content_bytes = SMALL_BYTES if to_read else -1
            opened = await mirror.open_artifact(artifact, content_bytes=content_bytes)
        except FileNotFoundError:
            # Unless a writer was about to give the name to another file, and has done so.
            if mirror.artifacts.get(artifact) is copy:
                mirror.gone(artifact)
            return None
        except (OSError, DatasetUnusable) as error:
            await self._not_opened(mirror, artifact, error)
            return None
        with ExitStack() as unless_returned:
            unless_returned.enter_context(opened)
            opened.copy = copy
            try:
                good = opened.size_bytes == copy.size_bytes
                if good and to_read:
                    good = await self._make_verified(mirror, opened)
            except (OSError, DatasetUnusable) as error:
                await self._not_opened(mirror, artifact, error)  # it says nothing about the copy
                return None
            if good:
                unless_returned.pop_all()
                return opened
        if mirror.artifacts.get(artifact) is copy:
            self._damaged(mirror, artifact)
        return None

    async def _not_opened(
        self, mirror: Mirror, artifact: ArtifactHash, error: OSError | DatasetUnusable
    ) -> None:
        # One bad sector, or a device that fails as a whole?
        if isinstance(error, OSError) and casts_doubt(error):
            if await works(mirror):
                self._damaged(mirror, artifact)
        elif isinstance(error, DatasetUnusable) or not is_own_want(error):
            mirror.failed(error)

    def _sizes_differ(self, artifact: ArtifactHash) -> bool:
        copies = (mirror.good_copy(artifact) for mirror in self._mirrors.readable())
        return len({copy.size_bytes for copy in copies if copy is not None}) > 1

    async def _judge_copies(self, artifact: ArtifactHash) -> None:
        for mirror in self._mirrors.readable():
            await verify_copy(mirror, artifact)
        self._on_damage()

    async def _make_verified(self, mirror: Mirror, opened: OpenArtifact) -> bool:
        """Have the reads checked if they are to be; False when the copy turns out damaged.

        Raises:
            TimeoutError, DatasetUnusable: the device does not answer.
            OSError: there is no descriptor or memory left.
        """
        # What is in doubt is checked whatever the filesystem and the configuration promise.
        doubted = opened.sha256 in mirror.doubts
        trusted = mirror.dataset.checksums_data and not opened.exempt
        if not doubted and not self._verify_reads.is_due(trusted):
            return True
        digests = await self._digests(mirror, opened.sha256, opened.size_bytes)
        if digests is not None:
            opened.read = VerifiedRead(digests)
        return digests is not None

    async def _digests(
        self, mirror: Mirror, artifact: ArtifactHash, size_bytes: int
    ) -> BlockDigests | None:
        if size_bytes <= BLOCK_SIZE_BYTES:
            return BlockDigests.of_one_block(artifact, size_bytes)
        if kept := await self._find_digests(mirror, artifact, size_bytes):
            return kept
        # A whole copy is read for them: once, however many readers wait.
        async with self._deriving.hold(artifact):
            if kept := await self._find_digests(mirror, artifact, size_bytes):
                return kept
            try:
                derived = await derive_digests(mirror, artifact, size_bytes)
            except TimeoutError:
                raise
            except OSError as error:
                if is_own_want(error):
                    raise
                return None
            if derived is not None:
                await keep_digests(self._mirrors.healthy(), derived)
            return derived

    async def _find_digests(
        self, mirror: Mirror, artifact: ArtifactHash, size_bytes: int
    ) -> BlockDigests | None:
        if kept := await read_digests(mirror, artifact, size_bytes):
            return kept
        others = (other for other in self._mirrors.readable() if other is not mirror)
        for holder in others:
            with suppress(TimeoutError):
                if kept := await read_digests(holder, artifact, size_bytes):
                    if mirror.healthy:
                        await keep_digests([mirror], kept)
                    return kept
        return None

    def _damaged(self, mirror: Mirror, artifact: ArtifactHash) -> None:
        copy = mirror.artifacts.get(artifact)
        if copy is not None:
            mirror.record(artifact, replace(copy, damaged=True, verified_at_s=None))
            self._on_damage()

    def _damaged_copies(self, artifact: ArtifactHash) -> int:
        copies = (mirror.artifacts.get(artifact) for mirror in self._mirrors.readable())
        standing = sum(copy is not None and copy.damaged for copy in copies)
        return standing + sum(1 for _ in self._quarantine.of_artifact(artifact))
