"""What a config and a trained model are like: costs, data, confusion, curves, errors, queries."""
