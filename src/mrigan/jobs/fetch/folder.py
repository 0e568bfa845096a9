"""The folder that a run is fetched to: of one run only, and without links out of it."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mrigan.artifacts import run_tree
from mrigan.documents import DocumentError, parse_object
from mrigan.errors import StorageError, UnreadableError
from mrigan.storage.store import Store

_RUNS = (run_tree.RUN, run_tree.RUN_BEFORE)


class Who(NamedTuple):
    """What tells one run from another, as its run.json has it: of any type, if it is damaged."""

    identity: object
    slices: object
    uri: object


def bring_run_facts(store: Store, folder: Path) -> int:
    """Refuse to bring a run to a folder that holds another one: ``train`` would mix them.

    A folder says which run it holds by the run.json in it, which is brought before anything else.

    Returns:
        Its size in bytes, if it was not there before; else 0.

    Raises:
        StorageError: It holds another run; or what it holds is a run and does not say which.
    """
    name, theirs = _first((name, _of_run(store, name)) for name in _RUNS)
    _, ours = _first((name, _of_folder(folder / name)) for name in _RUNS)
    has_run = (folder / run_tree.STATUS).exists() or any(folder.glob("checkpoints/*.json"))
    if ours is None and has_run and theirs is not None:
        raise StorageError(
            f"{folder}: holds a run's files but no {run_tree.RUN} that says which; fetch "
            f"{store.uri} to another folder"
        )
    if ours is not None and ours != theirs:
        where = f", that of {ours.uri}," if ours.uri else ""
        raise StorageError(
            f"{folder}: holds another run{where} already; fetch {store.uri} to another folder"
        )
    if theirs is None or ours is not None:
        return 0
    check_no_links(folder, name)
    store.download(name, folder / name)
    return (folder / name).stat().st_size


def check_no_links(folder: Path, key: str) -> None:
    """Refuse a link below ``folder`` on the way to ``key``, or in its place: it may lead anywhere.

    Raises:
        StorageError: Naming the link.
    """
    path = folder
    for part in Path(key).parts:
        path /= part
        ends = ("", ".part", ".part.etag")
        for each in (path.with_name(f"{path.name}{end}") for end in ends):
            if each.is_symlink():
                raise StorageError(f"{each}: is a link, to which nothing is fetched; remove it")


def _first(found: Iterable[tuple[str, Who | None]]) -> tuple[str, Who | None]:
    return next((pair for pair in found if pair[1] is not None), ("", None))


def _of_run(store: Store, name: str) -> Who | None:
    """What the run says of itself; None without such a file."""
    try:
        facts = run_tree.read_json(store, name)
    except UnreadableError:  # it is fetched as it is, for people to look at
        facts = {}
    return None if facts is None else _who(facts)


def _of_folder(path: Path) -> Who | None:
    if not path.is_file():
        return None
    try:
        return _who(parse_object(path.read_bytes()))
    except DocumentError:
        return _who({})


def _who(facts: run_tree.JsonObject) -> Who:
    settings, data = facts.get("settings"), facts.get("data")
    return Who(
        identity=facts.get("identity"),
        slices=data.get("fingerprint") if isinstance(data, dict) else None,
        uri=settings.get("output_uri") if isinstance(settings, dict) else None,
    )
