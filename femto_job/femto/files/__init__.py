"""Files: `folder` finds them, `whole` writes them at once or not at all, `journal` appends."""
