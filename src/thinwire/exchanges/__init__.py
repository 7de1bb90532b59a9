"""Programs by which workers turn their vectors into a common mean."""

from thinwire.exchanges.accumulating import Accumulating, ChangeAdder
from thinwire.exchanges.all_reduce import AllReduce
from thinwire.exchanges.asynchronous import AsynchronousServer
from thinwire.exchanges.base import Aggregate, Context, Exchange
from thinwire.exchanges.better_estimate import BetterEstimate
from thinwire.exchanges.compressed_reduce_scatter import CompressedReduceScatter
from thinwire.exchanges.directed import Directed, Direction
from thinwire.exchanges.gather import Gather
from thinwire.exchanges.gossip import Gossip
from thinwire.exchanges.hierarchical import Hierarchical
from thinwire.exchanges.integer_sum import IntegerSum
from thinwire.exchanges.leader_support import LeaderSupport
from thinwire.exchanges.majority_vote import MajorityVote
from thinwire.exchanges.orthonormal_lines import OrthonormalLines
from thinwire.exchanges.parameter_server import ParameterServer
from thinwire.exchanges.power_iteration import PowerIteration
from thinwire.exchanges.robust import RobustGather
from thinwire.exchanges.shared_scale import SharedScale
from thinwire.exchanges.sign_of import SignOf
from thinwire.exchanges.sparse_reduce_scatter import SparseReduceScatter
from thinwire.exchanges.table_sum import TableSum
from thinwire.exchanges.tree import Tree
from thinwire.exchanges.variance_scaled import VarianceScaled

__all__ = [
    "Accumulating",
    "Aggregate",
    "AllReduce",
    "AsynchronousServer",
    "BetterEstimate",
    "ChangeAdder",
    "CompressedReduceScatter",
    "Context",
    "Directed",
    "Direction",
    "Exchange",
    "Gather",
    "Gossip",
    "Hierarchical",
    "IntegerSum",
    "LeaderSupport",
    "MajorityVote",
    "OrthonormalLines",
    "ParameterServer",
    "PowerIteration",
    "RobustGather",
    "SharedScale",
    "SignOf",
    "SparseReduceScatter",
    "TableSum",
    "Tree",
    "VarianceScaled",
]
