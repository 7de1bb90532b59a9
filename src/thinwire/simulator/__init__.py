"""Many workers in one process, under a virtual clock."""

from thinwire.simulator.simulation import Simulation

__all__ = ["Simulation"]
