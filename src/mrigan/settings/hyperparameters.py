"""What the SDKs make of a hyperparameter's value, undone.

| sent by | None | True | 2e-4 | "dcgan" |
|---|---|---|---|---|
| SDK v3, JSON | `null` | `true` | `0.0002` | `dcgan` |
| SDK v2, str() | `None` | `True` | `0.0002` | `dcgan` |
| SDK v2's framework estimators, JSON throughout | `null` | `true` | `0.0002` | `"dcgan"` |

The platform makes strings of all of these; a file written by hand may hold JSON's own values.
"""

import json

# What the platforms themselves put among the hyperparameters.
_PLATFORMS_OWN = ("sagemaker_", "_tuning_objective_metric")
_NOT_SET = frozenset({"", "None", "null"})


def is_platforms_own(name: str) -> bool:
    """Whether a hyperparameter is none of ours, misspelt or not."""
    return name.startswith(_PLATFORMS_OWN)


def decode(value: object) -> str | None:
    """The text that an environment variable would carry for ``value``; None for "not set".

    What a text means is left to the setting it is for: digits may be a number or a key's name.
    """
    text = value if isinstance(value, str) else json.dumps(value)
    while text.startswith('"'):
        try:
            text = str(json.loads(text))
        except ValueError:
            break
    return None if text in _NOT_SET else text
