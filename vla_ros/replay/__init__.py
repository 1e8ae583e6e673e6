"""What a recorded run says: violations and latencies, counted from the bag."""
