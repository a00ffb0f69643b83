"""How heatmaps are measured, one metric a file; judged by hand on a few pixels and by SciPy."""
