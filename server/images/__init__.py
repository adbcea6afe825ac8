"""Uploads, masks, animations and picture encoding."""
