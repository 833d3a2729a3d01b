"""Asks DuckDB and pyarrow about the records in this folder, as told on standard input, and answers in JSON."""

import json
import sys

import duckdb
import pyarrow.dataset
import pyarrow.parquet

told = json.load(sys.stdin)
answers = {}
for form, view in told["views"].items():
    session = duckdb.connect()
    # As on a desk that is somewhere else.
    session.execute("SET TimeZone = 'America/New_York'")
    session.execute(view)
    for setting in told["settings"]:
        session.execute(setting)
    answers[form] = {
        question: [[str(value) for value in row] for row in session.execute(text).fetchall()]
        for question, text in told["questions"].items()
    }

# The folder as a dataset, as people open it, whatever else is in there.
dataset = pyarrow.dataset.dataset("flows", partitioning="hive")
table = dataset.to_table()
schema = pyarrow.parquet.read_schema(dataset.files[0])
answers["pyarrow"] = {
    "rows": table.num_rows,
    "bytes_forward": sum(value or 0 for value in table.column("bytes_forward").to_pylist()),
    "types": {field.name: str(field.type) for field in schema},
}
json.dump(answers, sys.stdout)
