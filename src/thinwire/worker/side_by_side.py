"""Two programs at once."""

from typing import Any, TypeVar

from thinwire.steps import Steps, ask

A = TypeVar("A")
B = TypeVar("B")


def side_by_side(one: Steps[A], other: Steps[B]) -> Steps[tuple[A, B]]:
    """What both return; they make their requests in turn.

    Two exchanges with the same peers take one latency so, since both send before either waits. They must ask for the
    same things in the same order on all workers, as one exchange does: then a pair's messages come as they are waited
    for.

    Example:
        >>> from thinwire.steps import Send, bytes_of, send
        >>> def letters(text):
        ...     for letter in text:
        ...         yield from send(1, bytes_of(letter))
        ...     return len(text)
        >>> program, sent = side_by_side(letters("ace"), letters("b")), []
        >>> try:
        ...     while True:
        ...         sent.append(chr(next(program).message))
        ... except StopIteration as stop:
        ...     "".join(sent), stop.value
        ('abce', (3, 1))
    """
    programs: list[Steps[Any]] = [one, other]
    running, answers, results = [0, 1], [None, None], [None, None]
    try:
        while running:
            for place in list(running):
                try:
                    op = programs[place].send(answers[place])
                except StopIteration as stop:
                    results[place] = stop.value
                    running.remove(place)
                else:
                    answers[place] = yield from ask(op)
    finally:
        for program in programs:
            program.close()
    first: Any
    second: Any
    first, second = results
    return first, second
