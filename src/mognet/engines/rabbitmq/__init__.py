"""RabbitMQ as a broker: it carries tickets, and a store beside it keeps the jobs (:mod:`mognet.engines.paired`)."""
