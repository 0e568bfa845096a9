"""A model card (Mitchell et al. 2019, arXiv 1810.03993): what the generator is, for who gets it."""

from typing import Any

from mrigan.artifacts.history import scored
from mrigan.artifacts.report.content import Content
from mrigan.evaluation.comparison import metric_of
from mrigan.redaction import shown
from mrigan.settings.describe import settings_of

_NAMES = ("kid", "frechet", "coverage", "recall", "swd", "diversity")


def render_card(content: Content) -> bytes:
    """Write the card as Markdown."""
    facts, data, status = content.facts, content.facts.data, content.status
    settings = facts.settings
    parts = [
        f"# Model card: {settings['model']} on {data.slices:,} slices",
        "A generator of synthetic 2D MRI slices, trained by mrigan "
        f"{facts.versions.get('mrigan', '')}. It draws {settings['image_height']} × "
        f"{settings['image_width']} grey-level pictures from {settings['latent_dim']} numbers.",
        "## Intended use\n\nResearch on methods: augmentation, teaching, tests of software. Not "
        "for diagnosis, and not a substitute for real slices in a clinical evaluation.",
        f"## Training data\n\n{data.slices:,} slices of {shown(str(settings['input_uri']))}: "
        f"{data.training:,} were trained on, {data.holdout:,} held out by volume. Fingerprint "
        f"`{data.fingerprint[:16]}`. Their licence and consent bind what may be done with slices "
        "drawn from this generator: state them here.",
        f"## Training\n\nEpoch {status.epoch:,} of {status.epochs:,}, {status.images_seen:,} "
        f"images, on {facts.machine.device_name} in {facts.machine.precision}.",
        f"## Quality\n\n{_quality(content)}",
        f"## Privacy\n\n{_privacy(content)}",
        "## Limits\n\nSlices are independent: they don't form volumes. What is rare in the "
        "training slices is rarer in these. Metrics say how like the reals the slices are as a "
        "set, and nothing of any one slice.",
        "## Settings\n\n"
        + "\n".join(
            f"- `{name}`: {shown(str(value))}"
            for name, value in settings_of(facts.identity).items()
        ),
    ]
    return ("\n\n".join(parts) + "\n").encode()


def _quality(content: Content) -> str:
    compared = content.stored.evaluation.get("compared") or ()
    if compared:
        return "\n\n".join(_table(each) for each in compared)
    found = scored(content.rows)
    if not found:
        return "Not measured yet."
    last = found[-1].score
    return (
        f"Sliced Wasserstein distance {last.swd:.3f} (other real slices: {last.swd_floor:.3f}). "
        "Run `mrigan evaluate` for the other metrics and their intervals."
    )


def _table(compared: dict[str, Any]) -> str:
    lines = [
        f"{compared['slices']:,} generated against as many slices ({compared['against']}):",
        "",
        "| metric | generated | other reals |",
        "|---|---:|---:|",
    ]
    for name in _NAMES:
        found = compared["metrics"][name]
        values = f"{found['value']:.3f} | {found['floor']['value']:.3f}"
        lines.append(f"| {metric_of(name).title} | {values} |")
    return "\n".join(lines)


def _privacy(content: Content) -> str:
    found = content.stored.privacy
    if not found:
        return "Not checked. Run `mrigan evaluate` before slices are given to anyone."
    reasons = "".join(f"\n- {reason}" for reason in found.get("reasons", ()))
    return f"{found.get('verdict')}{reasons}\n\n{found.get('limits', '')}"
