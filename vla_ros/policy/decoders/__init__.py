"""From the outputs of graphs to normalised actions, by the type of the manifest's decoder."""
