"""Monitors the health of endpoints: warns contacts, disables endpoints, and reports recoveries."""
