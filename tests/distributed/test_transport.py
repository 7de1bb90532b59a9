"""Each request of a program over three real processes: what it answers and what it is counted as."""

import functools
import math
import re
from pathlib import Path
from typing import Any

import process_mains as mains
import pytest
import torch

from thinwire.experiments.launch import launch
from thinwire.network import FRAME_NUM_BYTES, Traffic, all_gather_traffic, all_reduce_traffic
from thinwire.simulator import Simulation

SIZE = 3
RANKS = range(SIZE)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("transport")
    launch(SIZE, functools.partial(mains.request_everything, str(folder)))
    return [mains.saved(Path(folder, f"rank-{rank}.pt")) for rank in RANKS]


def total(links: list[Traffic]) -> tuple[int, int]:
    return sum(link.bytes_sent for link in links), sum(link.bytes_received for link in links)


@pytest.mark.parametrize("number", range(len(mains.PROGRAMS)), ids=[p.__name__ for p in mains.PROGRAMS])
def test_answers_and_counts_are_the_simulators(number: int, found: list[dict[str, Any]]) -> None:
    simulation = Simulation(SIZE)
    answers = simulation.run([mains.PROGRAMS[number](rank) for rank in RANKS])
    for rank in RANKS:
        answer, link = found[rank]["programs"][number]
        assert mains.equal(answer, answers[rank])
        assert link == total([simulation.traffic[rank]])


def test_all_gather_takes_messages_of_any_lengths(found: list[dict[str, Any]]) -> None:
    for rank in RANKS:
        answer, link = found[rank]["programs"][0]
        for lengths, gathered in zip(mains.LENGTHS, answer, strict=True):
            assert mains.equal(gathered, [mains.message(source, lengths[source]) for source in RANKS])
        assert link == total([all_gather_traffic(lengths)[rank] for lengths in mains.LENGTHS])


def test_messages_arrive_unannounced_as_they_were_sent(found: list[dict[str, Any]]) -> None:
    for rank in RANKS:
        answer, _ = found[rank]["programs"][3]
        expected = [
            [mains.message(source, lengths[source]) for source in RANKS]
            for lengths in mains.LENGTHS * 2
            for _ in range(3)
        ]
        assert mains.equal(answer, expected)


def test_all_reduce_adds_in_rank_order_whatever_the_length(found: list[dict[str, Any]]) -> None:
    numels = [*mains.NUMELS, 20]
    for rank in RANKS:
        answer, link = found[rank]["programs"][1]
        for numel, summed in zip(mains.NUMELS, answer, strict=False):
            first, second, third = (mains.vector(source, numel) for source in RANKS)
            assert torch.equal(summed, first + second + third)
        assert answer[-1].shape == (5, 4)
        assert link == total([all_reduce_traffic(numel, SIZE)[rank] for numel in numels])


def test_an_all_reduce_in_place_adds_the_same_in_the_same_order(found: list[dict[str, Any]]) -> None:
    for rank in RANKS:
        answer, _ = found[rank]["programs"][4]
        numels = (*mains.NUMELS, 1_000_003)
        for numel, summed, halves in zip(numels, answer[::2], answer[1::2], strict=True):
            first, second, third = (mains.vector(source, numel) for source in RANKS)
            assert torch.equal(summed, (first + second + third) / 3)
            rounded = [each.bfloat16().float() for each in (first, second, third)]
            assert torch.equal(halves, ((rounded[0] + rounded[1] + rounded[2]) / 3).bfloat16())
        assert found[rank]["in_place"]


def test_letters_of_a_pair_arrive_in_the_order_they_were_sent(found: list[dict[str, Any]]) -> None:
    for rank in RANKS:
        answer, link = found[rank]["programs"][2]
        mail = [
            (source, mains.message(number, num_bytes))
            for number, (source, destination, num_bytes) in enumerate(mains.LETTERS)
            if destination == rank
        ]
        assert mains.equal(answer, [letter for source in RANKS for sender, letter in mail if sender == source])
        sent, received = (
            sum(letter[2] + FRAME_NUM_BYTES for letter in mains.LETTERS if letter[end] == rank) for end in (0, 1)
        )
        assert link == (sent, received)


def test_control_is_shared_in_rank_order_and_not_counted(found: list[dict[str, Any]]) -> None:
    for rank in RANKS:
        assert found[rank]["shared"] == ([[float(source), 0.1, math.inf] for source in RANKS], [[]] * SIZE)
        assert found[rank]["uneven"] == [[], [1.5], [1.5, 1.5]]
        assert mains.equal(found[rank]["broadcast"], [torch.zeros(3), torch.tensor(0), torch.empty(0)])
        assert found[rank]["free"]


def test_some_of_the_processes_can_be_a_group(found: list[dict[str, Any]]) -> None:
    """The others need not know of it."""
    assert found[0]["pair"] is None
    for rank in (1, 2):
        place, size, gathered, traffic = found[rank]["pair"]
        assert (place, size) == (rank - 1, 2)
        assert mains.equal(gathered, [mains.message(0, 3), mains.message(1, 4)])
        assert traffic == all_gather_traffic([3, 4])[place]


def test_sent_messages_are_not_kept_once_their_program_ended(found: list[dict[str, Any]]) -> None:
    assert [each["kept"] for each in found] == [0] * SIZE


def test_a_letter_to_nobody_is_refused(found: list[dict[str, Any]]) -> None:
    for rank in RANKS:
        asked = [re.search(r"Send\(destination=(-?\d+)", text) for text in found[rank]["astray"]]
        assert [match and int(match[1]) for match in asked] == [rank, SIZE, -1]
