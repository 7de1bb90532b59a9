"""The trainer's side: what changed since the last time goes to a store."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from thinwire.errors import ConfigError, ProtocolError
from thinwire.stores import Store, check_name
from thinwire.weights.blocks import groups_of, write_changes, write_words
from thinwire.weights.layout import Named, WeightLayout, gather, tensors_of
from thinwire.weights.messages import (
    MAX_HEAD_NUM_BYTES,
    MAX_LATEST_NUM_BYTES,
    NO_CHAIN,
    NO_CHECKSUMS,
    Head,
    Latest,
    snapshot_folder,
    sum_words,
    update_folder,
)
from thinwire.weights.parts import PartWriter


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What one call of :meth:`WeightPublisher.publish` wrote.

    Args:
        step: number of the published weights, from 1 on.
        num_changed: words that differ from the last published ones; all of them in a first snapshot.
        num_words: of all weights; a word is an entry of bf16, f16 or f32, and a byte of anything else.
        update_num_bytes: of the update; 0 where there is none.
        snapshot_num_bytes: of the snapshot; 0 where there is none.
    """

    step: int
    num_changed: int
    num_words: int
    update_num_bytes: int
    snapshot_num_bytes: int

    @property
    def num_bytes(self) -> int:
        """Of both."""
        return self.update_num_bytes + self.snapshot_num_bytes


class WeightPublisher:
    """Publishes weights exactly, as the few bytes that make the last published ones these; a snapshot now and then.

    It keeps one copy of the weights on the CPU, as they were last published. Under the store's folder ``name`` there
    are at most ``keep_snapshots`` snapshots, and the updates since the oldest of them. One publisher writes there at a
    time; a new one goes on with the numbers of the last, and begins with a snapshot.

    Args:
        weights: a model, of which parameters and buffers count, or tensors by name. Each time they are read anew.
        store: where to.
        name: of the folder in the store.
        snapshot_every: updates from one snapshot to the next; 0 for none but the first and those asked for.
        keep_snapshots: at least 1; two leave a follower time to read what is about to go.

    Raises:
        ConfigError: an argument that is not allowed, or a tensor that is not a plain one.
        StoreError: the store does not answer.
        WireError: what lies there under this name is something else.

    Example:
        >>> import tempfile, torch
        >>> from thinwire.stores import FolderStore
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     weights = {"w": torch.ones(1000, dtype=torch.bfloat16)}
        ...     publisher = WeightPublisher(weights, FolderStore(folder))
        ...     first = publisher.publish()
        ...     weights["w"][7] += 0.01
        ...     second = publisher.publish()
        >>> first.snapshot_num_bytes > 0, second.step, second.num_changed, second.num_bytes < 120
        (True, 2, 1, True)
    """

    def __init__(
        self, weights: Named, store: Store, *, name: str = "weights", snapshot_every: int = 50, keep_snapshots: int = 2
    ) -> None:
        if snapshot_every < 0 or keep_snapshots < 1:
            raise ConfigError(
                f"snapshot_every is {snapshot_every} and keep_snapshots {keep_snapshots}; they are at least 0 and 1"
            )
        self._weights, self._store, self._name = weights, store, check_name(name)
        self._snapshot_every, self._keep_snapshots = snapshot_every, keep_snapshots
        self._layout = WeightLayout.of(tensors_of(weights))
        self._kept: list[Tensor] = []
        self._checksums = NO_CHECKSUMS
        self._chain = NO_CHAIN
        self._step = self._last_step()
        self._snapshot = 0
        # Whether followers can go on from what is there; not at first, nor after an update that may be there or not.
        self._linked = False

    @property
    def step(self) -> int:
        """Number of the last published weights; 0 before the first."""
        return self._step

    def publish(self, *, snapshot: bool = False) -> PublishReport:
        """Write what changed since the last call, and a snapshot where it is time for one.

        Args:
            snapshot: write one in any case.

        Raises:
            ConfigError: the weights have other names, types or shapes than at first; nothing is written.
            ProtocolError: another publisher writes under this name.
            StoreError: the store does not answer; the next call writes a snapshot, from which followers go on.
        """
        tensors = tensors_of(self._weights)
        difference = self._layout.difference(WeightLayout.of(tensors))
        if difference:
            raise ConfigError(f"the weights are not those that this publisher was made with: {difference}")
        linked, self._linked = self._linked, False
        self._step += 1
        due = self._snapshot_every and self._step - self._snapshot >= self._snapshot_every
        num_words = sum(block.numel for block in self._layout.blocks)
        num_changed, update_num_bytes, snapshot_num_bytes = num_words, 0, 0
        if linked:
            num_changed, update_num_bytes = self._write_update(list(tensors.values()))
        else:
            self._take(list(tensors.values()))
        if not linked or snapshot or due:
            snapshot_num_bytes = self._write_snapshot(linked)
            self._snapshot = self._step
        latest = Latest(self._step, self._snapshot, self._chain)
        self._store.put(f"{self._name}/latest", latest.to_bytes())
        self._linked = True
        if snapshot_num_bytes:
            self._delete_old()
        return PublishReport(self._step, num_changed, num_words, update_num_bytes, snapshot_num_bytes)

    def _take(self, tensors: Sequence[Tensor]) -> None:
        """Keep a copy of all."""
        self._kept, sums = [], list(NO_CHECKSUMS)
        for block in self._layout.blocks:
            self._kept += gather([block], tensors)
            sums[block.format] = sum_words(self._kept[-1], sums[block.format])
        self._checksums = tuple(sums)

    def _write_update(self, tensors: Sequence[Tensor]) -> tuple[int, int]:
        """Put what makes the kept weights these, and keep these; how many words change, and the bytes."""
        folder = update_folder(self._name, self._step)
        writer = PartWriter(self._store, folder)
        sums, total, first = list(NO_CHECKSUMS), 0, 0
        for blocks in groups_of(self._layout.blocks):
            news = gather(blocks, tensors)
            kept = self._kept[first : first + len(blocks)]
            written, counts = write_changes(kept, news, blocks[0].words)
            for before, new, block, contents in zip(kept, news, blocks, written, strict=True):
                writer.add(contents)
                sums[block.format] = sum_words(new, sums[block.format])
                before.numpy()[:] = new.numpy()
            first += len(blocks)
            total += sum(counts)
        parts, body = writer.finish()
        after = tuple(sums)
        head = Head(self._layout.digest, self._step, self._chain, self._checksums, after, total, None, parts, body)
        self._checksums = after
        return total, writer.num_bytes + self._create_head(folder, head)

    def _write_snapshot(self, linked: bool) -> int:
        """Put the kept weights; the bytes."""
        folder = snapshot_folder(self._name, self._step)
        writer = PartWriter(self._store, folder)
        for kept, block in zip(self._kept, self._layout.blocks, strict=True):
            writer.add(write_words(kept, block.words))
        parts, body = writer.finish()
        chain = self._chain if linked else NO_CHAIN
        sums = NO_CHECKSUMS, self._checksums
        head = Head(self._layout.digest, self._step, chain, *sums, 0, self._layout, parts, body)
        return writer.num_bytes + self._create_head(folder, head)

    def _create_head(self, folder: str, head: Head) -> int:
        """Put a head, from which on what it stands for is there; its bytes."""
        message, self._chain = head.to_bytes()
        if len(message) > MAX_HEAD_NUM_BYTES:
            raise ConfigError(
                f"the head {folder!r} takes {len(message)} bytes, at most {MAX_HEAD_NUM_BYTES} are possible"
            )
        if not self._store.create(f"{folder}/head", message):
            raise ProtocolError(
                f"the object '{folder}/head' is there already: another publisher writes under {self._name!r}. Have one "
                "at a time, or give each a name of its own"
            )
        return len(message)

    def _last_step(self) -> int:
        """The last number that was used here, also by a publisher that did not get as far as to say so."""
        contents = self._store.get(f"{self._name}/latest", MAX_LATEST_NUM_BYTES)
        said = Latest.from_bytes(contents).step if contents is not None else 0
        return max([said, *(step for step, _ in self._objects())])

    def _objects(self) -> list[tuple[int, str]]:
        """What lies there, with the steps."""
        names = [name for kind in ("updates", "snapshots") for name in self._store.names(f"{self._name}/{kind}")]
        numbers = [name.removeprefix(f"{self._name}/").split("/")[1] for name in names]
        return [(int(number), name) for number, name in zip(numbers, names, strict=True) if number.isdecimal()]

    def _delete_old(self) -> None:
        """Leave the last snapshots and the updates that follow the oldest of them."""
        objects = self._objects()
        heads = {step for step, name in objects if name == f"{snapshot_folder(self._name, step)}/head"}
        oldest = min(sorted(heads)[-self._keep_snapshots :])
        for step, name in objects:
            followed = step == oldest and name.startswith(f"{self._name}/snapshots/")
            if step <= oldest and not followed:
                self._store.delete(name)
