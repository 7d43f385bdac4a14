"""Restoring: beside the live database, swapped in one transaction, and back again if need be."""
