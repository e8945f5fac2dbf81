"""The demonstration: the whole product on one machine, with two receivers, one of which is in trouble at first."""
