"""Is an environment healthy? Facts, then checks side by side, then a report."""
