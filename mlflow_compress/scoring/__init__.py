"""What metrics of one kind share: the statistics of each sample, counted by the field's own tools."""
