"""Methods of the literature as products of parts."""

from thinwire.methods.base import GradientAveraging, Method, ModelAveraging
from thinwire.methods.catalog import (
    CATALOG,
    CatalogEntry,
    entry,
    find_row,
    installed_rows,
    parse_method,
    with_residual_dtype,
)
from thinwire.methods.consensus import Consensus
from thinwire.methods.directions import FrozenAdam
from thinwire.methods.downpour import AveragedCentre, Downpour
from thinwire.methods.elastic import Elastic
from thinwire.methods.exact_sums import ExactSums, apart, exchanges_per_step
from thinwire.methods.fitting import check_method, fitted, is_dense, needs_gradients, num_exchanges
from thinwire.methods.frozen_lamb import FrozenLamb
from thinwire.methods.late import Late
from thinwire.methods.neighbours import Mix, NeighbourUpdate, OuterGossip
from thinwire.methods.partial import Partial
from thinwire.methods.schedules import DoublingGaps, DoublingSteps, Every, PostLocal, RandomGaps, Schedule, Staggered
from thinwire.methods.server_updates import ElasticFollow, Follow, ServerUpdate
from thinwire.methods.states import SyncedState
from thinwire.methods.tracking import Tracking
from thinwire.methods.updates import Outer, Update
from thinwire.methods.zero_one_adam import DirectedUpdate, ZeroOneAdam

__all__ = [
    "CATALOG",
    "AveragedCentre",
    "CatalogEntry",
    "Consensus",
    "DirectedUpdate",
    "DoublingGaps",
    "DoublingSteps",
    "Downpour",
    "Elastic",
    "ElasticFollow",
    "Every",
    "ExactSums",
    "Follow",
    "FrozenAdam",
    "FrozenLamb",
    "GradientAveraging",
    "Late",
    "Method",
    "Mix",
    "ModelAveraging",
    "NeighbourUpdate",
    "Outer",
    "OuterGossip",
    "Partial",
    "PostLocal",
    "RandomGaps",
    "Schedule",
    "ServerUpdate",
    "Staggered",
    "SyncedState",
    "Tracking",
    "Update",
    "ZeroOneAdam",
    "apart",
    "check_method",
    "entry",
    "exchanges_per_step",
    "find_row",
    "fitted",
    "installed_rows",
    "is_dense",
    "needs_gradients",
    "num_exchanges",
    "parse_method",
    "with_residual_dtype",
]
