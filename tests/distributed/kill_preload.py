"""Imported once by the process that others begin as copies of: it has the kernels, so that they need not load them."""

import kill_mains as mains
import torch

from thinwire import Simulation, Worker
from thinwire.methods import parse_method

torch.set_num_threads(1)  # a copy has no other threads
for method in ("signtopk:density=10%,every=4", "topk:density=10%"):
    model = mains.network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    workers = [Worker(parse_method(method), model, optimizer, rank=0, size=1, seed=0)]
    for _ in range(4):
        model(torch.ones(2, 20)).sum().backward()
        Simulation(1).run([worker.step() for worker in workers])
