#!/bin/sh
# What Spark starts its Python processes with: this environment's Python, which takes PySpark from where it is installed.
# Spark itself puts an archive of PySpark's sources before everything else, and each process would compile what it imports of it.
set -f
IFS=:
rest=
for each in $PYTHONPATH; do
    case $each in
        */python/lib/pyspark.zip | */python/lib/py4j-*-src.zip) ;;
        *) rest=${rest:+$rest:}$each ;;
    esac
done
if [ -n "$rest" ]; then export PYTHONPATH="$rest"; else unset PYTHONPATH; fi
exec "$MICROBATCH_PYTHON" "$@"
