"""Programs by which workers turn their vectors into a common mean."""

from thinwire.exchanges.all_reduce import AllReduce
from thinwire.exchanges.base import Aggregate, Context, Exchange
from thinwire.exchanges.gather import Gather
from thinwire.exchanges.parameter_server import ParameterServer

__all__ = ["Aggregate", "AllReduce", "Context", "Exchange", "Gather", "ParameterServer"]
