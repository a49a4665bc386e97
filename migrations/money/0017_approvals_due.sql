create index approvals_due on approvals (due_at_ms)
