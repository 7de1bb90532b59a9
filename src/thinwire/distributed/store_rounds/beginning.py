"""What workers must have in common, compared through the store before their first round."""

import json
from dataclasses import asdict

from thinwire.distributed.store_rounds.objects import BEGINNING, Objects
from thinwire.errors import ConfigError, StoreError
from thinwire.worker import Worker
from thinwire.worker.news import Beginning, plain_text
from thinwire.worker.trained import checksum

_MOST_NUM_BYTES = 1 << 24


def check_beginning(objects: Objects, worker: Worker, *, is_fresh: bool) -> None:
    """Put what this worker begins with, or compare it with what the first one has put.

    Args:
        objects: of the run.
        worker: before its first round here.
        is_fresh: whether its parameters are the initial ones; if not, they are not compared.

    Raises:
        ConfigError: it has another method, seed, number of workers, model or initial parameters than the run.
        SealError: the run was begun with another key.
    """
    layout = worker.layout
    own = asdict(
        Beginning(
            method=plain_text(worker.method), seed=worker.runner.seed, size=worker.size,
            layout=", ".join(f"{name} {tuple(shape)}" for name, shape in zip(layout.names, layout.shapes, strict=True)),
            values=checksum(worker.shared_parameters()) if is_fresh else 0,
        )
    )  # fmt: skip
    if objects.create(BEGINNING, objects.sealed(json.dumps(own).encode(), BEGINNING, 0)):
        return
    sealed = objects.get(BEGINNING, _MOST_NUM_BYTES)
    if sealed is None:
        raise StoreError(f"the object {BEGINNING!r} was there and is gone; see who else writes to the store")
    theirs = json.loads(objects.opened(sealed, BEGINNING, 0))
    for name, value in own.items():
        # One that was started again when the store had been emptied could not tell.
        if theirs[name] != value and not (name == "values" and not (value and theirs[name])):
            what = "initial parameters (these are checksums)" if name == "values" else name
            raise ConfigError(
                f"this worker has another {what} than the run {objects.run!r} in this store: {value}, where the run "
                f"has {theirs[name]}; all workers must begin alike, and each training takes a run of its own name"
            )
