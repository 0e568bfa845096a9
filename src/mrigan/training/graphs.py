"""Runs the same work over and over, on CUDA as a captured graph: one launch instead of hundreds.

Work is a function of tensors that reads nothing on the host and draws no random numbers. Its
first runs are eager, which lets cuDNN choose its algorithms; then it is captured over static copies
of its inputs, and later inputs are copied into those. All of it runs on a stream of its own, since
a backward pass may only be captured on the stream that its weights were used on before.
"""

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mrigan.training.micro_batches import is_out_of_memory

log = logging.getLogger(__name__)

T = TypeVar("T")
Replay = Callable[[], None]
Capture = Callable[[Callable[[], T]], tuple[T, Replay]]

WARM_UP_RUNS = 2


class _Captured(NamedTuple):
    inputs: Any
    result: Any
    gradients: list[Tensor | None]
    replay: Replay


class Graphs:
    """Captured work, by a key that stands for its shapes.

    Args:
        capture: Runs a function once without effect and returns what it returned, whose tensors a
            call of the replay fills anew; None leaves all work eager.
    """

    def __init__(self, capture: Capture[Any] | None = None) -> None:
        self._capture = capture
        self._runs: Counter[Hashable] = Counter()
        self._captured: dict[Hashable, _Captured] = {}

    def run(self, key: Hashable, work: Callable[[Any], T], inputs: Any, learning: nn.Module) -> T:  # noqa: ANN401 - a tuple of tensors
        """Return ``work(inputs)``, which also sets the gradients of ``learning``.

        The result holds until the next run. ``key`` must differ where shapes or work differ.
        """
        if self._capture is None:
            return work(inputs)
        captured = self._captured.get(key)
        if captured is None:
            self._runs[key] += 1
            if self._runs[key] <= WARM_UP_RUNS:
                return work(inputs)
            captured = self._begin(key, work, inputs, learning)
            if captured is None:
                return work(inputs)
        for static, value in zip(_tensors(captured.inputs), _tensors(inputs), strict=True):
            static.copy_(value, non_blocking=True)
        captured.replay()
        for weight, gradient in zip(learning.parameters(), captured.gradients, strict=True):
            weight.grad = gradient
        result: T = captured.result
        return result

    def forget(self) -> None:
        """Free all that was captured: shapes have changed."""
        self._captured.clear()
        self._runs.clear()
        if isinstance(self._capture, CudaCapture):
            self._capture.renew()

    def _begin(
        self,
        key: Hashable,
        work: Callable[[Any], T],
        inputs: Any,  # noqa: ANN401 - as above
        learning: nn.Module,
    ) -> _Captured | None:
        assert self._capture is not None
        static = _cloned(inputs)
        learning.zero_grad(set_to_none=True)  # those of the capture are to be its own
        try:
            result, replay = self._capture(lambda: work(static))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            cause = error.__context__ or error  # what ended the capture, not its last word
            reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
            log.warning("cuda_graphs_off", extra={"reason": reason, "effect": "steps run eagerly"})
            self._capture = None
            self.forget()
            return None
        gradients = [weight.grad for weight in learning.parameters()]
        self._captured[key] = _Captured(static, result, gradients, replay)
        return self._captured[key]


class CudaCapture:
    """Captures on ``stream``; graphs share one memory pool, since they never run at once."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self.renew()

    def renew(self) -> None:
        """Take a new pool: one whose graphs are all gone can't be captured into again."""
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], T]) -> tuple[T, Replay]:
        """Capture ``work``; what the warm-up left in the allocator is freed first."""
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        # Other threads (NCCL's watchdog) may talk to the device meanwhile.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            result = work()
        return result, graph.replay


class Lane:
    """The stream that training runs on, and its graphs; neither exists off CUDA.

    Args:
        device: That trains.
        graphs: Whether steps are to be captured there.
    """

    def __init__(self, device: torch.device, *, graphs: bool) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        has_graphs = graphs and self._stream is not None
        self.graphs = Graphs(CudaCapture(self._stream) if has_graphs and self._stream else None)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Run what is inside in order with all that was asked of the device before and after."""
        if self._stream is None:
            yield
            return
        outside = torch.cuda.current_stream()
        self._stream.wait_stream(outside)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            outside.wait_stream(self._stream)


def _tensors(value: Any) -> Iterator[Tensor]:  # noqa: ANN401 - nested tuples
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _tensors(item)


def _cloned(value: Any) -> Any:  # noqa: ANN401 - nested tuples
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple):
        items = [_cloned(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value
