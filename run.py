"""The one file that spark-submit is given: `spark-submit run.py run JOB` is `microbatch run JOB`."""

from microbatch.cli import main

if __name__ == "__main__":
    main()
