"""The help of a command in colours: the same words in the same places as without."""

from typing import TYPE_CHECKING, ClassVar

from rich_argparse import RawDescriptionRichHelpFormatter

if TYPE_CHECKING:
    from rich.style import StyleType


class ColouredHelp(RawDescriptionRichHelpFormatter):
    """Colours that can be read on light and on dark; a default stands back."""

    # Brackets are the help's own, around defaults and in usages, and no markup of rich's.
    help_markup = text_markup = usage_markup = False
    group_name_formatter = str
    highlights: ClassVar[list[str]] = [
        *RawDescriptionRichHelpFormatter.highlights,
        r"(?P<default>\[[^][]+\]$)",
    ]
    styles: ClassVar[dict[str, "StyleType"]] = {
        "argparse.args": "cyan",
        "argparse.default": "dim",
        "argparse.groups": "bold",
        "argparse.help": "none",
        "argparse.metavar": "green",
        "argparse.prog": "bold",
        "argparse.syntax": "bold",
        "argparse.text": "none",
    }
