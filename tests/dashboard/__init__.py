"""Tests of the dashboard. A package, so that its tests share one browser."""
