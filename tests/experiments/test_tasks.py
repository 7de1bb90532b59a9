import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from large_tasks import small_cifar10, small_gpt, small_image_folder, write_fashion, write_idx
from torch import nn

from thinwire.errors import ConfigError
from thinwire.experiments.tasks import Task, load_task, task_names
from thinwire.experiments.tasks.digits import digits
from thinwire.experiments.tasks.fashion_mnist import fashion_mnist
from thinwire.experiments.tasks.language_model import LanguageModelTask
from thinwire.experiments.tasks.logreg import LogisticRegression, logreg
from thinwire.experiments.tasks.stdlib_lm import stdlib_lm


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Task]:
    return {
        "digits": digits(),
        "fashion-mnist": fashion_mnist(str(write_fashion(tmp_path_factory.mktemp("idx"))), num_validation=10),
        "stdlib-lm": stdlib_lm(context=32),
        "logreg": logreg(200, 20),
        "logreg-convex": logreg(400, 20, regularised=False),
        "gpt": small_gpt(tmp_path_factory.mktemp("texts")),
        "cifar10": small_cifar10(tmp_path_factory.mktemp("cifar10"), augment=False),
        "image-folder": small_image_folder(tmp_path_factory.mktemp("images"), augment=False),
    }


@pytest.fixture(params=task_names())
def task(request: pytest.FixtureRequest, tasks: dict[str, Task]) -> Task:
    return tasks[request.param]


def bits(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# What holds for every task.


def test_facts(task: Task, tasks: dict[str, Task]) -> None:
    assert tasks[task.name.partition(":")[0]] is task
    assert task.labels.shape == (task.num_train,)
    assert task.labels.dtype == torch.int64
    assert task.batch_size >= 1
    assert list(task.learning_rates) == sorted(set(task.learning_rates))
    assert len(task.learning_rates) == 4


def test_model_depends_on_the_seed_alone(task: Task) -> None:
    state = torch.get_rng_state()
    first = bits(task.model(1))
    torch.rand(3)
    assert same(first, bits(task.model(1)))
    assert task.name.startswith("logreg") or not same(first, bits(task.model(2)))
    torch.set_rng_state(state)
    task.model(7)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.dtype == torch.float32 and p.is_contiguous() for p in task.model(1).parameters())


def test_loss_is_the_mean_over_examples(task: Task) -> None:
    model = task.model(1)
    together = task.loss(model, torch.tensor([3, 0, 3, 9]))
    apart = [task.loss(model, torch.tensor([i])).item() for i in (3, 0, 3, 9)]
    assert together.shape == ()
    assert together.item() == pytest.approx(sum(apart) / 4, rel=1e-5)


def test_loss_has_the_same_bits_whatever_the_threads(task: Task) -> None:
    model, indices, before = task.model(1), torch.arange(task.batch_size), torch.get_num_threads()
    losses = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            losses.append(task.loss(model, indices).detach())
    finally:
        torch.set_num_threads(before)
    assert torch.equal(losses[0], losses[1])


def test_a_few_steps_reduce_the_loss(task: Task) -> None:
    model, indices = task.model(1), torch.arange(24)
    optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rates[1])
    before = task.loss(model, indices).item()
    for _ in range(8):
        optimizer.zero_grad()
        task.loss(model, indices).backward()
        optimizer.step()
    assert task.loss(model, indices).item() < 0.99 * before


def test_evaluate_leaves_the_model_alone(task: Task) -> None:
    model = task.model(1)
    task.loss(model, torch.arange(4)).backward()
    children = list(model.modules())
    children[-1].eval()
    modes = [module.training for module in children]
    values, gradients = bits(model), [parameter.grad for parameter in model.parameters()]
    copies = [gradient.clone() for gradient in gradients if gradient is not None]
    state = torch.get_rng_state()
    first, again = task.evaluate(model, "test"), task.evaluate(model, "test")
    assert first == again
    assert [module.training for module in children] == modes
    assert same(values, bits(model))
    for parameter, gradient, copy in zip(model.parameters(), gradients, copies, strict=True):
        assert parameter.grad is gradient
        assert parameter.grad is not None
        assert torch.equal(copy, parameter.grad)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_evaluate_knows_two_splits(task: Task) -> None:
    assert (task.evaluate(task.model(1), "test") == task.evaluate(task.model(1), "validation")) == (
        task.name.startswith("logreg")
    )
    with pytest.raises(ConfigError, match="'train'"):
        task.evaluate(task.model(1), "train")  # type: ignore[arg-type]


# Images.


@pytest.mark.parametrize(("name", "sizes"), [("digits", (1297, 200, 300)), ("fashion-mnist", (50, 10, 30))])
def test_image_splits(tasks: dict[str, Task], name: str, sizes: tuple[int, int, int]) -> None:
    task = tasks[name]
    parts = (task.train, task.validation, task.test)  # type: ignore[attr-defined]
    assert tuple(len(part.classes) for part in parts) == sizes
    assert tuple(len(part.pixels) for part in parts) == sizes
    # No image is in two parts: there are as many different ones as in the source, where few are twins.
    flat = torch.cat([part.pixels.flatten(1) for part in parts])
    assert len(flat.unique(dim=0)) == sum(sizes)


def test_digits_are_all_there() -> None:
    from sklearn.datasets import load_digits

    task = digits()
    parts = (task.train, task.validation, task.test)
    mine = torch.cat([torch.cat([p.pixels.flatten(1) * 16, p.classes[:, None].float()], 1) for p in parts])
    data = load_digits()
    theirs = np.concatenate([data.data, data.target[:, None]], axis=1)
    assert sorted(map(tuple, mine.tolist())) == sorted(map(tuple, theirs.tolist()))


@pytest.mark.parametrize(("name", "count"), [("digits", 38_282), ("fashion-mnist", 206_922)])
def test_parameter_counts(tasks: dict[str, Task], name: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in tasks[name].model(0).parameters()) == count


def test_missing_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ConfigError, match=r'pip install "thinwire\[bench\]"'):
        digits.__wrapped__()


def test_fashion_gradients_are_contiguous(tasks: dict[str, Task]) -> None:
    model = tasks["fashion-mnist"].model(0)
    tasks["fashion-mnist"].loss(model, torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.is_contiguous() for p in model.parameters())


def test_missing_files_are_named(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ConfigError) as caught:
        fashion_mnist(str(tmp_path))
    message = str(caught.value)
    assert f"looked in {tmp_path}" in message
    assert "did not find t10k-labels-idx1-ubyte. " in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert "--data DIR" in message


@pytest.mark.parametrize(
    ("file", "array", "says"),
    [
        ("train-images-idx3-ubyte.gz", np.zeros((60, 27, 28), np.uint8), "not images"),
        ("train-images-idx3-ubyte.gz", np.zeros((0, 28, 28), np.uint8), "not images"),
        ("t10k-labels-idx1-ubyte", np.zeros(29, np.uint8), "one label each"),
        ("train-labels-idx1-ubyte", np.full(60, 10, np.uint8), "label 10"),
    ],
)
def test_unfit_files_are_named(tmp_path: Path, file: str, array: np.ndarray, says: str) -> None:
    write_idx(write_fashion(tmp_path) / file, array)
    with pytest.raises(ConfigError, match=says) as caught:
        fashion_mnist(str(tmp_path), num_validation=10)
    assert file in str(caught.value)


@pytest.mark.parametrize("num_validation", [0, 60, 5_000])
def test_validation_leaves_something(tmp_path: Path, num_validation: int) -> None:
    with pytest.raises(ConfigError, match="1 to 59"):
        fashion_mnist(str(write_fashion(tmp_path)), num_validation=num_validation)


# The language model.


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("library")
    for i in range(80):
        folder = root / ("package" if i % 2 else ".")
        folder.mkdir(exist_ok=True)
        (folder / f"module{i:02}.py").write_bytes(bytes([i]) * (2000 + i))
    for skipped in (
        "site-packages/x.py",
        "package/test/y.py",
        "tests/z.py",
        "_sysconfigdata_x.py",
        "empty.py",
    ):
        (root / skipped).parent.mkdir(exist_ok=True)
        (root / skipped).write_bytes(b"" if skipped == "empty.py" else b"\xff" * 9000)
    return root


def test_language_model_reads_each_file_into_one_split(sources: Path) -> None:
    task = stdlib_lm(context=16, folder=str(sources))
    seen = [set(part.flatten().tolist()) for part in (task.windows, task.validation, task.test)]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert set.union(*seen) == set(range(80))
    assert all(seen)


def test_windows_and_labels(sources: Path) -> None:
    task = stdlib_lm(context=16, folder=str(sources))
    assert task.windows.shape[1] == 17
    assert torch.equal(task.windows[1:, 0], task.windows[:-1, -1])
    # In this library a file's bytes are its number, so labels and first bytes count the same files.
    _, numbers = task.windows[:, 0].unique_consecutive(return_inverse=True)
    assert torch.equal(task.labels, numbers)
    assert bool((task.labels.diff() >= 0).all())


def test_the_standard_library_itself(tasks: dict[str, Task]) -> None:
    task = tasks["stdlib-lm"]
    assert isinstance(task, LanguageModelTask)
    assert task.num_train * 32 > 1_000_000
    assert len(task.validation) == len(task.test) == 256
    result = task.evaluate(task.model(0), "test")
    assert result.value == pytest.approx(result.loss / np.log(2))
    assert result.value == pytest.approx(8, abs=0.5)


def test_the_model_is_causal(tasks: dict[str, Task]) -> None:
    model = tasks["stdlib-lm"].model(0)
    tokens = torch.arange(32)[None]
    changed = tokens.clone()
    changed[0, 20] = 99
    before, after = model(tokens), model(changed)
    assert before.shape == (1, 32, 256)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])


def test_dropout(sources: Path) -> None:
    task = stdlib_lm(context=16, dropout=0.5, folder=str(sources))
    model = task.model(0)
    torch.manual_seed(0)
    assert task.loss(model, torch.arange(4)).item() != task.loss(model, torch.arange(4)).item()
    assert task.evaluate(model, "test") == task.evaluate(model, "test")


def test_what_the_language_model_refuses(tmp_path: Path, sources: Path) -> None:
    with pytest.raises(ConfigError, match="neither zipped"):
        stdlib_lm(folder=str(tmp_path / "python311.zip"))
    with pytest.raises(ConfigError, match="lower the context"):
        stdlib_lm(context=100_000, folder=str(sources))
    with pytest.raises(ConfigError, match="context is 0"):
        stdlib_lm(context=0)
    with pytest.raises(ConfigError, match=r"dropout 1\.0"):
        stdlib_lm(dropout=1.0)


# Logistic regression.


@pytest.fixture(scope="module", params=[True, False], ids=["regularised", "convex"])
def convex(request: pytest.FixtureRequest) -> LogisticRegression:
    return logreg(1000, 50, request.param)


def factor(task: LogisticRegression) -> float:
    return {"logreg": 1 / len(task.labels), "logreg-convex": 0.0}[task.name]


def objective(task: LogisticRegression, weights: np.ndarray) -> float:
    y = task.labels.numpy().astype(np.float64)
    x = task.signed_rows.numpy().astype(np.float64) * y[:, None]
    return float(np.logaddexp(0, -y * (x @ weights)).mean() + 0.5 * factor(task) * weights @ weights)


def gradient(task: LogisticRegression, weights: np.ndarray) -> np.ndarray:
    y = task.labels.numpy().astype(np.float64)
    x = task.signed_rows.numpy().astype(np.float64) * y[:, None]
    found: np.ndarray = x.T @ (-y / (1 + np.exp(y * (x @ weights)))) / len(y) + factor(task) * weights
    return found


def test_the_optimum_is_one(convex: LogisticRegression) -> None:
    best = convex.optimum
    weights = best.weights.numpy()
    assert best.gradient_norm <= 1e-10
    assert np.linalg.norm(gradient(convex, weights)) <= 1.1e-10
    assert objective(convex, weights) == pytest.approx(best.value, abs=1e-14)
    random = np.random.default_rng(0)
    for scale in (1e-3, 1e-1, 10.0):
        assert objective(convex, weights + scale * random.standard_normal(50)) > best.value
    assert convex.optimum is best
    assert logreg(1000, 50, convex.name == "logreg") is convex


def test_the_problem_is_as_documented(convex: LogisticRegression) -> None:
    assert set(convex.labels.tolist()) == {-1, 1}
    torch.testing.assert_close(convex.signed_rows.norm(dim=1), torch.ones(1000))
    rows = convex.signed_rows * convex.labels[:, None]
    deviations = rows.std(0)
    assert float(deviations[0] / deviations[-1]) == pytest.approx(50**0.5, rel=0.25)
    accuracy = float((convex.signed_rows.double() @ convex.optimum.weights > 0).double().mean())
    assert 0.7 < accuracy < 0.95


def test_suboptimality(convex: LogisticRegression) -> None:
    model = convex.model(0)
    start = convex.evaluate(model, "test")
    assert start.loss == pytest.approx(np.log(2), abs=1e-15)
    assert start.value == pytest.approx(np.log(2) - convex.optimum.value, abs=1e-15)
    for parameter in model.parameters():
        parameter.data.copy_(convex.optimum.weights.float()[None])
    assert 1e-16 <= convex.evaluate(model, "validation").value < 1e-12
    assert convex.metric.logarithmic


def test_loss_is_the_objective(convex: LogisticRegression) -> None:
    model = convex.model(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
        weights = parameter.detach().flatten().double().numpy()
    loss = convex.loss(model, torch.arange(1000))
    assert loss.item() == pytest.approx(objective(convex, weights), rel=1e-5)
    loss.backward()
    (got,) = (p.grad for p in model.parameters())
    assert got is not None
    np.testing.assert_allclose(got.flatten().numpy(), gradient(convex, weights), atol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 40), (1030, 1)])
def test_odd_sizes(n: int, d: int) -> None:
    task = logreg(n, d)
    assert task.optimum.gradient_norm <= 1e-10


def test_logreg_refuses() -> None:
    with pytest.raises(ConfigError, match="0 examples"):
        logreg(0, 3)
    with pytest.raises(ConfigError, match=r"30 examples of 10 features.*separates them is likely"):
        logreg(30, 10, regularised=False)


# The registry.


def test_load_task_by_name(tmp_path: Path) -> None:
    assert load_task("digits") is digits()
    with pytest.raises(ConfigError, match="looked in"):
        load_task("fashion-mnist", data=str(tmp_path))
    assert load_task("stdlib-lm").name == "stdlib-lm"


def test_unknown_task() -> None:
    with pytest.raises(ConfigError, match='did you mean "fashion-mnist"') as caught:
        load_task("fashion_mnist")
    assert all(name in str(caught.value) for name in task_names())
    with pytest.raises(ConfigError, match=r'no task "zzz"\. Known'):
        load_task("zzz")


def test_data_without_effect_warns() -> None:
    with pytest.warns(UserWarning, match="--data somewhere has no effect"):
        load_task("digits", data="somewhere")


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "thinwire_own_task.py").write_text(
        "from thinwire.experiments.tasks.logreg import logreg\n"
        "def mine(): return logreg(200, 20)\n"
        "def other(): return 7\n"
        "value = 3\n"
    )
    (tmp_path / "thinwire_own_broken.py").write_text("import thinwire_there_is_no_such_module\n")
    monkeypatch.chdir(tmp_path)
    return "thinwire_own_task"


def test_a_task_of_ones_own(own_module: str) -> None:
    path = list(sys.path)
    assert load_task(f"{own_module}:mine").num_train == 200
    assert sys.path == path


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("thinwire_own_task:other", "returned a int without name, metric, num_train"),
        ("thinwire_own_task:value", "is a int"),
        ("thinwire_own_task:nothing", "is not there"),
        ("thinwire_own_missing:f", "cannot import thinwire_own_missing"),
        ("thinwire_own_broken:f", "No module named 'thinwire_there_is_no_such_module'"),
        (":f", "not of the form"),
        ("a.b:", "not of the form"),
        ("a b:c", "not of the form"),
    ],
)
def test_a_task_of_ones_own_that_is_none(own_module: str, name: str, says: str) -> None:
    path = list(sys.path)
    with pytest.raises(ConfigError, match=says):
        load_task(name)
    assert sys.path == path
