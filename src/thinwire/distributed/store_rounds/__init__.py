"""Rounds of model averaging over a store, for workers that have no route to each other."""

from thinwire.distributed.store_rounds.entrance import synchronize_by_store
from thinwire.distributed.store_rounds.handle import StoreSynchronizer
from thinwire.distributed.store_rounds.report import RoundReport
from thinwire.distributed.store_rounds.settings import Deadline, Patience, RoundSettings

__all__ = ["Deadline", "Patience", "RoundReport", "RoundSettings", "StoreSynchronizer", "synchronize_by_store"]
