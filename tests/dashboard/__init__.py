"""Tests of the dashboard. This directory is a package so that its tests share one browser."""
