"""Training of a population: compiled programs, forecasts of memory and time, progress."""
