"""Pages out of templates. Whatever a page shows is escaped."""

from pathlib import Path
from typing import Any


def render(template: str, **values: Any) -> str:
    """A template of this folder, filled in: one HTML text that needs nothing else.

    Example:
      >>> "<title>&lt;none&gt;</title>" in render("page.html", title="<none>")
      True
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["visible"] = visible
    environment.policies["json.dumps_kwargs"] = {}  # in the order as given
    return environment.get_template(template).render(values)


def visible(token: str) -> str:
    """A token as it is shown in running text: line breaks as a sign."""
    return token.replace("\r", "").replace("\n", "↵")
