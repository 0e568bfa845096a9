"""The command: reads the generator, shares the pieces among processes, and says how far it is."""

import logging
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mrigan.errors import MriganError
from mrigan.jobs.generate.flag import check_flag
from mrigan.jobs.generate.record import MANIFEST, begin, finish, remove_pieces
from mrigan.jobs.generate.request import Request
from mrigan.jobs.generate.worker import draw_pieces
from mrigan.runtime.signals import Stopped, end_with_parent
from mrigan.storage.store import open_store

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.2
_LINE_SECONDS = 10.0


def generate(request: Request, should_stop: Callable[[], bool]) -> bool:
    """Write the slices; what is there from an earlier start stays as it is.

    Args:
        request: What to generate.
        should_stop: Asked several times a second.

    Returns:
        Whether all slices are there; else it was stopped, and the same command continues.

    Raises:
        SettingsError: The request is impossible, the output holds something else, or the privacy
            check has flagged the generator.
        StorageError: The generator can't be read, or a slice can't be written.
    """
    request.check()
    if not request.accepts_flag:
        check_flag(request.drawing)
    began = time.monotonic()
    store = open_store(request.out, request.drawing.options)
    generator = request.drawing.generator()
    about, done = begin(store, request, generator)
    if about["complete"]:
        remove_pieces(store)  # those that a kill at the very end has left
        log.info("already_complete", extra={"uri": store.uri, "slices": request.count})
        return True
    todo = [piece for piece in range(request.pieces) if piece not in done]
    missing = sum(len(request.seeds(piece)) for piece in todo)
    where = {"from": repr(generator), "to": store.uri}
    log.info("generating", extra={"slices": missing, "of": request.count, **where})
    gpus = torch.cuda.device_count() if generator.device.type == "cuda" else 1
    processes = min(request.processes or gpus, len(todo))
    try:
        with _progress(request.count, request.count - missing) as advance:
            if processes > 1:
                _share(request, todo, processes, advance=advance, should_stop=should_stop)
            else:
                draw_pieces(
                    request, store, generator, todo, advance=advance, should_stop=should_stop
                )
    except Stopped:
        resume = "run the same command again"
        log.info("generate_interrupted", extra={"uri": store.uri, "resume": resume})
        return False
    finish(store, request, about)
    seconds = time.monotonic() - began
    facts = {"slices": request.count, "manifest": f"{store.uri}/{MANIFEST}"}
    log.info("generated", extra={**facts, "seconds": round(seconds, 1)})
    return True


def _share(
    request: Request,
    todo: Sequence[int],
    count: int,
    *,
    advance: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> None:
    """Draw in ``count`` processes, every count-th piece in each."""
    context = multiprocessing.get_context("spawn")  # neither obstore nor CUDA survives a fork
    stop, told = context.Event(), context.Value("q", 0)
    with ProcessPoolExecutor(count, context, _begin_process, (stop, told)) as pool:
        futures: list[Future[None]] = [
            pool.submit(_draw_part, request, list(todo[index::count]), index)
            for index in range(count)
        ]
        seen = 0
        while not all(future.done() for future in futures):
            wait(futures, _TICK_SECONDS)
            if should_stop() or any(future.done() and future.exception() for future in futures):
                stop.set()
            now = told.value
            advance(now - seen)
            seen = now
        try:
            for future in futures:
                future.result()
        except BrokenProcessPool:
            raise MriganError(
                "a process that drew slices was killed, as where memory runs out; run the same "
                "command again, with fewer --processes"
            ) from None


_shared: dict[str, Any] = {}


def _begin_process(stop: Event, told: Any) -> None:  # noqa: ANN401 - a Value of multiprocessing
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal's Ctrl-C comes to all processes
        signal.signal(number, signal.SIG_IGN)
    _shared.update(stop=stop, told=told)


def _draw_part(request: Request, pieces: Sequence[int], index: int) -> None:
    def advance(count: int) -> None:
        with _shared["told"].get_lock():
            _shared["told"].value += count

    store = open_store(request.out, request.drawing.options)
    stop = _shared["stop"].is_set
    generator = request.drawing.generator(index)
    draw_pieces(request, store, generator, pieces, advance=advance, should_stop=stop)


@contextmanager
def _progress(total: int, done: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, else a line now and then; call it with further slices."""
    columns = (
        TextColumn("generating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("slices, time left"),
        TimeRemainingColumn(),
    )
    began = told = time.monotonic()
    start = done
    with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task("", total=total, completed=done)

        def advance(count: int) -> None:
            nonlocal done, told
            done += count
            progress.advance(task, count)
            if progress.disable and count and time.monotonic() - told > _LINE_SECONDS:
                told = time.monotonic()
                seconds = (told - began) / (done - start) * (total - done)
                facts = {"done": done, "of": total, "seconds_left": round(seconds)}
                log.info("generating", extra=facts)

        yield advance
