"""The command: brings the slices, compares them, and writes what was found."""

import logging
import sys
import time
from collections.abc import Callable

from mrigan.artifacts import run_tree
from mrigan.artifacts.report.card import render_card
from mrigan.artifacts.report.content import read_content
from mrigan.artifacts.report.page import render_report
from mrigan.artifacts.run_facts import read_run_facts
from mrigan.errors import SettingsError
from mrigan.evaluation.comparison import FEWEST
from mrigan.evaluation.privacy import check_privacy
from mrigan.jobs.build import storage_options
from mrigan.jobs.evaluate.comparisons import SetFeatures, compare
from mrigan.jobs.evaluate.pretrained import features_of
from mrigan.jobs.evaluate.results import write
from mrigan.jobs.evaluate.sets import Request, bring
from mrigan.storage.store import Store, open_store
from mrigan.training.checkpoint import REVISION

log = logging.getLogger(__name__)

_MOST = 50_000
_LINE_SECONDS = 10.0


def evaluate(request: Request, should_stop: Callable[[], bool]) -> None:
    """Compare generated slices with real ones; log, print and write what was found.

    Args:
        request: What is compared.
        should_stop: Asked while slices are read.

    Raises:
        SettingsError: The request is impossible.
        DataError: There are too few slices, or none.
        StorageError: Something can't be read or written.
    """
    if not FEWEST <= request.count <= _MOST:
        raise SettingsError(f"--count: {request.count} is not within {FEWEST} to {_MOST:,}")
    began = time.monotonic()
    options = storage_options(request.settings)
    name, describe = features_of(request.features, request.weights, request.weights_sha256, options)
    sets = bring(request, _lines(), should_stop)
    seed = request.settings.seed
    facts = {"generated": len(sets.fake), "training": len(sets.training)}
    log.info("comparing", extra={**facts, "holdout": len(sets.holdout)})
    if sets.is_other_data:
        effect = "the privacy check says nothing about what the run was trained on"
        log.warning("other_slices", extra={"effect": effect})
    features = SetFeatures(*map(describe, (sets.fake, sets.training, sets.holdout)))
    comparisons = compare(sets, features, seed)
    log.info("looking_up", extra={"slices": len(sets.fake), "among": len(sets.training)})
    privacy = check_privacy(
        sets.fake, sets.training, sets.holdout, features, volumes=sets.volumes, seed=seed
    )
    store = open_store(request.to or request.what, options)
    table = write(store, sets, comparisons, privacy, name, seed)
    if request.to is None:
        _renew_report(store)
    if request.settings.log_format != "json":
        sys.stdout.write(table)
    kid = comparisons[0].metrics["kid"], comparisons[0].floors["kid"]
    log.info(
        "evaluated",
        extra={
            "kid": round(kid[0].value, 4),
            "kid_floor": round(kid[1].value, 4),
            "coverage": round(comparisons[0].metrics["coverage"].value, 4),
            "privacy": privacy.verdict,
            "seconds": round(time.monotonic() - began, 1),
            "uri": store.uri,
        },
    )


def _renew_report(store: Store) -> None:
    """Show what was found in the run's report and model card."""
    facts = read_run_facts(store, REVISION)
    content = read_content(store, facts) if facts else None
    if content is not None:
        store.put(run_tree.REPORT, render_report(content))
        store.put(run_tree.CARD, render_card(content))


def _lines() -> Callable[[int, int], None]:
    """Say how far drawing is, now and then."""
    told = time.monotonic()

    def advance(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > _LINE_SECONDS:
            told = time.monotonic()
            log.info("drawing", extra={"done": done, "of": total})

    return advance
