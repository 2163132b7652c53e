"""Plans a sweep for TPUs that are not there, by compiling its programs for them."""
