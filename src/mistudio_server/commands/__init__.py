"""What the command line does, apart from parsing and printing: one module per verb."""
