"""The pages of the dashboard and their routes, one module per topic."""
