"""Numbers, tables and figures of stored records, so that no page has a result typed in.

The role `{record}` takes a file, a place in it with `~` for spaces, a format, and a factor if there
is one: `benchmarks/results/rows-32x512.json results.10000000.seconds .0f`. The directives
`{record-figure}` and `{record-table}` name a function of `figures.py` or `ideas.py`, and of
`tables.py`.
"""

import functools
import json
import operator
from pathlib import Path

import figures
import ideas
import tables
from docutils import nodes
from drawing import images, plt, save, style
from sphinx.util.docutils import SphinxDirective, SphinxRole

ROOT = Path(__file__).resolve().parents[2]


class Record(SphinxRole):
    def run(self):
        path, place, form, *factor = self.text.split()
        found = functools.reduce(
            _inner, place.replace("~", " ").split("."), json.loads((ROOT / path).read_text())
        )
        value = found * float(factor[0]) if factor else found
        self.env.note_dependency(str(ROOT / path))
        return [nodes.Text(format(value, form))], []


def _inner(found, name):
    return operator.getitem(found, int(name) if isinstance(found, list) else name)


class RecordFigure(SphinxDirective):
    required_arguments = 1
    has_content = True

    def run(self):
        (name,) = self.arguments
        draw = getattr(figures, name, None) or getattr(ideas, name)
        with style():
            save(draw(), Path(self.env.srcdir) / "_build" / "figures", f"record-{name}")
        plt.close("all")
        caption = "\n".join(self.content)
        return self.parse_text_to_nodes(f"{images(f'record-{name}', draw.__doc__)}\n{caption}\n")


class RecordTable(SphinxDirective):
    required_arguments = 1
    optional_arguments = 1

    def run(self):
        name, *given = self.arguments
        rows = getattr(tables, name)(*given)
        text = [" | ".join(map(str, row)) for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]]
        return self.parse_text_to_nodes("\n".join(f"| {line} |" for line in text))


def setup(app):
    app.add_role("record", Record())
    app.add_directive("record-figure", RecordFigure)
    app.add_directive("record-table", RecordTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
