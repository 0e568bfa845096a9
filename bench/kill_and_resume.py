"""Ends runs with SIGKILL and SIGTERM at moments drawn at random, and compares what they become.

    python bench/kill_and_resume.py [--kills 20] [--store folder,s3] [--model dcgan,r3-tiny]
                                    [--seed 0] [--epochs 30] [--results FILE]

For each store and model one small run goes to its end undisturbed. The same command is then ended
and run again into another output until it is complete, and once more from the beginning if that
took fewer kills. Moments are drawn over a start's whole life: in the imports, in the pull (without
a cache), between and in the uploads, around checkpoints, and after the last epoch.

After each kill every checkpoint that says it is complete must verify, and the next start must go
on from the newest of them. In the end the generators, the sample grids, the plot and metrics.jsonl,
but for times and memory, must be the undisturbed run's, bit for bit. Exit status 1 otherwise.
FILE gets a JSON line for each kill: when it came, at which event, and where the job was.
"""

import argparse
import hashlib
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from lives import Life, Moment, draw_moments, live
from mrigan.artifacts import run_tree
from mrigan.artifacts.checkpoints import checkpoint_key, list_checkpoints
from mrigan.storage.store import Store, open_store

_VARYING = (
    "seconds",
    "images_per_second",
    "peak_rss_mib",
    "score_seconds",
)  # in a row of metrics.jsonl
_KILLS_AFTER_LAST_EPOCH = 2  # of each run


class Tormentor:
    """Kills a run until it is complete, and notes what is wrong on the way.

    Attributes:
        problems: Whatever should not be.
        tally: Kills by where they landed, and starts by what they went on from.
        kills: So far.
    """

    def __init__(
        self,
        about: dict[str, str],
        epochs: int,
        rng: random.Random,
        whole_seconds: float,
        cache: Path,
        results: IO[str] | None,
    ) -> None:
        self._about = about
        self._results = results
        self._epochs = epochs
        self._rng = rng
        self._moments = draw_moments(rng, whole_seconds)
        self._cache = cache
        self.problems: list[str] = []
        self.tally: Counter[str] = Counter()
        self.kills = 0

    def complete(self, uri: str, kills: int) -> None:
        """Run to the end, killing as long as fewer than ``kills`` are done."""
        store = open_store(uri)
        at_the_end = 0
        newest = 0
        while True:
            moments = []
            if self.kills < kills:
                moments = [next(self._moments)]
                if at_the_end < _KILLS_AFTER_LAST_EPOCH:
                    last = f"epoch {self._epochs}"
                    delay = self._rng.uniform(0, 0.5)
                    moments.append(Moment(last, 1, delay, moments[0].signal))
                if moments[0].event == "machine":
                    shutil.rmtree(self._cache, ignore_errors=True)
            life = live(uri, self._about["model"], self._epochs, moments)
            resumed = self._check_resumption(life, newest)
            if not life.was_killed:
                print(f"complete after {self.kills} kills in all {resumed}", flush=True)
                return
            self.kills += 1
            phase = life.phase(self._epochs)
            at_the_end += phase == "after the last epoch"
            newest, whole = self._check_checkpoints(store)
            where = "before the first checkpoint" if not newest else "between checkpoints"
            self.tally[f"{moments[0].signal.name} in: {phase}"] += 1
            self.tally[f"killed {where if phase != 'after the last epoch' else phase}"] += 1
            print(
                f"kill {self.kills:3} at {life.seconds:5.1f} s ({moments[0]!s:28}) in {phase}: "
                f"{whole} checkpoints whole, newest {newest} {resumed}",
                flush=True,
            )
            self._write(
                kill=self.kills,
                moment=str(moments[0]),
                seconds=round(life.seconds, 3),
                phase=phase,
                checkpoints=whole,
                newest=newest,
                run=uri.rpartition("/")[2],
            )

    def _write(self, **facts: object) -> None:
        if self._results:
            self._results.write(json.dumps({**self._about, **facts}) + "\n")
            self._results.flush()

    def _check_resumption(self, life: Life, newest: int) -> str:
        found = [line["images_seen"] for line in life.find("resumed")]
        if not found:
            if newest and life.find("epoch"):
                self._note(f"began anew although checkpoint {newest} was whole")
            return ""
        self.tally[f"resumed from image {newest}"] += 1
        if found != [newest]:
            self._note(f"went on from {found[0]}, the newest whole checkpoint was {newest}")
        return f"(had gone on from {found[0]})"

    def _check_checkpoints(self, store: Store) -> tuple[int, int]:
        """Return the newest complete checkpoint's images_seen, 0 if there is none, and how many."""
        found = list_checkpoints(store)
        for images_seen in found:
            facts = json.loads(store.get(checkpoint_key(images_seen, "json")))
            data = store.get(checkpoint_key(images_seen, "pt"))
            if (hashlib.sha256(data).hexdigest(), len(data)) != (
                facts["sha256"],
                facts["size_bytes"],
            ):
                self._note(f"checkpoint {images_seen} does not verify")
        for key in (run_tree.STATUS, run_tree.RUN):
            run_tree.read_json(store, key)  # raises where it is torn
        return max(found, default=0), len(found)

    def _note(self, problem: str) -> None:
        print(f"PROBLEM: {problem}", flush=True)
        self.problems.append(problem)


def differences(undisturbed: Store, disturbed: Store) -> list[str]:
    """What of a run is not as it would have been."""
    stores = (undisturbed, disturbed)
    ours, theirs = ({info.key: store for info in store.list()} for store in stores)
    keys = [
        key
        for key in sorted(ours.keys() | theirs.keys())
        if not key.startswith(("checkpoints/", "lease/"))  # by the clock, and by how often it began
    ]
    found = [f"{key} is missing" for key in keys if key not in theirs]
    found += [f"{key} should not be there" for key in keys if key not in ours]
    own = {run_tree.STATUS, run_tree.RUN, run_tree.REPORT}  # times, and the output's URI
    for key in keys:
        if key in ours and key in theirs and key not in own:
            a, b = (_content(store, key) for store in stores)
            found += [f"{key} differs"] if a != b else []
    status = run_tree.read_json(disturbed, run_tree.STATUS) or {}
    if status.get("state") != "completed":
        found.append(f"status.json says {status.get('state')}")
    return found


def _content(store: Store, key: str) -> object:
    if key != run_tree.METRICS:
        return store.get(key)
    rows = run_tree.read_rows(store, key)
    return [{name: row[name] for name in row if name not in _VARYING} for row in rows]


@contextmanager
def a_place(s3: bool, scratch: Path) -> Iterator[str]:
    """A URI to write runs below: of a folder, or of a bucket served by this process."""
    if not s3:
        yield str(scratch)
        return
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://{host}:{port}",
        AWS_ACCESS_KEY_ID="bench",
        AWS_SECRET_ACCESS_KEY="bench-secret",
        AWS_REGION="us-east-1",
    )
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="bench")
    yield f"s3://bench/{scratch.name}"
    server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="at least, in all")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--store", default="folder,s3", help="where runs are written")
    parser.add_argument("--model", default="dcgan,r3-tiny")
    parser.add_argument("--results", type=Path, help="a file of JSON lines")
    args = parser.parse_args()
    for name in list(os.environ):
        if name.startswith(("AWS_", "MRIGAN_")):
            del os.environ[name]
    began, problems, kills = time.monotonic(), [], 0
    pairs = [(store, model) for store in args.store.split(",") for model in args.model.split(",")]
    with ExitStack() as stack:
        results = stack.enter_context(args.results.open("w")) if args.results else None
        for number, (store, model) in enumerate(pairs):
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="mrigan-bench-"))
            cache = Path(name) / "cache"
            os.environ["MRIGAN_CACHE_DIR"] = str(cache)
            print(f"== {model}, {store}", flush=True)
            share = -(-args.kills // len(pairs))
            about = {"store": store, "model": model}
            rng = random.Random(args.seed + number)
            with a_place(store == "s3", Path(name)) as place:
                found = torment(place, about, args.epochs, share, rng, cache, results)
            kills += found.kills
            problems += [f"{model}, {store}: {problem}" for problem in found.problems]
        print(f"{kills} kills in all, {time.monotonic() - began:.0f} s")
        for problem in problems:
            print(f"PROBLEM: {problem}")
        verdict = "DIFFERENT" if problems else "bit-identical to the undisturbed runs"
        print(f"{verdict}: generators, sample grids, plot, metrics")
        if results:
            results.write(json.dumps({"kills": kills, "problems": problems}) + "\n")
    return 1 if problems else 0


def torment(
    place: str,
    about: dict[str, str],
    epochs: int,
    kills: int,
    rng: random.Random,
    cache: Path,
    results: IO[str] | None,
) -> Tormentor:
    """Do it for one store and model; print it."""
    began = time.monotonic()
    calm = live(f"{place}/undisturbed", about["model"], epochs, [])
    print(f"undisturbed: {calm.seconds:.1f} s, {len(calm.find('checkpoint'))} checkpoints")
    tormentor = Tormentor(about, epochs, rng, calm.seconds, cache, results)
    runs = 0
    while tormentor.kills < kills or not runs:
        runs += 1
        uri = f"{place}/killed-{runs}"
        tormentor.complete(uri, kills)
        tormentor.problems += [
            f"run {runs}: {what}"
            for what in differences(open_store(f"{place}/undisturbed"), open_store(uri))
        ]
    for what, count in sorted(tormentor.tally.items()):
        print(f"{count:4}  {what}")
    print(f"{tormentor.kills} kills, {runs} complete runs, {time.monotonic() - began:.0f} s")
    return tormentor


if __name__ == "__main__":
    sys.exit(main())
