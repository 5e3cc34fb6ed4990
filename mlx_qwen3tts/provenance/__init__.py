"""Where a sound comes from: its tags, its mark and its signature."""
