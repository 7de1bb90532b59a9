"""Programs by which workers turn their vectors into a common mean."""

from thinwire.exchanges.accumulating import Accumulating
from thinwire.exchanges.all_reduce import AllReduce
from thinwire.exchanges.asynchronous import AsynchronousServer
from thinwire.exchanges.base import Aggregate, Context, Exchange
from thinwire.exchanges.gather import Gather
from thinwire.exchanges.gossip import Gossip
from thinwire.exchanges.hierarchical import Hierarchical
from thinwire.exchanges.majority_vote import MajorityVote
from thinwire.exchanges.owner_quantized import OwnerQuantized
from thinwire.exchanges.owner_sharded import OwnerSharded
from thinwire.exchanges.parameter_server import ParameterServer
from thinwire.exchanges.power_iteration import PowerIteration
from thinwire.exchanges.shared_scale import SharedScale
from thinwire.exchanges.sign_of import SignOf
from thinwire.exchanges.tree import Tree
from thinwire.exchanges.variance_scaled import VarianceScaled

__all__ = [
    "Accumulating",
    "Aggregate",
    "AllReduce",
    "AsynchronousServer",
    "Context",
    "Exchange",
    "Gather",
    "Gossip",
    "Hierarchical",
    "MajorityVote",
    "OwnerQuantized",
    "OwnerSharded",
    "ParameterServer",
    "PowerIteration",
    "SharedScale",
    "SignOf",
    "Tree",
    "VarianceScaled",
]
