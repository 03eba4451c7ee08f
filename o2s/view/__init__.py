"""Pictures of scans and boxes for people."""
