"""A run: settings, checks, its folder, its trainer."""
