"""The Kafka consumer: the Faust app, topics, halts."""
