"""Everything built from the settings and the open store. Starts nothing."""
