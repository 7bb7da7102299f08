"""Orders of a shop, as the benchmarks land them."""

ORDER = (
    "order_id BIGINT, customer_id BIGINT, product STRING, quantity INT, amount DECIMAL(10,2), status STRING, "
    "updated_at TIMESTAMP"
)
