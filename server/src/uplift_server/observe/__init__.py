"""What the server tells about itself: log lines here, figures and traces beside them."""
