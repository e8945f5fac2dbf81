"""The sender: an HTTP/1.1 client made for one job, posting signed bodies to addresses that were vetted."""
