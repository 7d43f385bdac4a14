"""Where the versioned API begins."""

BASE = "/api/v1"
