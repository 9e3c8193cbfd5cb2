"""What the released folders that configs name hold, file by file, without their weights."""

from genseg_mm.hub_layouts.layouts import Part, Source, known_layouts, layout, part_of, sizes_of, sources_of

__all__ = ['Part', 'Source', 'known_layouts', 'layout', 'part_of', 'sizes_of', 'sources_of']
