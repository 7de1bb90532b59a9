"""A cluster of Ray's to train on: one that runs, or one that begins and ends with the training."""

from collections.abc import Mapping
from typing import Any

from thinwire.errors import ConfigError
from thinwire.ray.calls import ray_package


class Connection:
    """This process as a driver of Ray's.

    Args:
        address: of a cluster that runs, ``auto`` for the one of this machine; None: one that is this process's own.
            Where this process is connected already, that cluster is used.

    Raises:
        ConfigError: Ray is not installed, there is no cluster at the address, or it is reached by Ray Client.
    """

    def __init__(self, address: str | None) -> None:
        ray = self._ray = ray_package()
        if address is not None and address.startswith("ray://"):
            raise ConfigError(
                f"address={address!r} was given; the driver must run on a node of the cluster: run this script there, "
                'by "ray job submit" for example, with address="auto"'
            )
        self._is_ours = not ray.is_initialized()
        self.is_embedded = self._is_ours and address is None
        """Whether the cluster is this process's own, so that its processors need not be shared out."""
        if self._is_ours:
            begin = {"address": "local", "include_dashboard": False} if address is None else {"address": address}
            try:
                ray.init(**begin)
            except (ConnectionError, ValueError) as error:
                raise ConfigError(f"there is no cluster of Ray at {address!r} ({error})") from error

    def start(self, actor: type, given: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
        """An actor of a class; its handle."""
        return self._ray.remote(**options)(actor).remote(*given)

    def on_this_node(self) -> Any:
        """Where an actor is to be, so that it sees the folders of this process, also when it is restarted."""
        by_node = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        return by_node(self._ray.get_runtime_context().get_node_id(), soft=False)

    def kill(self, actor: Any) -> None:
        """End an actor for good."""
        self._ray.kill(actor)

    def close(self) -> None:
        """Leave the cluster, and end it if it is ours."""
        if self._is_ours:
            self._ray.shutdown()


def worker_options(resources: Mapping[str, float] | None, *, is_embedded: bool) -> dict[str, Any]:
    """Options of Ray for an actor with these resources: a processor by default, on one's own cluster none.

    Example:
        >>> worker_options({"CPU": 2, "GPU": 1, "fast": 1}, is_embedded=False)
        {'num_cpus': 2, 'num_gpus': 1, 'resources': {'fast': 1}}
    """
    given = dict(resources) if resources is not None else {"CPU": 0 if is_embedded else 1}
    options: dict[str, Any] = {"num_cpus": given.pop("CPU", 0)}
    if "GPU" in given:
        options["num_gpus"] = given.pop("GPU")
    return options | ({"resources": given} if given else {})
