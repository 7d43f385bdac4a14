"""Templates of rendered files. A variable that is missing is an error, never an empty string."""

from typing import Any


def render(name: str, **values: Any) -> str:
    """Return the template ``name`` filled in."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mistudio_ops", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - configuration files, not HTML
    )
    return environment.get_template(name).render(**values)
