create index webhooks_heard_at on webhooks_heard (heard_at_ms)
