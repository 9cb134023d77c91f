"""Reports as a pure function of results/, a user's runs/ and reports/reference/: Markdown, PNG and SVG.

Nothing here trains or imports what trains. `render.render_all` writes the pages that `pages.PAGES` lists, and
`render.check` says where written ones differ. A new page is a module and one line in that table.
"""

from repro.reporting.render import check, render_all

__all__ = ["check", "render_all"]
