"""What runs: one declaration a job, named as its file. No logic, no paths, no Spark."""
