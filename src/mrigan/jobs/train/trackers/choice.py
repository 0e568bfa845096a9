"""Which trackers a run has, by its setting ``trackers`` and by what is installed."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from pydantic import TypeAdapter

from mrigan.artifacts import run_tree
from mrigan.artifacts.history import EpochRow
from mrigan.artifacts.publisher import Publisher
from mrigan.artifacts.run_status import State
from mrigan.environment import mlflow_place, wandb_mode
from mrigan.errors import SettingsError
from mrigan.jobs.train.prepare import Run
from mrigan.jobs.train.trackers.beside import Beside
from mrigan.jobs.train.trackers.tensorboard import TensorBoard
from mrigan.jobs.train.trackers.tracker import About, Tracker
from mrigan.settings.values import names_of_trackers

_NAMES = TypeAdapter(dict[str, str])


def chosen_trackers(setting: str) -> tuple[str, ...]:
    """The names of the trackers that are told; ``auto`` is TensorBoard where it is installed."""
    if setting == "auto":
        return ("tensorboard",) if find_spec("tensorboard") else ()
    return names_of_trackers(setting)


def check_trackers(setting: str) -> None:
    """Refuse trackers that can't be told anything, before anything else is done.

    Raises:
        SettingsError: One that the user named is not installed, or not set up.
    """
    for name in chosen_trackers(setting):
        if not find_spec(name):
            raise SettingsError(
                f"trackers names {name}, which is not installed: pip install 'mrigan[{name}]'"
            )
    if "mlflow" in chosen_trackers(setting) and not mlflow_place():
        raise SettingsError(
            "trackers names mlflow, but MLFLOW_TRACKING_URI is not set; set it to your server's URL"
        )
    if "wandb" in chosen_trackers(setting) and not _has_wandb_credentials():
        raise SettingsError(
            "trackers names wandb, which has no API key; set WANDB_API_KEY, or WANDB_MODE=offline"
        )


class Trackers:
    """All trackers of a run, told what is new to them.

    Args:
        trackers: Each of them.
        told: ``images_seen`` of the last row that they have been told of.
    """

    def __init__(self, trackers: Sequence[Tracker], told: int) -> None:
        self._trackers, self._told = trackers, told

    def rows(self, rows: Sequence[EpochRow]) -> None:
        """Tell of the rows that are new; after a roll-back ``rows`` are fewer than before."""
        new = [row for row in rows if row.images_seen > self._told]
        self._told = rows[-1].images_seen if rows else 0
        if new:
            self._each(lambda tracker: tracker.rows(new))

    def grid(self, png: bytes, rows: Sequence[EpochRow]) -> None:
        """Tell of a sample grid that was drawn after the last of ``rows``."""
        if rows:
            self._each(lambda tracker: tracker.grid(png, rows[-1]))

    def end(self, state: State) -> None:
        """Tell how this start of the run ended."""
        self._each(lambda tracker: tracker.end(state))

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for tracker in self._trackers:
            tell(tracker)


def open_trackers(run: Run, publisher: Publisher, rows: Sequence[EpochRow]) -> Trackers:
    """The trackers of ``run``, which know of ``rows`` from earlier starts."""
    names = chosen_trackers(run.settings.trackers)
    known = run_tree.read_derived(run.store, run_tree.TRACKERS, _NAMES) or {} if names else {}
    trackers = [_open(name, run, publisher, known) for name in names]
    return Trackers(trackers, rows[-1].images_seen if rows else 0)


def _open(name: str, run: Run, publisher: Publisher, known: dict[str, str]) -> Tracker:
    if name == "tensorboard":
        return TensorBoard(publisher)

    def remember(own: str) -> None:
        known[name] = own
        publisher.submit(
            run_tree.TRACKERS,
            lambda store: run_tree.write_json(store, run_tree.TRACKERS, dict(known)),
        )

    def begin() -> Tracker:  # again after a failure: what it has remembered is known then
        uri, settings = run.store.uri, run.facts.settings
        own = known.get(name, "")
        return _begin(name, About(uri.rpartition("/")[2], uri, settings, own, remember))

    return Beside(name, begin)


def _begin(name: str, about: About) -> Tracker:
    if name == "mlflow":
        from mrigan.jobs.train.trackers.mlflow import Mlflow

        return Mlflow(about)
    from mrigan.jobs.train.trackers.wandb import Wandb

    return Wandb(about)


def _has_wandb_credentials() -> bool:
    if wandb_mode() != "online":
        return True
    import wandb

    return wandb.login(prompt=False, verify=False)  # the server may be away
