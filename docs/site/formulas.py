"""Formulas: fenced blocks named `math` hold LaTeX, which becomes MathML. Browsers draw it without a script."""

from collections.abc import Mapping

from latex2mathml.converter import convert


def draw_formula(
    source: str, language: str, css_class: str, options: Mapping[str, str], md: object, **others: object
) -> str:
    """A formula as HTML: a custom fence of pymdownx's superfences."""
    return f'<div class="{css_class}">{convert(source.strip(), display="block")}</div>'
