"""How long `mrigan evaluate` takes to compare and to check, drawing aside.

    python bench/evaluating.py FOLDER [--count 2000] [--height 200 --width 160]

Takes the slices of FOLDER, mirrored ones too where there are too few, as generated, training and
held-out ones. Says how long each part takes.
"""

import argparse
import json
import time

import torch

from degradations import read
from mrigan.evaluation.features import random_features
from mrigan.evaluation.privacy import check_privacy
from mrigan.jobs.evaluate.comparisons import SetFeatures, compare
from mrigan.jobs.evaluate.sets import Sets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--height", type=int, default=200)
    parser.add_argument("--width", type=int, default=160)
    options = parser.parse_args()
    slices = read(options.folder, options.height, options.width)
    slices = torch.cat([slices, slices.flip(3)])
    n = options.count
    order = torch.randperm(len(slices), generator=torch.Generator().manual_seed(0))[: 2 * n]
    fake, training = slices[order[:n]], slices[order[n:]]
    sets = Sets(
        fake=fake,
        training=torch.cat([training, training]),  # whose halves are of n slices
        holdout=training[:0],
        volumes=torch.arange(n).repeat(2),
        about={},
        is_other_data=False,
    )
    began = time.perf_counter()
    of_fake, of_training = random_features(fake), random_features(training)
    features = SetFeatures(of_fake, torch.cat([of_training] * 2), of_training[:0])
    described = time.perf_counter()
    (found,) = compare(sets, features, 0)
    compared = time.perf_counter()
    check_privacy(fake, training, sets.holdout, (of_fake, of_training, of_training[:0]))
    checked = time.perf_counter()
    print(
        json.dumps(
            {
                "slices": [len(fake), len(training), found.slices],
                "size": list(fake.shape[2:]),
                "features_seconds": round(described - began, 1),
                "metrics_seconds": round(compared - described, 1),
                "privacy_seconds": round(checked - compared, 1),
                "seconds": round(checked - began, 1),
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
