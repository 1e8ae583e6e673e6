"""HTML and SVG as text, escaped unless it was made here."""

from html import escape

VOID = frozenset({"br", "circle", "img", "meta", "path"})


class Html(str):
    """Text that is markup already. Every other string is escaped when it becomes part of one."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return a value as markup: escaped, unless it is Html.

    Characters that no HTML document may hold (controls, lone surrogates) become U+FFFD.
    """
    if isinstance(value, Html):
        return value
    whole = str(value).encode("utf-8", "replace").decode("utf-8")
    clean = "".join(c if c >= " " or c in "\n\t" else "\ufffd" for c in whole)
    return Html(escape(clean, quote=True))


def el(name: str, /, *children: object, **attributes: object) -> Html:
    """Return an element.

    Args:
        name: Its name.
        children: Elements and text; None is left out.
        attributes: By name, `_` for `-` and a trailing `_` dropped (`class_`, `data_x`). None and
            False are left out, True stands without a value.

    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        words.append(label if value is True else f'{label}="{text(value)}"')
    if name in VOID:
        return Html(f"<{' '.join(words)}/>")
    return Html(f"<{' '.join(words)}>{join(*children)}</{name}>")


def join(*parts: object) -> Html:
    """Return the parts one after the other; None is left out."""
    return Html("".join(text(part) for part in parts if part is not None))
