"""Where environments sit: in this process, or several to a worker process.

A seat holds one environment at a time. ``send`` hands it an action and ``receive`` takes what came
of it, so that the environments of several workers step and render at the same time.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from wamlab.run.record import Moment, moment
from wamlab.sim.env import Env, Expert
from wamlab.types import ActionSpace

MakeEnv = Callable[..., Env]
"""Builds an environment from its name; ``views=()`` must be understood as an option."""


def make_env(name: str, **options: Any) -> Env:
    """The environment of a registered name."""
    from wamlab.sim.registry import make

    return make(name, **options)


class Seat(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def space(self) -> ActionSpace: ...

    @property
    def max_steps(self) -> int: ...

    def begin(self, env: str, seed: int) -> Moment:
        """Put a freshly reset environment of this name in the seat."""
        ...

    def send(self, action: Float[np.ndarray, " a"]) -> None: ...

    def receive(self) -> Moment: ...

    def expert(self, *, variants: bool, seed: int) -> Expert: ...

    def close(self) -> None: ...


class LocalSeat:
    """A seat in this process; an environment stays until one of another name is asked for."""

    def __init__(self, make: MakeEnv) -> None:
        self._make = make
        self.env: Env | None = None
        self._action = np.zeros(0, np.float32)

    @property
    def name(self) -> str:
        return self._seated.name

    @property
    def space(self) -> ActionSpace:
        return self._seated.space

    @property
    def max_steps(self) -> int:
        return self._seated.max_steps

    def place(self, name: str) -> Env:
        """The environment of this name, put in the seat if it is not there already."""
        if self.env is None or self.env.name != name:
            self.close()
            self.env = self._make(name)
        return self.env

    def begin(self, env: str, seed: int) -> Moment:
        placed = self.place(env)
        observation, _ = placed.reset(seed=seed)
        return moment(placed, observation)

    def send(self, action: Float[np.ndarray, " a"]) -> None:
        self._action = action

    def receive(self) -> Moment:
        observation, *_ = self._seated.step(self._action)
        return moment(self._seated, observation)

    def expert(self, *, variants: bool, seed: int) -> Expert:
        return self._seated.expert(variants=variants, seed=seed)

    def close(self) -> None:
        if self.env is not None:
            self.env.close()
        self.env = None

    @property
    def _seated(self) -> Env:
        if self.env is None:
            raise RuntimeError("the seat is empty: begin an episode first")
        return self.env


class RemoteSeat:
    """One row's seat in a worker process; a worker answers its seats in the order asked.

    Whatever is asked raises RuntimeError where the process has died.
    """

    def __init__(self, pipe: Connection, process: BaseProcess, row: int) -> None:
        self._pipe, self._process, self._row = pipe, process, row
        self._asked = ""
        self.name, self.space, self.max_steps = "", ActionSpace((), (), (), (), (), 0.0), 0

    def begin(self, env: str, seed: int) -> Moment:
        self._asked = env
        first, self.name, self.space, self.max_steps = self._ask("begin", env, seed)
        return first

    def send(self, action: Float[np.ndarray, " a"]) -> None:
        self._tell("step", action)

    def receive(self) -> Moment:
        return self._take()

    def expert(self, *, variants: bool, seed: int) -> Expert:
        return _RemoteExpert(self._ask, self._ask("expert", variants, seed))

    def close(self) -> None:
        """The worker closes its environments when it ends."""

    def _ask(self, command: str, *arguments: Any) -> Any:
        self._tell(command, *arguments)
        return self._take()

    def _tell(self, command: str, *arguments: Any) -> None:
        with self._alive():
            self._pipe.send((self._row, command, arguments))

    def _take(self) -> Any:
        with self._alive():
            answer = self._pipe.recv()
        return _unwrap(answer)

    @contextmanager
    def _alive(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            self._process.join(timeout=5)
            raise RuntimeError(
                f"the process that simulates {self._asked} in row {self._row} died with exit code "
                f"{self._process.exitcode}; episodes that had ended are in the folder of the logs, "
                "if one was given; fewer workers help where memory has run out (exit code -9)"
            ) from error


class _RemoteExpert:
    def __init__(self, ask: Callable[..., Any], variant: Mapping[str, float | str]) -> None:
        self._ask, self.variant = ask, variant

    def __call__(self) -> Float[np.ndarray, " a"]:
        return self._ask("expert_action")


@contextmanager
def seats(make: MakeEnv, rows: int, workers: int) -> Iterator[list[Seat]]:
    """``rows`` seats, shared out over ``workers`` processes; none means in this process."""
    if workers < 1:
        local = [LocalSeat(make) for _ in range(rows)]
        try:
            yield [*local]
        finally:
            for seat in local:
                seat.close()
        return
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for _ in range(min(workers, rows)):
        ours, theirs = spawn.Pipe()
        processes.append(spawn.Process(target=_serve, args=(theirs, make), daemon=True))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    try:
        workers = len(pipes)
        yield [RemoteSeat(pipes[r % workers], processes[r % workers], r) for r in range(rows)]
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.close()
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()


def end_with_parent() -> None:
    """End this worker process soon after its parent is gone, however the parent ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _serve(pipe: Connection, make: MakeEnv) -> None:
    end_with_parent()
    seated: dict[int, LocalSeat] = {}
    experts: dict[int, Expert] = {}
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            row, command, arguments = pipe.recv()
            seat = seated.setdefault(row, LocalSeat(make))
            try:
                pipe.send(_answer(seat, row, experts, command, arguments))
            except (BrokenPipeError, EOFError):
                raise
            except Exception as error:
                pipe.send(error)
    for seat in seated.values():
        seat.close()


def _answer(
    seat: LocalSeat, row: int, experts: dict[int, Expert], command: str, arguments: tuple[Any, ...]
) -> Any:
    if command == "begin":
        return seat.begin(*arguments), seat.name, seat.space, seat.max_steps
    if command == "step":
        seat.send(*arguments)
        return seat.receive()
    if command == "expert":
        experts[row] = seat.expert(variants=arguments[0], seed=arguments[1])
        return dict(experts[row].variant)
    return experts[row]()


def _unwrap(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer
