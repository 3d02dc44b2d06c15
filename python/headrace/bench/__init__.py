"""`headrace bench`: headrace beside Airflow-style scheduling and its peers, on the same graphs, all answers checked."""
