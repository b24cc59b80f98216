"""The report as one page of HTML that needs nothing from elsewhere: no script, no font, no network."""

from labsync.render.html.page import page

__all__ = ["page"]
