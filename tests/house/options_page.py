"""The page docs/options.md, made of the declarations: `python tests/house/options_page.py` writes it."""

from pathlib import Path

from tfmb.jobs.choice import ARGUMENTS
from tfmb.jobs.config import ProblemConfig, TrainConfig
from tfmb.jobs.options import Option, flag, options_of

PAGE = Path(__file__).parents[2] / "docs" / "options.md"
_HEAD = """# Options

The options of `tfmb train`. The commands `advise` and `lr-range` take those of the first table too, and mean
the same by them. `tfmb COMMAND --help` shows what else a command takes. This page is made of the declarations in
`tfmb/jobs/config.py`: `python tests/house/options_page.py` writes it, and a test compares it.
"""


def page() -> str:
    """The page's text."""
    shared, all_of_them = options_of(ProblemConfig), options_of(TrainConfig)
    own = {name: about for name, about in all_of_them.items() if name not in shared}
    parts = [
        _HEAD,
        "## What is trained",
        _table(shared),
        "## How it is trained",
        _table(own),
        "## Arguments of a choice",
    ]
    parts.append(
        "Some options, of other commands too, take arguments behind a comma, as in\n"
        "`--optimizer sgd,momentum=0.9,nesterov`, "
        "`--checkpoint-every 500,keep=3` and `tfmb tune --oracle bayesian,round_size=4`.\n"
        "A run's record writes them in the same words."
    )
    rows = ["| option | argument | values | of | meaning |", "|---|---|---|---|---|"]
    for option, arguments in ARGUMENTS.items():
        for name, about in arguments.items():
            kind = "alone" if about.switch else "an integer" if about.whole else "a number"
            of = "each" if not about.of or len(about.of) > 4 else ", ".join(about.of)
            rows.append(f"| `{flag(option)}` | `{name}` | {kind} | {of} | {about.help} |")
    return "\n\n".join([*parts, "\n".join(rows)]) + "\n"


def _table(options: dict[str, Option]) -> str:
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for name, about in options.items():
        shown = (
            ""
            if about.default is None
            else f"`{about.default}`"
            if about.kind is not bool
            else ("on" if about.default else "off")
        )
        off = f", `--no-{flag(name)[2:]}`" if about.default is True else ""
        rows.append(f"| `{flag(name)}`{off} | {shown} | {about.help} |")
    return "\n".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page())
