"""Many targets at once: following them, and the view of them all that exporters render."""
