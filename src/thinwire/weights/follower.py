"""The inference worker's side: its weights become those that were published last."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinwire.errors import ConfigError, DivergenceError, ProtocolError, WireError
from thinwire.stores import Store, check_name
from thinwire.weights.blocks import groups_of, read_changes, read_words
from thinwire.weights.layout import Named, WeightLayout, gather, scatter, tensors_of
from thinwire.weights.messages import (
    MAX_HEAD_NUM_BYTES,
    MAX_LATEST_NUM_BYTES,
    NO_CHAIN,
    NO_CHECKSUMS,
    Checksums,
    Head,
    Latest,
    head_from_bytes,
    snapshot_folder,
    sum_words,
    update_folder,
)
from thinwire.weights.parts import PartReader


@dataclass(frozen=True, slots=True)
class FollowReport:
    """What one call of :meth:`WeightFollower.follow` did.

    Args:
        step: of the weights now; 0 where nothing was published yet.
        num_updates: that were applied.
        num_bytes: that were read.
        num_changed: words that were written, by all updates and the snapshot.
        changed: names of the tensors that have new entries, in the order of the weights: what an engine that has
            copies of its own must load again.
        snapshot: step of the snapshot that was loaded; None if none was.
        reason: why it was.
    """

    step: int
    num_updates: int = 0
    num_bytes: int = 0
    num_changed: int = 0
    changed: tuple[str, ...] = ()
    snapshot: int | None = None
    reason: str = ""


@dataclass(slots=True)
class _Done:
    """What a call has done so far."""

    num_updates: int = 0
    num_bytes: int = 0
    num_changed: int = 0
    changed: set[int] = field(default_factory=set)
    snapshot: int | None = None
    reason: str = ""


class WeightFollower:
    """Keeps weights equal, bit for bit, to those that a publisher publishes; they are written in place.

    It begins with a snapshot, and then applies each update to the weights that it was made for: the updates form a
    chain of digests, and the weights have the checksums that the update names, before and after. Beside the weights
    it takes memory for some blocks of them, however large they are.

    Args:
        weights: a model, or tensors by name, with the names, types and shapes of the publisher's. They may lie on any
            device. Nobody else is to write to them, nor to read them while :meth:`follow` runs.
        store: where the publisher writes.
        name: of the folder in the store.
        heal: load the last snapshot where updates cannot be applied; otherwise an error says why.

    Raises:
        ConfigError: a tensor that is not a plain one, or a name that no store can have.

    Example:
        >>> import tempfile
        >>> from thinwire.stores import FolderStore
        >>> from thinwire.weights import WeightPublisher
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trained = torch.nn.Linear(2, 2).bfloat16()
        ...     served = torch.nn.Linear(2, 2).bfloat16()
        ...     publisher = WeightPublisher(trained, FolderStore(folder))
        ...     follower = WeightFollower(served, FolderStore(folder))
        ...     first = publisher.publish(), follower.follow()
        ...     _ = torch.nn.init.constant_(trained.bias, 0.5)
        ...     second = publisher.publish(), follower.follow()
        >>> first[1].snapshot, second[1].snapshot, second[1].num_updates, second[1].changed
        (1, None, 1, ('bias',))
        >>> torch.equal(trained.weight, served.weight) and torch.equal(trained.bias, served.bias)
        True
    """

    def __init__(self, weights: Named, store: Store, *, name: str = "weights", heal: bool = True) -> None:
        self._weights, self._store, self._name, self._heal = weights, store, check_name(name), heal
        self._layout = WeightLayout.of(tensors_of(weights))
        self._step = 0
        self._chain = NO_CHAIN
        self._checksums = NO_CHECKSUMS
        # Set while weights are written: what breaks off in between leaves some of the one and some of the other.
        self._torn = False

    @property
    def step(self) -> int:
        """Number of the weights; 0 before the first call that found any."""
        return self._step

    def follow(self) -> FollowReport:
        """Apply all that was published since the last call.

        Raises:
            ConfigError: names, types or shapes are not the publisher's; nothing is changed.
            ProtocolError: an update is missing, or the store has gone back.
            DivergenceError: the weights are not those of the last call, the next update is for others, or others came
                of it.
            WireError: what lies there is damaged.
            StoreError: the store does not answer.
        """
        tensors = self._tensors()
        done = _Done()
        latest = self._latest()
        if latest is None:
            return FollowReport(self._step)
        if latest.step < self._step:
            raise ProtocolError(
                f"the store's last weights are {latest.step}, and step {self._step} was applied here already; if it is "
                "meant to begin again, make a new follower"
            )
        if self._torn and not self._heal:
            raise DivergenceError("an update broke off here, and only a snapshot makes the weights whole: heal=True")
        if self._step == 0 or self._torn:
            reason = "an update broke off" if self._torn else "the follower is new"
            latest = self._load_latest(tensors, done, reason)
        while self._step < latest.step or self._chain != latest.chain:
            try:
                self._apply_next(tensors, latest, done)
            except (ProtocolError, DivergenceError, WireError) as error:
                if not self._heal or done.snapshot is not None:
                    raise
                again = self._latest()
                # Weights that are others are made right by any snapshot, a gap is closed only by one behind it.
                others = self._torn or isinstance(error, DivergenceError)
                if again is None or not (others or again.snapshot > self._step):
                    raise
                latest = self._load_latest(tensors, done, str(error))
        names = tuple(self._layout.names[number] for number in sorted(done.changed))
        return FollowReport(
            self._step, done.num_updates, done.num_bytes, done.num_changed, names, done.snapshot, done.reason
        )

    def check(self) -> None:
        """See whether the weights are still those of the last call.

        Raises:
            DivergenceError: they are not, or there was no call that found any.
        """
        if not self._step or self._torn:
            raise DivergenceError("the weights are none that were published; call follow() first")
        self._check_sums(self._tensors(), self._checksums, "are not those of the last call: somebody wrote to them")

    def _tensors(self) -> list[Tensor]:
        tensors = tensors_of(self._weights)
        difference = self._layout.difference(WeightLayout.of(tensors))
        if difference:
            raise ConfigError(f"the weights are not those that this follower was made with: {difference}")
        return list(tensors.values())

    def _latest(self) -> Latest | None:
        contents = self._store.get(f"{self._name}/latest", MAX_LATEST_NUM_BYTES)
        return None if contents is None else Latest.from_bytes(contents)

    def _head(self, folder: str, step: int, snapshot: bool, done: _Done) -> tuple[Head, bytes]:
        contents = self._store.get(f"{folder}/head", MAX_HEAD_NUM_BYTES)
        if contents is None:
            raise ProtocolError(f"the object '{folder}/head' is not in the store; a newer snapshot is needed to go on")
        head, chain = head_from_bytes(contents, snapshot)
        if head.step != step:
            raise ProtocolError(f"the object '{folder}/head' holds step {head.step}, where {step} was expected")
        if head.tensors is not None:
            difference = self._layout.difference(head.tensors)
            if difference:
                raise ConfigError(f"the published weights are others: {difference}")
        if head.layout != self._layout.digest:
            raise ConfigError(f"the object '{folder}/head' is of weights with other names, types or shapes")
        done.num_bytes += len(contents) + sum(part.num_bytes for part in head.parts)
        return head, chain

    def _apply_next(self, tensors: Sequence[Tensor], latest: Latest, done: _Done) -> None:
        if self._step >= latest.step:
            raise DivergenceError(f"the updates up to step {self._step} are not those that led to the last weights")
        step = self._step + 1
        folder = update_folder(self._name, step)
        head, chain = self._head(folder, step, False, done)
        if head.chain != self._chain or head.before != self._checksums:
            raise DivergenceError(
                f"update {step} is for other weights than those of step {self._step} here: another publisher wrote it"
            )
        self._check_sums(tensors, head.before, f"are not those of step {self._step}: somebody wrote to them")
        self._write(tensors, folder, head, done)
        self._step, self._chain, self._checksums = step, chain, head.after
        done.num_updates += 1

    def _load_latest(self, tensors: Sequence[Tensor], done: _Done, reason: str) -> Latest:
        """Load the last snapshot there is by now."""
        latest = self._latest()
        if latest is None:
            raise ProtocolError(f"the object '{self._name}/latest' is not in the store any more")
        folder = snapshot_folder(self._name, latest.snapshot)
        head, chain = self._head(folder, latest.snapshot, True, done)
        self._write(tensors, folder, head, done)
        self._step, self._chain, self._checksums = latest.snapshot, chain, head.after
        done.snapshot, done.reason = latest.snapshot, reason
        return latest

    @torch.no_grad()
    def _write(self, tensors: Sequence[Tensor], folder: str, head: Head, done: _Done) -> None:
        """Read all blocks into the weights, and see whether they are then what was published."""
        parts = PartReader(self._store, folder, head)
        sums = list(NO_CHECKSUMS)
        self._torn = True
        for blocks in groups_of(self._layout.blocks):
            vectors = gather(blocks, tensors)
            if head.tensors is None:
                places = read_changes(parts.next, vectors, blocks[0].words)
            else:
                places = [read_words(parts.next(), vector, blocks[0].words) for vector in vectors]
            for block, vector, found in zip(blocks, vectors, places, strict=True):
                sums[block.format] = sum_words(vector, sums[block.format])
                done.changed |= scatter(block, vector, found, tensors)
                done.num_changed += found.numel()
        parts.check_end()
        if tuple(sums) != head.after:
            raise DivergenceError(f"after step {head.step} the weights do not have the checksum of those published")
        self._torn = False

    def _check_sums(self, tensors: Sequence[Tensor], right: Checksums, what: str) -> None:
        sums = list(NO_CHECKSUMS)
        for block in self._layout.blocks:
            sums[block.format] = sum_words(gather([block], tensors)[0], sums[block.format])
        if tuple(sums) != right:
            raise DivergenceError(f"the weights {what}")
