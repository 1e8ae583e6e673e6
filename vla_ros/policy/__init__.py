"""Policy bundles, the backends that run them, and the schedule of the chunks they predict."""
