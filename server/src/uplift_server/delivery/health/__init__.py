"""Monitoring of endpoints: warnings, disabling and recoveries."""
