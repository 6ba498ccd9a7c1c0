"""The canonical table: one row per patient, the only thing that staging and analyses read."""
