"""The dashboard as people use it, in a real browser. A package, so that one browser serves exactly these tests."""
