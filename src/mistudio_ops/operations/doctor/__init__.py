"""What this machine offers a deploy, and what it lacks."""
