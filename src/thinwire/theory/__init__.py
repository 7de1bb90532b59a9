"""What the papers prove, as functions of numbers: step sizes, averages, bounds, limits of stability."""

from thinwire.theory.averages import RunningAverage, quadratic_weight_sum
from thinwire.theory.convergence import (
    StronglyConvex,
    Suboptimality,
    local_sgd_suboptimality,
    mem_sgd_suboptimality,
    qsparse_suboptimality,
)
from thinwire.theory.elastic import (
    easgd_alpha_limit,
    elastic_is_stable,
    elastic_limit,
    elastic_radius,
    local_step_limit,
    local_step_map,
)
from thinwire.theory.gossip import choco_consensus_step, choco_gossip_factor, choco_shift, topology_gap
from thinwire.theory.local_steps import max_local_steps
from thinwire.theory.memory import decaying_memory_bound, local_memory_bound, memory_bound
from thinwire.theory.sampling import independent_sampling_error, uniform_sampling_error
from thinwire.theory.speedup import LINEAR_FROM, StepsToTarget, fit_steps_to_target
from thinwire.theory.step_sizes import (
    CHOCO,
    LOCAL_SGD,
    MEM_SGD,
    QSPARSE_LOCAL_SGD,
    InverseTime,
    least_shift,
    local_sgd_shift,
    mem_sgd_shift,
    qsparse_shift,
)

__all__ = [
    "CHOCO",
    "LINEAR_FROM",
    "LOCAL_SGD",
    "MEM_SGD",
    "QSPARSE_LOCAL_SGD",
    "InverseTime",
    "RunningAverage",
    "StepsToTarget",
    "StronglyConvex",
    "Suboptimality",
    "choco_consensus_step",
    "choco_gossip_factor",
    "choco_shift",
    "decaying_memory_bound",
    "easgd_alpha_limit",
    "elastic_is_stable",
    "elastic_limit",
    "elastic_radius",
    "fit_steps_to_target",
    "independent_sampling_error",
    "least_shift",
    "local_memory_bound",
    "local_sgd_shift",
    "local_sgd_suboptimality",
    "local_step_limit",
    "local_step_map",
    "max_local_steps",
    "mem_sgd_shift",
    "mem_sgd_suboptimality",
    "memory_bound",
    "qsparse_shift",
    "qsparse_suboptimality",
    "quadratic_weight_sum",
    "topology_gap",
    "uniform_sampling_error",
]
