"""Splits the slices into training and holdout by whole volumes, alike on every rank and start.

Neighbouring slices of one head are near copies: a slice held out of a volume that is trained on
would only measure how well the networks memorise. Which side a volume is on is a function of the
seed and its own name, so volumes that come later move none of the earlier ones.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace

from mrigan.data.manifest import ManifestEntry, Side
from mrigan.data.pack import Pack
from mrigan.data.sampler import stream_seed
from mrigan.data.volumes import splits_folders, volume_ids
from mrigan.errors import SettingsError

log = logging.getLogger(__name__)

_FEW_VOLUMES = 10
# Few volumes can't be split at exactly the fraction asked for; beyond these they are no volumes.
_TOO_MUCH, _TOO_MUCH_OF_ASKED = 0.5, 2.0


def split_holdout(pack: Pack, *, percent: float, pattern: str = "", seed: int = 0) -> Pack:
    """Hold ``percent`` of the volumes of ``pack`` out of training: at least one, and never all.

    A held-out slice whose pixels are also trained on is on neither side.

    Args:
        pack: With all slices in training.
        percent: 0 to 100; 0 leaves the pack as it is.
        pattern: As for ``volume_ids``.
        seed: Of the run.

    Raises:
        SettingsError: As ``volume_ids``, or so much would be held out that little is left.
    """
    if not percent:
        return pack
    used = [entry for entry in pack.manifest if entry.row is not None]
    names = volume_ids([entry.key for entry in used], pattern)
    if not pattern and splits_folders([entry.key for entry in used], names):
        _warn_of_split_folders(used, names)
    held = _held_out(set(names), percent / 100, seed)
    sides = _sides(used, [name in held for name in names])
    if "holdout" not in sides:
        _warn_of_none(used, names)
        return pack
    _refuse_too_much(used, names, sides, percent)
    named = dict(zip((entry.key for entry in used), zip(names, sides, strict=True), strict=True))
    split = replace(
        pack,
        manifest=tuple(_with_side(entry, named) for entry in pack.manifest),
        fingerprint=_fingerprint(pack.fingerprint, sides),
        training=pack.rows[[side == "training" for side in sides]],
        holdout=pack.rows[[side == "holdout" for side in sides]],
    )
    _log_split(split, len(set(names)), len(held), example=(used[0].key, names[0]))
    return split


def _held_out(names: set[str], fraction: float, seed: int) -> set[str]:
    """The names whose hash in [0, 1) is below ``fraction``; at least one, at most all but one."""
    hashes = {name: stream_seed(seed, "holdout", name) / 2**63 for name in names}
    order = sorted(names, key=lambda name: (hashes[name], name))
    count = sum(each < fraction for each in hashes.values())
    return set(order[: min(max(count, 1), len(names) - 1)])


def _sides(used: Sequence[ManifestEntry], is_held: Sequence[bool]) -> list[Side]:
    trained = {entry.sha256 for entry, held in zip(used, is_held, strict=True) if not held}
    return [
        "training" if not held else "copy" if entry.sha256 in trained else "holdout"
        for entry, held in zip(used, is_held, strict=True)
    ]


def _refuse_too_much(
    used: Sequence[ManifestEntry], names: Sequence[str], sides: Sequence[Side], percent: float
) -> None:
    """Keep a class of slices that was mistaken for one volume from leaving training unnoticed."""
    held = sum(side != "training" for side in sides)
    if held <= max(_TOO_MUCH, _TOO_MUCH_OF_ASKED * percent / 100) * len(used):
        return
    raise SettingsError(
        f"MRIGAN_HOLDOUT: {held:,} of {len(used):,} slices would be held out, since there are only "
        f"{len(set(names))} volumes and {used[0].key!r} is taken for a slice of {names[0]!r}; say "
        "with MRIGAN_VOLUME_PATTERN what a volume is, or set MRIGAN_HOLDOUT=0"
    )


def _with_side(entry: ManifestEntry, named: dict[str, tuple[str, Side]]) -> ManifestEntry:
    if entry.key not in named:
        return entry
    volume, side = named[entry.key]
    return replace(entry, volume=volume, side=side)


def _fingerprint(pack: str, sides: Sequence[Side]) -> str:
    return hashlib.sha256(f"{pack} {' '.join(sides)}".encode()).hexdigest()


def _warn_of_none(used: Sequence[ManifestEntry], names: Sequence[str]) -> None:
    log.warning(
        "no_holdout",
        extra={
            "volumes": len(set(names)),
            "example": f"{used[0].key} is of volume {names[0]}",
            "effect": "nothing is held out: scores are against slices that are trained on",
            "remedy": "MRIGAN_VOLUME_PATTERN says what a volume is, MRIGAN_HOLDOUT=0 that none is "
            "to be held out",
        },
    )


def _warn_of_split_folders(used: Sequence[ManifestEntry], names: Sequence[str]) -> None:
    folder = used[0].key.partition("/")[0]
    inside = {n for e, n in zip(used, names, strict=True) if e.key.startswith(f"{folder}/")}
    log.warning(
        "holdout_splits_folders",
        extra={
            "example": f"{folder} holds {len(inside)} volumes",
            "effect": "a patient may be on both sides, and scores too good",
            "remedy": "MRIGAN_VOLUME_PATTERN='^([^/]+)/' if each folder is a patient",
        },
    )


def _log_split(split: Pack, volumes: int, held: int, *, example: tuple[str, str]) -> None:
    facts = {
        "volumes": held,
        "of": volumes,
        "slices": len(split.holdout),
        "copies": sum(entry.side == "copy" for entry in split.manifest),
        "example": f"{example[0]} is of volume {example[1]}",
    }
    if volumes >= _FEW_VOLUMES:
        log.info("holdout", extra=facts)
        return
    remedy = "MRIGAN_VOLUME_PATTERN says what a volume is, MRIGAN_HOLDOUT=0 that none is held out"
    log.warning("holdout_of_few_volumes", extra={**facts, "remedy": remedy})
