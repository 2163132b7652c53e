"""How a population is trained: compiled programs, their memory and time, their progress."""
