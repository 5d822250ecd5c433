"""Code that the examples share: progress of long steps, figures, tables, files, and a check of backbone names."""
