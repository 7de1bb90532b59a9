"""Where numbers of steps go: TensorBoard, Weights & Biases, MLflow; none is imported before it is asked for."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from thinwire.errors import ConfigError
from thinwire.files import StrPath
from thinwire.plugins import import_package
from thinwire.worker.layer_report import LayerRecord

SinkKind = Literal["tensorboard", "wandb", "mlflow"]
_PROJECT = "thinwire"


class NumberSink(Protocol):
    """Takes the numbers of one run, step by step."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Keep numbers by name; steps do not go backwards."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class TensorBoardSink:
    """Writes event files for TensorBoard.

    Args:
        folder: of the run.

    Raises:
        ConfigError: tensorboard is not installed.
    """

    def __init__(self, folder: StrPath) -> None:
        _package("tensorboard")
        self._writer: Any = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """One scalar for each."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what waits."""
        self._writer.close()


class WandbSink:
    """A run of Weights & Biases.

    Args:
        folder: where W&B keeps its files.
        name: of the run.
        config: what is to be known of it.
        mode: ``online``, ``offline`` or ``disabled``; W&B's own setting if not given.

    Raises:
        ConfigError: wandb is not installed, or refuses.
    """

    def __init__(
        self, folder: StrPath, name: str, config: Mapping[str, Any], *,
        mode: Literal["online", "offline", "disabled"] | None = None,
    ) -> None:  # fmt: skip
        wandb: Any = _package("wandb")
        try:
            self._run = wandb.init(
                project=_PROJECT, dir=str(folder), name=name, config=dict(config), mode=mode, reinit="create_new"
            )
        except wandb.errors.Error as error:
            raise ConfigError(f"W&B refuses the run {name}: {error}. Log in, or set WANDB_MODE=offline") from error

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """One row."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MlflowSink:
    """A run of MLflow.

    Args:
        folder: of the file store that is used if MLflow was told of no other place, by ``MLFLOW_TRACKING_URI`` or
            ``mlflow.set_tracking_uri``. MLflow itself allows file stores if ``MLFLOW_ALLOW_FILE_STORE=true``.
        name: of the run.
        config: what is to be known of it.

    Raises:
        ConfigError: mlflow is not installed, or refuses.
    """

    def __init__(self, folder: StrPath, name: str, config: Mapping[str, Any]) -> None:
        mlflow: Any = _package("mlflow")
        is_told = mlflow.is_tracking_uri_set()
        uri = mlflow.get_tracking_uri() if is_told else Path(folder).resolve().as_uri()
        try:
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            known = self._client.get_experiment_by_name(_PROJECT)
            experiment = self._client.create_experiment(_PROJECT) if known is None else known.experiment_id
            self._run: str = self._client.create_run(experiment, run_name=name).info.run_id
            for key, value in config.items():
                self._client.log_param(self._run, key, value)
        except mlflow.exceptions.MlflowException as error:
            raise ConfigError(f"MLflow refuses the run {name} in {uri}: {error}") from error

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """One metric for each."""
        for name, value in numbers.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._run)


@dataclass(frozen=True, slots=True)
class LayerNumbers:
    """What a :class:`thinwire.LayerReport` writes to, for any sink, as
    :meth:`thinwire.worker.layer_report.LayerRecord.numbers` names it.

    Args:
        sink: takes the numbers.
    """

    sink: NumberSink

    def write(self, records: Sequence[LayerRecord]) -> None:
        """All that is defined of one exchange."""
        steps: dict[int, dict[str, float]] = {}
        for record in records:
            steps.setdefault(record.step, {}).update(record.numbers())
        for step, numbers in steps.items():
            self.sink.log(step, numbers)


def open_sink(kind: SinkKind, folder: StrPath, name: str, config: Mapping[str, Any]) -> NumberSink:
    """A sink of one run, whose own files go to a folder in ``folder``.

    Raises:
        ConfigError: its package is not installed, or refuses.
    """
    match kind:
        case "tensorboard":
            return TensorBoardSink(Path(folder) / "tensorboard" / name)
        case "wandb":
            return WandbSink(folder, name, config)
        case "mlflow":
            return MlflowSink(Path(folder) / "mlruns", name, config)


def check_sink(kind: SinkKind) -> None:
    """Refuse, before long work, a sink whose package is not installed.

    Raises:
        ConfigError: it is not.
    """
    _package(kind)


def _package(name: str) -> Any:
    return import_package(name, "a log of numbers", "mlflow-skinny" if name == "mlflow" else name)
