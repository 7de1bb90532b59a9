"""Transformers of GPT-2's shapes and ResNet-18: models, vocabularies, files, and what is said where something lacks."""

import gzip
import json
import math
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from command_line import run_cli
from large_tasks import (
    small_cifar10,
    small_gpt,
    write_cifar10,
    write_fashion,
    write_images,
    write_texts,
)
from PIL import Image
from torch import nn

from thinwire.cli.application import console
from thinwire.cli.comparing import warn_of_gpu
from thinwire.errors import ConfigError
from thinwire.experiments.engines import SimulatedEngine
from thinwire.experiments.recorder import Recorder
from thinwire.experiments.recording import RecordingPlan
from thinwire.experiments.session import Session
from thinwire.experiments.settings import Setting
from thinwire.experiments.spec import Comparison, Run
from thinwire.experiments.tasks import TASKS, load_task, task_names
from thinwire.experiments.tasks.byte_pairs import BytePairs, tokenised
from thinwire.experiments.tasks.gpt import GPT
from thinwire.experiments.tasks.images import shifted_and_mirrored
from thinwire.experiments.tasks.resnet import Norm, ResNet18
from thinwire.experiments.tasks.text_files import DistinctTexts, all_files, read_splits
from thinwire.network import Network


def count(model: nn.Module) -> int:
    return sum(param.numel() for param in model.parameters())


# Transformers.


def test_gpt_begins_as_gpt2_does() -> None:
    torch.manual_seed(0)
    model = GPT(vocabulary=500, context=64, width=128, num_layers=8, num_heads=2)
    # Embeddings; per block two norms, four maps with biases; the last norm. Scores reuse the embedding.
    assert count(model) == 564 * 128 + 8 * (12 * 128**2 + 13 * 128) + 2 * 128
    for name, param in model.named_parameters():
        if "norm" in name:
            assert torch.equal(param, torch.full_like(param, float(name.endswith("weight")))), name
        elif param.ndim == 1:
            assert not param.any(), name
        else:
            added = name.endswith(("join.weight", "down.weight"))
            assert param.std().item() == pytest.approx(0.02 / (4 if added else 1), rel=0.03), name
    assert model.blocks[0].gelu == "tanh"


def test_gpt_is_causal_and_its_embedding_is_also_its_last_map() -> None:
    torch.manual_seed(0)
    model = GPT(vocabulary=50, context=12, width=32, num_layers=2, num_heads=4)
    tokens = torch.arange(12)[None] % 50
    changed = tokens.clone()
    changed[0, 8] = 40
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :8], after[:, :8])
    assert not torch.allclose(before[:, 8:], after[:, 8:])
    with torch.no_grad():
        model.tokens.weight[45] *= 2  # a token that does not occur: only its own score knows
    doubled = model(tokens)
    torch.testing.assert_close(doubled[..., 45], 2 * before[..., 45])
    torch.testing.assert_close(doubled[..., :45], before[..., :45])


def test_every_byte_of_a_text_belongs_to_one_token(tmp_path: Path) -> None:
    texts = [path.read_bytes() for path in sorted(write_texts(tmp_path, 6).rglob("*.txt"))]
    pairs = BytePairs.trained(texts[:4], 300)
    for text, tokens in zip(texts, pairs.tokens(texts), strict=True):
        assert tokens[-1] == 299
        assert int(pairs.num_bytes()[tokens.long()].sum()) == len(text)
        assert len(tokens) < len(text) / 2  # also in texts that it was not trained on
    assert pairs.num_bytes().tolist()[:256] == [1] * 256
    merged = pairs.num_bytes().tolist()[256:]
    assert min(filter(None, merged)) == 2
    assert merged[-1] == 0
    with pytest.raises(ConfigError, match="257 tokens"):
        BytePairs.trained(texts, 256)


def test_tokens_are_those_of_every_other_process_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    texts = [path.read_bytes() for path in sorted(write_texts(folder, 6).rglob("*.txt"))]
    splits = {"train": texts[:4], "validation": texts[4:5], "test": texts[5:]}
    first = tokenised(splits, 280, tmp_path / "kept")
    script = (
        "import sys, torch; from pathlib import Path; from thinwire.experiments.tasks.byte_pairs import tokenised\n"
        "texts = [path.read_bytes() for path in sorted(Path(sys.argv[1]).rglob('*.txt'))]\n"
        "splits = {'train': texts[:4], 'validation': texts[4:5], 'test': texts[5:]}\n"
        "tokenised(splits, 280, Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", script, str(folder), str(tmp_path / "other")], check=True, timeout=120)
    (kept,), (other,) = (list((tmp_path / name).iterdir()) for name in ("kept", "other"))
    assert kept.name == other.name
    found = torch.load(other, weights_only=True)
    assert all(torch.equal(first.splits[name], found["splits"][name]) for name in splits)
    assert torch.equal(first.num_bytes, found["num_bytes"])

    calls: list[int] = []
    trained = BytePairs.trained

    def counted(texts: list[bytes], size: int) -> BytePairs:
        calls.append(size)
        return trained(texts, size)

    monkeypatch.setattr(BytePairs, "trained", staticmethod(counted))
    again = tokenised(splits, 280, tmp_path / "kept")
    assert not calls
    assert all(torch.equal(first.splits[name], again.splits[name]) for name in splits)
    kept.write_bytes(kept.read_bytes()[:100])  # damaged: made again
    again = tokenised(splits, 280, tmp_path / "kept")
    assert all(torch.equal(first.splits[name], again.splits[name]) for name in splits)
    tokenised({**splits, "test": texts[4:5]}, 280, tmp_path / "kept")
    tokenised(splits, 281, tmp_path / "kept")
    assert calls == [280, 280, 281]
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.warns(UserWarning, match="are made again each time"):
        tokenised(splits, 282, blocked / "kept")


def test_bits_per_byte_count_bytes_of_text_and_not_tokens(tmp_path: Path) -> None:
    task = small_gpt(tmp_path)
    model = task.model(1)
    found = task.evaluate(model, "test")
    windows = task.test.long()
    with torch.no_grad():
        scores = model(windows[:, :-1]).log_softmax(-1)
    nats = -scores.gather(-1, windows[:, 1:, None]).sum().item()
    assert task.token_num_bytes is not None
    num_bytes = sum(int(task.token_num_bytes[token]) for token in windows[:, 1:].flatten())
    assert num_bytes > 1.5 * windows[:, 1:].numel()
    assert found.value == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)
    assert found.loss == pytest.approx(nats / windows[:, 1:].numel(), rel=1e-5)


def test_a_folder_of_texts_is_read_without_copies_and_without_what_is_no_text(tmp_path: Path) -> None:
    files: dict[str, bytes] = {
        "a.txt": b"first", "b/c": "zweité".encode(), "b/d.gz": gzip.compress(b"third"), "copy": b"first",
        "e.gz": b"no archive", "f.bin": b"zero \0 byte", "g.txt": b"\xff\xfe", ".hidden": b"unseen", "h": b"",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    splits = read_splits(tmp_path, all_files(tmp_path), 1000, DistinctTexts())
    assert sorted(text for texts in splits.values() for text in texts) == sorted(
        [b"first", "zweité".encode(), b"third"]
    )
    less = read_splits(tmp_path, all_files(tmp_path), 12, DistinctTexts())
    assert sum(map(len, less.values())) == 2


def test_gpt_by_name_on_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "t").mkdir()
    with pytest.raises(ConfigError, match="gpt found 0 bytes of text"):
        load_task("gpt", data=tmp_path / "t")
    folder = write_texts(tmp_path / "t")
    task = load_task("gpt:layers=1, width=32,heads=2,context=24,vocabulary=270", data=folder)
    assert task.name == "gpt:layers=1,width=32,heads=2,context=24,vocabulary=270"
    assert count(task.model(0)) == (270 + 24) * 32 + 12 * 32**2 + 13 * 32 + 2 * 32
    assert 1 < task.evaluate(task.model(0), "test").value < 9
    assert [path.suffix for path in (tmp_path / "home/.cache/thinwire").iterdir()] == [".pt"]
    labels = task.labels
    assert bool((labels.diff() >= 0).all())
    assert 40 < len(labels.unique()) <= 60


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gpt:width=100,heads=3", "the width a multiple of the heads"),
        ("gpt:layers=0", "each is at least 1"),
        ("gpt:depth=2", "gpt has no option 'depth'"),
        ("gpt:layers=two", "layers=two cannot be read; write a whole number"),
        ("digits:size=3", "digits has no option 'size'; it takes none"),
        ("fashion-mnist:model=vgg", "model=vgg is not known; choose one of cnn, resnet18"),
        ("cifar10", "give --data DIR, a folder with data_batch_1.bin"),
        ("image-folder", "give --data DIR, a folder with train/CLASS"),
        ("image-folder:size=4", "size=4 was given"),
    ],
)
def test_options_of_tasks_that_cannot_be(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_task(name)


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("gpt", "tokenizers", "text"), ("image-folder", "PIL", "images")]
)
def test_what_is_not_installed_is_named(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, module, None)
    says = rf'needs {module}, which is not installed .*; run: pip install "thinwire\[{extra}\]"'
    with pytest.raises(ConfigError, match=says):
        load_task(f"{name}:vocabulary=258" if name == "gpt" else name, data=write_texts(tmp_path))


def test_gradients_of_a_transformer_are_recorded(tmp_path: Path) -> None:
    task = small_gpt(tmp_path)
    plan = RecordingPlan(method="sgd", workers=2, steps=3, every=1, batch_size=2, lr=0.1, optimizer="sgd", seed=0)
    recorder = Recorder(plan, task)
    recorder.run(lambda step: None)
    rows = recorder.recording().gradient
    assert rows.vectors.shape == (3, count(task.model(0)))
    # The first is the gradient of the first batch at the initial model.
    model = task.model(0)
    task.loss(model, recorder._batches[0].indices(0)).backward()
    flat = torch.cat([param.grad.flatten() for param in model.parameters() if param.grad is not None])
    torch.testing.assert_close(rows.vectors[0], flat)


def test_what_is_worth_a_gpu_is_said_with_the_estimate(tmp_path: Path) -> None:
    task = small_gpt(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_gpu("gpt:vocabulary=300", task)
    large = replace(task, build=partial(GPT, vocabulary=300, context=16, width=512, num_layers=4, num_heads=8))
    with pytest.warns(UserWarning, match=rf"has {count(large.model(0)):,} parameters, and .* on a GPU only"):
        warn_of_gpu("gpt:layers=4,width=512", large)
    assert {row.name for row in TASKS if row.gpu} == {"gpt", "cifar10", "image-folder", "fashion-mnist"}


def test_a_list_of_the_tasks_has_their_options_and_what_needs_a_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "width", 160)
    assert run_cli(monkeypatch, "tasks") == 0
    shown = capsys.readouterr().out
    assert [name for name in task_names() if f"\n{name}\n" in f"\n{shown}"] == list(task_names())
    assert "layers=4  width=128  [heads]  context=128  vocabulary=4096  megabytes=12" in shown
    assert "needs    a GPU for a training of ResNet-18" in shown
    assert run_cli(monkeypatch, "tasks", "--json", "-") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == list(task_names())
    assert run_cli(monkeypatch, "tasks", "gtp") == 2
    assert "did you mean gpt?" in capsys.readouterr().err


# ResNet-18.


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize(
    ("channels", "num_classes", "small", "numel"),
    [(3, 1000, False, 11_689_512), (3, 10, True, 11_173_962), (1, 10, True, 11_172_810)],
)
def test_resnet_has_its_published_size(channels: int, num_classes: int, small: bool, numel: int, norm: Norm) -> None:
    with torch.device("meta"):
        model = ResNet18(channels=channels, num_classes=num_classes, small=small, norm=norm)
        size = 28 if small else 224
        assert model(torch.empty(2, channels, size, size)).shape == (2, num_classes)
    assert count(model) == numel
    # Eight blocks of two convolutions, three that change the shape, one at the beginning.
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 20
    assert (next(model.buffers(), None) is None) == (norm == "group")


def test_normalised_by_groups_an_image_is_scored_by_itself() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 16, 16)
    for norm, alone in (("group", True), ("batch", False)):
        model = ResNet18(channels=3, num_classes=5, small=True, norm=norm, width=4)  # type: ignore[arg-type]
        together, apart = model(x)[:2], model(x[:2])
        assert torch.allclose(together, apart, rtol=1e-3, atol=1e-4) == alone


def test_statistics_of_batches_are_those_of_worker_0_when_the_common_model_is_evaluated(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    task = small_cifar10(tmp_path / "data", augment=True, norm="batch")
    comparison = Comparison(
        methods=("topk:density=10%",), task="cifar10", workers=2, lrs=(0.1,), steps=4, tune_steps=4, evaluate_every=4,
        batch_size=8,
    )  # fmt: skip
    runs: list[list[dict[str, Any]]] = []
    for name in "ab":
        run = Run(comparison.methods[0], Setting("sgd", "", 0.1), 0, "final", 4)
        session = Session(comparison, run, task, SimulatedEngine(2, Network()), tmp_path / name)
        runs.append(list(session.records()))
    assert runs[0] == runs[1]  # the draws that move and mirror are addressed by step and worker
    first, second = (dict(worker.model.named_buffers()) for worker in session.workers)
    assert int(first["stem.1.num_batches_tracked"]) == 4
    assert not torch.equal(first["stem.1.running_mean"], second["stem.1.running_mean"])
    model = task.model(0)
    model.load_state_dict({**model.state_dict(), **first, **session.workers[0].shared_parameters()})
    assert runs[0][-1]["loss"] == task.evaluate(model, "test").loss


def test_fashion_mnist_with_resnet(tmp_path: Path) -> None:
    task = load_task("fashion-mnist:model=resnet18", data=write_fashion(tmp_path, num_train=5010))
    assert task.name == "fashion-mnist:model=resnet18,norm=group"
    assert count(task.model(0)) == 11_172_810


# Files of images.


def test_each_image_is_moved_and_mirrored_by_its_own_draw() -> None:
    torch.manual_seed(0)
    pixels = torch.randn(40, 2, 6, 5)
    moved = shifted_and_mirrored(pixels, 2)
    assert moved.is_contiguous()  # as images are that are not moved
    seen = set()
    for image, result in zip(F.pad(pixels, (2, 2, 2, 2)), moved, strict=True):
        fits = []
        for down in range(5):
            for right in range(5):
                window = image[:, down : down + 6, right : right + 5]
                fits += [(down, right, is_mirrored) for is_mirrored in (False, True)
                         if torch.equal(result, window.flip(2) if is_mirrored else window)]  # fmt: skip
        assert len(fits) == 1
        seen.add(fits[0])
    assert {place[0] for place in seen} == {place[1] for place in seen} == set(range(5))
    assert {place[2] for place in seen} == {False, True}


def test_cifar10_is_read_channel_after_channel(tmp_path: Path) -> None:
    task = load_task("cifar10:augment=no", data=write_cifar10(tmp_path, 1010))
    parts: Any = (task.train, task.validation, task.test)  # type: ignore[attr-defined]
    assert [len(part.classes) for part in parts] == [50, 5000, 1010]
    content = (tmp_path / "test_batch.bin").read_bytes()
    pixels = parts[2].take(torch.tensor([3]))[0]
    means, stds = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    for channel, row, column in ((0, 0, 0), (0, 5, 31), (1, 30, 2), (2, 31, 31)):
        byte = content[3 * 3073 + 1 + 1024 * channel + 32 * row + column]
        expected = (byte / 255 - means[channel]) / stds[channel]
        assert pixels[channel, row, column].item() == pytest.approx(expected, abs=1e-6)
    assert parts[2].classes.tolist() == [content[3073 * number] for number in range(1010)]
    # Every image of the five files is in one of the two parts.
    kept = torch.cat([parts[0].pixels, parts[1].pixels]).flatten(1).numpy()
    files = [np.fromfile(tmp_path / f"data_batch_{n}.bin", np.uint8).reshape(-1, 3073)[:, 1:] for n in range(1, 6)]
    assert sorted(map(bytes, kept)) == sorted(map(bytes, np.concatenate(files)))


def test_cifar10_says_what_is_wrong_with_its_files(tmp_path: Path) -> None:
    inner = tmp_path / "cifar-10-batches-bin"
    inner.mkdir()
    write_cifar10(inner)
    (inner / "data_batch_2.bin").write_bytes(b"\x01" * 3072)
    with pytest.raises(ConfigError, match=r"data_batch_2\.bin has 3,072 bytes"):
        load_task("cifar10", data=tmp_path)
    (inner / "data_batch_2.bin").write_bytes(b"\x0b" * 3073)
    with pytest.raises(ConfigError, match="label 11"):
        load_task("cifar10", data=tmp_path)
    (inner / "data_batch_2.bin").unlink()
    (inner / "test_batch.bin").unlink()
    with pytest.raises(ConfigError, match=r"did not find data_batch_2\.bin, test_batch\.bin; give --data"):
        load_task("cifar10", data=tmp_path)


def test_a_folder_of_images_is_decoded_when_it_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_images(folder, 3, 4)
    task = load_task("image-folder:size=16", data=folder)
    parts: Any = (task.train, task.validation, task.test)  # type: ignore[attr-defined]
    assert [len(part.classes) for part in parts] == [11, 1, 12]
    assert parts[2].classes.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    held = set(parts[0].paths) & set(parts[1].paths)
    assert not held
    for path, number in zip(parts[0].paths, parts[0].classes.tolist(), strict=True):
        assert path.parent.name == f"class{number}"
    # Training sees a part drawn at random, again the same from the same state of the generator; the test the centre.
    indices = torch.arange(6)
    torch.manual_seed(1)
    first, second = parts[0].take(indices), parts[0].take(indices)
    torch.manual_seed(1)
    assert torch.equal(first, parts[0].take(indices))
    assert not torch.equal(first, second)
    assert torch.equal(parts[2].take(indices), parts[2].take(indices))
    assert first.shape == (6, 3, 16, 16)
    parts[2].paths[4].write_bytes(b"no image")
    with pytest.raises(ConfigError, match=rf"{parts[2].paths[4].name} is not a sound image"):
        task.evaluate(task.model(0), "test")


def test_the_centre_of_an_image_is_scaled_and_normalised(tmp_path: Path) -> None:
    write_images(tmp_path, 2, 2)
    colour = (10, 100, 250)
    image = np.zeros((80, 120, 3), np.uint8)
    image[8:72, 28:92] = colour  # the centre of 70 pixels has a border of 3 around it
    path = tmp_path / "val/class0/image0.JPEG"
    path.unlink()
    Image.fromarray(image).save(path.with_name("image0.png"))
    task = load_task("image-folder:size=8,augment=no", data=tmp_path)
    (found,) = task.test.take(torch.tensor([0]))  # type: ignore[attr-defined]
    expected = [
        (value / 255 - mean) / std
        for value, mean, std in zip(colour, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
    ]
    assert found[:, 4, 4].tolist() == pytest.approx(expected, abs=1e-5)
    assert bool((found[:, 0] < found[:, 4] - 0.01).all())


def test_a_folder_of_images_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did not find the folder .*train; give --data"):
        load_task("image-folder", data=tmp_path)
    write_images(tmp_path, 2, 2)
    (tmp_path / "val/other").mkdir()
    with pytest.raises(ConfigError, match="has other, which train lacks"):
        load_task("image-folder", data=tmp_path)
    (tmp_path / "val/other").rmdir()
    for path in (tmp_path / "val").rglob("image*"):
        path.unlink()
    with pytest.raises(ConfigError, match="found 0 images in"):
        load_task("image-folder", data=tmp_path)
