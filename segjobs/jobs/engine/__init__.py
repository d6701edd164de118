"""What every job stands on: plan → shards → parts → run.json on a Ray cluster; its start, its failures, its stop."""
