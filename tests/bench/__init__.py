"""Measurements that docs/PERFORMANCE.md and docs/ARCHITECTURE.md quote. Nothing here is a test."""
