"""`{api} ntk_sketch.methods`: all that is public in a package, from its docstrings.

Docstrings have the sections of Google's style and are Markdown otherwise, so that MyST reads them:
`markdown` makes lists of sections and fences examples. Objects are those of Sphinx's Python domain.
"""

import importlib
import inspect
import re
import textwrap

from sphinx.util.docutils import SphinxDirective

SECTION = re.compile(r"(Args|Attributes|Returns|Raises|Warns|Yields|Examples?|Notes?)(,.*)?:$")
LISTS = {"Args", "Attributes", "Raises", "Warns"}
FENCE = "`" * 10


def public(package):
    """(name, value) of what a package shows, but not its modules, and not the layers that have the
    documentation of Neural Tangents.
    """
    for name, value in vars(importlib.import_module(package)).items():
        ours = getattr(value, "__module__", "").startswith("ntk_sketch")
        if not name.startswith("_") and ours and callable(value) and not hasattr(value, "plain"):
            yield name, value


def signature(value):
    """Names and defaults, without annotations, which the docstring says in words."""
    try:
        own = inspect.signature(value)
    except ValueError:
        return "(...)"
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in own.parameters.values()
        if parameter.name != "self"
    ]
    text = str(own.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return re.sub(r"<[^<>]*>", "...", text)


def members(kind, elsewhere):
    """(name, value) of the methods and properties that a class of ours has a docstring for, less
    those of a base class that has a description of its own.
    """
    bases = [base for base in kind.__mro__ if base is kind or base not in elsewhere]
    for name in dict.fromkeys(name for base in bases for name in vars(base)):
        value = inspect.getattr_static(kind, name)
        value = getattr(value, "__wrapped__", getattr(value, "method", value))
        value = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        shown = name == "__call__" or not name.startswith("_")
        owner = getattr(value.fget if isinstance(value, property) else value, "__module__", "")
        described = isinstance(value, property) or inspect.isfunction(value)
        if shown and described and value.__doc__ and str(owner).startswith("ntk_sketch"):
            yield name, value


def _list(lines):
    """`name: text` with deeper lines below, as a list."""
    found = []
    for line in textwrap.dedent("\n".join(lines)).splitlines():
        name, colon, rest = line.partition(":")
        if line and not line.startswith(" ") and colon and "`" not in name:
            found.append(f"* **{name}**: {rest.strip()}")
        else:
            found.append(f"  {line.strip()}" if line.strip() else "")
    return found


def _fenced(lines):
    """Sessions of Python in fences; what only looks like a list or a heading as it is."""
    found, inside = [], False
    for line in lines:
        starts = line.strip().startswith(">>>")
        if starts and not inside:
            found += ["", "```pycon"]
        if inside and not line.strip():
            found.append("```")
        inside = starts or (inside and bool(line.strip()))
        continued = bool(found) and bool(found[-1].strip()) and not inside
        found.append(re.sub(r"^(\s*)([-+=#])", r"\1\\\2", line) if continued else line)
    return [*found, "```"] if inside else found


def markdown(docstring):
    lines, found = inspect.cleandoc(docstring).splitlines(), []
    while lines:
        line = lines.pop(0)
        if not SECTION.match(line):
            found.append(line)
            continue
        body = []
        while lines and (not lines[0].strip() or lines[0].startswith(" ")):
            body.append(lines.pop(0))
        body = _list(body) if line.split(":")[0].split(",")[0] in LISTS else body
        found += ["", f"**{line}**", "", *textwrap.dedent("\n".join(body)).splitlines(), ""]
    return "\n".join(_fenced(found))


def described(kind, name, value, inner="", fence=FENCE):
    """One object of the Python domain, as MyST."""
    shape = "" if kind == "property" else signature(value)
    doc = markdown(inspect.getdoc(value) or "")
    return f"{fence}{{py:{kind}}} {name}{shape}\n{doc}\n{inner}\n{fence}\n"


def class_described(name, value, elsewhere):
    inner = "\n".join(
        described("property" if isinstance(member, property) else "method", own, member)
        for own, member in members(value, elsewhere)
    )
    return described("class", name, value, inner, fence=FENCE + "`")


class Api(SphinxDirective):
    required_arguments = 1

    def run(self):
        (package,) = self.arguments
        text = f"```{{py:currentmodule}} {package}\n```\n\n"
        objects = dict(public(package))
        for name, value in objects.items():
            if inspect.isclass(value):
                text += class_described(name, value, list(objects.values())) + "\n"
            else:
                text += described("function", name, value) + "\n"
        return self.parse_text_to_nodes(text)


class ApiTable(SphinxDirective):
    """`{api-table} ntk_sketch`: names that a package passes on, and the first sentence of each."""

    required_arguments = 1

    def run(self):
        rows = ["| name | what |", "|---|---|"]
        for name, value in public(self.arguments[0]):
            room = ".".join(value.__module__.split(".")[:2])
            first = re.split(r"(?<=[.:])\s", inspect.getdoc(value) or "")[0].rstrip(":")
            rows.append(f"| {{py:obj}}`{name} <{room}.{name}>` | {' '.join(first.split())} |")
        return self.parse_text_to_nodes("\n".join(rows).replace("`|", "` |"))


def setup(app):
    app.add_directive("api", Api)
    app.add_directive("api-table", ApiTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
