"""Making backups, proving them, keeping and removing them."""
