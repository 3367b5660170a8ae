"""Pages that are written from results and from the library itself."""
